import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { Ledger } from '../ledger/ledger';
import type { Sms } from '../ledger/sms';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Challenges } from '../challenges/challenges';
import type { Draft, Sent } from '../challenges/challenge';
import { ProviderError, type OtpProvider } from '../providers/otp-provider';

/** A provider is called only if this much of the deadline is left. */
const LEAST_MS = 500;

/** Sends by the first provider that accepts the SMS. */
@Injectable()
export class Failover {
  private readonly idempotencyKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly challenges: Challenges,
    private readonly ledger: Ledger,
  ) {
    this.idempotencyKey = deriveKey(config.subjectSecret, 'upstream idempotency key');
  }

  /**
   * Calls one provider after the other, while certainly nothing was sent, the fault is the provider's, and time is left: all
   * providers share one deadline, so the user waits once. The draft names the provider that is called. `sms` is what the
   * send was charged as. Throws the last provider's {@link ProviderError}.
   */
  async send(
    draft: Draft,
    phone: PhoneNumber,
    providers: readonly [OtpProvider, ...OtpProvider[]],
    sms: Sms | undefined,
  ): Promise<Sent> {
    const until = performance.now() + this.config.upstreamDeadlineMs;
    const late = (): boolean => until - performance.now() < LEAST_MS;
    const [first, ...others] = providers;
    // The request before was never admitted, so it sent nothing: the send starts again with the first provider.
    if (draft.maybeSent) await this.reassign(draft, first, sms);
    for (let provider = first; ;) {
      try {
        return await this.call(draft, phone, provider, until);
      } catch (error) {
        const next = error instanceof ProviderError && error.elsewhere ? others.shift() : undefined;
        if (next === undefined || late()) throw error;
        await this.reassign(draft, next, sms);
        // Redis may have been slow.
        if (late()) throw error;
        provider = next;
      }
    }
  }

  /** Calls the provider that may have sent the SMS, with the same idempotency key. Throws {@link ProviderError}. */
  async repeat(draft: Draft, phone: PhoneNumber, provider: OtpProvider): Promise<Sent> {
    return this.call(draft, phone, provider, performance.now() + this.config.upstreamDeadlineMs);
  }

  private call(draft: Draft, phone: PhoneNumber, provider: OtpProvider, until: number): Promise<Sent> {
    const { id, createdAt, nonce, lifeSeconds } = draft;
    // Derived, so that a repeat of this send has the same key, and upstream never learns the request id.
    const idempotencyKey = hmac128(this.idempotencyKey, `${id.text}:${createdAt}`);
    return provider.send({ phone, idempotencyKey, nonce, lifeSeconds, until });
  }

  private async reassign(draft: Draft, next: OtpProvider, sms: Sms | undefined): Promise<void> {
    const before = draft.provider;
    try {
      await this.challenges.reassign(draft, next);
    } catch (error) {
      // Nothing was sent before, and the next provider is not called.
      throw error instanceof ApiError ? new ProviderError(error, 'no') : error;
    }
    if (sms && next.name !== before)
      this.ledger.record({ what: 'handed over', sms: sms.entry, provider: next.name });
  }
}
