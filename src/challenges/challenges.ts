import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { PhoneIdentity } from '../phone-number/phone-identity';
import { limitArguments, Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords, ownPart } from './challenge-records';
import { IdempotencyLock, type Repeated } from './idempotency-lock';
import { Codes } from './codes';
import { DEVICE_CODES, type Device } from '../devices/device-tokens';
import { DEVICE_FUNCTIONS } from '../devices/device-revocations';
import type { Delivery, OtpRequest, OtpState, Sender, Sent } from './challenge';

/** What scripts of this room ask about a number: its devices, and whether it is blocked. */
export const NUMBER_FUNCTIONS = Script.library(__dirname, 'block_voids', 'codes_wait');

const CREATE = Script.load(__dirname, 'create', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const ACTIVATE = Script.load(__dirname, 'activate');
const REASSIGN = Script.load(__dirname, 'reassign');
const RECORD_DELIVERY = Script.load(__dirname, 'record-delivery');
const STATUS = Script.load(__dirname, 'status');

/** An SMS that is to be looked up, and whose it is. */
export interface DeliveryLookup {
  sms: string;
  provider: string;
  nonce: string;
}

/** A code's whole life, resends included. */
export const CODE_LIFE_MS = 600_000;
/** For how long a login makes a number a known one. */
export const KNOWN_MS = 30 * 86_400_000;
const LOOK_UP_EVERY_MS = 1_000;

export interface PendingChallenge {
  requestId: string;
  pseudonym: string;
  nonce: string;
  lifeSeconds: number;
  /** Who is to send it, or was before. */
  provider: string;
  /** It may have been sent by that one: nobody else is asked. */
  maybeSent: boolean;
  /** Its code is another one than the one that may have been sent, which is void. */
  codeReplaced: boolean;
  /** Which of the requests under its Idempotency-Key this is: a later one has it in hand. */
  fencingToken: number;
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
    private readonly idempotencyLock: IdempotencyLock,
  ) {}

  /**
   * Opens a pending challenge: nothing can be verified by it, and it voids nothing. Under an Idempotency-Key a repeat
   * finds the first answer, or resumes what failed. Throws `phone_locked`, `phone_number_rejected` when the number is
   * blocked, `idempotency_in_progress`.
   */
  async create(phone: PhoneIdentity, sender: Sender): Promise<PendingChallenge>;
  async create(
    phone: PhoneIdentity,
    sender: Sender,
    repeated: Repeated | undefined,
    device?: Device,
  ): Promise<PendingChallenge | OtpRequest>;
  async create(
    phone: PhoneIdentity,
    sender: Sender,
    repeated?: Repeated,
    device?: Device,
  ): Promise<PendingChallenge | OtpRequest> {
    const freshId = this.records.newRequestId(phone);
    const { pseudonym } = phone;
    const keys = this.records.keys(freshId);
    const begun = this.store.run(
      CREATE,
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
        this.records.seal(phone.phoneNumber, freshId),
        ownPart(freshId),
        device?.issuedAt ?? '',
        device?.id ?? '',
        KNOWN_MS,
        sender.name,
        ...limitArguments(this.config.limitFailedCodes),
        ...limitArguments(DEVICE_CODES),
        ...this.idempotencyLock.lease(repeated),
      ],
    );
    const release = repeated && this.idempotencyLock.releasing(freshId, repeated);
    const answer = (await this.idempotencyLock.orRelease(begun, release)) as
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
        const [, nonce, lifeMs, own, byDevice, returning, provider, maybeSent, codeReplaced, fencingToken] =
          answer;
        return {
          requestId: pseudonym + own,
          pseudonym,
          nonce,
          lifeSeconds: lifeMs / 1_000,
          provider,
          maybeSent: maybeSent === 1,
          codeReplaced: codeReplaced === 1,
          fencingToken,
          byDevice: byDevice === 1,
          returning: returning === 1,
        };
      }
    }
  }

  /**
   * Hands a pending challenge of which certainly nothing was sent to another provider, in the store before that one is told
   * a byte. The code is a new one.
   */
  async reassign(
    requestId: string,
    sender: Sender,
    repeated?: Repeated,
  ): Promise<{ nonce: string; lifeSeconds: number }> {
    const keys = this.records.keys(requestId);
    const nonce = this.codes.nonceFor(sender);
    const lifeMs = (await this.store.run(
      REASSIGN,
      [keys.challenge, keys.codes, ...this.records.sendRecord(requestId, repeated?.record)],
      [sender.name, nonce, this.config.otpTtlSeconds * 1_000, repeated?.owner ?? ''],
    )) as number;
    // The store was emptied, or somebody else's repeat has it in hand by now.
    if (lifeMs === 0) throw new ApiError('store_unavailable');
    return { nonce, lifeSeconds: lifeMs / 1_000 };
  }

  /**
   * Releases an Idempotency-Key for a repeat, which resumes this challenge; from the first provider on when certainly
   * nothing was sent.
   */
  async release(requestId: string, repeated: Repeated, unsent: boolean): Promise<void> {
    await this.idempotencyLock.release(this.idempotencyLock.releasing(requestId, repeated, unsent));
  }

  /**
   * Records what became of the challenge's SMS. `resendAfterMs` says when the number may ask again, where that changed. False when
   * the challenge is gone, or when another replica was first.
   */
  async recordDelivery(requestId: string, delivery: Delivery, resendAfterMs = -1): Promise<boolean> {
    const { challenge } = this.records.keys(requestId);
    return (await this.store.run(RECORD_DELIVERY, [challenge], [delivery, resendAfterMs])) === 1;
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.records.keys(requestId).challenge));
  }

  /** Opens the challenge to verification: from here on its code, if it was sent, is the live one. `sms` is in the ledger. */
  async activate(
    requestId: string,
    sent: Sent,
    resendAfterMs: number,
    repeated?: Repeated,
    sms = '',
    codeSent = true,
  ): Promise<OtpRequest> {
    const keys = this.records.keys(requestId);
    const answer = (await this.store.run(
      ACTIVATE,
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
  async status(
    requestId: string,
  ): Promise<OtpRequest & { state: OtpState; lookup: DeliveryLookup | undefined }> {
    const keys = this.records.givenKeys(requestId);
    const answer = (await this.store.run(STATUS, [keys.challenge, keys.codes], [LOOK_UP_EVERY_MS])) as
      [OtpState, number, number, number, Delivery, string, string, string] | [];
    if (answer.length === 0) throw new ApiError('otp_expired');
    const [state, attemptsLeft, expiresAt, resendAt, delivery, sms, provider, nonce] = answer;
    return {
      requestId,
      state,
      lookup: sms === '' ? undefined : { sms, provider, nonce },
      attemptsLeft,
      expiresAt: new Date(expiresAt),
      resendAt: new Date(resendAt),
      delivery,
    };
  }
}
