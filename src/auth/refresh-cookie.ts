import { Injectable } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';

// `__Host-`: a sibling domain, or a page without TLS, can neither set nor overwrite it (RFC 6265bis section 4.1.3.2).
const NAME = '__Host-refresh';
const ATTRIBUTES = { path: '/', httpOnly: true, secure: true, sameSite: 'strict' } as const;

/** The refresh token as a cookie that scripts cannot read, for frontends on the service's own site. */
@Injectable()
export class RefreshCookie {
  constructor(private readonly config: Config) {}

  /**
   * The token, when the call may use it. Throws `origin_not_allowed` or `unsupported_media_type`: a page of another
   * origin can make a browser send the cookie (CSRF), but cannot choose its Origin, and cannot send JSON unasked.
   */
  read(request: FastifyRequest): string | undefined {
    const token = request.cookies[NAME];
    if (token === undefined) return undefined;
    const { origin } = request.headers;
    if (origin === undefined || !this.config.allowsOrigin(origin)) throw new ApiError('origin_not_allowed');
    if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
      throw new ApiError('unsupported_media_type');
    }
    return token;
  }

  /** Throws `origin_not_allowed` when a page of another origin asks for the cookie to be set (login CSRF). */
  checkOrigin({ headers: { origin } }: FastifyRequest): void {
    if (origin !== undefined && !this.config.allowsOrigin(origin)) throw new ApiError('origin_not_allowed');
  }

  set(reply: FastifyReply, refreshToken: string, maxAgeSeconds: number): void {
    void reply.setCookie(NAME, refreshToken, { ...ATTRIBUTES, maxAge: maxAgeSeconds });
  }

  clear(reply: FastifyReply): void {
    void reply.clearCookie(NAME, ATTRIBUTES);
  }
}
