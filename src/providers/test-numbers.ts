import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { constantTimeEqual } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';
import type { Sent } from '../challenges/challenge';
import { ProviderError, type OtpProvider } from './otp-provider';

/**
 * Stands where a provider stands for numbers that no subscriber holds: nothing is sent and nothing is paid, and the code
 * is the configured one. A magic number shows the state that it stands for. Throws `otp_expired` for any other number: there is no code to compare with.
 */
@Injectable()
export class TestNumbers implements OtpProvider {
  readonly name = 'test';
  readonly resendsCode = true;
  readonly supportsIdempotencyKeys = false;

  constructor(private readonly config: Config) {}

  send({ phone }: { phone: PhoneNumber }): Promise<Sent> {
    switch (this.config.magicState(phone)) {
      case 'locked':
        return refused(new ApiError('phone_locked', { retryAfterSeconds: 3_600 }));
      case 'unavailable':
        return refused(new ApiError('sms_unavailable', { retryAfterSeconds: 300 }));
      case 'late':
        return Promise.resolve({ delivery: 'accepted' });
      case 'expired':
        return Promise.resolve({ delivery: 'delivered', expiresAt: new Date(Date.now() + 1_000) });
      default:
        return Promise.resolve({ delivery: 'delivered' });
    }
  }

  verify({ phone }: { phone: PhoneNumber }, code: string): Promise<boolean> {
    const testCode = this.config.testCode(phone);
    // The test number has expired or is no longer configured, so its code is unknown.
    const expired = testCode === undefined || this.config.magicState(phone) === 'expired';
    if (expired) return Promise.reject(new ApiError('otp_expired'));
    return Promise.resolve(constantTimeEqual(code, testCode));
  }
}

function refused(refusal: ApiError): Promise<never> {
  return Promise.reject(new ProviderError(refusal, 'no'));
}
