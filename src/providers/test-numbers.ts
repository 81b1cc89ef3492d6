import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { constantTimeEqual } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import type { Sent } from '../challenges/challenge';
import type { OtpProvider } from './otp-provider';

/**
 * Stands where a provider stands for numbers that no subscriber holds: nothing is sent and nothing is paid, and the code
 * is the configured one. Throws `otp_expired` for any other number: there is no code to compare with.
 */
@Injectable()
export class TestNumbers implements OtpProvider {
  readonly name = 'test';
  readonly resendsCode = true;
  readonly supportsIdempotencyKeys = false;

  constructor(private readonly config: Config) {}

  send(): Promise<Sent> {
    return Promise.resolve({ delivery: 'delivered' });
  }

  verify({ phone }: { phone: PhoneNumber }, code: string): Promise<boolean> {
    const testCode = this.config.testCode(phone);
    // The test number has expired or is no longer configured, so its code is unknown.
    if (testCode === undefined) return Promise.reject(new ApiError('otp_expired'));
    return Promise.resolve(constantTimeEqual(code, testCode));
  }
}
