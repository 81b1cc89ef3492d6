import { Controller, Get, HttpCode, Post, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { bearerToken } from '../http/request-context';
import { Config } from '../config/config';
import { OAuthError } from '../http/oauth-error';
import { SessionsService } from '../sessions/sessions.service';
import { AccessTokens } from '../tokens/access-tokens';
import { phoneClaims } from '../tokens/id-tokens';
import { oauthError, USERINFO } from './oauth-schemas';

const INVALID = new OAuthError('invalid_token', 'The access token is missing, invalid or expired', 401);

/** OpenID Connect Core section 5.3. */
@ApiTags('OpenID Connect')
@Controller('oauth/userinfo')
export class UserinfoController {
  constructor(
    private readonly config: Config,
    private readonly accessTokens: AccessTokens,
    private readonly sessions: SessionsService,
  ) {}

  @Get()
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'userinfo', summary: 'The user of an app’s access token, by its scopes' })
  @ApiOkResponse({ description: 'The claims', schema: USERINFO })
  @oauthError(401, 'invalid_token')
  @oauthError(403, 'insufficient_scope: a token without the scope openid')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async read(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const token = bearerToken(request);
    const claims = token === undefined ? undefined : await this.accessTokens.verify(token);
    // A token of RESOURCE_AUDIENCES is in the hands of a resource server, which shall not learn the number by it.
    if (claims?.claims.aud !== this.config.audience) throw INVALID;
    const session = await this.sessions.find(claims.subject, claims.sessionId);
    if (typeof session === 'string') throw INVALID;
    if (session.app?.scopes.includes('openid') !== true) {
      throw new OAuthError('insufficient_scope', 'The token has no scope openid', 403);
    }
    return { sub: session.subject, ...phoneClaims(session, session.app.scopes) };
  }

  @Post()
  @HttpCode(200)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'userinfoByPost', summary: 'The same by POST' })
  @ApiOkResponse({ description: 'The claims', schema: USERINFO })
  @oauthError(401, 'invalid_token')
  @oauthError(403, 'insufficient_scope: a token without the scope openid')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  readByPost(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    return this.read(request);
  }
}
