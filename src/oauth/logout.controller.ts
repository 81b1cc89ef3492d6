import { Body, Controller, Get, Headers, HttpCode, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiOperation, ApiProduces, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { RefreshCookie } from '../http/refresh-cookie';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { OAuthError } from '../http/oauth-error';
import { Pages } from '../pages/pages';
import { sendPage } from '../pages/send-page';
import { SessionsService } from '../sessions/sessions.service';
import { IdTokens } from '../tokens/id-tokens';
import { RefreshTokens } from '../tokens/refresh-tokens';
import type { Parameters } from './authorization-request';
import { OAuthClients } from './oauth-clients';
import { END_SESSION, ENDED, oauthError } from './oauth-schemas';

interface Logout {
  /** The user of a valid `id_token_hint`. */
  subject: string | undefined;
  location: string | undefined;
}

/** OpenID Connect RP-Initiated Logout 1.0. The page's POST ends the session of the login page, with those of all apps. */
@ApiTags('OpenID Connect')
@Controller('oauth/logout')
export class LogoutController {
  constructor(
    private readonly config: Config,
    private readonly clients: OAuthClients,
    private readonly idTokens: IdTokens,
    private readonly refreshTokens: RefreshTokens,
    private readonly sessions: SessionsService,
    private readonly cookie: RefreshCookie,
    private readonly pages: Pages,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'endSessionPage',
    summary: 'The log-out page for an app (RP-Initiated Logout)',
    description: 'Without a valid `id_token_hint` of the user, the page asks first.',
    security: [],
  })
  @ApiProduces('text/html')
  @ApiResponse({ status: 200, description: 'The page' })
  @ApiResponse({ status: 400, description: 'A page: the address to return to is not registered' })
  async page(
    @Query() query: Parameters,
    @Headers('accept-encoding') encoding: string | undefined,
    @Headers('accept-language') language: string | undefined,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const known = (await this.read(query)) !== undefined;
    const html = this.pages.render('logout', { kind: known ? 'none' : 'refused' }, language, '../');
    sendPage(reply.status(known ? 200 : 400), html, encoding);
  }

  @Post()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'endSessionByPage',
    summary: 'The question of the log-out page',
    description: 'For the page itself: with its cookie, its origin and JSON.',
    security: [],
  })
  @ApiBody({ schema: END_SESSION })
  @ApiOkResponse({ description: 'The session has ended; or the user has to confirm it first', schema: ENDED })
  @oauthError(400, 'invalid_request: the address to return to is not registered')
  @oauthError(403, 'access_denied: another page sent the cookie')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async end(
    @Body() { confirmed, ...parameters }: Parameters,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ confirm?: true; location?: string }> {
    const logout = await this.read(parameters);
    if (logout === undefined) {
      throw new OAuthError('invalid_request', 'post_logout_redirect_uri is not registered');
    }
    const token = this.cookie.read(request);
    if (token !== undefined && !this.config.isOwnOrigin(request.headers.origin ?? '')) {
      throw new ApiError('origin_not_allowed');
    }
    const claims = token === undefined ? undefined : this.refreshTokens.read(token);
    if (claims !== undefined) {
      // Any page can link here: without the user's own ID token, only the user's word logs the user out.
      if (logout.subject !== claims.subject && confirmed !== true) return { confirm: true };
      await this.sessions.end(claims.subject, claims.sessionId);
    }
    if (token !== undefined) this.cookie.clear(reply);
    return logout.location === undefined ? {} : { location: logout.location };
  }

  /** Undefined if the user must not be sent where the request says. */
  private async read(parameters: Parameters): Promise<Logout | undefined> {
    const { id_token_hint: given, client_id: id, post_logout_redirect_uri: uri, state } = parameters;
    const hint = typeof given === 'string' ? await this.idTokens.readHint(given) : undefined;
    const client = this.clients.find(hint?.client ?? id);
    if (hint !== undefined && id !== undefined && id !== hint.client) return undefined;
    if (uri === undefined) return { subject: hint?.subject, location: undefined };
    // As text, and of this client only: anything else would be an open redirect.
    if (typeof uri !== 'string' || client?.postLogoutRedirectUris.includes(uri) !== true) return undefined;
    const query = typeof state === 'string' ? new URLSearchParams({ state }).toString() : '';
    const separator = uri.includes('?') ? '&' : '?';
    return { subject: hint?.subject, location: query === '' ? uri : uri + separator + query };
  }
}
