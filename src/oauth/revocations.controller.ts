import { Controller, Get, Query, Res, UseGuards } from '@nestjs/common';
import {
  ApiBasicAuth,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiPropertyOptional,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import { Matches, ValidateIf } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { ApiProblems } from '../http/api-problems';
import { isNotModified } from '../http/conditional';
import { Revocations } from '../sessions/revocations';
import { ClientGuard } from './client.guard';

class RevocationsQuery {
  @ApiPropertyOptional({
    description: 'The `next` of the last answer; left out, everything that still counts.',
  })
  @ValidateIf((query: RevocationsQuery) => query.since !== undefined)
  @Matches(/^\d{1,15}$/, { message: '$property must be the next of an earlier answer' })
  since?: string;
}

class RevokedSession {
  @ApiProperty({ description: 'Refuse access tokens with this `sid`.', example: 'Y7nRtAxB2c4D6e8FmJkq1p' })
  sid!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-21T10:10:12.000Z' })
  revokedAt!: string;
}

class RevocationsResponse {
  @ApiProperty({ type: [RevokedSession] })
  revoked!: RevokedSession[];

  @ApiProperty({ description: 'Give it as `since` the next time.', example: '1795255812000' })
  next!: string;
}

/** Which sessions ended while access tokens of theirs may be alive: for resource servers that verify by themselves. */
@ApiTags('Verify tokens')
@Controller('auth/revocations')
export class RevocationsController {
  constructor(private readonly revocations: Revocations) {}

  @Get()
  @UseGuards(ClientGuard)
  @ApiBasicAuth()
  @ApiOperation({
    operationId: 'revocations',
    summary: 'Sessions that ended within an access token’s life',
    description:
      'For clients of INTROSPECTION_CLIENTS. Ask every few seconds, with If-None-Match. An id is here before its ' +
      'session ends, and may come twice.',
  })
  @ApiOkResponse({ type: RevocationsResponse, description: 'The oldest first' })
  @ApiResponse({ status: 304, description: 'Nothing new since the ETag' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'payload_too_large',
    'rate_limited',
    'internal_error',
    'store_unavailable',
  )
  async read(
    @Query() { since }: RevocationsQuery,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<RevocationsResponse | undefined> {
    const { now, revocations } = await this.revocations.since(Number(since ?? 0));
    const revoked = revocations.map(({ sessionId, revokedAt }) => ({
      sid: sessionId,
      revokedAt: revokedAt.toISOString(),
    }));
    // `next` is not part of the tag: it moves with every call.
    if (isNotModified(reply, JSON.stringify(revoked))) return undefined;
    return { revoked, next: String(now.getTime()) };
  }
}
