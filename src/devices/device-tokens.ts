import { Injectable } from '@nestjs/common';
import { Config, type Limit } from '../config/config';
import { Keyring } from '../crypto/derived-keys';
import { constantTimeEqual, tokenMac } from '../crypto/mac';

export const DEVICE_TOKEN_TTL_MS = 90 * 86_400_000;
/**
 * How many wrong codes the clients with a device token of a number may enter, all tokens together. Clients without one have
 * limits of their own, so they cannot use this allowance up. The month bounds the guesses with a stolen token.
 */
export const DEVICE_CODES: readonly Limit[] = [
  { count: 10, seconds: 86_400 },
  { count: 40, seconds: 2_592_000 },
];

/** The content of an authentic device token. */
export interface Device {
  /** The session that it was issued with. */
  id: string;
  /** In milliseconds of the store's clock. */
  issuedAt: number;
}

/** The cookie of a browser holds the tokens of its last numbers. */
export const DEVICE_TOKENS_PER_BROWSER = 3;
/** Between the tokens of a cookie. No token contains it. */
export const DEVICE_TOKEN_SEPARATOR = '~';

// Canonical decimals only: '007' would be a second spelling of 7.
const FORM = /^([\w-]{22})\.([1-9]\d{0,14})\.([\w-]{6})\.([\w-]{43})$/;

/**
 * A device token proves an earlier login with this number on the device: `device.issued.secret id.MAC`. Strangers that know a
 * number can use up its sends and its wrong codes, but not the allowance of its devices. The token alone is no login.
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
   * The device of a token that was signed here for this number and is not too old; otherwise undefined. A bad token is not an
   * error: its holder is treated like a caller without one. The store decides whether a token was revoked. `tokens`: one, or
   * the tokens of a browser's cookie.
   */
  read(tokens: string | undefined, pseudonym: string): Device | undefined {
    const some = tokens?.split(DEVICE_TOKEN_SEPARATOR, DEVICE_TOKENS_PER_BROWSER) ?? [];
    return some.map((token) => this.readOne(token, pseudonym)).find((device) => device !== undefined);
  }

  private readOne(token: string, pseudonym: string): Device | undefined {
    const [, id, issued, secretId, given] = FORM.exec(token) ?? [];
    if (id === undefined || secretId === undefined || given === undefined) return undefined;
    const key = this.keys.find(secretId);
    if (key === undefined || Number(issued) + DEVICE_TOKEN_TTL_MS < Date.now()) return undefined;
    // Over the number: a token is of no use for another one. In constant time: a forger learns no prefix.
    const expected = tokenMac(key, `${pseudonym}.${id}.${issued}.${secretId}`);
    return constantTimeEqual(given, expected) ? { id, issuedAt: Number(issued) } : undefined;
  }
}
