import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { Keyring } from '../crypto/derived-keys';
import { deviceRevocationsKey } from '../devices/device-revocations';
import { ApiError } from '../errors/api-error';
import { aboutNumber } from '../logging/request-context';
import { openPhoneNumber, sealPhoneNumber } from '../phone-number/phone-cipher';
import { PhoneIdentities, type PhoneIdentity } from '../phone-number/phone-identity';
import type { PhoneNumber } from '../phone-number/phone-number';
import { KEY_PREFIX } from '../redis/store';

/** `pseudonym of the number` and `128 random bits`, 22 base64url characters each. */
const REQUEST_ID = /^[\w-]{21}[AQgw][\w-]{21}[AQgw]$/;

/** The keys of everything about one number: all on the number's own slot. */
export interface NumberKeys {
  codes: string;
  failed: string;
  cleared: string;
  deviceFailed: string;
  devicesEnded: string;
  blocked: string;
  known: string;
}

export interface ChallengeKeys extends NumberKeys {
  challenge: string;
}

/** Names the records of challenges, and seals the phone number into them. */
@Injectable()
export class ChallengeRecords {
  private readonly phoneKeys: Keyring;

  constructor(
    config: Config,
    private readonly phones: PhoneIdentities,
  ) {
    this.phoneKeys = new Keyring(config, 'phone encryption');
  }

  /** An id that nobody can guess (128 random bits), bound to the number's slot. */
  newRequestId({ pseudonym }: PhoneIdentity): string {
    return pseudonym + randomBytes(16).toString('base64url');
  }

  keys(requestId: string): ChallengeKeys {
    return {
      challenge: `${personPrefix(requestId)}challenge:${ownPart(requestId)}`,
      ...this.numberKeys(pseudonymIn(requestId)),
    };
  }

  /** The keys of the id that a caller gave; the log names its number from here on. Throws `otp_expired` for no id of ours. */
  givenKeys(text: string): ChallengeKeys {
    if (!REQUEST_ID.test(text)) throw new ApiError('otp_expired');
    aboutNumber(pseudonymIn(text));
    return this.keys(text);
  }

  numberKeys(pseudonym: string): NumberKeys {
    const person = personPrefix(pseudonym);
    return {
      codes: `${person}codes`,
      failed: `${person}failed`,
      cleared: `${person}cleared`,
      deviceFailed: `${person}device-failed`,
      devicesEnded: deviceRevocationsKey(pseudonym),
      blocked: `${person}blocked`,
      known: `${person}known`,
    };
  }

  /** The record of a send's Idempotency-Key, by the key's keyed hash; none without one. */
  sendRecord(requestId: string, record: string | undefined): string[] {
    return record === undefined ? [] : [`${personPrefix(requestId)}send:${record}`];
  }

  /** The phone number as the challenge of this id keeps it. */
  seal(phone: PhoneNumber, requestId: string): string {
    return sealPhoneNumber(phone, this.keys(requestId).challenge, this.phoneKeys);
  }

  /** The phone number of the challenge. Throws `otp_expired` for a record that is not this challenge's. */
  open(sealed: string, requestId: string): PhoneNumber {
    const phone = openPhoneNumber(sealed, this.keys(requestId).challenge, this.phoneKeys);
    // A record that does not open was written by another hand, or under a secret that was dropped.
    if (phone === undefined || !requestId.startsWith(this.phones.pseudonymOf(phone))) {
      throw new ApiError('otp_expired', { cause: new Error('A challenge does not open') });
    }
    return phone;
  }
}

/** The pseudonym of the number that a request id is bound to. */
export function pseudonymIn(requestId: string): string {
  return requestId.slice(0, 22);
}

/** The part of a request id that is the challenge's own. */
export function ownPart(requestId: string): string {
  return requestId.slice(22);
}

function personPrefix(requestId: string): string {
  return `${KEY_PREFIX}{${pseudonymIn(requestId)}}:`;
}
