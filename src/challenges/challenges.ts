import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { originOf } from '../net/addresses';
import type { PhoneIdentity } from '../phone-number/phone-identity';
import { limitArguments, Script } from '../redis/script';
import { Store } from '../redis/store';
import { challengeKeys, ChallengeRecords } from './challenge-records';
import { IdempotencyLock, newOwner } from './idempotency-lock';
import { Codes } from './codes';
import { RequestIds, type RequestId } from './request-ids';
import { DEVICE_CODES, type Device } from '../devices/device-tokens';
import { DEVICE_FUNCTIONS } from '../devices/device-revocations';
import type { Delivery, Draft, OtpRequest, OtpState, Replay, Sender, Sent } from './challenge';

/** What scripts of this room ask about a number: its devices, and whether it is blocked. */
export const NUMBER_FUNCTIONS = Script.library(
  __dirname,
  'block_voids',
  'codes_wait',
  'count_failure',
  'failures_need_proof',
);

const CREATE = Script.load(__dirname, 'create', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const ACTIVATE = Script.load(__dirname, 'activate');
const RELEASE = Script.load(__dirname, 'release');
const REASSIGN = Script.load(__dirname, 'reassign');
const RECORD_DELIVERY = Script.load(__dirname, 'record-delivery');
const COUNT_AT_ORIGIN = Script.load(__dirname, 'count-at-origin');
const STATUS = Script.load(__dirname, 'status');

/** An SMS to look up, and its number. */
export interface DeliveryLookup {
  id: RequestId;
  sms: string;
  provider: string;
  nonce: string;
}

/** A code's whole life, resends included. */
export const CODE_LIFE_MS = 600_000;
const LOOK_UP_EVERY_MS = 1_000;

type CreateAnswer =
  | (Pick<
      Draft,
      | 'createdAt'
      | 'fencingToken'
      | 'maybeSent'
      | 'provider'
      | 'nonce'
      | 'byDevice'
      | 'returning'
      | 'needsProof'
    > & { kind: 'new' | 'resumed'; lifeMs: number })
  | { kind: 'replay'; expiresAt: number; attemptsLeft: number; resendAt: number; delivery: Delivery }
  | { kind: 'locked'; ms: number }
  | { kind: 'in_progress' }
  | { kind: 'blocked' };

/**
 * The sending half of challenges. In Redis they are one hash each, beside the number's live code and its failures, all on
 * the number's own slot. docs/design.md draws the states: draft, active, used.
 */
@Injectable()
export class Challenges {
  private readonly originKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
    private readonly records: ChallengeRecords,
    private readonly requestIds: RequestIds,
    private readonly idempotencyLock: IdempotencyLock,
  ) {
    this.originKey = deriveKey(config.subjectSecret, 'client address of a challenge');
  }

  /**
   * Creates a draft with a lease for this request. Under an Idempotency-Key a repeat finds the challenge of the first
   * request: it gets the first answer, or resumes a send that failed. Throws `phone_locked`, `phone_number_rejected` if
   * the number is blocked, `idempotency_in_progress`.
   */
  async create(phone: PhoneIdentity, sender: Sender): Promise<Draft>;
  async create(
    phone: PhoneIdentity,
    sender: Sender,
    idempotencyKey: string | undefined,
    device?: Device,
  ): Promise<Draft | Replay>;
  async create(
    phone: PhoneIdentity,
    sender: Sender,
    idempotencyKey?: string,
    device?: Device,
  ): Promise<Draft | Replay> {
    const id = this.requestIds.issue(phone, idempotencyKey);
    const owner = newOwner();
    const keys = challengeKeys(id);
    const numberKeys = [keys.codes, keys.failed, keys.cleared, keys.deviceFailed, keys.devicesEnded];
    const args = [
      this.codes.nonceFor(sender),
      sender.resendsCode ? 1 : 0,
      `,${this.codes.knownSecrets},`,
      this.config.otpTtlSeconds * 1_000,
      CODE_LIFE_MS,
      this.config.otpMaxAttempts,
      this.records.seal(phone.phoneNumber, id),
      device?.issuedAt ?? '',
      device?.id ?? '',
      sender.name,
      owner,
      this.idempotencyLock.leaseMs,
      ...limitArguments(this.config.limitFailedCodes),
      ...limitArguments(DEVICE_CODES),
    ];
    const create = async (): Promise<CreateAnswer> => {
      const all = [keys.challenge, ...numberKeys, keys.blocked, keys.known, keys.unlocks];
      return JSON.parse((await this.store.run(CREATE, all, args)) as string) as CreateAnswer;
    };
    const answer = await this.idempotencyLock.untilFree(() =>
      idempotencyKey === undefined
        ? create()
        : this.idempotencyLock.orRelease(create(), () => this.runRelease(id, owner, 'no')),
    );
    switch (answer.kind) {
      case 'locked':
        throw new ApiError('phone_locked', { retryAfterSeconds: answer.ms / 1_000 });
      case 'blocked':
        throw new ApiError('phone_number_rejected');
      case 'replay': {
        const { expiresAt, resendAt, attemptsLeft, delivery } = answer;
        return { kind: 'replay', request: requestOf(id, [expiresAt, attemptsLeft, resendAt], delivery) };
      }
      default: {
        const { lifeMs, ...created } = answer;
        const keyed = idempotencyKey !== undefined;
        return { ...created, id, requestId: id.text, owner, keyed, lifeSeconds: lifeMs / 1_000 };
      }
    }
  }

  /**
   * Reassigns a draft of which certainly nothing was sent to another provider, in the store before that provider is called.
   * The code is a new one. Throws `store_unavailable` if this request no longer holds the lease.
   */
  async reassign(draft: Draft, sender: Sender): Promise<void> {
    const { challenge, codes } = challengeKeys(draft.id);
    const nonce = this.codes.nonceFor(sender);
    const lifeMs = (await this.store.run(
      REASSIGN,
      [challenge, codes],
      [draft.owner, sender.name, nonce, this.config.otpTtlSeconds * 1_000, CODE_LIFE_MS],
    )) as number;
    // The store was emptied, or a repeat resumed the send.
    if (lifeMs === 0) throw new ApiError('store_unavailable');
    Object.assign(draft, { provider: sender.name, nonce, lifeSeconds: lifeMs / 1_000 });
  }

  /**
   * Activates a draft: from here on its code is the live one. `sms` is in the ledger; `address` is the client address that
   * opened the challenge.
   */
  async activate(
    draft: Draft,
    sent: Sent,
    resendAfterMs: number,
    sms = '',
    address = '',
  ): Promise<OtpRequest> {
    const { challenge, codes } = challengeKeys(draft.id);
    const answer = (await this.store.run(
      ACTIVATE,
      [challenge, codes],
      [
        draft.owner,
        sent.upstreamId ?? '',
        sent.delivery,
        sent.expiresAt?.getTime() ?? -1,
        sent.attemptsLeft ?? -1,
        resendAfterMs,
        CODE_LIFE_MS,
        sms,
        this.originOf(address),
      ],
    )) as [number, number, number] | [] | null;
    // The store was emptied while the SMS was under way: its code can never be checked.
    if (answer === null) throw new ApiError('store_unavailable');
    // Superseded: a repeat resumed the send, and answers it.
    if (answer.length === 0) throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
    return requestOf(draft.id, answer, sent.delivery);
  }

  /**
   * Releases the lease of a send that failed: `refused` if admission refused it, `no` if this request certainly sent
   * nothing, `maybe` otherwise. A repeat under the Idempotency-Key resumes the send. Never throws.
   */
  async release({ id, owner, keyed }: Draft, sent: 'refused' | 'no' | 'maybe'): Promise<void> {
    // Without a key no repeat comes, and a draft expires by itself.
    if (!keyed && sent !== 'refused') return;
    await this.idempotencyLock.release(() => this.runRelease(id, owner, sent));
  }

  /**
   * Counts a verification in the challenge's own bucket, which has as many places as a challenge has attempts. False if it
   * comes from another client address than the one that opened the challenge, or if the bucket is full.
   */
  async countAtOrigin(requestId: string, address: string): Promise<boolean> {
    const id = this.requestIds.open(requestId);
    if (id === undefined) return false;
    const { challenge } = challengeKeys(id);
    const args = [this.originOf(address), this.config.otpMaxAttempts];
    return (await this.store.run(COUNT_AT_ORIGIN, [challenge], args)) === 1;
  }

  /**
   * Records what became of the challenge's SMS. `resendAfterMs` says when the number may ask again, if that changed. False
   * if the challenge is gone, or another replica recorded it first.
   */
  async recordDelivery(
    { id, sms }: DeliveryLookup,
    delivery: Delivery,
    resendAfterMs = -1,
  ): Promise<boolean> {
    const { challenge } = challengeKeys(id);
    return (await this.store.run(RECORD_DELIVERY, [challenge], [sms, delivery, resendAfterMs])) === 1;
  }

  /**
   * How a challenge stands. One of many requests gets a `lookup`: it shall look up the SMS. Throws `otp_expired` for an id
   * that this service did not issue, or for a challenge that is gone.
   */
  async status(
    requestId: string,
  ): Promise<OtpRequest & { state: OtpState; lookup: DeliveryLookup | undefined }> {
    const id = this.requestIds.read(requestId);
    const { challenge, codes } = challengeKeys(id);
    const answer = (await this.store.run(STATUS, [challenge, codes], [LOOK_UP_EVERY_MS])) as
      [OtpState, number, number, number, Delivery, string, string, string] | [];
    if (answer.length === 0) throw new ApiError('otp_expired');
    const [state, attemptsLeft, expiresAt, resendAt, delivery, sms, provider, nonce] = answer;
    const lookup = sms === '' ? undefined : { id, sms, provider, nonce };
    return { ...requestOf(id, [expiresAt, attemptsLeft, resendAt], delivery), state, lookup };
  }

  /** Keyed: a bare hash would tell the address to a reader of the store that tries all of them. */
  private originOf(address: string): string {
    return address === '' ? '' : hmac128(this.originKey, originOf(address));
  }

  private runRelease(id: RequestId, owner: string, sent: 'refused' | 'no' | 'maybe'): Promise<unknown> {
    const { challenge, codes } = challengeKeys(id);
    return this.store.run(RELEASE, [challenge, codes], [owner, sent]);
  }
}

function requestOf(
  { text }: RequestId,
  [expiresAt, attemptsLeft, resendAt]: [number, number, number],
  delivery: Delivery,
): OtpRequest {
  return {
    requestId: text,
    expiresAt: new Date(expiresAt),
    attemptsLeft,
    resendAt: new Date(resendAt),
    delivery,
  };
}
