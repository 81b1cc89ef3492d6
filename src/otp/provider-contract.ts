import { Injectable } from '@nestjs/common';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { StartMessagingError, type StartMessagingReason } from '../startmessaging/startmessaging.error';
import { ProviderError, type Challenge, type OtpProvider, type Sent } from './otp-provider';
import { UpstreamFaults } from './upstream-faults';

// After these upstream certainly did not look at the code. Any other fault costs the attempt: upstream may have looked,
// and whoever can make it fail in between would guess for free.
const NOT_LOOKED = new Set<StartMessagingReason>([
  'unreachable',
  'credentials_refused',
  'wallet_empty',
  'throttled',
  'contract_mismatch',
]);

/** StartMessaging under the `provider` contract: upstream makes the code and checks it. Every send is a new code. */
@Injectable()
export class ProviderContract implements OtpProvider {
  readonly name = 'startmessaging';
  readonly resendsCode = false;

  constructor(
    private readonly client: StartMessagingClient,
    private readonly faults: UpstreamFaults,
  ) {}

  async send({ phone, idempotencyKey }: Challenge): Promise<Sent> {
    try {
      const sent = await this.client.sendOtp({ phoneNumber: phone, idempotencyKey });
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
      const looked = !(error instanceof StartMessagingError && NOT_LOOKED.has(error.reason));
      const failure = this.faults.translate(error);
      throw failure instanceof ProviderError && looked
        ? new ProviderError(failure.refusal, 'unknown')
        : failure;
    }
  }
}
