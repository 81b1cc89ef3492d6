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
  ApiHeader,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiTags,
} from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { ApiProblems } from '../http/api-problems';
import { ClientAddress } from '../http/client-address';
import { networkOf } from '../net/addresses';
import { SessionsService, type Session } from '../sessions/sessions.service';
import { TokensService } from '../tokens/tokens.service';
import { AccountService } from './account.service';
import { bearerToken, BearerGuard, CurrentSession } from './bearer.guard';
import { IdempotencyKey, REFRESH_IDEMPOTENCY_KEY, REFRESH_KEY_LENGTH } from './idempotency-key';
import { RefreshCookie } from './refresh-cookie';
import { EndSessionsQuery, RefreshTokenRequest, SessionsResponse, TokensResponse } from './session.dto';

/** Stay logged in, see where, log out. */
@ApiTags('Stay logged in')
@Controller('auth')
export class SessionsController {
  constructor(
    private readonly sessions: SessionsService,
    private readonly account: AccountService,
    private readonly tokens: TokensService,
    private readonly cookie: RefreshCookie,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Post('refresh')
  @HttpCode(200)
  @ApiHeader(REFRESH_IDEMPOTENCY_KEY)
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
    @Body() body: RefreshTokenRequest,
    @IdempotencyKey(REFRESH_KEY_LENGTH) idempotencyKey: string | undefined,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<TokensResponse> {
    // A token in the body wins: then the cookie was only sent along.
    const byCookie = body.refreshToken === undefined;
    const given = body.refreshToken ?? this.cookie.read(request);
    if (given === undefined) {
      const message = 'refreshToken must be a string, or the cookie must carry it';
      throw new ApiError('validation_failed', { errors: [{ field: 'refreshToken', message }] });
    }
    try {
      const network = networkOf(this.clientAddress.of(request));
      const { refreshToken, ...answer } = await this.tokens.refresh(given, { network, idempotencyKey });
      if (!byCookie) return { tokenType: 'Bearer', ...answer, refreshToken };
      this.cookie.set(reply, refreshToken, answer.refreshExpiresIn);
      return { tokenType: 'Bearer', ...answer };
    } catch (error) {
      // Only what ends the session: a 503 would log people out because Redis blinked.
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
      'By the refresh token, the cookie or the access token. Always 204, also when it has ended already.',
    // Optional: a refresh token or the cookie will do.
    security: [{ bearer: [] }, {}],
  })
  @ApiNoContentResponse({ description: 'The session has ended, or there was none' })
  @ApiProblems(
    'validation_failed',
    'origin_not_allowed',
    'payload_too_large',
    'unsupported_media_type',
    'internal_error',
    'store_unavailable',
  )
  async logout(
    @Body() body: RefreshTokenRequest,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    // As everywhere, a token in the body wins.
    const given = body.refreshToken ?? bearerToken(request);
    const cookie = given === undefined ? this.cookie.read(request) : undefined;
    const token = given ?? cookie;
    if (token !== undefined) await this.tokens.revoke(token);
    if (cookie !== undefined) this.cookie.clear(reply);
  }

  @Get('sessions')
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'listSessions', summary: 'Where the user is logged in' })
  @ApiOkResponse({ type: SessionsResponse, description: 'The living sessions, the newest first' })
  @ApiProblems(
    'unauthenticated',
    'session_expired',
    'session_revoked',
    'payload_too_large',
    'internal_error',
    'store_unavailable',
  )
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
        address: session.address,
      })),
    };
  }

  @Delete('sessions/:id')
  @HttpCode(204)
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'endSession', summary: 'End one session of the user' })
  @ApiNoContentResponse({ description: 'It has ended' })
  @ApiProblems(
    'unauthenticated',
    'session_expired',
    'session_revoked',
    'not_found',
    'payload_too_large',
    'unsupported_media_type',
    'internal_error',
    'store_unavailable',
  )
  async endOne(@CurrentSession() current: Session, @Param('id') id: string): Promise<void> {
    // Another user's is not found either: who has which session is nobody's business.
    if (!(await this.sessions.end(current.subject, id))) throw new ApiError('not_found');
  }

  @Delete('sessions')
  @HttpCode(204)
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'endSessions', summary: 'End all sessions of the user, or all others' })
  @ApiNoContentResponse({ description: 'They have ended' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'session_expired',
    'session_revoked',
    'payload_too_large',
    'unsupported_media_type',
    'internal_error',
    'store_unavailable',
  )
  async endAll(@CurrentSession() current: Session, @Query() query: EndSessionsQuery): Promise<void> {
    await this.account.endEverywhere(current, query.others === 'true' ? current : undefined);
  }
}
