import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { Metrics, startAtZero } from '../metrics/metrics';
import { SessionsService, type RefreshContext, type Session } from '../sessions/sessions.service';
import { AccessTokens, authTime } from './access-tokens';
import { RefreshTokens } from './refresh-tokens';

/** How uses of refresh tokens end. */
const REFRESHES: readonly (ErrorCode | 'rotated' | 'repeated' | 'repeated_elsewhere')[] = [
  'rotated',
  'repeated',
  'repeated_elsewhere',
  'refresh_token_invalid',
  'refresh_token_reused',
  'session_expired',
  'session_revoked',
  'idempotency_key_reused',
  'store_unavailable',
  'internal_error',
];

/** The tokens of a session. Lifetimes are in seconds. */
export interface TokenSet {
  accessToken: string;
  expiresIn: number;
  refreshToken: string;
  refreshExpiresIn: number;
}

/** The tokens of a session, and the session of a token: for every face that speaks HTTP. */
@Injectable()
export class TokensService {
  constructor(
    private readonly config: Config,
    private readonly accessTokens: AccessTokens,
    private readonly refreshTokens: RefreshTokens,
    private readonly sessions: SessionsService,
    private readonly metrics: Metrics,
  ) {
    startAtZero(metrics.refreshes, 'outcome', REFRESHES);
  }

  /** A new access token, and the newest refresh token of the session. `resource` is one of {@link Config.audienceOf}. */
  async issue(session: Session, resource?: string): Promise<TokenSet> {
    const refreshToken = this.refreshTokens.issue(session);
    // Its secret has been removed from SECRET: no token for this session can be signed any more.
    if (refreshToken === undefined) throw new ApiError('session_expired');
    const access = await this.accessTokens.issue(session, this.config.audienceOf(resource));
    return {
      ...access,
      refreshToken,
      refreshExpiresIn: Math.max(0, Math.floor(session.expiresInMs / 1_000)),
    };
  }

  /**
   * Exchanges a refresh token (RFC 6749 section 6). Throws `refresh_token_invalid` for garbage and forgeries without
   * asking the store, and the errors of {@link SessionsService.refresh}.
   */
  async refresh(
    refreshToken: string,
    context: RefreshContext,
    resource?: string,
  ): Promise<{ session: Session; tokens: TokenSet }> {
    try {
      const claims = this.refreshTokens.read(refreshToken);
      if (claims === undefined) throw new ApiError('refresh_token_invalid');
      const { subject, sessionId, counter } = claims;
      const { session, kind } = await this.sessions.refresh(subject, sessionId, counter, context);
      this.metrics.refreshes.inc({ outcome: kind.replace(' ', '_') });
      return { session, tokens: await this.issue(session, resource) };
    } catch (error) {
      this.metrics.refreshes.inc({ outcome: error instanceof ApiError ? error.code : 'internal_error' });
      throw error;
    }
  }

  /**
   * The session that the holder of this token may end; undefined for what is not ours, and for a token that a resource
   * server received. Does not ask the store.
   */
  async sessionOf(token: string): Promise<{ subject: string; sessionId: string } | undefined> {
    return this.refreshTokens.read(token) ?? (await this.accessTokens.verifyOwn(token));
  }

  /** The sessions of these tokens, each of them once. Tokens that are not ours have none. */
  async sessionsOf(tokens: readonly string[]): Promise<{ subject: string; sessionId: string }[]> {
    const owners = await Promise.all(tokens.map((token) => this.sessionOf(token)));
    const byId = new Map(owners.flatMap((owner) => (owner ? [[owner.sessionId, owner] as const] : [])));
    return [...byId.values()];
  }

  /**
   * The state of a token (RFC 7662 section 2.2): its claims while its session lives, for a refresh token only
   * while it is the newest; otherwise undefined. Reads the store once, and not at all for foreign tokens.
   */
  async introspect(token: string): Promise<Record<string, unknown> | undefined> {
    const refresh = this.refreshTokens.read(token);
    const access = refresh === undefined ? await this.accessTokens.verify(token) : undefined;
    const owner = refresh ?? access;
    if (owner === undefined) return undefined;
    const session = await this.sessions.find(owner.subject, owner.sessionId);
    if (typeof session === 'string') return undefined;
    if (access !== undefined) return { token_type: 'Bearer', ...access.claims };
    if (refresh?.counter !== session.counter) return undefined;
    return { sub: session.subject, sid: session.id, auth_time: authTime(session) };
  }

  /**
   * Ends the session of a token of either kind, if it was issued to this client (undefined: the service's own). Unknown
   * tokens, ended sessions, and tokens that a resource server received are no error, and end nothing.
   */
  async revoke(token: string, client?: string): Promise<void> {
    const refresh = this.refreshTokens.read(token);
    const access = refresh === undefined ? await this.accessTokens.verify(token) : undefined;
    if (access !== undefined && access.claims.aud !== this.config.audience) return;
    const owner = refresh ?? access;
    if (owner === undefined) return;
    const session = await this.sessions.find(owner.subject, owner.sessionId);
    // RFC 7009 section 2.1. An ended session ends once more, so that the answer holds after a failover, too.
    if (typeof session !== 'string' && session.app?.client !== client) return;
    await this.sessions.end(owner.subject, owner.sessionId);
  }
}
