import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import { limitArguments, Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords } from './challenge-records';
import { NUMBER_FUNCTIONS, KNOWN_MS } from './challenges';
import { IdempotencyLock, type VerifyIdempotency } from './idempotency-lock';
import { DEVICE_CODES, type Device } from '../devices/device-tokens';
import { DEVICE_FUNCTIONS } from '../devices/device-revocations';

const TAKE_ATTEMPT = Script.load(__dirname, 'take-attempt', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const CONSUME = Script.load(__dirname, 'consume', NUMBER_FUNCTIONS);
const GIVE_BACK = Script.load(__dirname, 'give-back');

/** An attempt that was taken; the code may be looked at once. */
export interface Attempt {
  phone: PhoneNumber;
  nonce: string;
  /** Who sent the code; empty in a challenge that an older version wrote. */
  provider: string;
  upstreamId: string;
  attemptsLeft: number;
  /** The timestamp under which it stands among the number's failures, until it turns out right. */
  failure: string;
  /** Whose failures these are. */
  allowance: 'phone' | 'device';
  /** Milliseconds since the failure before, or -1. */
  sinceLastFailureMs: number;
  /** For how long the number is locked if this one is wrong, or 0: who failed too often is refused from now on. */
  lockMs: number;
  /** The SMS that carried the code, as the ledger knows it; empty for one without. */
  sms: string;
  /** It repeats one that was right: there is nothing to look at. */
  wasRight: boolean;
}

/** The verifying half of challenges: attempts, and their use. */
@Injectable()
export class Attempts {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly records: ChallengeRecords,
    private readonly idempotencyLock: IdempotencyLock,
  ) {}

  /**
   * Takes an attempt, or finds the answer of the first request under the same Idempotency-Key. Throws `otp_expired`
   * (also for an id that is not ours), `otp_attempts_exhausted`, `phone_locked`, and for a repeat `otp_incorrect`,
   * `idempotency_key_reused`, `idempotency_in_progress`.
   */
  async take(requestId: string, repeat?: VerifyIdempotency, device?: Device): Promise<Attempt> {
    const keys = this.records.givenKeys(requestId);
    const taken = this.store.run(
      TAKE_ATTEMPT,
      [
        keys.challenge,
        keys.codes,
        keys.failed,
        keys.cleared,
        keys.deviceFailed,
        keys.devicesEnded,
        keys.blocked,
      ],
      [
        repeat?.field ?? '',
        repeat?.fingerprint ?? '',
        device?.issuedAt ?? '',
        device?.id ?? '',
        ...limitArguments(this.config.limitFailedCodes),
        ...limitArguments(DEVICE_CODES),
        ...this.idempotencyLock.lease(repeat),
      ],
    );
    // The attempt stays taken: a lost answer costs it.
    const release = repeat && this.idempotencyLock.storingOutcome(requestId, repeat, '');
    const answer = (await this.idempotencyLock.orRelease(taken, release)) as
      | ['taken', number, string, string, string, string, string, 'phone' | 'device', number, string, number]
      | ['replay', string]
      | ['expired' | 'exhausted' | 'other body']
      | ['locked' | 'in progress' | 'incorrect', number];
    switch (answer[0]) {
      case 'taken': {
        const [
          ,
          attemptsLeft,
          failure,
          sealed,
          nonce,
          upstreamId,
          sms,
          allowance,
          sinceLastFailureMs,
          provider,
          lockMs,
        ] = answer;
        const phone = await this.openTaken(requestId, sealed, repeat);
        return {
          phone,
          nonce,
          provider,
          upstreamId,
          attemptsLeft,
          failure,
          allowance,
          sinceLastFailureMs,
          lockMs,
          sms,
          wasRight: false,
        };
      }
      case 'replay':
        return {
          phone: this.records.open(answer[1], requestId),
          nonce: '',
          provider: '',
          upstreamId: '',
          attemptsLeft: 0,
          failure: '',
          allowance: 'phone',
          sinceLastFailureMs: -1,
          lockMs: 0,
          sms: '',
          wasRight: true,
        };
      case 'expired':
        throw new ApiError('otp_expired');
      case 'exhausted':
        throw new ApiError('otp_attempts_exhausted', { attemptsLeft: 0 });
      case 'locked':
        throw new ApiError('phone_locked', { retryAfterSeconds: answer[1] / 1_000 });
      case 'incorrect':
        throw new ApiError('otp_incorrect', { attemptsLeft: answer[1] });
      case 'other body':
        throw new ApiError('idempotency_key_reused');
      case 'in progress':
        throw new ApiError('idempotency_in_progress', { retryAfterSeconds: answer[1] / 1_000 });
    }
  }

  /** Uses the challenge up. False when another answer was first. */
  async consume(requestId: string, attempt: Attempt, repeat?: VerifyIdempotency): Promise<boolean> {
    const keys = this.records.keys(requestId);
    const consumed = await this.store.run(
      CONSUME,
      [
        keys.challenge,
        keys.codes,
        this.failedKey(requestId, attempt),
        keys.cleared,
        keys.blocked,
        keys.known,
      ],
      [attempt.failure, repeat?.field ?? '', repeat?.fingerprint ?? '', KNOWN_MS],
    );
    return consumed === 1;
  }

  /** Keeps what a verification answered, for repeats under its Idempotency-Key; a failure of ours releases the key. */
  async storeOutcome(requestId: string, repeat: VerifyIdempotency, error: ApiError): Promise<void> {
    const kept = error.code === 'otp_incorrect' || error.status === 410;
    const record = kept ? `${repeat.fingerprint}:${error.status}:${error.attemptsLeft ?? 0}` : '';
    await this.idempotencyLock.release(this.idempotencyLock.storingOutcome(requestId, repeat, record));
  }

  /** Gives an attempt back that upstream certainly did not look at. */
  async giveBack(requestId: string, attempt: Attempt): Promise<void> {
    const { challenge } = this.records.keys(requestId);
    await this.store.run(GIVE_BACK, [challenge, this.failedKey(requestId, attempt)], [attempt.failure]);
  }

  private failedKey(requestId: string, { allowance }: Attempt): string {
    const { failed, deviceFailed } = this.records.keys(requestId);
    return allowance === 'device' ? deviceFailed : failed;
  }

  /** The phone number of an attempt; the Idempotency-Key of one that does not open is settled like any other answer. */
  private async openTaken(
    requestId: string,
    sealed: string,
    repeat?: VerifyIdempotency,
  ): Promise<PhoneNumber> {
    try {
      return this.records.open(sealed, requestId);
    } catch (error) {
      if (repeat && error instanceof ApiError) await this.storeOutcome(requestId, repeat, error);
      throw error;
    }
  }
}
