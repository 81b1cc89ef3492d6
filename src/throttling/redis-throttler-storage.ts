import type { ThrottlerStorage } from '@nestjs/throttler';
import { Config, type Limit } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { addressScopes } from '../net/addresses';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

const TABLE = Script.library(
  __dirname,
  'length_of',
  'entry_of',
  'entry_at',
  'longest_of',
  'periods_of',
  'shared_counts',
  'shared_add',
  'exact_record',
  'exact_write',
);
const ADDRESS = Script.load(__dirname, 'address', TABLE);
const GIVE_BACK = Script.load(__dirname, 'give-address-back', TABLE);
const COUNTS = Script.load(__dirname, 'address-counts', TABLE);

/** How a client earned a higher limit. */
export interface Credential {
  /** It holds a device token of the phone number: three times the limit, and no shared counter refuses it. */
  device?: boolean;
  /** The name of a proof of work that it solved: three times the limit, once. */
  work?: string;
}

/** One scope of an address, as the scripts know it: a pseudonym, and the number of its shared counter. */
interface Scope {
  id: string;
  width: 'address' | 'network';
  counter: number;
  factor: number;
}

/** A request that was counted. Its place can be given back. */
export interface Place {
  readonly bucket: string;
  readonly limits: readonly Limit[];
  readonly scopes: readonly Scope[];
  readonly marks: readonly string[];
  /** Requests of the address that count now; 0 where it shares a counter. */
  readonly hits: number;
}

export type Admittance =
  | { waitMs: 0; place: Place }
  /** `raisable`: a solved proof of work would let it pass now. */
  | { waitMs: number; raisable: boolean };

/** Sliding windows on Redis, all windows of a bucket in one step. Addresses are kept as pseudonyms only. */
export class RedisThrottlerStorage implements ThrottlerStorage {
  private readonly key: Buffer;

  constructor(
    config: Config,
    private readonly store: Store,
  ) {
    this.key = deriveKey(config.subjectSecret, 'client address');
  }

  /** Counts one request of an address in a bucket, or refuses it without counting. */
  async admit(
    bucket: string,
    address: string,
    limits: readonly Limit[],
    credential: Credential = {},
  ): Promise<Admittance> {
    const scopes = addressScopes(address).map(({ scope, factor }) => this.scopeOf(scope, factor));
    return this.count(bucket, scopes, limits, credential);
  }

  /** Takes a request back out of its bucket, as if it had not come. */
  async giveBack({ bucket, limits, scopes, marks }: Place): Promise<void> {
    const ask = { limits: windowsOf(limits), scopes, marks };
    await this.store.run(GIVE_BACK, [bucketKey(bucket)], [JSON.stringify(ask)]);
  }

  /** How many addresses of a bucket are counted exactly, and how many share a counter; see `address.lua`. */
  async counts(bucket: string, limits: readonly Limit[]): Promise<{ exact: number; sharing: number }> {
    const ask = JSON.stringify({ limits: windowsOf(limits) });
    const [exact, sharing] = (await this.store.run(COUNTS, [bucketKey(bucket)], [ask])) as [number, number];
    return { exact, sharing };
  }

  /** The interface of the module: one window. The guard does not use it, because it asks for all windows at once. */
  async increment(
    key: string,
    ttl: number,
    limit: number,
    blockDuration: number,
    throttlerName: string,
  ): ReturnType<ThrottlerStorage['increment']> {
    // The key is the hash of the guard, and no address.
    const limits = [{ count: limit, seconds: ttl / 1_000 }];
    const answer = await this.count(throttlerName, [this.scopeOf(key, 1)], limits, {});
    const waitMs = answer.waitMs;
    return {
      totalHits: 'place' in answer ? answer.place.hits : limit + 1,
      timeToExpire: Math.ceil((waitMs || ttl + 1) / 1_000),
      isBlocked: waitMs > 0,
      timeToBlockExpire: Math.ceil(Math.max(waitMs, waitMs > 0 ? blockDuration : 0) / 1_000),
    };
  }

  private async count(
    bucket: string,
    scopes: Scope[],
    limits: readonly Limit[],
    { device = false, work }: Credential,
  ): Promise<Admittance> {
    const ask = {
      limits: windowsOf(limits),
      scopes,
      raise: device ? RAISE : 1,
      passes: device,
      // 20 bits: the size of the bitmap of solutions that were used.
      ...(work === undefined ? {} : { work: this.digest(`work ${work}`).readUInt32BE() >>> 12 }),
    };
    const answer = await this.store.run(ADDRESS, [bucketKey(bucket)], [JSON.stringify(ask)]);
    const [waitMs, second, ...marks] = answer as [number, number, ...string[]];
    if (waitMs > 0) return { waitMs, raisable: second === 1 };
    return { waitMs: 0, place: { bucket, limits, scopes, marks, hits: second } };
  }

  /** Keyed: with a bare hash an attacker could choose addresses that share the counter of another client. */
  private scopeOf(scope: string, factor: number): Scope {
    const digest = this.digest(scope);
    return {
      id: digest.toString('base64url', 0, 8),
      width: factor === 1 ? 'address' : 'network',
      counter: digest.readUInt16BE(8),
      factor,
    };
  }

  private digest(text: string): Buffer {
    return Buffer.from(hmac128(this.key, text), 'base64url');
  }
}

const RAISE = 3;

/** The table of a bucket lies on one slot, so that one script can tell whether there is room for one more address. */
const bucketKey = (bucket: string): string => `${KEY_PREFIX}{addresses}:${bucket}`;

const windowsOf = (limits: readonly Limit[]): { count: number; window: number }[] =>
  limits.map(({ count, seconds }) => ({ count, window: seconds * 1_000 }));
