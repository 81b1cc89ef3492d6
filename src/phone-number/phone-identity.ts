import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import type { PhoneNumber } from './phone-number';

/** A phone number and its pseudonym, made once per request. */
export interface PhoneIdentity {
  readonly phoneNumber: PhoneNumber;
  /** 22 base64url characters: the number's name in Redis, in the ledger and in the log. */
  readonly pseudonym: string;
}

/** Gives phone numbers their pseudonyms. */
export class PhoneIdentities {
  private readonly key: Buffer;

  constructor({ subjectSecret }: { readonly subjectSecret: string }) {
    // A bare hash would not do: an attacker with a dump of Redis could try all four thousand million numbers.
    this.key = deriveKey(subjectSecret, 'phone pseudonym');
  }

  of(phoneNumber: PhoneNumber): PhoneIdentity {
    return { phoneNumber, pseudonym: this.pseudonymOf(phoneNumber) };
  }

  pseudonymOf(phoneNumber: PhoneNumber): string {
    return hmac128(this.key, phoneNumber);
  }
}
