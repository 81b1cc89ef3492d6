import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { limitArguments } from '../throttling/redis-throttler-storage';
import { ChallengeRecords, ownPart } from './challenge-records';
import { Claims, type Repeated } from './claims';
import { Codes } from './codes';
import { DEVICE_CODES, type Device } from './device-tokens';
import type { Delivery, OtpProvider, Sent } from './otp-provider';
import type { OtpRequest, OtpState } from './otp-request';

/** What scripts of this room ask about a number: its devices, and whether it is blocked. */
export const NUMBER_FUNCTIONS = Script.functions(__dirname);

const BEGIN = Script.load(__dirname, 'begin', NUMBER_FUNCTIONS);
const FINISH = Script.load(__dirname, 'finish');
const STATUS = Script.load(__dirname, 'status');

/** An SMS that is to be looked up, and whose it is. */
export interface Look {
  sms: string;
  provider: string;
  nonce: string;
}

/** What a challenge needs to know of who sends its code. */
export type Sender = Pick<OtpProvider, 'name' | 'resendsCode'>;

/** A code's whole life, resends included. */
export const CODE_LIFE_MS = 600_000;
/** For how long a login makes a number a known one. */
export const KNOWN_MS = 30 * 86_400_000;
const LOOK_EVERY_MS = 1_000;

export interface PendingChallenge {
  requestId: string;
  pseudonym: string;
  nonce: string;
  lifeSeconds: number;
  /** Who is to send it, or was before. */
  provider: string;
  /** It may have been sent by that one: nobody else is asked. */
  bound: boolean;
  /** Its code is another one than the one that may have been sent, which is void. */
  renewed: boolean;
  /** Which of the requests under its Idempotency-Key this is: a later one has it in hand. */
  turn: number;
  /** It was asked for with the token of a device of this number. */
  byDevice: boolean;
  /** The number logged in within 30 days. */
  returning: boolean;
}

/**
 * The sending half of challenges. In Redis they are one hash each, beside the number's live code and its failures, all on
 * the number's own slot.
 */
@Injectable()
export class Challenges {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
    private readonly records: ChallengeRecords,
    private readonly claims: Claims,
  ) {}

  /**
   * Opens a pending challenge: nothing can be verified by it, and it voids nothing. Under an Idempotency-Key a repeat
   * finds the first answer, or resumes what failed. Throws `phone_locked`, `phone_number_rejected` when the number is
   * blocked, `idempotency_in_progress`.
   */
  async begin(phone: PhoneNumber, sender: Sender): Promise<PendingChallenge>;
  async begin(
    phone: PhoneNumber,
    sender: Sender,
    repeated: Repeated | undefined,
    device?: Device,
  ): Promise<PendingChallenge | OtpRequest>;
  async begin(
    phone: PhoneNumber,
    sender: Sender,
    repeated?: Repeated,
    device?: Device,
  ): Promise<PendingChallenge | OtpRequest> {
    const freshId = this.records.newRequestId(phone);
    const pseudonym = this.records.pseudonymOf(phone);
    const keys = this.records.keys(freshId);
    const begun = this.store.run(
      BEGIN,
      [
        keys.challenge,
        keys.codes,
        keys.failed,
        keys.cleared,
        keys.deviceFailed,
        keys.devicesEnded,
        keys.blocked,
        keys.known,
        ...this.records.sendRecord(freshId, repeated?.record),
      ],
      [
        this.codes.nonceFor(sender),
        sender.resendsCode ? 1 : 0,
        `,${this.codes.knownSecrets},`,
        this.config.otpTtlSeconds * 1_000,
        CODE_LIFE_MS,
        this.config.otpMaxAttempts,
        this.records.seal(phone, freshId),
        ownPart(freshId),
        device?.issuedAt ?? '',
        device?.id ?? '',
        KNOWN_MS,
        sender.name,
        ...limitArguments(this.config.limitFailedCodes),
        ...limitArguments(DEVICE_CODES),
        ...this.claims.place(repeated),
      ],
    );
    const release = repeated && this.claims.releasing(freshId, repeated);
    const answer = (await this.claims.orGiveUp(begun, release)) as
      | ['begun', string, number, string, number, number, string, number, number, number]
      | ['blocked']
      | ['replay', string, string]
      | ['locked' | 'in progress', number];
    switch (answer[0]) {
      case 'locked':
        throw new ApiError('phone_locked', { retryAfterSeconds: answer[1] / 1_000 });
      case 'in progress':
        throw new ApiError('idempotency_in_progress', { retryAfterSeconds: answer[1] / 1_000 });
      case 'blocked':
        throw new ApiError('phone_number_rejected');
      case 'replay': {
        const [expiresAt, attemptsLeft, resendAt, delivery = ''] = answer[2].split(':');
        return {
          requestId: pseudonym + answer[1],
          expiresAt: new Date(Number(expiresAt)),
          attemptsLeft: Number(attemptsLeft),
          resendAt: new Date(Number(resendAt)),
          delivery: delivery as Delivery,
        };
      }
      case 'begun': {
        const [, nonce, lifeMs, own, byDevice, returning, provider, bound, renewed, turn] = answer;
        return {
          requestId: pseudonym + own,
          pseudonym,
          nonce,
          lifeSeconds: lifeMs / 1_000,
          provider,
          bound: bound === 1,
          renewed: renewed === 1,
          turn,
          byDevice: byDevice === 1,
          returning: returning === 1,
        };
      }
    }
  }

  /** Opens the challenge to verification: from here on its code, if it was sent, is the live one. `sms` is in the ledger. */
  async finish(
    requestId: string,
    sent: Sent,
    resendAfterMs: number,
    repeated?: Repeated,
    sms = '',
    codeSent = true,
  ): Promise<OtpRequest> {
    const keys = this.records.keys(requestId);
    const answer = (await this.store.run(
      FINISH,
      [keys.challenge, keys.codes, ...this.records.sendRecord(requestId, repeated?.record)],
      [
        sent.upstreamId ?? '',
        sent.delivery,
        sent.expiresAt?.getTime() ?? -1,
        sent.attemptsLeft ?? -1,
        resendAfterMs,
        CODE_LIFE_MS,
        sms,
        codeSent ? 1 : 0,
      ],
    )) as [number, number, number] | null;
    // The store was emptied while the SMS was under way: its code can never be checked.
    if (answer === null) throw new ApiError('store_unavailable');
    const [expiresAt, attemptsLeft, resendAt] = answer;
    return {
      requestId,
      expiresAt: new Date(expiresAt),
      attemptsLeft,
      resendAt: new Date(resendAt),
      delivery: sent.delivery,
    };
  }

  /**
   * How a challenge stands; `look` is the SMS that this asker shall look up, one of many does. Throws `otp_expired` for an
   * id that is not ours, or no longer.
   */
  async status(requestId: string): Promise<OtpRequest & { state: OtpState; look: Look | undefined }> {
    const keys = this.records.givenKeys(requestId);
    const answer = (await this.store.run(STATUS, [keys.challenge, keys.codes], [LOOK_EVERY_MS])) as
      [OtpState, number, number, number, Delivery, string, string, string] | [];
    if (answer.length === 0) throw new ApiError('otp_expired');
    const [state, attemptsLeft, expiresAt, resendAt, delivery, sms, provider, nonce] = answer;
    return {
      requestId,
      state,
      look: sms === '' ? undefined : { sms, provider, nonce },
      attemptsLeft,
      expiresAt: new Date(expiresAt),
      resendAt: new Date(resendAt),
      delivery,
    };
  }
}
