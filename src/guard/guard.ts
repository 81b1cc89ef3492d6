import { Injectable } from '@nestjs/common';
import { Config, type GuardMode } from '../config/config';
import { Logger, type Alert } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { seriesOf, type PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

/** What the guard adds to a step over {@link GUARD_KEY}. */
export const GUARD_FUNCTIONS = Script.functions(__dirname);
/** On the slot of admission, so that a send is judged and counted in one step. */
export const GUARD_KEY = `${KEY_PREFIX}{admission}:guard`;

const EXPLAIN = Script.load(__dirname, 'explain', GUARD_FUNCTIONS);

const SERVICE = 'service';
const SIGNALS = ['conversion', 'wrong_codes', 'unsolved', 'quiet'] as const;
const STEPS = ['none', 'observe', 'challenge', 'deny'] as const;
const HIGHEST: Record<GuardMode, number> = { off: 0, observe: 1, enforce: 3 };
const TOLD = 100;

/** How far a scope is trusted: nothing, told to operators, proof of work first, no SMS for numbers that are new here. */
export type GuardStep = (typeof STEPS)[number];

/** Why a step changed; `unsolved` holds one up, and on `quiet` it falls. */
export type GuardSignal = (typeof SIGNALS)[number];

/** A step that changed, and the figures that it changed for. */
export interface GuardDecision {
  at: Date;
  scope: string;
  from: GuardStep;
  to: GuardStep;
  signal: GuardSignal;
  /** The window of the figures; 0 when nothing happened in it. */
  minutes: number;
  figures: GuardFigures;
}

export interface GuardFigures {
  sent: number;
  verified: number;
  /** Numbers that saw a wrong code, and right codes. */
  wrong: number;
  right: number;
  challenged: number;
  passed: number;
}

/** What an operator is told. */
export interface GuardState {
  now: Date;
  raised: { scope: string; step: GuardStep; until: Date }[];
  /** The whole service, over 15 minutes and 24 hours. */
  service: { minutes: number; figures: GuardFigures }[];
  decisions: GuardDecision[];
}

const ALERTS: Partial<Record<GuardSignal, Alert>> = {
  conversion: 'guard_conversion',
  wrong_codes: 'guard_wrong_codes',
};

type Sums = Record<'s' | 'v' | 'w' | 'r' | 'c' | 'p', number>;

/** Sees SMS pumping and the guessing of codes over many numbers. It decides inside admission's one step. */
@Injectable()
export class Guard {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {
    startAtZero(metrics.alerts, 'alert', Object.values(ALERTS));
    for (const signal of SIGNALS) for (const step of STEPS) metrics.guardDecisions.inc({ signal, step }, 0);
  }

  /** The highest steps that each signal may raise, as the scripts read them. */
  get modes(): [conversion: number, wrongCodes: number] {
    return [HIGHEST[this.config.guardConversion], HIGHEST[this.config.guardWrongCodes]];
  }

  /** Where a send or a verification counts: its number series, the address range, the whole service. */
  scopesOf(phone: PhoneNumber, network: string): string[] {
    return [`series:${seriesOf(phone)}`, `network:${network}`, SERVICE];
  }

  /** Tells operations of what admission decided just now: each decision comes back to one replica only. */
  tell(decided: readonly string[][]): void {
    for (const fields of decided) {
      const { at, scope, from, to, signal, minutes, figures } = readDecision(fields);
      this.metrics.guardDecisions.inc({ signal, step: to });
      const alert = ALERTS[signal];
      const rose = STEPS.indexOf(to) > STEPS.indexOf(from);
      const told = { at, scope, from, to, signal, minutes, ...figures };
      if (alert && rose) {
        this.metrics.alerts.inc({ alert });
        this.logger.alert(alert, 'The guard trusts a scope less', told);
      } else {
        this.logger.info('The guard changed a step', told);
      }
    }
  }

  /** The steps that hold now, and the decisions of the last 90 days, the newest first. */
  async explain(): Promise<GuardState> {
    const { now, raised, service, decisions } = JSON.parse(
      (await this.store.run(EXPLAIN, [GUARD_KEY], [TOLD, SERVICE])) as string,
    ) as {
      now: number;
      raised: { scope: string; step: number; until: number }[] | null;
      service: { m: Sums; q: Sums };
      decisions: string[][] | null;
    };
    return {
      now: new Date(now),
      raised: (raised ?? []).map(({ scope, step, until }) => ({
        scope,
        step: STEPS[step] ?? 'none',
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

function figuresOf({ s, v, w, r, c, p }: Sums): GuardFigures {
  return { sent: s, verified: v, wrong: w, right: r, challenged: c, passed: p };
}

/** Reads `field, value, field, value ...` as the scripts write decisions. */
function readDecision(flat: readonly string[]): GuardDecision {
  const field = (name: string): string => flat[flat.indexOf(name) + 1] ?? '';
  const count = (name: string): number => Number(field(name));
  return {
    at: new Date(count('at')),
    scope: field('scope'),
    from: STEPS[count('from')] ?? 'none',
    to: STEPS[count('to')] ?? 'none',
    signal: field('signal') as GuardSignal,
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
