import { Body, Controller, HttpCode, Post, Req } from '@nestjs/common';
import { ApiBasicAuth, ApiBody, ApiConsumes, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { ClientAddress } from '../http/client-address';
import { OAuthError } from '../http/oauth-error';
import { networkOf } from '../net/addresses';
import { TokensService } from '../tokens/tokens.service';
import { ClientAuthentication } from './client-authentication';
import { OAuthClients } from './oauth-clients';
import { INTROSPECTION, oauthError, TOKEN, TOKEN_ANSWER, TOKEN_FORM } from './oauth-schemas';
import { TokenGrants } from './token-grants';

type Form = Record<string, string | undefined>;

/** The endpoints that OAuth clients and resource servers know how to call. Their errors are those of RFC 6749. */
@ApiTags('OAuth 2.0')
@Controller('oauth')
export class OAuthController {
  constructor(
    private readonly config: Config,
    private readonly tokens: TokensService,
    private readonly grants: TokenGrants,
    private readonly apps: OAuthClients,
    private readonly clients: ClientAuthentication,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Post('token')
  @HttpCode(200)
  @ApiOperation({
    operationId: 'oauthToken',
    summary: 'Exchange a code or a refresh token (RFC 6749 sections 4.1.3 and 6)',
    security: [],
  })
  @ApiConsumes('application/x-www-form-urlencoded')
  @ApiBody({ schema: TOKEN_FORM })
  @ApiOkResponse({ description: 'New tokens', schema: TOKEN_ANSWER })
  @oauthError(400, 'invalid_request, invalid_grant, unsupported_grant_type, invalid_scope or invalid_target')
  @oauthError(401, 'invalid_client')
  @oauthError(429, 'temporarily_unavailable: too many failed authentications')
  @oauthError(413, 'invalid_request: more than 16 KB')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async token(@Body() form: Form | null, @Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { grant_type: grantType, resource } = form ?? {};
    if (!grantType) throw new OAuthError('invalid_request', 'grant_type is missing');
    const supported = this.config.oauthClients.length > 0 ? ['authorization_code'] : [];
    if (![...supported, 'refresh_token'].includes(grantType)) {
      throw new OAuthError('unsupported_grant_type', 'The grant type is none of grant_types_supported');
    }
    const client = await this.apps.authenticate(request, form ?? {});
    // Before the token is used: a request that is refused must not rotate the session.
    if (this.config.audienceOf(resource) === undefined) {
      throw new OAuthError('invalid_target', 'The resource is not one of RESOURCE_AUDIENCES');
    }
    const network = networkOf(this.clientAddress.of(request));
    if (grantType === 'refresh_token') return this.grants.refresh(client, form ?? {}, network);
    // Codes belong to the clients of OAUTH_CLIENTS.
    if (client === undefined) throw new OAuthError('invalid_client', 'client_id is missing or unknown', 401);
    return this.grants.exchangeCode(client, form ?? {}, network);
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
      'By the refresh token or the access token. 200 also for tokens that are unknown, have ended, or belong to another ' +
      'client. A client of OAUTH_CLIENTS names itself, and proves its secret if it has one.',
    security: [],
  })
  @ApiConsumes('application/x-www-form-urlencoded')
  @ApiBody({ schema: TOKEN })
  @ApiOkResponse({ description: 'The session has ended, or there was none' })
  @oauthError(400, 'invalid_request')
  @oauthError(401, 'invalid_client')
  @oauthError(429, 'temporarily_unavailable: too many failed authentications')
  @oauthError(413, 'invalid_request: more than 16 KB')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async revoke(@Body() form: Form | null, @Req() request: FastifyRequest): Promise<void> {
    if (!form?.token) throw new OAuthError('invalid_request', 'token is missing');
    const client = await this.apps.authenticate(request, form);
    await this.tokens.revoke(form.token, client?.id);
  }
}
