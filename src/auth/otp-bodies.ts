import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import {
  IsIn,
  IsString,
  Matches,
  MaxLength,
  MinLength,
  ValidateBy,
  ValidateIf,
  type ValidationOptions,
} from 'class-validator';
import { isPhoneNumber, type PhoneNumber } from '../phone-number/phone-number';

/** Holds for what {@link isPhoneNumber} calls a phone number; there is no second rule. */
export function IsPhoneNumber(options?: ValidationOptions): PropertyDecorator {
  return ValidateBy(
    {
      name: 'isPhoneNumber',
      validator: {
        validate: isPhoneNumber,
        defaultMessage: () => '$property must be an Indian mobile number in E.164 form: +91 and ten digits',
      },
    },
    options,
  );
}

export class SendOtpBody {
  @ApiProperty({
    type: String,
    description: 'An Indian mobile number in E.164 form: `+91` and ten ASCII digits that start with 6 to 9.',
    pattern: '^\\+91[6-9][0-9]{9}$',
    example: '+919876543210',
  })
  @IsPhoneNumber()
  phoneNumber!: PhoneNumber;
}

export class VerifyOtpBody {
  @ApiProperty({
    description: 'The `requestId` that send-otp answered. An unknown one is answered like an expired code.',
    maxLength: 128,
    example: 'Zf3v0x5QW8mJkq1pY7nRtAxB2c4D6e8F0g1H3i5J7k9Q',
  })
  @IsString()
  @MinLength(1)
  @MaxLength(128)
  requestId!: string;

  @ApiProperty({
    description: 'The digits from the SMS, as a string: codes may start with 0.',
    pattern: '^[0-9]{4,8}$',
    example: '123456',
  })
  // The type first: a regular expression would accept an array by its toString.
  @IsString()
  @Matches(/^[0-9]{4,8}$/, { message: '$property must be a string of 4 to 8 digits' })
  otpCode!: string;

  @ApiPropertyOptional({
    enum: ['body', 'cookie'],
    default: 'body',
    description:
      'Where the refresh token goes: into the answer, or into a cookie that scripts cannot read, for frontends on the ' +
      'same site as this service.',
  })
  @ValidateIf((body: VerifyOtpBody) => body.tokenDelivery !== undefined)
  @IsIn(['body', 'cookie'])
  tokenDelivery?: 'body' | 'cookie';
}
