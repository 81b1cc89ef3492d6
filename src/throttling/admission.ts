import { Injectable } from '@nestjs/common';
import { Config, type Limit } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Guard, GUARD_FUNCTIONS, GUARD_KEY } from '../guard/guard';
import { WORK_LIFE_SECONDS } from '../guard/proof-of-work';
import { LEDGER_FUNCTIONS, LEDGER_KEY, REGULARS_KEY } from '../ledger/ledger';
import type { Sms } from '../ledger/sms';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { limitArguments } from './redis-throttler-storage';

const ADMISSION = Script.load(__dirname, 'admission', LEDGER_FUNCTIONS, GUARD_FUNCTIONS);
const REFUND = Script.load(__dirname, 'refund', LEDGER_FUNCTIONS, GUARD_FUNCTIONS);
const FORGIVE = Script.load(__dirname, 'forgive');

// One slot for all: upstream takes 20 sends a second, so one slot carries any deployment, and one script can decide.
const SLOT = `${KEY_PREFIX}{admission}:`;
/** What was charged in the minutes of an hour, and in the quarters of an hour of a day. */
export const BUDGET = [`${SLOT}budget:minutes`, `${SLOT}budget:quarters`];

const DAY_SECONDS = 86_400;
/** How many sends the holders of a number's device tokens have left when strangers used up the number's own. */
const DEVICE_SENDS: readonly Limit[] = [{ count: 5, seconds: DAY_SECONDS }];
/** How many SMS that the carrier failed a number is forgiven. */
const FORGIVEN: readonly Limit[] = [{ count: 5, seconds: DAY_SECONDS }];

/** Who asks for an SMS. */
export interface Applicant {
  pseudonym: string;
  /** Holds a token of an earlier login with this number. */
  byDevice: boolean;
  /** The number logged in within 30 days. */
  returning: boolean;
  /** Where the guard counts it. */
  scopes: readonly string[];
  /** The address range that asks. */
  network: string;
  /** Who is to send it. */
  provider: string;
  /** A first try of the same send, of which certainly nothing was sent: its place in the number's limit is taken over. */
  left?: Sms | undefined;
  /** The name of a solved proof of work. */
  solution?: string | undefined;
}

/** The right to send one SMS: it was counted by every limit, charged to the budget, and is in the ledger. */
export interface Admitted {
  pseudonym: string;
  /** Milliseconds until this phone number may ask for the next SMS. */
  resendAfterMs: number;
  sms: Sms;
  /** Where the guard counted it. */
  scopes: readonly string[];
  /** The budget's buckets that were charged, for {@link Admission.refund}. */
  charged: [minute: string, quarter: string];
}

/** What refuses an SMS. */
const LIMITS = ['phone', 'service', 'budget', 'denied', 'challenge'] as const;

type Answer =
  | ['admitted', string, number, string, string, string, string, Sms['allowance']]
  | [(typeof LIMITS)[number], string, number];

/** Decides whether one more SMS may be sent: per phone number, for the whole service, within the budget; in one step. */
@Injectable()
export class Admission {
  private alertedAt = 0;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly guard: Guard,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {
    startAtZero(metrics.limitsHit, 'limit', LIMITS);
    startAtZero(metrics.alerts, 'alert', ['budget_exhausted']);
  }

  /**
   * Counts and charges one SMS, or throws `rate_limited`, `overloaded`, `sms_unavailable`; or `challenge_required`, still
   * without the challenge, where the guard wants a proof of work first.
   */
  async admit(applicant: Applicant): Promise<Admitted> {
    const { pseudonym, byDevice, returning, scopes, network, provider, left, solution } = applicant;
    const { smsPricePaise, budgetPaisePerHour, budgetPaisePerDay, budgetReservePercent, limitGlobal } =
      this.config;
    const answer = (await this.store.run(
      ADMISSION,
      [
        this.listOf(pseudonym, 'phone'),
        this.listOf(pseudonym, 'device'),
        `${SLOT}service`,
        ...BUDGET,
        LEDGER_KEY,
        GUARD_KEY,
        REGULARS_KEY,
        ...(solution === undefined ? [] : [`${SLOT}solved:${solution}`]),
      ],
      [
        smsPricePaise,
        budgetPaisePerHour ?? -1,
        budgetPaisePerDay ?? -1,
        // The last of a budget is for those who were here before: an attack by new numbers cannot use it up.
        returning ? 0 : budgetReservePercent,
        byDevice ? 'device' : returning ? 'returning' : 'new',
        ...this.guard.modes,
        pseudonym,
        provider,
        // Twice as long: a replica whose clock is behind takes it for alive a little longer.
        2 * WORK_LIFE_SECONDS * 1_000,
        JSON.stringify(scopes),
        left?.allowance === 'phone' ? left.at : '',
        ...limitArguments(this.config.limitPhone),
        ...limitArguments(DEVICE_SENDS),
        ...limitArguments(limitGlobal),
      ],
    )) as Answer;
    this.guard.tell(JSON.parse(answer[1]) as string[][]);
    if (answer[0] === 'admitted') {
      const [, , resendAfterMs, minute, quarter, entry, at, allowance] = answer;
      const sms: Sms = { entry, at: Number(at), allowance, network, message: '' };
      return { pseudonym, resendAfterMs, sms, scopes, charged: [minute, quarter] };
    }

    const [limit, , waitMs] = answer;
    const retryAfterSeconds = waitMs / 1_000;
    this.metrics.limitsHit.inc({ limit });
    if (limit === 'challenge') throw new ApiError('challenge_required');
    if (limit === 'service') throw new ApiError('overloaded', { retryAfterSeconds });
    if (limit === 'budget') {
      this.alertOnce(returning);
      throw new ApiError('sms_unavailable', { retryAfterSeconds });
    }
    throw new ApiError('rate_limited', { retryAfterSeconds });
  }

  /** Gives the price back, for an SMS that upstream certainly did not accept. The number's own limits keep counting it. */
  async refund({ pseudonym, charged, sms, scopes }: Admitted): Promise<void> {
    await this.store.run(
      REFUND,
      [
        ...BUDGET,
        LEDGER_KEY,
        GUARD_KEY,
        ...(sms.allowance === 'device' ? [this.listOf(pseudonym, 'device')] : []),
      ],
      [this.config.smsPricePaise, ...charged, sms.entry, sms.at, JSON.stringify(scopes)],
    );
  }

  /**
   * Stops counting an SMS that the carrier failed against the person's resends. Returns the milliseconds until the number
   * may ask again, or undefined when it stays counted.
   */
  async forgive(pseudonym: string, { allowance, at }: Sms): Promise<number | undefined> {
    const limits = allowance === 'device' ? DEVICE_SENDS : this.config.limitPhone;
    const wait = (await this.store.run(
      FORGIVE,
      [this.listOf(pseudonym, allowance), `${SLOT}forgiven:${pseudonym}`],
      [at, ...limitArguments(limits), ...limitArguments(FORGIVEN)],
    )) as number;
    return wait < 0 ? undefined : wait;
  }

  private listOf(pseudonym: string, allowance: Sms['allowance']): string {
    return `${SLOT}${allowance}:${pseudonym}`;
  }

  /** Once a minute: under attack every refusal would be a line. */
  private alertOnce(returning: boolean): void {
    if (Date.now() - this.alertedAt < 60_000) return;
    this.alertedAt = Date.now();
    this.metrics.alerts.inc({ alert: 'budget_exhausted' });
    this.logger.alert(
      'budget_exhausted',
      returning || this.config.budgetReservePercent === 0
        ? 'The SMS budget is used up: no SMS until it has room again'
        : 'The SMS budget is used up for numbers that are new here: what is reserved remains',
    );
  }
}
