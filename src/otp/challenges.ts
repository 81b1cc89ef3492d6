import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { limitArguments } from '../throttling/redis-throttler-storage';
import { ChallengeRecords, ownPart } from './challenge-records';
import { Codes } from './codes';
import type { Delivery, Sent } from './otp-provider';

const BEGIN = Script.load(__dirname, 'begin');
const FINISH = Script.load(__dirname, 'finish');
const RELEASE = Script.load(__dirname, 'release');
const STATUS = Script.load(__dirname, 'status');

/** A code's whole life, resends included. */
const CODE_LIFE_MS = 600_000;

export interface PendingChallenge {
  requestId: string;
  pseudonym: string;
  nonce: string;
  lifeSeconds: number;
  /** Set when it was admitted before and may have been sent: a repeat under its key is not counted again. */
  resumed: { resendAfterMs: number } | undefined;
}

/** What the asker of a code is told. */
export interface OtpRequest {
  requestId: string;
  expiresAt: Date;
  attemptsLeft: number;
  resendAt: Date;
  delivery: Delivery;
}

export type OtpState = 'pending' | 'verified' | 'expired' | 'exhausted';

/** The sending half of challenges. In Redis they are one hash each, beside the number's live code and its failures, all on the number's own slot. */
@Injectable()
export class Challenges {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
    private readonly records: ChallengeRecords,
  ) {}

  /**
   * Opens a pending challenge: nothing can be verified by it, and it voids nothing. Under an Idempotency-Key a repeat
   * finds the first answer, or resumes what failed. Throws `phone_locked`, `idempotency_in_progress`.
   */
  async begin(phone: PhoneNumber, resendsCode: boolean): Promise<PendingChallenge>;
  async begin(
    phone: PhoneNumber,
    resendsCode: boolean,
    record: string | undefined,
  ): Promise<PendingChallenge | OtpRequest>;
  async begin(
    phone: PhoneNumber,
    resendsCode: boolean,
    record?: string,
  ): Promise<PendingChallenge | OtpRequest> {
    const freshId = this.records.newRequestId(phone);
    const pseudonym = this.records.pseudonymOf(phone);
    const keys = this.records.keys(freshId);
    const answer = (await this.store.run(
      BEGIN,
      [keys.challenge, keys.codes, keys.failed, keys.cleared, ...this.records.sendRecord(freshId, record)],
      [
        this.codes.nonce(),
        resendsCode ? 1 : 0,
        `,${this.codes.knownSecrets},`,
        this.config.otpTtlSeconds * 1_000,
        CODE_LIFE_MS,
        this.config.otpMaxAttempts,
        this.records.seal(phone, freshId),
        ownPart(freshId),
        ...limitArguments(this.config.limitFailedCodes),
      ],
    )) as
      | ['begun', string, number, string, number]
      | ['replay', string, string]
      | ['locked' | 'in progress', number];
    switch (answer[0]) {
      case 'locked':
        throw new ApiError('phone_locked', { retryAfterSeconds: answer[1] / 1_000 });
      case 'in progress':
        throw new ApiError('idempotency_in_progress', { retryAfterSeconds: answer[1] / 1_000 });
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
        const [, nonce, lifeMs, own, resendAfterMs] = answer;
        return {
          requestId: pseudonym + own,
          pseudonym,
          nonce,
          lifeSeconds: lifeMs / 1_000,
          resumed: resendAfterMs < 0 ? undefined : { resendAfterMs },
        };
      }
    }
  }

  /** Opens the challenge to verification: from here on its code is the live one. */
  async finish(requestId: string, sent: Sent, resendAfterMs: number, record?: string): Promise<OtpRequest> {
    const keys = this.records.keys(requestId);
    const answer = (await this.store.run(
      FINISH,
      [keys.challenge, keys.codes, ...this.records.sendRecord(requestId, record)],
      [
        sent.upstreamId ?? '',
        sent.delivery,
        sent.expiresAt?.getTime() ?? -1,
        sent.attemptsLeft ?? -1,
        resendAfterMs,
        CODE_LIFE_MS,
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

  /** Releases an Idempotency-Key for a repeat, which resumes this challenge; admitted anew unless it may have been sent. */
  async release(requestId: string, record: string, resendAfterMs?: number): Promise<void> {
    await this.store.run(RELEASE, this.records.sendRecord(requestId, record), [
      ownPart(requestId),
      Math.floor(resendAfterMs ?? -1),
    ]);
  }

  /** How a challenge stands. Throws `otp_expired` for an id that is not ours, or no longer. */
  async status(requestId: string): Promise<OtpRequest & { state: OtpState }> {
    if (!this.records.isRequestId(requestId)) throw new ApiError('otp_expired');
    const keys = this.records.keys(requestId);
    const answer = (await this.store.run(STATUS, [keys.challenge, keys.codes], [])) as
      [OtpState, number, number, number, Delivery] | [];
    if (answer.length === 0) throw new ApiError('otp_expired');
    const [state, attemptsLeft, expiresAt, resendAt, delivery] = answer;
    return {
      requestId,
      state,
      attemptsLeft,
      expiresAt: new Date(expiresAt),
      resendAt: new Date(resendAt),
      delivery,
    };
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.records.keys(requestId).challenge));
  }
}
