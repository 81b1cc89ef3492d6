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
import type { Admitted, Applicant, Repeat } from './applicant';
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

/** For how long a send under an Idempotency-Key is known again: no key lives longer. */
const KNOWN_AGAIN_MS = 660_000;

/** What refuses an SMS. */
const LIMITS = ['phone', 'service', 'budget', 'denied', 'challenge'] as const;

type Answer =
  | ['admitted', string, number, string, string, string, string, Sms['allowance'], string, string, 0 | 1]
  | ['late', string]
  | [(typeof LIMITS)[number], string, number];

const sendOf = ({ of }: Repeat): string => `${SLOT}send:${of}`;

/** Decides whether one more SMS may be sent: per phone number, for the whole service, within the budget; in one step. */
@Injectable()
export class Admission {
  private readonly alertedAt = new Map<string, number>();

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
   * Counts and charges one SMS, once over all repeats, or throws `rate_limited`, `overloaded`, `sms_unavailable`; or
   * `challenge_required`, still without the challenge, where the guard wants a proof of work first.
   */
  async admit(applicant: Applicant): Promise<Admitted> {
    const { pseudonym, byDevice, returning, scopes, network, provider, repeat, solution } = applicant;
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
        ...(repeat === undefined ? [] : [sendOf(repeat)]),
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
        network,
        repeat?.turn ?? '',
        repeat?.sendsAgain ? 1 : 0,
        KNOWN_AGAIN_MS,
        ...limitArguments(this.config.limitPhone),
        ...limitArguments(DEVICE_SENDS),
        ...limitArguments(limitGlobal),
      ],
    )) as Answer;
    this.guard.tell(JSON.parse(answer[1]) as string[][]);
    if (answer[0] === 'admitted') {
      const [, , resendAfterMs, minute, quarter, entry, at, allowance, from, counted, again] = answer;
      return {
        pseudonym,
        resendAfterMs,
        sms: { entry, at: Number(at), allowance, network: from, message: '' },
        scopes: JSON.parse(counted) as string[],
        charged: [minute, quarter],
        again: again === 1,
        repeat,
      };
    }

    if (answer[0] === 'late') throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
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
  async refund({ pseudonym, charged, sms, scopes, repeat }: Admitted): Promise<void> {
    await this.store.run(
      REFUND,
      [
        ...BUDGET,
        LEDGER_KEY,
        GUARD_KEY,
        this.listOf(pseudonym, 'device'),
        ...(repeat === undefined ? [] : [sendOf(repeat)]),
      ],
      [
        this.config.smsPricePaise,
        ...charged,
        sms.entry,
        sms.at,
        JSON.stringify(scopes),
        sms.allowance,
        repeat?.turn ?? '',
      ],
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

  /** Once a minute for each: under attack every refusal would be a line, and new numbers must not drown the others. */
  private alertOnce(returning: boolean): void {
    const whose =
      returning || this.config.budgetReservePercent === 0 ? 'all numbers' : 'numbers that are new here';
    if (Date.now() - (this.alertedAt.get(whose) ?? -Infinity) < 60_000) return;
    this.alertedAt.set(whose, Date.now());
    this.metrics.alerts.inc({ alert: 'budget_exhausted' });
    this.logger.alert('budget_exhausted', `The SMS budget is used up for ${whose}, until it has room again`);
  }
}
