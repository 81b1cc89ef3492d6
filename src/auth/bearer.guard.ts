import { createParamDecorator, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { bearerToken } from '../http/request-context';
import { SessionsService, type Session } from '../sessions/sessions.service';
import { AccessTokens } from '../tokens/access-tokens';

const sessions = new WeakMap<FastifyRequest, Session>();

/** The session that {@link BearerGuard} found. */
export const CurrentSession = createParamDecorator((_: unknown, context: ExecutionContext): Session => {
  const session = sessions.get(context.switchToHttp().getRequest<FastifyRequest>());
  // A route without the guard must fail and not run without a user.
  if (session === undefined) throw new ApiError('unauthenticated');
  return session;
});

/** The errors of every route behind {@link BearerGuard}. */
export const BEARER_ERRORS = [
  'unauthenticated',
  'session_expired',
  'session_revoked',
  'payload_too_large',
  'internal_error',
  'store_unavailable',
] as const;

/**
 * Lets a request pass if its bearer token (RFC 6750 section 2.1) is valid and the session lives. The token alone would
 * go on working here after its session has ended.
 */
@Injectable()
export class BearerGuard implements CanActivate {
  constructor(
    private readonly config: Config,
    private readonly tokens: AccessTokens,
    private readonly sessionsService: SessionsService,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const token = bearerToken(request);
    const claims = token === undefined ? undefined : await this.tokens.verifyOwn(token);
    if (claims === undefined) throw new ApiError('unauthenticated', this.hint(request, token));
    const session = await this.sessionsService.find(claims.subject, claims.sessionId);
    if (session === 'revoked') throw new ApiError('session_revoked');
    if (session === 'expired') throw new ApiError('session_expired');
    sessions.set(request, session);
    return true;
  }

  /**
   * The reason of the refusal, for developers. In production an attacker that tries tokens must not learn which come close.
   */
  private hint({ headers }: FastifyRequest, token: string | undefined): { detail?: string } {
    if (this.config.production) return {};
    if (headers.authorization === undefined) {
      return {
        detail: 'Send the header Authorization: Bearer <accessToken>: there is no Authorization header.',
      };
    }
    if (token === undefined) {
      return { detail: 'Write Bearer and a space before the access token: this is not a Bearer token.' };
    }
    return {
      detail: this.tokens.claimsToBeExpired(token)
        ? 'Get a new access token at POST /auth/refresh: this one has expired.'
        : 'Send the accessToken of a login at this instance: this one is malformed, for another audience or client, or another key signed it.',
    };
  }
}
