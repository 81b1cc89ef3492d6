import { Injectable } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';

/** The refresh token as a cookie that scripts cannot read, for frontends on the service's own site. */
@Injectable()
export class RefreshCookie {
  private readonly name: string;
  private readonly attributes;

  constructor(private readonly config: Config) {
    // `__Host-`: a sibling domain, or a page without TLS, can neither set nor overwrite it (RFC 6265bis section 4.1.3.2).
    // The other name is read only where Config allows it: elsewhere such a page could plant a session of an attacker.
    this.name = config.cookieInsecure ? 'refresh' : '__Host-refresh';
    const secure = !config.cookieInsecure;
    this.attributes = { path: '/', httpOnly: true, secure, sameSite: 'strict' } as const;
  }

  /**
   * The token, when the call may use it. Throws `origin_not_allowed` or `unsupported_media_type`: a page of another
   * origin can make a browser send the cookie (CSRF), but cannot choose its Origin, and cannot send JSON unasked.
   */
  read(request: FastifyRequest): string | undefined {
    const { token, allowed } = this.find(request);
    if (token === undefined) return undefined;
    if (!allowed) throw new ApiError('origin_not_allowed');
    if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
      throw new ApiError('unsupported_media_type', {
        detail: 'A call with the cookie needs a JSON body: send {} with Content-Type: application/json',
      });
    }
    return token;
  }

  /** The token, and whether it comes from a page of an allowed origin. */
  find(request: FastifyRequest): { token: string | undefined; allowed: boolean } {
    const { origin } = request.headers;
    const allowed = origin !== undefined && this.config.allowsOrigin(origin);
    return { token: request.cookies[this.name], allowed };
  }

  /** Whether a page of another origin makes the call: it must not get the cookie set (login CSRF). */
  isForeign({ headers: { origin } }: FastifyRequest): boolean {
    return origin !== undefined && !this.config.allowsOrigin(origin);
  }

  set(reply: FastifyReply, refreshToken: string, maxAgeSeconds: number): void {
    void reply.setCookie(this.name, refreshToken, { ...this.attributes, maxAge: maxAgeSeconds });
  }

  clear(reply: FastifyReply): void {
    void reply.clearCookie(this.name, this.attributes);
  }
}
