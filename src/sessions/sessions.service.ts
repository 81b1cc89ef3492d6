import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey, Keyring } from '../config/derived-keys';
import type { VerifiedPhone } from '../otp/otp.service';
import { openPhoneNumber, sealPhoneNumber } from '../phone-number/phone-cipher';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

const OPEN = Script.load(__dirname, 'open');

/**
 * A person who is logged in on one device. Only {@link SessionsService} makes one, from a {@link VerifiedPhone} or from
 * the store: the class is exported as a type, so a token for anything else does not compile.
 */
class Session {
  readonly #opened = true;

  constructor(
    readonly id: string,
    /** `sub`: stable and opaque, the same again after the whole store is lost. */
    readonly subject: string,
    readonly phoneNumber: PhoneNumber,
    readonly authenticatedAt: Date,
  ) {}

  get opened(): true {
    return this.#opened;
  }
}
export type { Session };

/** Sessions in Redis, on the user's own slot. The store holds nothing that a thief could replay. */
@Injectable()
export class SessionsService {
  private readonly subjectKey: Buffer;
  private readonly sessionIdKey: Buffer;
  private readonly phoneKeys: Keyring;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
  ) {
    this.subjectKey = deriveKey(config.subjectSecret, 'subject');
    this.sessionIdKey = deriveKey(config.subjectSecret, 'session id');
    this.phoneKeys = new Keyring(config.secrets, 'phone encryption');
  }

  /**
   * Opens the session of a verified number. Idempotent: the id is derived from the challenge, so two right answers at
   * once, or a crash in between, still make one session.
   */
  async open({ phoneNumber, challengeId }: VerifiedPhone): Promise<Session> {
    const subject = this.subjectOf(phoneNumber);
    const id = hmac128(this.sessionIdKey, challengeId);
    const key = sessionKey(subject, id);
    const authenticated = await this.store.run(
      OPEN,
      [key, `${KEY_PREFIX}{${subject}}:sessions`],
      [
        id,
        sealPhoneNumber(phoneNumber, key, this.phoneKeys),
        this.config.sessionIdleTtlSeconds * 1_000,
        this.config.sessionMaxTtlSeconds * 1_000,
        this.config.sessionsPerUser,
        sessionKey(subject, ''),
      ],
    );
    return new Session(id, subject, phoneNumber, new Date(Number(authenticated)));
  }

  /** The live session of this user and id, or undefined when it has ended. */
  async find(subject: string, id: string): Promise<Session | undefined> {
    const key = sessionKey(subject, id);
    const [phone, authenticated] = await this.store.command('find session', (client) =>
      client.hmget(key, 'phone', 'authenticated'),
    );
    if (!phone || !authenticated) return undefined;
    const phoneNumber = openPhoneNumber(phone, key, this.phoneKeys);
    // Who the user is follows from the number, never from the record: a record copied to another user's key is nobody.
    if (phoneNumber === undefined || this.subjectOf(phoneNumber) !== subject) return undefined;
    return new Session(id, subject, phoneNumber, new Date(Number(authenticated)));
  }

  /** The 0 is a generation, for the day that a number is given to somebody else. */
  private subjectOf(phone: PhoneNumber): string {
    return hmac128(this.subjectKey, `sub:0:${phone}`);
  }
}

function sessionKey(subject: string, id: string): string {
  return `${KEY_PREFIX}{${subject}}:session:${id}`;
}

/** 22 base64url characters. */
function hmac128(key: Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest().subarray(0, 16).toString('base64url');
}
