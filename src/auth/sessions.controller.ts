import {
  Body,
  Controller,
  Delete,
  Get,
  HttpCode,
  Param,
  Post,
  Query,
  Req,
  Res,
  UseGuards,
} from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiHeader,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiTags,
} from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import type { LogoutBody } from '../http/bodies';
import { ApiProblems } from '../http/api-problems';
import { bearerToken } from '../http/request-context';
import { ClientAddress } from '../http/client-address';
import { networkOf } from '../net/addresses';
import type { ListedApp } from '../sessions/session-list';
import { SessionsService, type Session } from '../sessions/sessions.service';
import { TokensService } from '../tokens/tokens.service';
import { AccountService } from './account.service';
import { BEARER_ERRORS, BearerGuard, CurrentSession } from './bearer.guard';
import { IdempotencyKey, REFRESH_IDEMPOTENCY_KEY } from './idempotency-key';
import { RefreshCookie } from '../http/refresh-cookie';
import {
  AppSessionResponse,
  EndSessionsQuery,
  REFRESH_EXAMPLES,
  RefreshRequest,
  RefreshTokenRequest,
  SessionsResponse,
  TokensResponse,
} from './session.dto';

/** Stay logged in, see where, log out. */
@ApiTags('Stay logged in')
@Controller('auth')
export class SessionsController {
  constructor(
    private readonly config: Config,
    private readonly sessions: SessionsService,
    private readonly account: AccountService,
    private readonly tokens: TokensService,
    private readonly cookie: RefreshCookie,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Post('refresh')
  @HttpCode(200)
  @ApiHeader(REFRESH_IDEMPOTENCY_KEY)
  @ApiBody({ type: RefreshRequest, required: false, examples: REFRESH_EXAMPLES })
  @ApiOperation({
    operationId: 'refresh',
    summary: 'Exchange the refresh token for new tokens',
    description:
      'Each refresh token works once. If it is used again within a minute (a lost response, a second tab), or under the ' +
      '`Idempotency-Key` of its first use, the same successor is returned. Any other reuse ends the session, because the ' +
      'token may have been stolen.',
    security: [],
  })
  @ApiOkResponse({ type: TokensResponse, description: 'New tokens of the same session' })
  @ApiProblems(
    'validation_failed',
    'not_logged_in',
    'refresh_token_invalid',
    'refresh_token_reused',
    'session_expired',
    'session_revoked',
    'origin_not_allowed',
    'payload_too_large',
    'unsupported_media_type',
    'idempotency_key_reused',
    'internal_error',
    'store_unavailable',
  )
  async refresh(
    @Body() body: RefreshRequest,
    @IdempotencyKey() idempotencyKey: string | undefined,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<TokensResponse> {
    // Before the token is used: a request that is refused must not rotate the session.
    if (this.config.audienceOf(body.resource) === undefined) {
      const message = 'resource must be one of RESOURCE_AUDIENCES';
      throw new ApiError('validation_failed', { errors: [{ field: 'resource', message }] });
    }
    // A token in the body takes precedence: then the cookie was only sent along.
    const byCookie = body.refreshToken == null;
    const given = body.refreshToken ?? this.cookie.read(request);
    if (given === undefined) throw new ApiError('not_logged_in');
    try {
      const network = networkOf(this.clientAddress.of(request));
      const { tokens } = await this.tokens.refresh(given, { network, idempotencyKey }, body.resource);
      const { refreshToken, ...answer } = tokens;
      if (!byCookie) return { tokenType: 'Bearer', ...answer, refreshToken };
      this.cookie.set(reply, refreshToken, answer.refreshExpiresIn);
      return { tokenType: 'Bearer', ...answer };
    } catch (error) {
      // Only what ends the session: to clear the cookie at a 503 would end sessions because Redis was away for a moment.
      if (byCookie && error instanceof ApiError && error.status === 401) this.cookie.clear(reply);
      throw error;
    }
  }

  @Post('logout')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'logout',
    summary: 'End the session of a token',
    description:
      'By the refresh token in the body, the cookie or the access token: each one that is valid ends its session. 204 for ' +
      'every body up to 16 KB of any type (sendBeacon sends text/plain), and without any token. A cookie from an allowed ' +
      'origin is cleared.',
    // Optional: a refresh token or the cookie is enough.
    security: [{}, { bearer: [] }],
  })
  @ApiBody({ type: RefreshTokenRequest, required: false })
  @ApiNoContentResponse({ description: 'Each session of a valid token has ended' })
  @ApiProblems('origin_not_allowed', 'payload_too_large', 'internal_error', 'store_unavailable')
  async logout(
    @Req() request: FastifyRequest<{ Body?: LogoutBody }>,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    const cookie = this.cookie.find(request);
    const byCookie = cookie.token !== undefined && cookie.allowed;
    const given = [request.body?.refreshToken, bearerToken(request), byCookie ? cookie.token : undefined];
    const sessions = await this.tokens.sessionsOf(given.filter((token) => token !== undefined));
    // A page of another origin must not log users out (CSRF). Beside a valid token the cookie was only sent along.
    if (cookie.token !== undefined && !byCookie && sessions.length === 0) {
      throw new ApiError('origin_not_allowed');
    }
    for (const { subject, sessionId } of sessions) await this.sessions.end(subject, sessionId);
    if (byCookie) this.cookie.clear(reply);
  }

  @Get('sessions')
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'listSessions', summary: 'Where the user is logged in' })
  @ApiOkResponse({ type: SessionsResponse, description: 'The living sessions, the newest first' })
  @ApiProblems(...BEARER_ERRORS)
  async list(@CurrentSession() current: Session): Promise<SessionsResponse> {
    const sessions = await this.sessions.list(current.subject);
    return {
      sessions: sessions.map((session) => ({
        id: session.id,
        current: session.id === current.id,
        createdAt: session.createdAt.toISOString(),
        lastUsedAt: session.lastUsedAt.toISOString(),
        expiresAt: session.expiresAt.toISOString(),
        device: session.device,
        ...(session.deviceName === undefined ? {} : { deviceName: session.deviceName }),
        address: session.address,
        ...(session.apps.length === 0 ? {} : { apps: session.apps.map((app) => this.describeApp(app)) }),
      })),
    };
  }

  private describeApp({ id, client, createdAt, lastUsedAt, expiresAt }: ListedApp): AppSessionResponse {
    const { name = client } = this.config.oauthClients.find((each) => each.id === client) ?? {};
    return {
      ...{ id, client, name },
      createdAt: createdAt.toISOString(),
      lastUsedAt: lastUsedAt.toISOString(),
      expiresAt: expiresAt.toISOString(),
    };
  }

  @Delete('sessions/:id')
  @HttpCode(204)
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'endSession', summary: 'End one session of the user' })
  @ApiNoContentResponse({ description: 'It has ended' })
  @ApiProblems(...BEARER_ERRORS, 'not_found', 'unsupported_media_type')
  async endOne(@CurrentSession() current: Session, @Param('id') id: string): Promise<void> {
    // A session of another user is not found either: the answer must not reveal that it exists.
    if (!(await this.sessions.end(current.subject, id))) throw new ApiError('not_found');
  }

  @Delete('sessions')
  @HttpCode(204)
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'endSessions', summary: 'End all sessions of the user, or all others' })
  @ApiNoContentResponse({ description: 'They have ended' })
  @ApiProblems('validation_failed', ...BEARER_ERRORS, 'unsupported_media_type')
  async endAll(@CurrentSession() current: Session, @Query() query: EndSessionsQuery): Promise<void> {
    await this.account.endEverywhere(current, query.others === 'true' ? current : undefined);
  }
}
