import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey, Keyring } from '../config/derived-keys';
import { ApiError } from '../errors/api-error';
import { openPhoneNumber, sealPhoneNumber } from '../phone-number/phone-cipher';
import { phonePseudonym, type PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { limitArguments } from '../throttling/redis-throttler-storage';
import { Codes } from './codes';
import type { Delivery, Sent } from './otp-provider';

const BEGIN = Script.load(__dirname, 'begin');
const FINISH = Script.load(__dirname, 'finish');
const TAKE_ATTEMPT = Script.load(__dirname, 'take-attempt');
const CONSUME = Script.load(__dirname, 'consume');
const GIVE_BACK = Script.load(__dirname, 'give-back');
const RELEASE = Script.load(__dirname, 'release');
const SETTLE = Script.load(__dirname, 'settle');

/** A code's whole life, resends included. */
const CODE_LIFE_MS = 600_000;

/** `pseudonym of the number` and `128 random bits`, 22 base64url characters each. */
const REQUEST_ID = /^[\w-]{21}[AQgw][\w-]{21}[AQgw]$/;

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

/** A request under an Idempotency-Key: where its answer is kept, and what its body was, both as keyed hashes. */
export interface Repeat {
  field: string;
  fingerprint: string;
}

/** An attempt that was taken; the code may be looked at once. */
export interface Attempt {
  phone: PhoneNumber;
  nonce: string;
  upstreamId: string;
  attemptsLeft: number;
  /** The timestamp under which it stands among the number's failures, until it turns out right. */
  failure: string;
  /** It repeats one that was right: there is nothing to look at. */
  wasRight: boolean;
}

/** Challenges in Redis: one hash each, beside the number's live code and its failures, all on the number's own slot. */
@Injectable()
export class Challenges {
  private readonly pseudonymKey: Buffer;
  private readonly phoneKeys: Keyring;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
  ) {
    this.pseudonymKey = deriveKey(config.subjectSecret, 'phone pseudonym');
    this.phoneKeys = new Keyring(config.secrets, 'phone encryption');
  }

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
    const pseudonym = phonePseudonym(phone, this.pseudonymKey);
    const fresh = randomBytes(16).toString('base64url');
    const keys = this.keys(pseudonym + fresh);
    const answer = (await this.store.run(
      BEGIN,
      [keys.challenge, keys.codes, keys.failed, keys.cleared, ...recordKeys(keys.person, record)],
      [
        this.codes.nonce(),
        resendsCode ? 1 : 0,
        `,${this.codes.knownSecrets},`,
        this.config.otpTtlSeconds * 1_000,
        CODE_LIFE_MS,
        this.config.otpMaxAttempts,
        sealPhoneNumber(phone, keys.challenge, this.phoneKeys),
        fresh,
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
    const keys = this.keys(requestId);
    const answer = (await this.store.run(
      FINISH,
      [keys.challenge, keys.codes, ...recordKeys(keys.person, record)],
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
    const { person } = this.keys(requestId);
    await this.store.run(RELEASE, recordKeys(person, record), [
      requestId.slice(22),
      Math.floor(resendAfterMs ?? -1),
    ]);
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.keys(requestId).challenge));
  }

  /**
   * Takes an attempt, or finds the answer of the first request under the same Idempotency-Key. Throws `otp_expired` (also for an id that is not ours), `otp_attempts_exhausted`,
   * `phone_locked`, and for a repeat `otp_incorrect`, `idempotency_key_reused`, `idempotency_in_progress`.
   */
  async takeAttempt(requestId: string, repeat?: Repeat): Promise<Attempt> {
    if (!REQUEST_ID.test(requestId)) throw new ApiError('otp_expired');
    const keys = this.keys(requestId);
    const answer = (await this.store.run(
      TAKE_ATTEMPT,
      [keys.challenge, keys.codes, keys.failed, keys.cleared],
      [repeat?.field ?? '', repeat?.fingerprint ?? '', ...limitArguments(this.config.limitFailedCodes)],
    )) as
      | ['taken', number, string, string, string, string]
      | ['replay', string]
      | ['expired' | 'exhausted' | 'other body']
      | ['locked' | 'in progress' | 'incorrect', number];
    switch (answer[0]) {
      case 'taken': {
        const [, attemptsLeft, failure, sealed, nonce, upstreamId] = answer;
        const phone = await this.openTaken(requestId, sealed, repeat);
        return { phone, nonce, upstreamId, attemptsLeft, failure, wasRight: false };
      }
      case 'replay':
        return {
          phone: this.openPhone(requestId, answer[1]),
          nonce: '',
          upstreamId: '',
          attemptsLeft: 0,
          failure: '',
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
  async consume(requestId: string, { failure }: Attempt, repeat?: Repeat): Promise<boolean> {
    const keys = this.keys(requestId);
    const consumed = await this.store.run(
      CONSUME,
      [keys.challenge, keys.codes, keys.failed, keys.cleared],
      [failure, repeat?.field ?? '', repeat?.fingerprint ?? ''],
    );
    return consumed === 1;
  }

  /** Keeps what a verification answered, for repeats under its Idempotency-Key; a failure of ours releases the key. */
  async settle(requestId: string, repeat: Repeat, error: ApiError): Promise<void> {
    const kept = error.code === 'otp_incorrect' || error.status === 410;
    const record = kept ? `${repeat.fingerprint}:${error.status}:${error.attemptsLeft ?? 0}` : '';
    await this.store.run(SETTLE, [this.keys(requestId).challenge], [repeat.field, record]);
  }

  /** Gives an attempt back that upstream certainly did not look at. */
  async giveBack(requestId: string, { failure }: Attempt): Promise<void> {
    const keys = this.keys(requestId);
    await this.store.run(GIVE_BACK, [keys.challenge, keys.failed], [failure]);
  }

  /** As {@link openPhone}; the Idempotency-Key of one that does not open is settled like any other answer. */
  private async openTaken(requestId: string, sealed: string, repeat?: Repeat): Promise<PhoneNumber> {
    try {
      return this.openPhone(requestId, sealed);
    } catch (error) {
      if (repeat && error instanceof ApiError) await this.settle(requestId, repeat, error);
      throw error;
    }
  }

  private openPhone(requestId: string, sealed: string): PhoneNumber {
    const phone = openPhoneNumber(sealed, this.keys(requestId).challenge, this.phoneKeys);
    // A record that does not open was written by another hand, or under a secret that was dropped.
    if (phone === undefined || !requestId.startsWith(phonePseudonym(phone, this.pseudonymKey))) {
      throw new ApiError('otp_expired', { cause: new Error('A challenge does not open') });
    }
    return phone;
  }

  private keys(requestId: string): Record<'person' | 'challenge' | 'codes' | 'failed' | 'cleared', string> {
    const person = `${KEY_PREFIX}{${requestId.slice(0, 22)}}:`;
    return {
      person,
      challenge: `${person}challenge:${requestId.slice(22)}`,
      codes: `${person}codes`,
      failed: `${person}failed`,
      cleared: `${person}cleared`,
    };
  }
}

/** The record of a send's Idempotency-Key, by the key's keyed hash. */
function recordKeys(person: string, record: string | undefined): string[] {
  return record === undefined ? [] : [`${person}send:${record}`];
}
