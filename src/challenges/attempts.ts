import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import { limitArguments, Script } from '../redis/script';
import { Store } from '../redis/store';
import { challengeKeys, ChallengeRecords } from './challenge-records';
import { NUMBER_FUNCTIONS } from './challenges';
import { IdempotencyLock, type VerifyIdempotency } from './idempotency-lock';
import { RequestIds, type RequestId } from './request-ids';
import { DEVICE_CODES, type Device } from '../devices/device-tokens';
import { DEVICE_FUNCTIONS } from '../devices/device-revocations';

const TAKE_ATTEMPT = Script.load(__dirname, 'take-attempt', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const CONSUME = Script.load(__dirname, 'consume', NUMBER_FUNCTIONS);
const GIVE_BACK = Script.load(__dirname, 'give-back');
const STORE_OUTCOME = Script.load(__dirname, 'store-outcome');

/** The challenge that an attempt belongs to, and its number. */
interface Attempted {
  id: RequestId;
  phone: PhoneNumber;
  /**
   * In milliseconds of the store's clock. An Idempotency-Key that is used again later gives the same id with another time.
   */
  createdAt: number;
}

/** An attempt that was taken; its code may be checked once. */
export interface Attempt extends Attempted {
  kind: 'taken';
  nonce: string;
  /** The name of the provider that sent the code. */
  provider: string;
  upstreamId: string;
  attemptsLeft: number;
  /** The timestamp under which it stands among the number's failures, until it turns out right. */
  failure: string;
  /** The allowance that counts these failures. */
  allowance: 'phone' | 'device';
  /** Milliseconds since the failure before, or -1. */
  sinceLastFailureMs: number;
  /** For how long the number is locked if this attempt fails, or 0. */
  lockMs: number;
  /** The SMS that carried the code, as the ledger knows it; empty for a code without an SMS. */
  sms: string;
}

/** A repeat of an attempt that was right: there is nothing to check. */
export interface RightBefore extends Attempted {
  kind: 'replay';
}

type TakeAnswer =
  | (Omit<Attempt, 'id' | 'phone'> & { phone: string })
  | { kind: 'replay'; phone: string; createdAt: number }
  | { kind: 'expired' }
  | { kind: 'exhausted' }
  | { kind: 'other_body' }
  | { kind: 'in_progress' }
  | { kind: 'locked'; ms: number }
  | { kind: 'incorrect'; attemptsLeft: number };

/** The verifying half of challenges: attempts, and their use. */
@Injectable()
export class Attempts {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly records: ChallengeRecords,
    private readonly requestIds: RequestIds,
    private readonly idempotencyLock: IdempotencyLock,
  ) {}

  /**
   * Takes an attempt, or finds the answer of the first request under the same Idempotency-Key. `deviceOf` reads the device
   * token for the number of the challenge. Throws `otp_expired` (also for an id that this service did not issue),
   * `otp_attempts_exhausted`, `phone_locked`, and for a repeat `otp_incorrect`, `idempotency_key_reused`,
   * `idempotency_in_progress`.
   */
  async take(requestId: string): Promise<Attempt>;
  async take(
    requestId: string,
    repeat: VerifyIdempotency | undefined,
    deviceOf?: (pseudonym: string) => Device | undefined,
  ): Promise<Attempt | RightBefore>;
  async take(
    requestId: string,
    repeat?: VerifyIdempotency,
    deviceOf?: (pseudonym: string) => Device | undefined,
  ): Promise<Attempt | RightBefore> {
    const id = this.requestIds.read(requestId);
    const keys = challengeKeys(id);
    const numberKeys = [keys.codes, keys.failed, keys.cleared, keys.deviceFailed, keys.devicesEnded];
    const device = deviceOf?.(id.pseudonym);
    const args = [
      repeat?.field ?? '',
      repeat?.fingerprint ?? '',
      device?.issuedAt ?? '',
      device?.id ?? '',
      ...limitArguments(this.config.limitFailedCodes),
      ...limitArguments(DEVICE_CODES),
      repeat?.owner ?? '',
      this.idempotencyLock.leaseMs,
    ];
    const take = async (): Promise<TakeAnswer> => {
      const all = [keys.challenge, ...numberKeys, keys.blocked, keys.unlocks];
      return JSON.parse((await this.store.run(TAKE_ATTEMPT, all, args)) as string) as TakeAnswer;
    };
    const answer = await this.idempotencyLock.untilFree(() =>
      repeat === undefined
        ? take()
        : // The attempt stays taken: a lost answer costs it.
          this.idempotencyLock.orRelease(take(), () => this.runStoreOutcome(id, repeat, '')),
    );
    switch (answer.kind) {
      case 'taken':
      case 'replay':
        return { ...answer, id, phone: await this.open(id, answer.phone, repeat) };
      case 'expired':
        throw new ApiError('otp_expired');
      case 'exhausted':
        throw new ApiError('otp_attempts_exhausted', { attemptsLeft: 0 });
      case 'locked':
        throw new ApiError('phone_locked', { retryAfterSeconds: answer.ms / 1_000 });
      case 'incorrect':
        throw new ApiError('otp_incorrect', { attemptsLeft: answer.attemptsLeft });
      case 'other_body':
        throw new ApiError('idempotency_key_reused');
    }
  }

  /** Uses the challenge up. False when another answer was first. */
  async consume(attempt: Attempt, repeat?: VerifyIdempotency): Promise<boolean> {
    const { challenge, codes, failed, cleared, blocked, known } = challengeKeys(attempt.id);
    const consumed = await this.store.run(
      CONSUME,
      [challenge, codes, failedKey(attempt), cleared, blocked, known, failed],
      [
        attempt.failure,
        repeat?.field ?? '',
        repeat?.fingerprint ?? '',
        this.config.returningSeconds * 1_000,
        attempt.createdAt,
      ],
    );
    return consumed === 1;
  }

  /** Keeps the answer of a verification for repeats under its Idempotency-Key; a failure of the service releases the key. */
  async storeOutcome(id: RequestId, repeat: VerifyIdempotency, error: ApiError): Promise<void> {
    const kept = error.code === 'otp_incorrect' || error.status === 410;
    const record = kept ? `${repeat.fingerprint}:${error.status}:${error.attemptsLeft ?? 0}` : '';
    await this.idempotencyLock.release(() => this.runStoreOutcome(id, repeat, record));
  }

  /** Gives an attempt back if upstream certainly did not check the code. */
  async giveBack(attempt: Attempt): Promise<void> {
    const { challenge } = challengeKeys(attempt.id);
    await this.store.run(GIVE_BACK, [challenge, failedKey(attempt)], [attempt.failure, attempt.createdAt]);
  }

  private runStoreOutcome(
    id: RequestId,
    { field, owner }: VerifyIdempotency,
    record: string,
  ): Promise<unknown> {
    return this.store.run(STORE_OUTCOME, [challengeKeys(id).challenge], [field, record, owner]);
  }

  /** The phone number of an attempt. If the record does not open, that answer is kept under the Idempotency-Key too. */
  private async open(id: RequestId, sealed: string, repeat?: VerifyIdempotency): Promise<PhoneNumber> {
    try {
      return this.records.open(sealed, id);
    } catch (error) {
      if (repeat && error instanceof ApiError) await this.storeOutcome(id, repeat, error);
      throw error;
    }
  }
}

function failedKey({ id, allowance }: Attempt): string {
  const { failed, deviceFailed } = challengeKeys(id);
  return allowance === 'device' ? deviceFailed : failed;
}
