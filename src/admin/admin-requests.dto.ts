import { applyDecorators } from '@nestjs/common';
import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsString, Matches, Max, MaxLength, Min, ValidateIf } from 'class-validator';
import { IsPhoneNumber } from '../phone-number/is-phone-number';
import type { PhoneNumber } from '../phone-number/phone-number';

const LONGEST_BLOCK_DAYS = 3_650;

export class UnblockRequest {
  @ApiProperty({
    type: String,
    description: 'As for send-otp; a test number, `+910` and nine digits, too.',
    pattern: '^\\+91[06-9][0-9]{9}$',
    example: '+919876543210',
  })
  @IsPhoneNumber()
  phoneNumber!: PhoneNumber;
}

export class UnlockRequest extends UnblockRequest {}

export class BlockRequest extends UnblockRequest {
  @ApiPropertyOptional({
    type: 'integer',
    minimum: 1,
    maximum: LONGEST_BLOCK_DAYS,
    nullable: true,
    description: 'For how many days; ten years unless given.',
  })
  @ValidateIf((body: BlockRequest) => body.days !== undefined)
  @IsInt()
  @Min(1)
  @Max(LONGEST_BLOCK_DAYS)
  days?: number;

  @ApiPropertyOptional({
    description: 'Stands in the audit, such as the number of an order. Not a phone number.',
    maxLength: 200,
    nullable: true,
    example: 'DoT order 4711',
  })
  @ValidateIf((body: BlockRequest) => body.reason !== undefined)
  @IsString()
  @MaxLength(200)
  reason?: string;
}

/** For how long, where the body does not say. */
export function blockedForMs({ days = LONGEST_BLOCK_DAYS }: BlockRequest): number {
  return days * 86_400_000;
}

function IsDay(description: string): PropertyDecorator {
  return applyDecorators(
    ApiPropertyOptional({ format: 'date', description, example: '2026-11-21' }),
    ValidateIf((_: unknown, value: unknown) => value !== undefined),
    Matches(/^2\d{3}-\d{2}-\d{2}$/, { message: '$property must be a date such as 2026-11-21' }),
  );
}

export class UsageQuery {
  @IsDay('The first day of Asia/Kolkata; six days before `to` unless given.')
  from?: string;

  @IsDay('The last day; today unless given.')
  to?: string;
}
