import { Body, Controller, Get, Headers, HttpCode, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiOperation, ApiProduces, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { RefreshCookie } from '../http/refresh-cookie';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { OAuthError } from '../http/oauth-error';
import { Pages } from '../pages/pages';
import { sendPage } from '../pages/send-page';
import { AppSessions } from '../sessions/app-sessions';
import { RefreshTokens } from '../tokens/refresh-tokens';
import { readAuthorization, type Parameters } from './authorization-request';
import { OAuthClients } from './oauth-clients';
import { AUTHORIZATION, LOCATION, oauthError } from './oauth-schemas';

/** The authorization endpoint (RFC 6749 section 3.1): its page posts its own parameters, with the cookie, as JSON. */
@ApiTags('OpenID Connect')
@Controller('oauth/authorize')
export class AuthorizeController {
  constructor(
    private readonly config: Config,
    private readonly clients: OAuthClients,
    private readonly apps: AppSessions,
    private readonly refreshTokens: RefreshTokens,
    private readonly cookie: RefreshCookie,
    private readonly pages: Pages,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'authorize',
    summary: 'The login page for an app (OpenID Connect Core section 3.1.2)',
    description:
      'The browser of the user comes here. It goes back to the app with a code, or with an error of RFC 6749. With an ' +
      'unknown client or redirect URI it goes nowhere: the page says so.',
    security: [],
  })
  @ApiProduces('text/html')
  @ApiResponse({ status: 200, description: 'The login page' })
  @ApiResponse({ status: 303, description: 'Back to the app, with an error' })
  @ApiResponse({ status: 400, description: 'A page: the client or its redirect URI is not registered' })
  page(
    @Query() query: Parameters,
    @Headers('accept-encoding') encoding: string | undefined,
    @Headers('accept-language') language: string | undefined,
    @Res() reply: FastifyReply,
  ): void {
    const reading = readAuthorization(query, this.clients, this.config);
    if (reading.kind === 'error') {
      void reply.header('Referrer-Policy', 'no-referrer').redirect(reading.location, 303);
      return;
    }
    const refused = reading.kind === 'refused';
    const html = this.pages.render(
      'login',
      refused ? { kind: 'refused' } : { kind: 'authorize', client: reading.client },
      language,
      '../',
    );
    sendPage(reply.status(refused ? 400 : 200), html, encoding);
  }

  @Post()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'authorizeByPage',
    summary: 'The question of the login page: where does the browser go?',
    description: 'For the page itself: with its cookie, its origin and JSON.',
    security: [],
  })
  @ApiBody({ schema: AUTHORIZATION })
  @ApiOkResponse({ description: 'The address of the app, with a code or an error', schema: LOCATION })
  @oauthError(400, 'invalid_request: the client or its redirect URI is not registered')
  @oauthError(401, 'login_required: the user has to log in first')
  @oauthError(403, 'access_denied: another page sent the cookie')
  @oauthError(503, 'temporarily_unavailable, with Retry-After')
  async decide(
    @Body() { requested_at: requestedAt, ...parameters }: Parameters,
    @Req() request: FastifyRequest,
  ): Promise<{ location: string }> {
    const reading = readAuthorization(parameters, this.clients, this.config);
    if (reading.kind === 'refused') {
      throw new OAuthError('invalid_request', 'The client or its redirect URI is not registered');
    }
    if (reading.kind === 'error') return { location: reading.location };
    const { redirect, request: wanted } = reading;
    // Login CSRF, and codes for other pages: only the page of this service may use its cookie here. Strict keeps the cookie
    // from other sites, JSON keeps forms out, and no page can choose its Origin.
    const token = this.cookie.read(request);
    if (token !== undefined && !this.config.isOwnOrigin(request.headers.origin ?? '')) {
      throw new ApiError('origin_not_allowed');
    }
    const claims = token === undefined ? undefined : this.refreshTokens.read(token);
    const newFrom = new Date(/^\d{1,15}$/.test(String(requestedAt)) ? Number(requestedAt) : 8.64e15);
    const answer =
      claims === undefined
        ? ({ kind: 'ended' } as const)
        : await this.apps.issueCode(claims, {
            ...wanted,
            maxAge: wanted.prompt.login ? -1 : wanted.maxAge,
            newFrom: wanted.prompt.login || wanted.maxAge !== undefined ? newFrom : new Date(0),
          });
    switch (answer.kind) {
      case 'issued':
        return { location: redirect.location({ code: answer.code }) };
      case 'too many':
        return { location: redirect.error('temporarily_unavailable', 'Too many logins in a minute') };
      default:
        if (wanted.prompt.none) return { location: redirect.error('login_required', 'The user must log in') };
        throw new OAuthError('login_required', 'The user must log in', 401);
    }
  }
}
