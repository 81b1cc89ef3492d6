import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { ABUSE_FUNCTIONS, ABUSE_KEY } from '../abuse/abuse-control';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { WriteBehind } from '../redis/write-behind';

/** The Lua functions of the ledger, for scripts over {@link LEDGER_KEY}. */
export const LEDGER_FUNCTIONS = Script.library(__dirname, 'ledger_append', 'usage_add');
/** On the slot of admission, so that what is charged is written down in the same step. */
export const LEDGER_KEY = `${KEY_PREFIX}{admission}:ledger`;

/** Exists if a number logged in within `returningSeconds`: a reserve of the budget is for such numbers. */
export const REGULARS_KEY = `${KEY_PREFIX}{admission}:regulars`;

const RECORD = Script.load(__dirname, 'record', LEDGER_FUNCTIONS, ABUSE_FUNCTIONS);

/** While Redis is away; what is older is dropped, and told. */
const MOST_WAITING = 20_000;

/** An event about an SMS or a code. `handed over`: this provider is asked next, and has sent the SMS if it was sent. */
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
  private readonly outcomes: WriteBehind<Outcome>;
  private lost = 0;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly logger: Logger,
  ) {
    this.outcomes = new WriteBehind(
      (batchId, outcomes) => this.write(batchId, outcomes),
      MOST_WAITING,
      () => (this.lost += 1),
    );
  }

  /** Takes an outcome to be written soon. */
  record(outcome: Outcome): void {
    this.outcomes.add(outcome);
  }

  /** Writes what is waiting. Never throws: what Redis does not take is tried again. */
  flush(): Promise<void> {
    return this.outcomes.flush();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.outcomes.end();
  }

  private async write(batchId: string, outcomes: Outcome[]): Promise<void> {
    await this.store.run(
      RECORD,
      [LEDGER_KEY, ABUSE_KEY, `${LEDGER_KEY}:written:${batchId}`, REGULARS_KEY],
      [JSON.stringify(outcomes), this.config.returningSeconds * 1_000],
    );
    if (this.lost > 0) this.logger.warn('The ledger lost outcomes while Redis was away', { lost: this.lost });
    this.lost = 0;
  }
}
