import { Injectable } from '@nestjs/common';
import { Config, type Limit } from '../config/config';
import { Keyring } from '../crypto/derived-keys';
import { constantTimeEqual, tokenMac } from '../crypto/mac';

export const DEVICE_TOKEN_TTL_MS = 90 * 86_400_000;
/**
 * How many wrong codes the holders of a number's device tokens have left when strangers used up the number's own. The
 * month keeps a stolen token at the hundred of NIST SP 800-63B-4, section 3.2.2.
 */
export const DEVICE_CODES: readonly Limit[] = [
  { count: 10, seconds: 86_400 },
  { count: 100, seconds: 2_592_000 },
];

/** What an authentic device token says. */
export interface Device {
  /** The session that it was issued with. */
  id: string;
  /** In milliseconds of the store's clock. */
  issuedAt: number;
}

// Canonical decimals only: '007' would be a second spelling of 7.
const FORM = /^([\w-]{22})\.([1-9]\d{0,14})\.([\w-]{6})\.([\w-]{43})$/;

/**
 * Says that its holder logged in with this number before: `device.issued.secret id.MAC`. Strangers who know a number can
 * use up its sends and its wrong codes; they cannot touch the allowance of its devices. It logs nobody in.
 */
@Injectable()
export class DeviceTokens {
  private readonly keys: Keyring;

  constructor(config: Config) {
    this.keys = new Keyring(config, 'device token');
  }

  /** The token of a device; the same again for the same session. */
  issue(pseudonym: string, { id, issuedAt }: Device): string {
    const { id: secretId, key } = this.keys.current;
    const body = `${id}.${issuedAt}.${secretId}`;
    return `${body}.${tokenMac(key, `${pseudonym}.${body}`)}`;
  }

  /**
   * The device of a token that was signed here for this number and is not too old; else undefined. It is never an error:
   * who holds an old token is like anyone else. Whether it was ended says the store.
   */
  read(token: string | undefined, pseudonym: string): Device | undefined {
    const [, id, issued, secretId, given] = FORM.exec(token ?? '') ?? [];
    if (id === undefined || secretId === undefined || given === undefined) return undefined;
    const key = this.keys.find(secretId);
    if (key === undefined || Number(issued) + DEVICE_TOKEN_TTL_MS < Date.now()) return undefined;
    // Over the number: a token is of no use for another one. In constant time: a forger learns no prefix.
    const expected = tokenMac(key, `${pseudonym}.${id}.${issued}.${secretId}`);
    return constantTimeEqual(given, expected) ? { id, issuedAt: Number(issued) } : undefined;
  }
}
