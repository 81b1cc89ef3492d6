import { Body, Controller, Get, HttpCode, Post, Query, Req, UseGuards } from '@nestjs/common';
import { ApiBearerAuth, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { ApiProblems } from '../http/api-problems';
import { NumberUnlocks } from '../challenges/number-unlocks';
import { aboutNumber } from '../logging/request-context';
import { redactWritten } from '../logging/redact';
import type { PhoneNumber } from '../phone-number/phone-number';
import { PhoneIdentities, type PhoneIdentity } from '../phone-number/phone-identity';
import { ClientAddress } from '../http/client-address';
import { Admin, AdminGuard } from './admin.guard';
import { AdminAudit } from './admin-audit';
import { AddressResponse, AbuseResponse, UsageResponse } from './admin-responses.dto';
import { BlockRequest, blockedForMs, UnblockRequest, UnlockRequest, UsageQuery } from './admin-requests.dto';
import { NumberBlockService } from './number-block.service';
import { Reports } from './reports';

/** The errors of every change. */
const CHANGE_ERRORS = [
  'validation_failed',
  'unauthenticated',
  'payload_too_large',
  'unsupported_media_type',
  'internal_error',
  'store_unavailable',
] as const;
/** A longer header is cut, because any caller chooses its text. */
const LONGEST_FORWARDED = 500;

/** The HTTP face for operators. */
@ApiTags('Operate')
@ApiBearerAuth('admin')
@Controller('admin')
@UseGuards(AdminGuard)
export class AdminController {
  constructor(
    private readonly reports: Reports,
    private readonly blocks: NumberBlockService,
    private readonly unlocks: NumberUnlocks,
    private readonly phones: PhoneIdentities,
    private readonly audit: AdminAudit,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Get('usage')
  @ApiOperation({
    operationId: 'adminUsage',
    summary: 'SMS sent, codes verified, and costs',
    description: 'Totals per hour and day of Asia/Kolkata, for 90 days. Counted where the SMS was sent.',
  })
  @ApiOkResponse({ type: UsageResponse, description: 'The totals of these days' })
  @ApiProblems(
    'validation_failed',
    'unauthenticated',
    'payload_too_large',
    'internal_error',
    'store_unavailable',
  )
  async usage(@Admin() admin: string, @Query() query: UsageQuery): Promise<UsageResponse> {
    return this.audit.of(admin, 'usage', { from: query.from, to: query.to }, () => this.reports.usage(query));
  }

  @Get('abuse')
  @ApiOperation({
    operationId: 'adminAbuse',
    summary: 'Which scopes have a raised abuse level, and why',
    description: 'The levels that hold now, and the decisions that led there.',
  })
  @ApiOkResponse({ type: AbuseResponse, description: 'The figures, the levels and the decisions' })
  @ApiProblems('unauthenticated', 'payload_too_large', 'internal_error', 'store_unavailable')
  async abuse(@Admin() admin: string): Promise<AbuseResponse> {
    return this.audit.of(admin, 'abuse', {}, () => this.reports.abuse());
  }

  @Get('address')
  @ApiOperation({
    operationId: 'adminAddress',
    summary: 'The address that the limits count for this request',
    description: 'Ask through the load balancer: `address` must be yours, and not its own.',
  })
  @ApiOkResponse({
    type: AddressResponse,
    description: 'The connection, the header, and the address that counts',
  })
  @ApiProblems('unauthenticated', 'payload_too_large', 'internal_error')
  async address(@Admin() admin: string, @Req() request: FastifyRequest): Promise<AddressResponse> {
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
  @ApiProblems(...CHANGE_ERRORS)
  async block(@Admin() admin: string, @Body() body: BlockRequest): Promise<void> {
    const forMs = blockedForMs(body);
    const phone = this.identityOf(body.phoneNumber);
    const fields = {
      phone: phone.pseudonym,
      days: forMs / 86_400_000,
      reason: redactWritten(body.reason ?? ''),
    };
    await this.audit.change(admin, 'block', fields, () => this.blocks.block(phone, forMs));
  }

  @Post('numbers/unblock')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'adminUnblock',
    summary: 'Let a phone number in again',
    description: 'Ended sessions, codes and device tokens stay ended.',
  })
  @ApiNoContentResponse({ description: 'It is not blocked, and was perhaps not before' })
  @ApiProblems(...CHANGE_ERRORS)
  async unblock(@Admin() admin: string, @Body() { phoneNumber }: UnblockRequest): Promise<void> {
    const phone = this.identityOf(phoneNumber);
    await this.audit.change(admin, 'unblock', { phone: phone.pseudonym }, () => this.blocks.unblock(phone));
  }

  @Post('numbers/unlock')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'adminUnlock',
    summary: 'Unlock a phone number that saw too many wrong codes',
    description:
      'Clears the wrong codes of the number in the windows of a day or less, never its count of 30 days and never a block. Possible three times in 30 days for a number.',
  })
  @ApiNoContentResponse({ description: 'Its codes can be tried again, unless it is blocked' })
  @ApiProblems(...CHANGE_ERRORS, 'rate_limited')
  async unlock(@Admin() admin: string, @Body() { phoneNumber }: UnlockRequest): Promise<void> {
    const phone = this.identityOf(phoneNumber);
    await this.audit.change(admin, 'unlock', { phone: phone.pseudonym }, () =>
      this.unlocks.unlock(phone.pseudonym),
    );
  }

  /** The log names the number by its pseudonym from here on. */
  private identityOf(phoneNumber: PhoneNumber): PhoneIdentity {
    const phone = this.phones.of(phoneNumber);
    aboutNumber(phone.pseudonym);
    return phone;
  }
}
