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
import type { Sent } from './otp-provider';

const BEGIN = Script.load(__dirname, 'begin');
const FINISH = Script.load(__dirname, 'finish');
const TAKE_ATTEMPT = Script.load(__dirname, 'take-attempt');
const CONSUME = Script.load(__dirname, 'consume');
const GIVE_BACK = Script.load(__dirname, 'give-back');

/** A code's whole life, resends included. */
const CODE_LIFE_MS = 600_000;

/** `pseudonym of the number` and `128 random bits`, 22 base64url characters each. */
const REQUEST_ID = /^[\w-]{21}[AQgw][\w-]{21}[AQgw]$/;

export interface PendingChallenge {
  requestId: string;
  pseudonym: string;
  nonce: string;
  lifeSeconds: number;
}

export interface OpenChallenge {
  expiresAt: Date;
  attemptsLeft: number;
  resendAt: Date;
}

/** An attempt that was taken; the code may be looked at once. */
export interface Attempt {
  phone: PhoneNumber;
  nonce: string;
  upstreamId: string;
  attemptsLeft: number;
  /** The timestamp under which it stands among the number's failures, until it turns out right. */
  failure: string;
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

  /** Opens a pending challenge: nothing can be verified by it, and it voids nothing. Throws `phone_locked`. */
  async begin(phone: PhoneNumber, resendsCode: boolean): Promise<PendingChallenge> {
    const pseudonym = phonePseudonym(phone, this.pseudonymKey);
    const requestId = pseudonym + randomBytes(16).toString('base64url');
    const keys = this.keys(requestId);
    const answer = (await this.store.run(
      BEGIN,
      [keys.challenge, keys.codes, keys.failed, keys.cleared],
      [
        this.codes.nonce(),
        resendsCode ? 1 : 0,
        `,${this.codes.knownSecrets},`,
        this.config.otpTtlSeconds * 1_000,
        CODE_LIFE_MS,
        this.config.otpMaxAttempts,
        sealPhoneNumber(phone, keys.challenge, this.phoneKeys),
        ...limitArguments(this.config.limitFailedCodes),
      ],
    )) as ['begun', string, number] | ['locked', number];
    if (answer[0] === 'locked') throw new ApiError('phone_locked', { retryAfterSeconds: answer[1] / 1_000 });
    return { requestId, pseudonym, nonce: answer[1], lifeSeconds: answer[2] / 1_000 };
  }

  /** Opens the challenge to verification: from here on its code is the live one. */
  async finish(requestId: string, sent: Sent, resendAfterMs: number): Promise<OpenChallenge> {
    const keys = this.keys(requestId);
    const answer = (await this.store.run(
      FINISH,
      [keys.challenge, keys.codes],
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
    return { expiresAt: new Date(expiresAt), attemptsLeft, resendAt: new Date(resendAt) };
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.keys(requestId).challenge));
  }

  /** Takes an attempt. Throws `otp_expired` (also for an id that is not ours), `otp_attempts_exhausted`, `phone_locked`. */
  async takeAttempt(requestId: string): Promise<Attempt> {
    if (!REQUEST_ID.test(requestId)) throw new ApiError('otp_expired');
    const keys = this.keys(requestId);
    const answer = (await this.store.run(
      TAKE_ATTEMPT,
      [keys.challenge, keys.codes, keys.failed, keys.cleared],
      limitArguments(this.config.limitFailedCodes),
    )) as
      ['taken', number, string, string, string, string] | ['expired'] | ['exhausted'] | ['locked', number];
    if (answer[0] === 'expired') throw new ApiError('otp_expired');
    if (answer[0] === 'exhausted') throw new ApiError('otp_attempts_exhausted', { attemptsLeft: 0 });
    if (answer[0] === 'locked') throw new ApiError('phone_locked', { retryAfterSeconds: answer[1] / 1_000 });
    const [, attemptsLeft, failure, sealed, nonce, upstreamId] = answer;
    const phone = openPhoneNumber(sealed, keys.challenge, this.phoneKeys);
    // A record that does not open was written by another hand, or under a secret that was dropped.
    if (phone === undefined || !requestId.startsWith(phonePseudonym(phone, this.pseudonymKey))) {
      throw new ApiError('otp_expired', { cause: new Error('A challenge does not open') });
    }
    return { phone, nonce, upstreamId, attemptsLeft, failure };
  }

  /** Uses the challenge up. False when another answer was first. */
  async consume(requestId: string, { failure }: Attempt): Promise<boolean> {
    const keys = this.keys(requestId);
    return (
      (await this.store.run(CONSUME, [keys.challenge, keys.codes, keys.failed, keys.cleared], [failure])) ===
      1
    );
  }

  /** Gives an attempt back that upstream certainly did not look at. */
  async giveBack(requestId: string, { failure }: Attempt): Promise<void> {
    const keys = this.keys(requestId);
    await this.store.run(GIVE_BACK, [keys.challenge, keys.failed], [failure]);
  }

  private keys(requestId: string): { challenge: string; codes: string; failed: string; cleared: string } {
    const person = `${KEY_PREFIX}{${requestId.slice(0, 22)}}:`;
    return {
      challenge: `${person}challenge:${requestId.slice(22)}`,
      codes: `${person}codes`,
      failed: `${person}failed`,
      cleared: `${person}cleared`,
    };
  }
}
