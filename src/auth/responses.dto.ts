import { ApiProperty, OmitType } from '@nestjs/swagger';
import type { OtpState } from '../challenges/challenge';
import type { Delivery } from '../challenges/challenge';
import { TokensResponse } from './session.dto';

export class OtpRequestResponse {
  @ApiProperty({
    description: 'Opaque; give it to verify-otp with the code.',
    example: 'Zf3v0x5QW8mJkq1pY7nRtAxB2c4D6e8F0g1H3i5J7k9QbM6sTz-uE_2LwC4vXhNd',
  })
  requestId!: string;

  @ApiProperty({
    format: 'date-time',
    description: 'The code works until then.',
    example: '2026-11-21T10:05:00.000Z',
  })
  expiresAt!: string;

  @ApiProperty({
    type: 'integer',
    minimum: 0,
    description: 'The same in seconds from now. Count down by it: the clock of the phone may be wrong.',
    example: 300,
  })
  expiresInSeconds!: number;

  @ApiProperty({ type: 'integer', minimum: 0, description: 'How many codes may be tried.', example: 3 })
  attemptsLeft!: number;

  @ApiProperty({
    format: 'date-time',
    description: 'From then on this phone number may ask for another SMS.',
    example: '2026-11-21T10:00:30.000Z',
  })
  resendAt!: string;

  @ApiProperty({ type: 'integer', minimum: 0, description: 'The same in seconds from now.', example: 30 })
  resendInSeconds!: number;

  @ApiProperty({
    type: 'integer',
    minimum: 4,
    maximum: 8,
    description: 'How many digits the code has.',
    example: 6,
  })
  codeLength!: number;

  @ApiProperty({
    enum: ['accepted', 'sent', 'delivered', 'failed', 'unknown'],
    description: 'The known state of the SMS. `unknown`: it may arrive, and its code works if it does.',
    example: 'accepted',
  })
  delivery!: Delivery;
}

export class OtpStatusResponse extends OmitType(OtpRequestResponse, ['requestId']) {
  @ApiProperty({
    enum: ['pending', 'verified', 'expired', 'exhausted'],
    description: '`pending`: its code may be entered.',
    example: 'pending',
  })
  state!: OtpState;

  @ApiProperty({
    type: 'integer',
    minimum: 1,
    description: 'Ask again after so many seconds; the older the SMS, the later.',
    example: 4,
  })
  pollAfterSeconds!: number;
}

export class UserResponse {
  @ApiProperty({
    description: 'Stable and opaque: `sub` of every token of this person.',
    example: 'mJkq1pY7nRtAxB2c4D6e8F',
  })
  id!: string;

  @ApiProperty({ example: '+919876543210' })
  phoneNumber!: string;
}

export class VerifiedResponse extends TokensResponse {
  @ApiProperty({ enum: [true], example: true })
  verified!: true;

  @ApiProperty({
    description:
      'Keep it on the device, and give it to send-otp and verify-otp the next time: strangers that know the number then ' +
      'cannot lock its owner out. It allows no login by itself, lives 90 days, and ends with `DELETE /auth/sessions`.',
    example: 'Y7nRtAxB2c4D6e8FmJkq1p.1795255812000.q1pY7n.Zf3v0x5QW8mJkq1pY7nRtAxB2c4D6e8F0g1H3i5J7k9',
  })
  deviceToken!: string;

  @ApiProperty({ type: UserResponse })
  user!: UserResponse;
}

export class MeResponse extends UserResponse {
  @ApiProperty({ description: '`sid` of the access token.', example: 'Y7nRtAxB2c4D6e8FmJkq1p' })
  sessionId!: string;

  @ApiProperty({
    format: 'date-time',
    description: 'When the code was verified.',
    example: '2026-11-21T10:00:42.000Z',
  })
  authenticatedAt!: string;
}
