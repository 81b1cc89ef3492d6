import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Ledger } from '../ledger/ledger';
import type { Sms } from '../ledger/sms';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Challenges } from '../challenges/challenges';
import type { Repeated } from '../challenges/idempotency-lock';
import type { Sent } from '../challenges/challenge';
import { ProviderError, type OtpProvider } from '../providers/otp-provider';

/** Who has a send in hand, and its code; another one when it was handed over. */
export interface SendAttempt {
  provider: OtpProvider;
  nonce: string;
  lifeSeconds: number;
  /** Who is asked when this one certainly did not take it. */
  readonly others: OtpProvider[];
}

/** One send, of which upstream is told the same at each repeat. */
export interface Send {
  phone: PhoneNumber;
  requestId: string;
  idempotencyKey: string;
  /** Where its answer is kept for repeats under an Idempotency-Key. */
  record: Repeated | undefined;
  /** What it was charged as, unless it was before or costs nothing. */
  sms: Sms | undefined;
}

/** What a provider must have left of the time of all to be asked. */
const LEAST_MS = 500;

/** Sends by the first provider that takes it. */
@Injectable()
export class Failover {
  constructor(
    private readonly config: Config,
    private readonly challenges: Challenges,
    private readonly ledger: Ledger,
  ) {}

  /**
   * Asks one provider after the other, as long as certainly nothing was sent, the fault is the provider's, and there is time:
   * one deadline for all, for the person waits once. `turn` says who has it. Throws the last one's {@link ProviderError}.
   */
  async send(attempt: SendAttempt, send: Send): Promise<Sent> {
    const until = performance.now() + this.config.upstreamDeadlineMs;
    const late = (): boolean => until - performance.now() < LEAST_MS;
    for (;;) {
      const { provider, nonce, lifeSeconds } = attempt;
      try {
        return await provider.send({ ...send, nonce, lifeSeconds, until });
      } catch (error) {
        const next = error instanceof ProviderError && error.elsewhere ? attempt.others.shift() : undefined;
        if (next === undefined || late()) throw error;
        await this.reassign(attempt, next, send);
        // Redis took its time for it.
        if (late()) throw error;
      }
    }
  }

  private async reassign(
    attempt: SendAttempt,
    next: OtpProvider,
    { requestId, record, sms }: Send,
  ): Promise<void> {
    try {
      const handed = await this.challenges.reassign(requestId, next, record);
      Object.assign(attempt, { provider: next, ...handed });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Nothing was sent by the one, and nothing will be by the other.
      throw new ProviderError(error, 'no');
    }
    if (sms) this.ledger.record({ what: 'handed over', sms: sms.entry, provider: next.name });
  }
}
