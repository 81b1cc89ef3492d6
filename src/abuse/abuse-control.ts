import { isIPv4 } from 'node:net';
import { Injectable } from '@nestjs/common';
import { Config, type AbuseMode } from '../config/config';
import type { Alert } from '../alerts/alert-types';
import { Alerts } from '../alerts/alerts';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { networkOf, originOf } from '../net/addresses';
import { seriesOf, type PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

/** The functions of the abuse control for scripts that count over {@link ABUSE_KEY}. */
export const ABUSE_FUNCTIONS = Script.library(
  __dirname,
  'abuse_count',
  'abuse_levels',
  'abuse_held',
  'abuse_sums',
  'abuse_key',
  'abuse_level_key',
  'abuse_mark',
  'abuse_challenged',
  'abuse_passed',
  'abuse_left_unsolved',
);
/** On the slot of admission, so that one script reads the levels and counts a send. */
export const ABUSE_KEY = `${KEY_PREFIX}{admission}:abuse`;

const JUDGE = Script.load(__dirname, 'judge', ABUSE_FUNCTIONS);
const EXPLAIN = Script.load(__dirname, 'explain', ABUSE_FUNCTIONS);

const SERVICE = 'service';
const SIGNALS = ['conversion', 'wrong_codes', 'unsolved', 'quiet'] as const;
const LEVELS = ['none', 'observe', 'challenge', 'deny'] as const;
const HIGHEST: Record<AbuseMode, number> = { off: 0, observe: 1, enforce: 3 };
const EXPLAINED_DECISIONS = 100;

/** `observe`: operators are told. `challenge`: proof of work first. `deny`: no SMS for new numbers. */
export type AbuseLevel = (typeof LEVELS)[number];

/** Why a level changed. `unsolved` keeps a level at challenge; on `quiet` it falls. */
export type AbuseSignal = (typeof SIGNALS)[number];

/** A level that changed, and the figures that justified the change. */
export interface AbuseDecision {
  at: Date;
  scope: string;
  from: AbuseLevel;
  to: AbuseLevel;
  signal: AbuseSignal;
  /** The window of the figures; 0 when nothing happened in it. */
  minutes: number;
  figures: AbuseFigures;
}

interface AbuseFigures {
  sent: number;
  verified: number;
  /** Numbers that saw a wrong code, and right codes. */
  wrong: number;
  right: number;
  challenged: number;
  passed: number;
}

/** The answer of `GET /admin/abuse`. */
interface AbuseState {
  now: Date;
  raised: { scope: string; level: AbuseLevel; until: Date }[];
  /** The whole service, over 15 minutes and 24 hours. */
  service: { minutes: number; figures: AbuseFigures }[];
  decisions: AbuseDecision[];
}

const ALERTS: Partial<Record<AbuseSignal, Alert>> = {
  conversion: 'abuse_conversion',
  wrong_codes: 'abuse_wrong_codes',
};

type Sums = Record<'s' | 'v' | 'w' | 'r' | 'c' | 'p', number>;

/** Detects SMS pumping and the guessing of codes over many numbers, and holds a level for each scope. */
@Injectable()
export class AbuseControl {
  private readonly clientKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly alerts: Alerts,
  ) {
    this.clientKey = deriveKey(config.subjectSecret, 'abuse clients');
    for (const signal of SIGNALS)
      for (const level of LEVELS) metrics.abuseDecisions.inc({ signal, level }, 0);
  }

  /** The highest level that each signal may raise, as the scripts read it. */
  get modes(): [conversion: number, wrongCodes: number] {
    return [HIGHEST[this.config.abuseConversion], HIGHEST[this.config.abuseWrongCodes]];
  }

  /** The scopes that a send or a verification counts for: number series, address range, whole service. */
  scopesOf(phone: PhoneNumber, network: string): string[] {
    return [`series:${seriesOf(phone)}`, `network:${network}`, SERVICE];
  }

  /** The keyed hashes under which a client counts within its address range, and in the other scopes. */
  clientsOf(address: string): [inRange: string, elsewhere: string] {
    const [near, far] = [originOf(address), isIPv4(address) ? address : networkOf(address)];
    return [hmac128(this.clientKey, near), hmac128(this.clientKey, far)];
  }

  /**
   * Raises and lowers the levels of scopes that were not judged in the last seconds, and logs each change. Redis gives each
   * decision to one replica only.
   */
  async judge(scopes: readonly string[]): Promise<void> {
    const decisions = await this.store.run(JUDGE, [ABUSE_KEY], [...this.modes, JSON.stringify(scopes)]);
    for (const decision of decisions as string[][]) {
      const { at, scope, from, to, signal, minutes, figures } = readDecision(decision);
      this.metrics.abuseDecisions.inc({ signal, level: to });
      const alert = ALERTS[signal];
      const rose = LEVELS.indexOf(to) > LEVELS.indexOf(from);
      const fields = { at, scope, from, to, signal, minutes, ...figures };
      if (alert && rose) {
        this.alerts.raise(alert, 'Abuse level raised', fields);
      } else {
        this.logger.info('Abuse level changed', fields);
      }
    }
  }

  /** The levels that hold now, and the decisions of the last 90 days, the newest first. */
  async explain(): Promise<AbuseState> {
    const { now, raised, service, decisions } = JSON.parse(
      (await this.store.run(EXPLAIN, [ABUSE_KEY], [EXPLAINED_DECISIONS, SERVICE])) as string,
    ) as {
      now: number;
      raised: { scope: string; level: number; until: number }[] | null;
      service: { m: Sums; q: Sums };
      decisions: string[][] | null;
    };
    return {
      now: new Date(now),
      raised: (raised ?? []).map(({ scope, level, until }) => ({
        scope,
        level: LEVELS[level] ?? 'none',
        until: new Date(until),
      })),
      service: [
        { minutes: 15, figures: figuresOf(service.m) },
        { minutes: 1_440, figures: figuresOf(service.q) },
      ],
      decisions: (decisions ?? []).map(readDecision),
    };
  }
}

function figuresOf({ s, v, w, r, c, p }: Sums): AbuseFigures {
  return { sent: s, verified: v, wrong: w, right: r, challenged: c, passed: p };
}

/** Reads `field, value, field, value ...` as the scripts write decisions. */
function readDecision(flat: readonly string[]): AbuseDecision {
  const field = (name: string): string => flat[flat.indexOf(name) + 1] ?? '';
  const count = (name: string): number => Number(field(name));
  return {
    at: new Date(count('at')),
    scope: field('scope'),
    from: LEVELS[count('from')] ?? 'none',
    to: LEVELS[count('to')] ?? 'none',
    signal: field('signal') as AbuseSignal,
    minutes: count('minutes'),
    figures: {
      sent: count('sent'),
      verified: count('verified'),
      wrong: count('wrong'),
      right: count('right'),
      challenged: count('challenged'),
      passed: count('passed'),
    },
  };
}
