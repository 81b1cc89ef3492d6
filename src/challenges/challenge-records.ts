import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { Keyring } from '../crypto/derived-keys';
import { deviceRevocationsKey } from '../devices/device-revocations';
import { ApiError } from '../errors/api-error';
import { openPhoneNumber, sealPhoneNumber } from '../phone-number/phone-cipher';
import { PhoneIdentities } from '../phone-number/phone-identity';
import type { PhoneNumber } from '../phone-number/phone-number';
import { KEY_PREFIX } from '../redis/store';
import type { RequestId } from './request-ids';

/** The keys of everything about the number of this pseudonym: all on the number's own slot. */
export function numberKeys(pseudonym: string) {
  const number = `${KEY_PREFIX}{${pseudonym}}:`;
  return {
    codes: `${number}codes`,
    failed: `${number}failed`,
    cleared: `${number}cleared`,
    deviceFailed: `${number}device-failed`,
    devicesEnded: deviceRevocationsKey(pseudonym),
    blocked: `${number}blocked`,
    known: `${number}known`,
  };
}

/** The keys of the challenge of this request id, and of its number. */
export function challengeKeys({ pseudonym, own }: RequestId) {
  return { challenge: `${KEY_PREFIX}{${pseudonym}}:challenge:${own}`, ...numberKeys(pseudonym) };
}

/** Seals the phone number into the record of its challenge. */
@Injectable()
export class ChallengeRecords {
  private readonly phoneKeys: Keyring;

  constructor(
    config: Config,
    private readonly phones: PhoneIdentities,
  ) {
    this.phoneKeys = new Keyring(config, 'phone encryption');
  }

  /** The phone number as the challenge of this id keeps it. */
  seal(phone: PhoneNumber, id: RequestId): string {
    return sealPhoneNumber(phone, challengeKeys(id).challenge, this.phoneKeys);
  }

  /** The phone number of the challenge. Throws `otp_expired` for a record that is not this challenge's. */
  open(sealed: string, id: RequestId): PhoneNumber {
    const phone = openPhoneNumber(sealed, challengeKeys(id).challenge, this.phoneKeys);
    // Such a record was written by an attacker with access to Redis, or under a secret that was dropped.
    if (phone === undefined || this.phones.pseudonymOf(phone) !== id.pseudonym) {
      throw new ApiError('otp_expired', { cause: new Error('A challenge does not open') });
    }
    return phone;
  }
}
