import { randomBytes } from 'node:crypto';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords } from './challenge-records';

const RELEASE = Script.load(__dirname, 'release');
const STORE_OUTCOME = Script.load(__dirname, 'store-outcome');

/** What the steps over Redis around a call of upstream may take together. */
const STORE_MS = 5_000;

/** Redis is often back within a second; after the last pause the place runs out by itself. */
const PAUSES_MS = [100, 250, 500, 1_000, 2_000, 4_000];
/** While Redis is away every request under a key leaves one. What is beyond waits for its time to run out. */
const MOST_WAITING = 1_000;

/** A send under an Idempotency-Key: where its answer is kept, a keyed hash; and who has the key's place. */
export interface Repeated {
  record: string;
  owner: string;
}

/** A verification under one: where its answer is kept, and what its body was, both as keyed hashes. */
export interface VerifyIdempotency {
  field: string;
  fingerprint: string;
  owner: string;
}

/** Marks the place of this very request: whoever takes the key's place next makes another mark. */
export const newOwner = (): string => randomBytes(9).toString('base64url');

type Task = () => Promise<unknown>;

/** The places that requests take under their Idempotency-Keys: for how long, and how they are given up again. */
@Injectable()
export class IdempotencyLock implements OnApplicationShutdown {
  /**
   * The longest that a send may take: a repeat that came sooner could send a second SMS beside the first. At most 50 s, so
   * nobody is told to wait for longer than a minute, also after a crash.
   */
  private readonly leaseMs: number;
  private readonly waiting = new Set<NodeJS.Timeout>();
  private ended = false;

  constructor(
    config: Config,
    private readonly store: Store,
    private readonly records: ChallengeRecords,
  ) {
    this.leaseMs = config.upstreamDeadlineMs + STORE_MS;
  }

  /** The last arguments of the scripts that take a place. */
  lease(by: { owner: string } | undefined): [string, number] {
    return [by?.owner ?? '', this.leaseMs];
  }

  /**
   * The step that gives up the place of a send; see `release.lua`. `unsent` says whether certainly nothing was sent, and is
   * left out by who did nothing.
   */
  releasing(requestId: string, { record, owner }: Repeated, unsent?: boolean): Task {
    const keys = this.records.sendRecord(requestId, record);
    return () => this.store.run(RELEASE, keys, [owner, unsent === undefined ? '' : unsent ? 1 : 0]);
  }

  /** The step that gives up the place of a verification, for the answer to be kept if there is one; see `settle.lua`. */
  storingOutcome(requestId: string, { field, owner }: VerifyIdempotency, record: string): Task {
    const { challenge } = this.records.keys(requestId);
    return () => this.store.run(STORE_OUTCOME, [challenge], [field, record, owner]);
  }

  /** Gives a place up. Never throws: should the store fail, it is tried again in the background, for some seconds. */
  async release(task: Task): Promise<void> {
    try {
      await task();
    } catch {
      this.releaseLater(task, false);
    }
  }

  /**
   * The answer of the step that takes a place. When it is lost the step may have run all the same, now or later, and
   * nobody would come to use the place: it is given up in the background, while the caller is told.
   */
  async orRelease<Answer>(taken: Promise<Answer>, task: Task | undefined): Promise<Answer> {
    try {
      return await taken;
    } catch (error) {
      if (task) this.releaseLater(task, true);
      throw error;
    }
  }

  /** With `unsure` a place that is not there may still be taken. */
  private releaseLater(task: Task, unsure: boolean, tries = 0): void {
    const pause = PAUSES_MS[tries];
    if (this.ended || pause === undefined || this.waiting.size >= MOST_WAITING) return;
    const again = (): void => {
      this.releaseLater(task, unsure, tries + 1);
    };
    const timer = setTimeout(() => {
      this.waiting.delete(timer);
      // Each failure is a line in the log: none for what cannot be tried.
      if (!this.store.available) again();
      else
        task().then((found) => {
          if (unsure && found === 0) again();
        }, again);
    }, pause).unref();
    this.waiting.add(timer);
  }

  onApplicationShutdown(): void {
    this.ended = true;
    for (const timer of this.waiting) clearTimeout(timer);
  }
}
