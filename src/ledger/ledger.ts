import { randomBytes } from 'node:crypto';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { GUARD_FUNCTIONS, GUARD_KEY } from '../guard/guard';
import { Logger } from '../logging/logger';
import { requestContext } from '../logging/request-context';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

/** What the ledger adds to a step over {@link LEDGER_KEY}. */
export const LEDGER_FUNCTIONS = Script.functions(__dirname);
/** On the slot of admission, so that what is charged is written down in the same step. */
export const LEDGER_KEY = `${KEY_PREFIX}{admission}:ledger`;

/** That somebody logged in within 30 days: whom a reserve of the budget is for. */
export const REGULARS_KEY = `${KEY_PREFIX}{admission}:regulars`;

const RECORD = Script.load(__dirname, 'record', LEDGER_FUNCTIONS, GUARD_FUNCTIONS);

/** An answer does not wait for its event; events wait this long for company. */
const FLUSH_AFTER_MS = 200;
const RETRY_AFTER_MS = 1_000;
const LARGEST_BATCH = 500;
/** While Redis is away; what is older is dropped, and told. */
const MOST_WAITING = 20_000;

/** What became of an SMS, or of a code. `handed over`: to this provider, by which it was sent if it was. */
export type Outcome =
  | { what: 'verified'; sms: string; at: number; scopes: string[]; tried: string[] }
  | { what: 'handed over'; sms: string; provider: string }
  | { what: 'wrong'; quiet: number; tried: string[] }
  | { what: 'delivery'; sms: string; at: number; delivery: 'delivered' | 'failed' | 'unknown'; cost: number };

/**
 * Every SMS with its price and its outcome, pseudonymous, in a bounded stream: `sent` is written by admission in the step
 * that charges for it, what follows from it here, off every request's path.
 */
@Injectable()
export class Ledger implements OnApplicationShutdown {
  private waiting: Outcome[] = [];
  /** Under its own name: one that timed out may have been written, and is not written twice. */
  private batch: { id: string; outcomes: Outcome[] } | undefined;
  private flushing: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private lost = 0;

  constructor(
    private readonly store: Store,
    private readonly logger: Logger,
  ) {}

  /** Takes an outcome to be written soon. */
  record(outcome: Outcome): void {
    this.waiting.push(outcome);
    if (this.waiting.length > MOST_WAITING) {
      this.waiting.shift();
      this.lost += 1;
    }
    this.flushIn(FLUSH_AFTER_MS);
  }

  /** Writes what is waiting. Never throws: what Redis does not take is tried again. */
  flush(): Promise<void> {
    this.flushing ??= this.write().finally(() => {
      this.flushing = undefined;
    });
    return this.flushing;
  }

  async onApplicationShutdown(): Promise<void> {
    await this.flush();
    clearTimeout(this.timer);
  }

  private async write(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    while (this.batch !== undefined || this.waiting.length > 0) {
      this.batch ??= {
        id: randomBytes(9).toString('base64url'),
        outcomes: this.waiting.splice(0, LARGEST_BATCH),
      };
      const { id, outcomes } = this.batch;
      try {
        await this.store.run(
          RECORD,
          [LEDGER_KEY, GUARD_KEY, `${LEDGER_KEY}:written:${id}`, REGULARS_KEY],
          [JSON.stringify(outcomes)],
        );
      } catch {
        this.flushIn(RETRY_AFTER_MS);
        return;
      }
      this.batch = undefined;
      if (this.lost > 0)
        this.logger.warn('The ledger lost outcomes while Redis was away', { lost: this.lost });
      this.lost = 0;
    }
  }

  private flushIn(ms: number): void {
    // Outside of the request that happens to be first: what is logged of many is not its own.
    this.timer ??= requestContext.exit(() => setTimeout(() => void this.flush(), ms).unref());
  }
}
