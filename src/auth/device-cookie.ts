import { Injectable } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import {
  DEVICE_TOKEN_SEPARATOR,
  DEVICE_TOKEN_TTL_MS,
  DEVICE_TOKENS_PER_BROWSER,
  DeviceTokens,
} from '../devices/device-tokens';
import type { PhoneNumber } from '../phone-number/phone-number';
import { PhoneIdentities } from '../phone-number/phone-identity';

/**
 * The device tokens of the last numbers of a browser, as a cookie that scripts cannot read. Safari deletes what scripts have
 * stored after seven days without a visit, and a device token lives for 90.
 */
@Injectable()
export class DeviceCookie {
  private readonly name: string;
  private readonly attributes;

  constructor(
    private readonly config: Config,
    private readonly devices: DeviceTokens,
    private readonly phones: PhoneIdentities,
  ) {
    // `__Host-`: a sibling domain, or a page without TLS, can neither set nor overwrite it (RFC 6265bis section 4.1.3.2).
    this.name = config.cookieInsecure ? 'device' : '__Host-device';
    this.attributes = {
      path: '/',
      httpOnly: true,
      secure: !config.cookieInsecure,
      sameSite: 'strict',
      maxAge: DEVICE_TOKEN_TTL_MS / 1_000,
    } as const;
  }

  /** The tokens, if a page of an allowed origin sends them: another page of the same site must not use up their allowance. */
  read({ headers: { origin }, cookies }: FastifyRequest): string | undefined {
    return origin !== undefined && this.config.allowsOrigin(origin) ? cookies[this.name] : undefined;
  }

  /** Puts the token of a login first. It replaces the token of the same number, and the oldest one of too many. */
  add(request: FastifyRequest, reply: FastifyReply, token: string, phoneNumber: PhoneNumber): void {
    const pseudonym = this.phones.pseudonymOf(phoneNumber);
    const before = this.read(request)?.split(DEVICE_TOKEN_SEPARATOR, DEVICE_TOKENS_PER_BROWSER) ?? [];
    const others = before.filter((other) => this.devices.read(other, pseudonym) === undefined);
    const tokens = [token, ...others].slice(0, DEVICE_TOKENS_PER_BROWSER).join(DEVICE_TOKEN_SEPARATOR);
    void reply.setCookie(this.name, tokens, this.attributes);
  }
}
