import { Injectable } from '@nestjs/common';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import type { Sent } from '../challenges/challenge';
import type { Challenge, OtpProvider } from './otp-provider';
import { UpstreamFaults } from './upstream-faults';

/** StartMessaging under the `provider` contract: upstream makes the code and checks it. Every send is a new code. */
@Injectable()
export class ProviderContract implements OtpProvider {
  readonly name = 'startmessaging';
  readonly resendsCode = false;
  readonly supportsIdempotencyKeys = true;

  constructor(
    private readonly client: StartMessagingClient,
    private readonly faults: UpstreamFaults,
  ) {}

  async send({ phone, idempotencyKey, until }: Challenge): Promise<Sent> {
    try {
      const sent = await this.client.sendOtp({ phoneNumber: phone, idempotencyKey, until });
      return {
        delivery: 'accepted',
        upstreamId: sent.id,
        expiresAt: sent.expiresAt,
        attemptsLeft: sent.attemptsLeft,
      };
    } catch (error) {
      // Without upstream's id the code could not be checked, so an unknown fate is a failure here.
      throw this.faults.translate(error);
    }
  }

  async verify({ upstreamId }: { upstreamId: string }, code: string): Promise<boolean> {
    try {
      return (await this.client.verifyOtp({ requestId: upstreamId, code })).verified;
    } catch (error) {
      throw this.faults.translateVerification(error);
    }
  }
}
