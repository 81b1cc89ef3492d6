import { Body, Controller, HttpCode, Post, Req } from '@nestjs/common';
import {
  ApiBasicAuth,
  ApiBody,
  ApiConsumes,
  ApiOkResponse,
  ApiOperation,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { RETRY_AFTER } from '../http/api-problems';
import { ClientAddress } from '../http/client-address';
import { OAuthError } from '../http/oauth-error';
import { networkOf } from '../net/addresses';
import { TokensService } from '../tokens/tokens.service';
import { ClientAuthentication } from './client-authentication';
import { INTROSPECTION, OAUTH_ERROR, TOKEN, TOKEN_ANSWER, TOKEN_FORM } from './oauth-schemas';

type Form = Record<string, string | undefined>;

const oauthError = (status: number, description: string): MethodDecorator =>
  ApiResponse({
    status,
    description,
    content: { 'application/json': { schema: OAUTH_ERROR } },
    ...(status === 429 || status === 503 ? { headers: RETRY_AFTER } : {}),
  });

/** The endpoints that OAuth clients and resource servers know how to call. Their errors are those of RFC 6749. */
@ApiTags('OAuth 2.0')
@Controller('oauth')
export class OAuthController {
  constructor(
    private readonly config: Config,
    private readonly tokens: TokensService,
    private readonly clients: ClientAuthentication,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Post('token')
  @HttpCode(200)
  @ApiOperation({
    operationId: 'oauthToken',
    summary: 'Exchange a refresh token (RFC 6749 section 6)',
    security: [],
  })
  @ApiConsumes('application/x-www-form-urlencoded')
  @ApiBody({ schema: TOKEN_FORM })
  @ApiOkResponse({ description: 'New tokens of the same session', schema: TOKEN_ANSWER })
  @oauthError(400, 'invalid_request, invalid_grant, unsupported_grant_type, invalid_scope or invalid_target')
  @oauthError(401, 'invalid_client')
  @oauthError(413, 'invalid_request: more than 16 KB')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async token(@Body() form: Form | null, @Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { grant_type: grantType, refresh_token: token, client_id: client, scope, resource } = form ?? {};
    if (!grantType) throw new OAuthError('invalid_request', 'grant_type is missing');
    if (grantType !== 'refresh_token') {
      throw new OAuthError('unsupported_grant_type', 'The only grant type is refresh_token');
    }
    if (!token) throw new OAuthError('invalid_request', 'refresh_token is missing');
    // All sessions belong to one public client, named by the audience: RFC 6749 section 6 binds the token to it.
    if (client && client !== this.config.audience) {
      throw new OAuthError('invalid_client', 'The client is unknown', 401);
    }
    if (scope) throw new OAuthError('invalid_scope', 'There are no scopes');
    // Before the token is used: a request that is refused must not rotate the session.
    if (this.config.audienceOf(resource) === undefined) {
      throw new OAuthError('invalid_target', 'The resource is not one of RESOURCE_AUDIENCES');
    }
    const network = networkOf(this.clientAddress.of(request));
    const { accessToken, expiresIn, refreshToken } = await this.tokens.refresh(token, { network }, resource);
    return {
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: expiresIn,
      refresh_token: refreshToken,
    };
  }

  @Post('introspect')
  @HttpCode(200)
  @ApiBasicAuth()
  @ApiOperation({
    operationId: 'introspect',
    summary: 'State of a token (RFC 7662)',
    description:
      'For resource servers of INTROSPECTION_CLIENTS, by Basic or by `client_id` and `client_secret`.',
  })
  @ApiConsumes('application/x-www-form-urlencoded')
  @ApiBody({ schema: TOKEN })
  @ApiOkResponse({ description: '`active`, and the claims while it is', schema: INTROSPECTION })
  @oauthError(400, 'invalid_request')
  @oauthError(401, 'invalid_client')
  @oauthError(413, 'invalid_request: more than 16 KB')
  @oauthError(
    429,
    'temporarily_unavailable, with Retry-After: too many failed authentications of the client address',
  )
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async introspect(
    @Body() form: Form | null,
    @Req() request: FastifyRequest,
  ): Promise<Record<string, unknown>> {
    if (!(await this.clients.isClient(request, form ?? {}))) {
      throw new OAuthError('invalid_client', 'Client authentication failed', 401);
    }
    if (!form?.token) throw new OAuthError('invalid_request', 'token is missing');
    const claims = await this.tokens.introspect(form.token);
    // Why it is not active is not said (RFC 7662 section 2.2).
    return claims === undefined ? { active: false } : { active: true, ...claims };
  }

  @Post('revoke')
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revoke',
    summary: 'End the session of a token (RFC 7009)',
    description:
      'By the refresh token or the access token. 200 also for tokens that are unknown or have ended.',
    security: [],
  })
  @ApiConsumes('application/x-www-form-urlencoded')
  @ApiBody({ schema: TOKEN })
  @ApiOkResponse({ description: 'The session has ended, or there was none' })
  @oauthError(400, 'invalid_request')
  @oauthError(413, 'invalid_request: more than 16 KB')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async revoke(@Body() form: Form | null): Promise<void> {
    if (!form?.token) throw new OAuthError('invalid_request', 'token is missing');
    await this.tokens.revoke(form.token);
  }
}
