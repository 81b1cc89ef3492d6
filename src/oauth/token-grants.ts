import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { OAuthClient } from '../config/config';
import { OAuthError } from '../http/oauth-error';
import { AppSessions } from '../sessions/app-sessions';
import type { Session } from '../sessions/sessions.service';
import { IdTokens } from '../tokens/id-tokens';
import { TokensService, type TokenSet } from '../tokens/tokens.service';

type Form = Readonly<Record<string, string | undefined>>;

/** RFC 7636 section 4.1. */
const VERIFIER = /^[\w.~-]{43,128}$/;

/** The exchanges of the token endpoint: a code, or a refresh token (RFC 6749 sections 4.1.3 and 6). */
@Injectable()
export class TokenGrants {
  constructor(
    private readonly apps: AppSessions,
    private readonly tokens: TokensService,
    private readonly idTokens: IdTokens,
  ) {}

  async exchangeCode(client: OAuthClient, form: Form, network: string): Promise<Record<string, unknown>> {
    const { code, redirect_uri: redirectUri, code_verifier: verifier } = form;
    if (!code) throw new OAuthError('invalid_request', 'code is missing');
    if (!redirectUri) throw new OAuthError('invalid_request', 'redirect_uri is missing');
    if (verifier === undefined ? !client.pkceOptional : !VERIFIER.test(verifier)) {
      throw new OAuthError(
        verifier === undefined ? 'invalid_request' : 'invalid_grant',
        'code_verifier is missing or malformed: use PKCE with S256',
      );
    }
    const challenge =
      verifier === undefined ? undefined : createHash('sha256').update(verifier).digest('base64url');
    const opened = await this.apps.exchangeCode(code, { client: client.id, redirectUri, challenge }, network);
    // One text for all reasons: a thief of a code must not learn which of its bindings is missing.
    if (opened === undefined) throw new OAuthError('invalid_grant', 'The code is unknown, used or expired');
    const { session, nonce } = opened;
    const tokens = await this.tokens.issue(session, form.resource);
    return this.response(session, tokens, nonce);
  }

  /** `client`: undefined for the service's own. */
  async refresh(
    client: OAuthClient | undefined,
    form: Form,
    network: string,
  ): Promise<Record<string, unknown>> {
    const { refresh_token: token, scope, resource } = form;
    if (!token) throw new OAuthError('invalid_request', 'refresh_token is missing');
    if (scope && client === undefined) throw new OAuthError('invalid_scope', 'There are no scopes');
    const { session, tokens } = await this.tokens.refresh(token, { network, client: client?.id }, resource);
    return this.response(session, tokens);
  }

  private async response(
    session: Session,
    tokens: TokenSet,
    nonce?: string,
  ): Promise<Record<string, unknown>> {
    const { app } = session;
    const keeps = app === undefined || app.scopes.includes('offline_access');
    return {
      access_token: tokens.accessToken,
      token_type: 'Bearer',
      expires_in: tokens.expiresIn,
      ...(keeps ? { refresh_token: tokens.refreshToken } : {}),
      ...(app === undefined ? {} : { scope: app.scopes.join(' ') }),
      ...(app?.scopes.includes('openid') ? { id_token: await this.idTokens.issue(session, app, nonce) } : {}),
    };
  }
}
