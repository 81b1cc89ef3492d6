import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { limitArguments } from './redis-throttler-storage';

const ADMISSION = Script.load(__dirname, 'admission');
const REFUND = Script.load(__dirname, 'refund');

// One slot for all: upstream takes 20 sends a second, so one slot carries any deployment, and one script can decide.
const SLOT = `${KEY_PREFIX}{admission}:`;
const BUDGET = [`${SLOT}budget:minutes`, `${SLOT}budget:quarters`];

/** The right to send one SMS: it was counted by every limit and charged to the budget. */
export interface Admitted {
  /** Milliseconds until this phone number may ask for the next SMS. */
  resendAfterMs: number;
  /** The budget's buckets that were charged, for {@link Admission.refund}. */
  charged: [minute: string, quarter: string];
}

/** Decides whether one more SMS may be sent: per phone number, for the whole service, within the budget; in one step. */
@Injectable()
export class Admission {
  private alertedAt = 0;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {}

  /** Counts and charges one SMS to this phone number, or throws `rate_limited`, `overloaded` or `sms_unavailable`. */
  async admit(pseudonym: string): Promise<Admitted> {
    const { smsPricePaise, budgetPaisePerHour, budgetPaisePerDay, limitPhone, limitGlobal } = this.config;
    const answer = (await this.store.run(
      ADMISSION,
      [`${SLOT}phone:${pseudonym}`, `${SLOT}service`, ...BUDGET],
      [
        smsPricePaise,
        budgetPaisePerHour ?? -1,
        budgetPaisePerDay ?? -1,
        ...limitArguments(limitPhone),
        ...limitArguments(limitGlobal),
      ],
    )) as ['admitted', number, string, string] | ['phone' | 'service' | 'budget', number];
    if (answer[0] === 'admitted') return { resendAfterMs: answer[1], charged: [answer[2], answer[3]] };

    const [limit, waitMs] = answer;
    const retryAfterSeconds = waitMs / 1_000;
    this.metrics.limitsHit.inc({ limit });
    if (limit === 'phone') throw new ApiError('rate_limited', { retryAfterSeconds });
    if (limit === 'service') throw new ApiError('overloaded', { retryAfterSeconds });
    this.alertOnce();
    throw new ApiError('sms_unavailable', { retryAfterSeconds });
  }

  /** Once a minute: under attack every refusal would be a line. */
  private alertOnce(): void {
    if (Date.now() - this.alertedAt < 60_000) return;
    this.alertedAt = Date.now();
    this.metrics.alerts.inc({ alert: 'budget_exhausted' });
    this.logger.alert('budget_exhausted', 'The SMS budget is used up: no SMS until it has room again');
  }

  /** Gives the price back, for an SMS that upstream certainly did not accept. The limits keep counting it. */
  async refund({ charged }: Pick<Admitted, 'charged'>): Promise<void> {
    await this.store.run(REFUND, BUDGET, [this.config.smsPricePaise, ...charged]);
  }
}
