import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Store } from '../redis/store';

/** The time of the Redis commands around a call of upstream, all together. */
const STORE_MS = 5_000;

/** The pauses before a release is tried again. Redis is often back within a second; after the last try the lease runs out. */
const PAUSES_MS = [100, 250, 500, 1_000, 2_000, 4_000];
/** While Redis is away, every request under a key leaves one release. Beyond this bound, the lease runs out by itself. */
const MOST_RELEASES = 1_000;

/** A repeat waits for the first request under its key. The bound keeps a flood of repeats from filling the process. */
const POLL_MS = 200;
const MOST_POLLS = 10;
const MOST_WAITERS = 100;

/** A verification under an Idempotency-Key: where its answer is kept, and its body, both as keyed hashes. */
export interface VerifyIdempotency {
  field: string;
  fingerprint: string;
  owner: string;
}

/** The mark of one request in a lease: the next owner of the lease has another mark. */
export const newOwner = (): string => randomBytes(9).toString('base64url');

/** Runs a release script: 1 when it released the lease, 0 when there was no such lease. */
type Release = () => Promise<unknown>;

/** The leases that requests hold under their Idempotency-Keys: their length, waiting for them, and their release. */
@Injectable()
export class IdempotencyLock implements OnApplicationShutdown {
  /**
   * The longest time that a send can take: a repeat that resumed the send earlier could send a second SMS. It is at most
   * 50 s, so a key stays in flight for less than a minute after a crash.
   */
  readonly leaseMs: number;
  private readonly ended = new AbortController();
  private waiters = 0;
  private releases = 0;

  constructor(
    config: Config,
    private readonly store: Store,
  ) {
    setMaxListeners(MOST_RELEASES, this.ended.signal);
    this.leaseMs = config.upstreamDeadlineMs + STORE_MS;
  }

  /**
   * Asks until no other request holds the lease, for two seconds at most; then, and beyond a hundred waiters, throws
   * `idempotency_in_progress`.
   */
  async untilFree<Answer extends { kind: string }>(
    ask: () => Promise<Answer>,
  ): Promise<Exclude<Answer, { kind: 'in_progress' }>> {
    let answer = await ask();
    const most = this.waiters < MOST_WAITERS ? MOST_POLLS : 0;
    this.waiters += 1;
    try {
      for (let polls = 0; polls < most && answer.kind === 'in_progress'; polls += 1) {
        await sleep(POLL_MS);
        answer = await ask();
      }
    } finally {
      this.waiters -= 1;
    }
    if (answer.kind !== 'in_progress') return answer as Exclude<Answer, { kind: 'in_progress' }>;
    throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
  }

  /** Releases a lease. Never throws: if Redis fails, the release is tried again in the background. */
  async release(release: Release): Promise<void> {
    await release().catch(() => void this.releaseLater(release));
  }

  /**
   * The answer of a script that takes a lease. If the answer is lost, the script may have run, or may still run: the lease
   * is released in the background, and the error is thrown.
   */
  async orRelease<Answer>(taken: Promise<Answer>, release: Release): Promise<Answer> {
    return taken.catch((error: unknown) => {
      void this.releaseLater(release);
      throw error;
    });
  }

  onApplicationShutdown(): void {
    this.ended.abort();
  }

  private async releaseLater(release: Release): Promise<void> {
    if (this.releases >= MOST_RELEASES) return;
    this.releases += 1;
    for (const pause of PAUSES_MS) {
      await sleep(pause, undefined, { ref: false, signal: this.ended.signal }).catch(() => undefined);
      if (this.ended.signal.aborted) return;
      // A failed command is a line in the log, so none is sent that cannot succeed. A lease that is not there may be taken yet.
      if (this.store.available && (await release().catch(() => 0)) === 1) break;
    }
    this.releases -= 1;
  }
}
