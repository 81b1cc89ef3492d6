import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import type { PhoneNumber } from '../phone-number/phone-number';

/** Who a number is: `sub` of every token, stable and opaque, the same again after the whole store is lost. */
@Injectable()
export class Subjects {
  private readonly key: Buffer;

  constructor(config: Config) {
    this.key = deriveKey(config.subjectSecret, 'subject');
  }

  /** The 0 is a generation, for the day that a number is given to somebody else. */
  of(phone: PhoneNumber): string {
    return hmac128(this.key, `sub:0:${phone}`);
  }
}
