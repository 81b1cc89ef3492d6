import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import type { PhoneNumber } from '../phone-number/phone-number';
import { KEY_PREFIX } from '../redis/store';

/** The user id of a number: `sub` of every token, stable and opaque, the same again after the loss of the whole store. */
@Injectable()
export class Subjects {
  private readonly key: Buffer;

  constructor(config: Config) {
    this.key = deriveKey(config.subjectSecret, 'subject');
  }

  /** The 0 is a generation: a higher one would give the number's next owner another id. */
  of(phone: PhoneNumber): string {
    return hmac128(this.key, `sub:0:${phone}`);
  }
}

/** The key of a session. All keys of a user are tagged by `sub`, so that each script has one slot. */
export function sessionKey(subject: string, id: string): string {
  return `${KEY_PREFIX}{${subject}}:session:${id}`;
}

/** Exists while the user's number is blocked: no session is opened. */
export function blockedKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:blocked`;
}

/** The user's sessions, by the time of their opening. */
export function indexKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:sessions`;
}
