import type { PhoneNumber } from '../phone-number/phone-number';
import type { SendWithSesClient } from '../sendwithses/sendwithses.client';
import { UpstreamError } from '../upstream/upstream.error';
import type { Sent } from '../challenges/challenge';
import type { Challenge, OtpProvider } from './otp-provider';
import type { UpstreamFaults } from './upstream-faults';

/**
 * Send With SES, experimental: upstream makes the code and checks it, one per number. It has no id of a request, so what
 * binds a code to its request id is our challenge alone.
 */
export class SendWithSes implements OtpProvider {
  readonly name = 'sendwithses';
  readonly resendsCode = false;
  readonly supportsIdempotencyKeys = false;

  constructor(
    private readonly client: SendWithSesClient,
    private readonly faults: UpstreamFaults,
  ) {}

  async send({ phone, until }: Challenge): Promise<Sent> {
    try {
      await this.client.send(phone, until);
      return { delivery: 'accepted' };
    } catch (error) {
      const failure = this.faults.translate(error);
      // The SMS may be on its way, and a repeat would be a second one: the code works if it arrives.
      if (error instanceof UpstreamError && error.accepted === 'unknown') return { delivery: 'unknown' };
      throw failure;
    }
  }

  async verify({ phone }: { phone: PhoneNumber }, code: string): Promise<boolean> {
    try {
      return await this.client.verify(phone, code);
    } catch (error) {
      throw this.faults.translateVerification(error);
    }
  }
}
