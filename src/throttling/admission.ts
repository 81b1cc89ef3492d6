import { Injectable } from '@nestjs/common';
import { Alerts } from '../alerts/alerts';
import { Config, type Limit } from '../config/config';
import { ApiError } from '../errors/api-error';
import { AbuseControl, ABUSE_FUNCTIONS, ABUSE_KEY } from '../abuse/abuse-control';
import { WORK_LIFE_SECONDS } from '../abuse/proof-of-work';
import { LEDGER_FUNCTIONS, LEDGER_KEY, REGULARS_KEY } from '../ledger/ledger';
import type { Sms } from '../ledger/sms';
import { Metrics, startAtZero } from '../metrics/metrics';
import { limitArguments, Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

const ADMISSION = Script.load(__dirname, 'admission', LEDGER_FUNCTIONS, ABUSE_FUNCTIONS);
const REFUND = Script.load(__dirname, 'refund', LEDGER_FUNCTIONS, ABUSE_FUNCTIONS);
const UNCOUNT_FAILED_SMS = Script.load(__dirname, 'uncount-failed-sms');

// One slot for all: upstream takes 20 sends a second, so one slot carries any deployment, and one script can decide.
const SLOT = `${KEY_PREFIX}{admission}:`;
/** What was charged in the minutes of an hour, and in the quarters of an hour of a day. */
export const BUDGET = [`${SLOT}budget:minutes`, `${SLOT}budget:quarters`];

const DAY_SECONDS = 86_400;
/** How many sends the holders of a number's device tokens have left when strangers used up the number's own. */
const DEVICE_SENDS: readonly Limit[] = [{ count: 5, seconds: DAY_SECONDS }];
/** How many SMS that the carrier failed a number is forgiven. */
const UNCOUNT_FAILED_SMSN: readonly Limit[] = [{ count: 5, seconds: DAY_SECONDS }];

/** How long an admission entry is kept: longer than the lease and the challenge. */
const KEEP_ENTRY_MS = 660_000;

/** The limits that refuse an SMS. */
const LIMITS = ['phone', 'service', 'budget', 'denied', 'challenge'] as const;

/**
 * The step after an admission. `send`: the SMS goes out, because certainly none did before. `repeat`: it may have gone out,
 * and the provider recognises the repeat by its key. `tell`: it may have gone out, and a repeat would be a second SMS.
 */
export type SendPlan = 'send' | 'repeat' | 'tell';

/** A request for the admission of one SMS. */
export interface AdmissionRequest {
  pseudonym: string;
  /** The client has a device token of this number. */
  byDevice: boolean;
  /** The number logged in within `returningSeconds`, or the client has a device token of it. */
  returning: boolean;
  /** The number saw so many wrong codes that a proof of work comes first. */
  needsProof: boolean;
  /** Where the abuse control counts it. */
  scopes: readonly string[];
  /** The client, where the abuse control counts addresses: {@link AbuseControl.clientsOf}. */
  clients: readonly string[];
  /** The client's address range. */
  network: string;
  /** The name of the provider that is to send it. */
  provider: string;
  /** Set under an Idempotency-Key: the challenge, its fencing token, and the plan if it was charged before. */
  retry?: { of: string; createdAt: number; fencingToken: number; resume: SendPlan } | undefined;
  /** The name of a solved proof of work. */
  solution?: string | undefined;
}

/** The charge of a send: its record in the ledger, and the buckets of the budget. Only the scripts read the other fields. */
interface ChargedSend extends Omit<Sms, 'message'> {
  minute: string;
  quarter: string;
}

/** The right to send one SMS: every limit counted it, the budget was charged, and the ledger has it. */
export interface Admission {
  /** This request charged it. Otherwise an earlier request under the key did, and it was not refunded. */
  first: boolean;
  plan: SendPlan;
  /** Milliseconds until this phone number may ask for the next SMS. */
  resendAfterMs: number;
  sms: Sms;
  /** The charge for a refund, and its keys. */
  charged: ChargedSend;
  refundKeys: string[];
}

type Answer =
  | { kind: 'admitted'; first: boolean; resendAfterMs: number; send: ChargedSend }
  | { kind: 'superseded' }
  | { kind: 'judge' }
  | { kind: (typeof LIMITS)[number]; ms: number };

/** Decides whether one more SMS may be sent: per phone number, for the whole service, within the budget; in one script. */
@Injectable()
export class AdmissionControl {
  private readonly alertedAt = new Map<string, number>();

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly abuse: AbuseControl,
    private readonly metrics: Metrics,
    private readonly alerts: Alerts,
  ) {
    startAtZero(metrics.limitsHit, 'limit', LIMITS);
  }

  /**
   * Counts and charges one SMS, once over all repeats, or throws `rate_limited`, `overloaded`, `sms_unavailable`; or
   * `challenge_required`, still without the challenge, where a proof of work comes first.
   */
  async admit(admissionRequest: AdmissionRequest): Promise<Admission> {
    const {
      pseudonym,
      byDevice,
      returning,
      needsProof,
      scopes,
      clients,
      network,
      provider,
      retry,
      solution,
    } = admissionRequest;
    const { smsPricePaise, budgetPaisePerHour, budgetPaisePerDay, budgetReservePercent, limitGlobal } =
      this.config;
    const entry = retry === undefined ? [] : [`${SLOT}send:${retry.of}`];
    const keys = [
      this.listOf(pseudonym, 'phone'),
      this.listOf(pseudonym, 'device'),
      `${SLOT}service`,
      ...BUDGET,
      LEDGER_KEY,
      ABUSE_KEY,
      REGULARS_KEY,
      ...entry,
      ...(solution === undefined ? [] : [`${SLOT}solved:${solution}`]),
    ];
    const args = [
      smsPricePaise,
      budgetPaisePerHour ?? -1,
      budgetPaisePerDay ?? -1,
      // The reserve of a budget is for returning numbers: an attack by new numbers cannot use it up.
      returning ? 0 : budgetReservePercent,
      byDevice ? 'device' : returning ? 'returning' : 'new',
      ...this.abuse.modes,
      pseudonym,
      provider,
      // Twice as long, because a replica with a late clock accepts it a little longer.
      2 * WORK_LIFE_SECONDS * 1_000,
      JSON.stringify(scopes),
      network,
      needsProof ? 1 : 0,
      JSON.stringify(clients),
      retry?.createdAt ?? 0,
      retry?.fencingToken ?? 0,
      retry?.resume ?? 'send',
      ...limitArguments(this.config.limitPhone),
      ...limitArguments(DEVICE_SENDS),
      ...limitArguments(limitGlobal),
    ];
    const ask = async (): Promise<Answer> =>
      JSON.parse((await this.store.run(ADMISSION, keys, args)) as string) as Answer;
    let answer = await ask();
    // Nothing was counted: the time mark of a scope had expired. The mark that the judgement sets lasts for seconds.
    while (answer.kind === 'judge') {
      await this.abuse.judge(scopes);
      answer = await ask();
    }
    if (answer.kind === 'superseded') throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
    if (answer.kind === 'admitted') {
      const { first, resendAfterMs, send: charged } = answer;
      const { entry: id, at, allowance, network: from } = charged;
      const sms = { entry: id, at, allowance, network: from, message: '' };
      const refundKeys = [...BUDGET, LEDGER_KEY, ABUSE_KEY, this.listOf(pseudonym, 'device'), ...entry];
      const plan = first || retry === undefined ? 'send' : retry.resume;
      return { first, plan, resendAfterMs, sms, charged, refundKeys };
    }
    const { kind: limit, ms } = answer;
    const retryAfterSeconds = ms / 1_000;
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
  async refund({ charged, refundKeys }: Admission): Promise<void> {
    await this.store.run(REFUND, refundKeys, [JSON.stringify(charged), KEEP_ENTRY_MS]);
  }

  /**
   * Stops counting an SMS that the carrier failed against the person's resends. Returns the milliseconds until the number
   * may ask again, or undefined when it stays counted.
   */
  async uncountFailedSms(pseudonym: string, { allowance, at }: Sms): Promise<number | undefined> {
    const limits = allowance === 'device' ? DEVICE_SENDS : this.config.limitPhone;
    const wait = (await this.store.run(
      UNCOUNT_FAILED_SMS,
      [this.listOf(pseudonym, allowance), `${SLOT}forgiven:${pseudonym}`],
      [at, ...limitArguments(limits), ...limitArguments(UNCOUNT_FAILED_SMSN)],
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
    this.alerts.raise('budget_exhausted', `The SMS budget is used up for ${whose}, until it has room again`);
  }
}
