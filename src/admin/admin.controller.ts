import { Body, Controller, Get, HttpCode, Post, Query, Req, UseGuards } from '@nestjs/common';
import { ApiBearerAuth, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { ApiProblems } from '../errors/api-problems';
import { redactWritten } from '../logging/redact';
import { Numbers } from '../otp/numbers';
import type { PhoneNumber } from '../phone-number/phone-number';
import { SessionBlocks } from '../sessions/session-blocks';
import { ClientAddress } from '../throttling/client-address';
import { Admin, AdminGuard } from './admin.guard';
import { AdminAudit } from './admin-audit';
import { AddressAnswer, GuardAnswer, UsageAnswer } from './admin-answers';
import { BlockBody, blockedForMs, UnblockBody, UsageQuery } from './admin-bodies';
import { Reports } from './reports';

/** The header is text of whoever calls. */
const LONGEST_FORWARDED = 500;

/** The HTTP face for operators. */
@ApiTags('Operate')
@ApiBearerAuth('admin')
@Controller('admin')
@UseGuards(AdminGuard)
export class AdminController {
  constructor(
    private readonly reports: Reports,
    private readonly numbers: Numbers,
    private readonly sessions: SessionBlocks,
    private readonly audit: AdminAudit,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Get('usage')
  @ApiOperation({
    operationId: 'adminUsage',
    summary: 'What was sent, what came back, what it costs',
    description: 'Totals per hour and day of Asia/Kolkata, for 90 days. Counted where the SMS was sent.',
  })
  @ApiOkResponse({ type: UsageAnswer, description: 'The totals of these days' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'payload_too_large',
    'internal_error',
    'store_unavailable',
  )
  async usage(@Admin() admin: string, @Query() query: UsageQuery): Promise<UsageAnswer> {
    return this.audit.of(admin, 'usage', { from: query.from, to: query.to }, () => this.reports.usage(query));
  }

  @Get('guard')
  @ApiOperation({
    operationId: 'adminGuard',
    summary: 'Whom the guard trusts less, and why',
    description: 'The steps that hold now, and the decisions that led there.',
  })
  @ApiOkResponse({ type: GuardAnswer, description: 'What it sees and what it decided' })
  @ApiProblems('unauthenticated', 'payload_too_large', 'internal_error', 'store_unavailable')
  async guard(@Admin() admin: string): Promise<GuardAnswer> {
    return this.audit.of(admin, 'guard', {}, () => this.reports.guard());
  }

  @Get('address')
  @ApiOperation({
    operationId: 'adminAddress',
    summary: 'Who asks, as the limits see it',
    description: 'Ask through the load balancer: `address` must be yours, and not its own.',
  })
  @ApiOkResponse({ type: AddressAnswer, description: 'What arrived, and which address counts' })
  @ApiProblems('unauthenticated', 'payload_too_large', 'internal_error')
  async address(@Admin() admin: string, @Req() request: FastifyRequest): Promise<AddressAnswer> {
    const header = request.headers['x-forwarded-for'];
    return this.audit.of(admin, 'address', {}, () =>
      Promise.resolve({
        peer: this.clientAddress.find(request.socket.remoteAddress ?? '', undefined).address,
        forwarded: header === undefined ? null : String(header).slice(0, LONGEST_FORWARDED),
        address: this.clientAddress.of(request),
      }),
    );
  }

  @Post('numbers/block')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'adminBlock',
    summary: 'Block a phone number',
    description:
      'From now on no SMS goes to it and no code of it works; its sessions and device tokens end at once.',
  })
  @ApiNoContentResponse({ description: 'It is blocked, and was perhaps before' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'payload_too_large',
    'unsupported_media_type',
    'internal_error',
    'store_unavailable',
  )
  async block(@Admin() admin: string, @Body() body: BlockBody): Promise<void> {
    const forMs = blockedForMs(body);
    const told = {
      ...this.named(body.phoneNumber),
      days: forMs / 86_400_000,
      reason: redactWritten(body.reason ?? ''),
    };
    await this.audit.change(admin, 'block', told, async () => {
      // The number first: a code that is verified in between is void, or its session is there to be ended. Then its
      // devices once more: such a session left a token that is younger than their first end.
      await this.numbers.block(body.phoneNumber, forMs);
      await this.sessions.block(body.phoneNumber, forMs);
      await this.numbers.endDevices(body.phoneNumber);
      // Let in again meanwhile: half a block would have people pay for SMS whose codes open nothing.
      if (!(await this.numbers.isBlocked(body.phoneNumber))) await this.sessions.unblock(body.phoneNumber);
    });
  }

  @Post('numbers/unblock')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'adminUnblock',
    summary: 'Let a phone number in again',
    description: 'What was ended stays ended.',
  })
  @ApiNoContentResponse({ description: 'It is not blocked, and was perhaps not before' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'payload_too_large',
    'unsupported_media_type',
    'internal_error',
    'store_unavailable',
  )
  async unblock(@Admin() admin: string, @Body() { phoneNumber }: UnblockBody): Promise<void> {
    await this.audit.change(admin, 'unblock', this.named(phoneNumber), async () => {
      await this.numbers.unblock(phoneNumber);
      await this.sessions.unblock(phoneNumber);
    });
  }

  /** As the ledger and the keys name it: the log holds no number. */
  private named(phoneNumber: PhoneNumber): { phone: string } {
    return { phone: this.numbers.pseudonymOf(phoneNumber) };
  }
}
