import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../config/derived-keys';
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

/** 22 base64url characters. */
export function hmac128(key: Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest().subarray(0, 16).toString('base64url');
}
