import { ApiProperty } from '@nestjs/swagger';
import type { AbuseSignal, AbuseLevel } from '../abuse/abuse-control';

export class UsageTotals {
  @ApiProperty({ type: 'integer', description: 'SMS that were admitted and charged.', example: 2140 })
  sent!: number;

  @ApiProperty({
    type: 'integer',
    description: 'SMS among the sent ones that the provider certainly did not accept.',
    example: 3,
  })
  refunded!: number;

  @ApiProperty({ type: 'integer', description: 'SMS with a verified code.', example: 1822 })
  verified!: number;

  @ApiProperty({
    type: 'integer',
    description: 'Known only if a login page asked for the state of the SMS.',
    example: 1611,
  })
  delivered!: number;

  @ApiProperty({ type: 'integer', description: 'SMS that the carrier failed.', example: 12 })
  failed!: number;

  @ApiProperty({
    type: 'integer',
    description: 'SMS that the provider may or may not have accepted.',
    example: 0,
  })
  unknown!: number;

  @ApiProperty({
    description: 'Paise that were charged and not refunded, at the price of the provider if it named one.',
    example: 53425,
  })
  costPaise!: number;
}

export class UsageHour extends UsageTotals {
  @ApiProperty({ format: 'date-time', example: '2026-11-21T14:00:00+05:30' })
  from!: string;
}

export class UsageDay extends UsageTotals {
  @ApiProperty({ format: 'date', example: '2026-11-21' })
  date!: string;

  @ApiProperty({ type: [UsageHour], description: 'The hours in which something happened.' })
  hours!: UsageHour[];
}

class WalletResponse {
  @ApiProperty({
    type: 'integer',
    nullable: true,
    description: 'Null until a balance was read.',
    example: 812550,
  })
  balancePaise!: number | null;

  @ApiProperty({
    enum: ['upstream', 'ledger'],
    description:
      '`upstream`: as StartMessaging told it within the last 15 minutes. `ledger`: the last balance less the SMS since, because it cannot be read.',
  })
  source!: 'upstream' | 'ledger';

  @ApiProperty({
    type: Number,
    nullable: true,
    description:
      'At the rate of this hour and the hour before. Null while no SMS is paid or the balance is not known.',
    example: 41.5,
  })
  hoursLeft!: number | null;
}

export class UsageResponse {
  @ApiProperty({ enum: ['Asia/Kolkata'] })
  timeZone!: 'Asia/Kolkata';

  @ApiProperty({ format: 'date', example: '2026-11-15' })
  from!: string;

  @ApiProperty({ format: 'date', example: '2026-11-21' })
  to!: string;

  @ApiProperty({ type: WalletResponse })
  wallet!: WalletResponse;

  @ApiProperty({ type: UsageTotals })
  total!: UsageTotals;

  @ApiProperty({ type: [UsageDay], description: 'The oldest first.' })
  days!: UsageDay[];
}

const STEP = { enum: ['none', 'observe', 'challenge', 'deny'], example: 'challenge' };

class AbuseFiguresResponse {
  @ApiProperty({ type: 'integer', description: 'SMS with a code that had time to come back.', example: 212 })
  sent!: number;

  @ApiProperty({ type: 'integer', description: 'SMS among these with a code that came back.', example: 3 })
  verified!: number;

  @ApiProperty({ type: 'integer', description: 'Numbers that saw a wrong code.', example: 2 })
  wrong!: number;

  @ApiProperty({ type: 'integer', description: 'Right codes.', example: 3 })
  right!: number;

  @ApiProperty({ type: 'integer', description: 'Sends that were asked for a proof of work.', example: 0 })
  challenged!: number;

  @ApiProperty({ type: 'integer', description: 'Sends that a solved challenge let pass.', example: 0 })
  passed!: number;
}

class AbuseScopeResponse {
  @ApiProperty({
    description: '`service`, `series:` and six digits, or `network:` and a range.',
    example: 'series:987654',
  })
  scope!: string;

  @ApiProperty(STEP)
  level!: AbuseLevel;

  @ApiProperty({ format: 'date-time', description: 'Then it falls by one, unless it is justified again.' })
  until!: string;
}

class AbuseWindowResponse {
  @ApiProperty({ type: 'integer', example: 15 })
  minutes!: number;

  @ApiProperty({ type: AbuseFiguresResponse })
  figures!: AbuseFiguresResponse;
}

class AbuseDecisionResponse {
  @ApiProperty({ format: 'date-time' })
  at!: string;

  @ApiProperty({ example: 'series:987654' })
  scope!: string;

  @ApiProperty(STEP)
  from!: AbuseLevel;

  @ApiProperty(STEP)
  to!: AbuseLevel;

  @ApiProperty({
    enum: ['conversion', 'wrong_codes', 'unsolved', 'quiet'],
    description: '`unsolved`: most of the challenges are not solved. `quiet`: it fell by itself.',
  })
  signal!: AbuseSignal;

  @ApiProperty({ description: 'In words.', example: '3 of 212 codes came back within 15 minutes' })
  reason!: string;

  @ApiProperty({ type: AbuseFiguresResponse })
  figures!: AbuseFiguresResponse;
}

export class AbuseResponse {
  @ApiProperty({ format: 'date-time' })
  now!: string;

  @ApiProperty({
    type: 'object',
    properties: {
      conversion: { type: 'string', enum: ['off', 'observe', 'enforce'] },
      wrongCodes: { type: 'string', enum: ['off', 'observe', 'enforce'] },
    },
    required: ['conversion', 'wrongCodes'],
  })
  modes!: { conversion: string; wrongCodes: string };

  @ApiProperty({ type: [AbuseScopeResponse], description: 'The scopes that are trusted less just now.' })
  raised!: AbuseScopeResponse[];

  @ApiProperty({ type: [AbuseWindowResponse], description: 'The whole service.' })
  service!: AbuseWindowResponse[];

  @ApiProperty({ type: [AbuseDecisionResponse], description: 'The newest first, of 90 days at most.' })
  decisions!: AbuseDecisionResponse[];
}

export class AddressResponse {
  @ApiProperty({
    description: 'The address that is connected: the last proxy, if there is one.',
    example: '10.0.3.7',
  })
  peer!: string;

  @ApiProperty({
    type: String,
    nullable: true,
    description: '`X-Forwarded-For` as it arrived, cut to 500 characters.',
    example: '203.0.113.9, 10.0.1.2',
  })
  forwarded!: string | null;

  @ApiProperty({
    description: 'The address that limits count by; IPv6 as eight groups.',
    example: '203.0.113.9',
  })
  address!: string;
}
