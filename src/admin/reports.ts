import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { AbuseControl, type AbuseDecision } from '../abuse/abuse-control';
import { Ledger } from '../ledger/ledger';
import { sum, UsageReader, type Usage } from '../ledger/usage';
import type { AbuseResponse, UsageResponse } from './admin-responses.dto';
import type { UsageQuery } from './admin-requests.dto';
import { WalletWatch } from '../wallet/wallet-watch';

const DAY_MS = 86_400_000;
const MOST_DAYS = 92;
const FLUSH_WITHIN_MS = 100;

/** The figures for operators, in their units and words. */
@Injectable()
export class Reports {
  constructor(
    private readonly config: Config,
    private readonly ledger: Ledger,
    private readonly usageReader: UsageReader,
    private readonly abuseControl: AbuseControl,
    private readonly wallet: WalletWatch,
  ) {}

  /** Throws `validation_failed` for days that are none, or too many. */
  async usage({ from: first, to: last }: UsageQuery): Promise<UsageResponse> {
    const to = last ?? UsageReader.dayOf(new Date());
    const from = first ?? dayAt(parseDay('to', to) - 6 * DAY_MS);
    const days = (parseDay('to', to) - parseDay('from', from)) / DAY_MS + 1;
    if (days < 1 || days > MOST_DAYS) {
      throw invalid('from', `from must be at most ${MOST_DAYS - 1} days before to, and not after it`);
    }
    // Flush this replica's events, so that they are in the report; those of other replicas follow within a moment. The wait
    // has an end: while Redis hangs, the operator gets the error within the promised second and not after two.
    await Promise.race([this.ledger.flush(), sleep(FLUSH_WITHIN_MS, undefined, { ref: false })]);
    const [used, wallet] = await Promise.all([this.usageReader.read(from, to), this.wallet.state()]);
    return {
      timeZone: 'Asia/Kolkata',
      from,
      to,
      wallet,
      total: totals(sum(used)),
      days: used.map(({ date, hours, ...day }) => ({
        date,
        ...totals(day),
        hours: hours.map(({ hour, ...usage }) => ({
          from: `${date}T${String(hour).padStart(2, '0')}:00:00+05:30`,
          ...totals(usage),
        })),
      })),
    };
  }

  async abuse(): Promise<AbuseResponse> {
    const { now, raised, service, decisions } = await this.abuseControl.explain();
    return {
      now: now.toISOString(),
      modes: { conversion: this.config.abuseConversion, wrongCodes: this.config.abuseWrongCodes },
      raised: raised.map(({ scope, level, until }) => ({ scope, level, until: until.toISOString() })),
      service,
      decisions: decisions.map((decision) => {
        const { at, scope, from, to, signal, figures } = decision;
        return { at: at.toISOString(), scope, from, to, signal, reason: reasonOf(decision), figures };
      }),
    };
  }
}

function reasonOf({ signal, minutes, figures }: AbuseDecision): string {
  const within = `within ${minutes === 1_440 ? '24 hours' : `${minutes} minutes`}`;
  switch (signal) {
    case 'conversion':
      return `${figures.verified} of ${figures.sent} codes came back ${within}`;
    case 'wrong_codes':
      return `${figures.wrong} numbers saw wrong codes, ${figures.right} codes were right ${within}`;
    case 'unsolved':
      return `${figures.passed} of ${figures.challenged} challenges were solved ${within}`;
    case 'quiet':
      return 'Nothing justified the level any more';
  }
}

/** Paise, with two places behind the point at most: prices are told in ten-thousandths of a rupee. */
function totals({ cost, ...usage }: Usage) {
  return { ...usage, costPaise: cost / 100 };
}

function parseDay(field: string, text: string): number {
  const time = Date.parse(text);
  // A parser reads 2026-02-31 as the third of March.
  if (Number.isNaN(time) || dayAt(time) !== text)
    throw invalid(field, `${field} must be a date such as 2026-11-21`);
  return time;
}

function dayAt(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

function invalid(field: string, message: string): ApiError {
  return new ApiError('validation_failed', { errors: [{ field, message }] });
}
