import { Injectable } from '@nestjs/common';
import type { PhoneNumber } from '../phone-number/phone-number';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { UpstreamError } from '../upstream/upstream.error';
import { Codes } from '../challenges/codes';
import type { Delivery, Sent } from '../challenges/challenge';
import type { Challenge, OtpProvider } from './otp-provider';
import { deliveryOf } from './failures';
import { UpstreamFaults } from './upstream-faults';

/** StartMessaging under the `caller` contract: this service makes the code and checks it; upstream only carries it. */
@Injectable()
export class CallerContract implements OtpProvider {
  readonly name = 'startmessaging';
  readonly resendsCode = true;
  readonly supportsIdempotencyKeys = false;

  constructor(
    private readonly client: StartMessagingClient,
    private readonly codes: Codes,
    private readonly faults: UpstreamFaults,
  ) {}

  async send({ phone, nonce, lifeSeconds, idempotencyKey, until }: Challenge): Promise<Sent> {
    try {
      const sent = await this.client.sendCode({
        phoneNumber: phone,
        code: this.codes.derive(phone, nonce),
        expiryMinutes: Math.max(1, Math.floor(lifeSeconds / 60)),
        idempotencyKey,
        until,
      });
      return {
        delivery: deliveryOf(sent.status),
        upstreamId: sent.id,
        messageId: sent.messageId,
      };
    } catch (error) {
      // The SMS may be on its way, and a repeat would be a second SMS and a second charge: the code works if it arrives.
      if (error instanceof UpstreamError && error.accepted === 'unknown') {
        this.faults.translate(error);
        return { delivery: 'unknown' };
      }
      throw this.faults.translate(error);
    }
  }

  async delivery(messageId: string): Promise<{ delivery: Delivery; cost?: number | undefined }> {
    const { status, cost } = await this.client.readMessage(messageId);
    return { delivery: deliveryOf(status), cost };
  }

  verify({ phone, nonce }: { phone: PhoneNumber; nonce: string }, code: string): Promise<boolean> {
    return Promise.resolve(this.codes.matches(phone, nonce, code));
  }
}
