import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import type { PhoneNumber } from '../phone-number/phone-number';

/** The user id of a number: `sub` of every token, stable and opaque, the same again after the loss of the whole store. */
export class Subjects {
  private readonly key: Buffer;

  constructor({ subjectSecret }: { readonly subjectSecret: string }) {
    this.key = deriveKey(subjectSecret, 'subject');
  }

  /** The 0 is a generation: a higher one would give the number's next owner another id. */
  of(phone: PhoneNumber): string {
    return hmac128(this.key, `sub:0:${phone}`);
  }
}
