import { randomBytes } from 'node:crypto';
import { requestContext } from '../logging/request-context';

/** An answer does not wait for what is written; what is written waits this long for company. */
const FLUSH_AFTER_MS = 200;
const RETRY_AFTER_MS = 1_000;
const LARGEST_BATCH = 500;

/** Writes in the background, many at once, and tries again while Redis is away. Above the maximum the oldest are dropped. */
export class WriteBehind<Item> {
  private waiting: Item[] = [];
  /** Under its own name: one that timed out may have been written, and is not written twice. */
  private batch: { id: string; items: Item[] } | undefined;
  private flushing: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    /** Writes a batch in one step that bears to be taken twice under one name. */
    private readonly write: (batchId: string, items: Item[]) => Promise<unknown>,
    private readonly mostWaiting: number,
    private readonly dropped: () => void,
  ) {}

  /** Takes an item to be written soon. */
  add(item: Item): void {
    this.waiting.push(item);
    if (this.waiting.length > this.mostWaiting) {
      this.waiting.shift();
      this.dropped();
    }
    this.flushIn(FLUSH_AFTER_MS);
  }

  /** Writes what is waiting. Never throws: what Redis does not take is tried again. */
  flush(): Promise<void> {
    this.flushing ??= this.writeAll().finally(() => {
      this.flushing = undefined;
    });
    return this.flushing;
  }

  /** Tries for a last time. */
  async end(): Promise<void> {
    await this.flush();
    clearTimeout(this.timer);
  }

  private async writeAll(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    while (this.batch !== undefined || this.waiting.length > 0) {
      this.batch ??= {
        id: randomBytes(9).toString('base64url'),
        items: this.waiting.splice(0, LARGEST_BATCH),
      };
      try {
        await this.write(this.batch.id, this.batch.items);
      } catch {
        this.flushIn(RETRY_AFTER_MS);
        return;
      }
      this.batch = undefined;
    }
  }

  private flushIn(ms: number): void {
    // Outside of the request that happens to be first: what is logged of many is not its own.
    this.timer ??= requestContext.exit(() =>
      setTimeout(() => {
        // One that has fired is none: while a write is under way it starts nothing, and the next must be able to.
        this.timer = undefined;
        void this.flush();
      }, ms).unref(),
    );
  }
}
