import { applyDecorators } from '@nestjs/common';
import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsIn, IsString, Matches, MaxLength, MinLength, ValidateBy, ValidateIf } from 'class-validator';
import { isDeviceName } from './client';
import { IsPhoneNumber } from '../phone-number/is-phone-number';
import type { PhoneNumber } from '../phone-number/phone-number';

/** An invalid token is ignored: a user that kept a token for too long must not be locked out by it. */
function IsDeviceToken(): PropertyDecorator {
  return applyDecorators(
    ApiPropertyOptional({
      description:
        'The `deviceToken` of an earlier login with this number. When strangers used up what the number may send and ' +
        'try, its holder has 5 SMS and 10 wrong codes a day more. One that is not good is ignored.',
      maxLength: 512,
      nullable: true,
    }),
    ValidateIf((body: { deviceToken?: unknown }) => body.deviceToken !== undefined),
    IsString(),
    MaxLength(512),
  );
}

function IsDeviceName(): PropertyDecorator {
  return ValidateBy({
    name: 'isDeviceName',
    validator: {
      validate: isDeviceName,
      defaultMessage: (validated) =>
        typeof validated?.value === 'string'
          ? "$property must be 1 to 40 letters, digits, spaces and '-._ of 64 bytes at most"
          : '$property must be a string',
    },
  });
}

const PHONE_NUMBER = '+919876543210';
const REQUEST_ID = 'Zf3v0x5QW8mJkq1pY7nRtAxB2c4D6e8F0g1H3i5J7k9QbM6sTz-uE_2LwC4vXhNd';
const CODE = '123456';

/** The example of Swagger UI. By itself it would fill in all optional fields, too: the word "string" for a device token. */
export const SEND_OTP_EXAMPLES = { send: { summary: 'A number', value: { phoneNumber: PHONE_NUMBER } } };
export const VERIFY_OTP_EXAMPLES = {
  verify: { summary: 'A code', value: { requestId: REQUEST_ID, otpCode: CODE } },
};

export class SendOtpRequest {
  @ApiProperty({
    type: String,
    description:
      'An Indian mobile number in E.164 form: `+91` and ten ASCII digits that start with 6 to 9, or with 0 in a test number.',
    pattern: '^\\+91[06-9][0-9]{9}$',
    example: PHONE_NUMBER,
  })
  @IsPhoneNumber()
  phoneNumber!: PhoneNumber;

  @IsDeviceToken()
  deviceToken?: string;

  @ApiPropertyOptional({
    description:
      'The solution of the `challenge` of a 428, as the ALTCHA widget gives it: base64 of a JSON text. It works once, for ' +
      'this phone number and this client address, for five minutes.',
    maxLength: 4096,
    nullable: true,
  })
  @ValidateIf((body: SendOtpRequest) => body.altcha !== undefined)
  @IsString()
  @MaxLength(4096)
  altcha?: string;
}

export class VerifyOtpRequest {
  @ApiProperty({
    description: 'The `requestId` that send-otp answered. An unknown one is answered like an expired code.',
    maxLength: 128,
    example: REQUEST_ID,
  })
  @IsString()
  @MinLength(1)
  @MaxLength(128)
  requestId!: string;

  @ApiProperty({
    description: 'The `codeLength` digits of the SMS, as a string: a code may start with 0.',
    pattern: '^[0-9]{4,8}$',
    example: CODE,
  })
  @IsString({ message: '$property must be a string, because a code may start with 0' })
  @Matches(/^[0-9]{4,8}$/, { message: '$property must be as many digits, 0 to 9, as codeLength says' })
  otpCode!: string;

  @IsDeviceToken()
  deviceToken?: string;

  @ApiPropertyOptional({
    enum: ['body', 'cookie', null],
    nullable: true,
    description:
      'Where the refresh token goes, `body` unless given: into the answer, or into a cookie that scripts cannot read, for frontends on the ' +
      'same site as this service.',
  })
  @ValidateIf((body: VerifyOtpRequest) => body.tokenDelivery !== undefined)
  @IsIn(['body', 'cookie'])
  tokenDelivery?: 'body' | 'cookie';
  @ApiPropertyOptional({
    description:
      "What the list of sessions calls this device: letters, digits, spaces and `'-._`, at most 40 characters and 64 bytes. " +
      'Not a phone number.',
    maxLength: 40,
    nullable: true,
    example: 'Pixel 9',
  })
  @ValidateIf((body: VerifyOtpRequest) => body.deviceName !== undefined)
  @IsDeviceName()
  deviceName?: string;
}
