import { Body, Controller, Get, HttpCode, Param, Post, Req, Res, UseGuards } from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiHeader,
  ApiOkResponse,
  ApiOperation,
  ApiParam,
  ApiTags,
} from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { ApiProblems } from '../http/api-problems';
import { OtpService } from '../otp/otp.service';
import type { Session } from '../sessions/sessions.service';
import { AddressLimits } from '../throttling/address-limits';
import { AddressThrottlerGuard } from '../throttling/address-throttler.guard';
import { ClientAddress } from '../http/client-address';
import { MeResponse, OtpRequestResponse, OtpStatusResponse, VerifiedResponse } from './responses.dto';
import { BEARER_ERRORS, BearerGuard, CurrentSession } from './bearer.guard';
import { describeClient } from './client';
import { DeviceCookie } from './device-cookie';
import { IDEMPOTENCY_KEY, IdempotencyKey } from './idempotency-key';
import { SEND_OTP_EXAMPLES, SendOtpRequest, VERIFY_OTP_EXAMPLES, VerifyOtpRequest } from './otp.dto';
import { LoginService } from './login.service';
import { OtpResponses } from './otp-responses';
import { RefreshCookie } from '../http/refresh-cookie';

/** The HTTP face of login. */
@ApiTags('Log in')
@Controller('auth')
export class AuthController {
  constructor(
    private readonly otp: OtpService,
    private readonly logins: LoginService,
    private readonly responses: OtpResponses,
    private readonly cookie: RefreshCookie,
    private readonly deviceCookie: DeviceCookie,
    private readonly clientAddress: ClientAddress,
    private readonly addressLimits: AddressLimits,
  ) {}

  @Post('send-otp')
  @HttpCode(200)
  @ApiHeader(IDEMPOTENCY_KEY)
  @ApiBody({ type: SendOtpRequest, examples: SEND_OTP_EXAMPLES })
  @ApiOperation({
    operationId: 'sendOtp',
    summary: 'Send a code to a phone number',
    description:
      'Sends an SMS. Under `STARTMESSAGING_CONTRACT=caller` a resend carries the same code under a new `requestId` while at ' +
      'least half of the life of the code remains, and every `requestId` of this code works. Under `provider` each send makes ' +
      'a new code, and the older code and its `requestId` stop working.',
    security: [],
  })
  @ApiOkResponse({ type: OtpRequestResponse, description: 'The SMS is on its way' })
  @ApiProblems(
    'validation_failed',
    'phone_number_rejected',
    'idempotency_in_progress',
    'payload_too_large',
    'unsupported_media_type',
    'challenge_required',
    'phone_locked',
    'rate_limited',
    'internal_error',
    'upstream_unavailable',
    'sms_unavailable',
    'store_unavailable',
    'overloaded',
    'upstream_timeout',
  )
  async sendOtp(
    @Body() { phoneNumber, deviceToken: given, altcha: solution }: SendOtpRequest,
    @IdempotencyKey() idempotencyKey: string | undefined,
    @Req() request: FastifyRequest,
  ): Promise<OtpRequestResponse> {
    const deviceToken = given ?? this.deviceCookie.read(request);
    await this.addressLimits.admitSend(request, { phone: phoneNumber, deviceToken, solution });
    const address = this.clientAddress.of(request);
    const context = { address, deviceToken, solution, idempotencyKey };
    return this.responses.ofSend(phoneNumber, await this.otp.request(phoneNumber, context));
  }

  @Get('otp/:requestId')
  @UseGuards(AddressThrottlerGuard)
  @ApiOperation({
    operationId: 'otpStatus',
    summary: 'How a request for a code stands',
    description:
      'For the page that waits for the code. Ask again after `pollAfterSeconds`: an address has 60 calls in ten minutes.',
    security: [],
  })
  @ApiParam({ name: 'requestId', description: 'The `requestId` that send-otp answered.' })
  @ApiOkResponse({ type: OtpStatusResponse, description: 'Its state, and what is known of its SMS' })
  @ApiProblems('otp_expired', 'payload_too_large', 'rate_limited', 'internal_error', 'store_unavailable')
  async otpStatus(@Param('requestId') requestId: string): Promise<OtpStatusResponse> {
    return this.responses.ofStatus(await this.otp.status(requestId));
  }

  @Post('verify-otp')
  @HttpCode(200)
  @ApiHeader(IDEMPOTENCY_KEY)
  @ApiBody({ type: VerifyOtpRequest, examples: VERIFY_OTP_EXAMPLES })
  @ApiOperation({
    operationId: 'verifyOtp',
    summary: 'Exchange the code for an access token',
    description: 'Each call takes an attempt before the code is looked at. A code works once.',
    security: [],
  })
  @ApiOkResponse({ type: VerifiedResponse, description: 'The code is right: a session is open' })
  @ApiProblems(
    'validation_failed',
    'otp_incorrect',
    'origin_not_allowed',
    'idempotency_in_progress',
    'otp_expired',
    'otp_attempts_exhausted',
    'payload_too_large',
    'unsupported_media_type',
    'idempotency_key_reused',
    'phone_locked',
    'rate_limited',
    'internal_error',
    'upstream_unavailable',
    'sms_unavailable',
    'store_unavailable',
    'upstream_timeout',
  )
  async verifyOtp(
    @Body() { requestId, otpCode, tokenDelivery, deviceName, deviceToken: given }: VerifyOtpRequest,
    @IdempotencyKey() idempotencyKey: string | undefined,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<VerifiedResponse> {
    this.responses.checkLength(otpCode);
    const address = this.clientAddress.of(request);
    const byCookie = tokenDelivery === 'cookie';
    const deviceToken = given ?? this.deviceCookie.read(request);
    const refused = byCookie && this.cookie.isForeign(request);
    // A refused call counts at its address, and changes nothing of the challenge.
    await this.addressLimits.admitVerify(request, {
      device: this.otp.hasDevice(requestId, deviceToken),
      countAtOrigin: async () => !refused && (await this.otp.countAtOrigin(requestId, address)),
    });
    if (refused) throw new ApiError('origin_not_allowed');
    const login = await this.logins.verify(
      requestId,
      otpCode,
      { address, deviceToken, idempotencyKey },
      { ...describeClient(request, address), deviceName },
      tokenDelivery ?? 'body',
      () => this.addressLimits.giveBack(request),
    );
    const { session } = login;
    const { refreshToken, ...tokens } = login.tokens;
    if (byCookie) {
      const { token, allowed } = this.cookie.find(request);
      await this.logins.endReplaced(allowed ? token : undefined, session);
      this.cookie.set(reply, refreshToken, tokens.refreshExpiresIn);
      this.deviceCookie.add(request, reply, login.deviceToken, session.phoneNumber);
    }
    return {
      verified: true,
      tokenType: 'Bearer',
      ...tokens,
      ...(byCookie ? {} : { refreshToken }),
      deviceToken: login.deviceToken,
      user: { id: session.subject, phoneNumber: session.phoneNumber },
    };
  }

  @Get('me')
  @UseGuards(BearerGuard)
  @ApiBearerAuth()
  @ApiOperation({ operationId: 'me', summary: 'The logged-in user' })
  @ApiOkResponse({ type: MeResponse, description: 'The user and the session of the access token' })
  @ApiProblems(...BEARER_ERRORS)
  me(@CurrentSession() session: Session): MeResponse {
    return {
      id: session.subject,
      phoneNumber: session.phoneNumber,
      sessionId: session.id,
      authenticatedAt: session.authenticatedAt.toISOString(),
    };
  }
}
