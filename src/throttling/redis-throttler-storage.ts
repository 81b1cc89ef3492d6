import type { ThrottlerStorage } from '@nestjs/throttler';
import { Config, type Limit } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { limitArguments, Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { addressScopes } from '../net/addresses';

const INCREMENT = Script.load(__dirname, 'increment');
const ADDRESS = Script.load(__dirname, 'address');

/** Sliding windows on Redis, all windows of a route in one step. Addresses are kept as pseudonyms only. */
export class RedisThrottlerStorage implements ThrottlerStorage {
  private readonly key: Buffer;

  constructor(
    config: Config,
    private readonly store: Store,
  ) {
    this.key = deriveKey(config.subjectSecret, 'client address');
  }

  /**
   * Counts one request of an address under a name, or refuses it without counting.
   * Returns 0, or the milliseconds until it may come again.
   */
  async admit(name: string, address: string, limits: readonly Limit[]): Promise<number> {
    const scopes = addressScopes(address);
    // The widest scope is the hash tag, so that all scopes of an address lie on one slot.
    const tag = this.pseudonym(scopes.at(-1)?.scope ?? address);
    const keys = scopes.map(({ scope }) => `${KEY_PREFIX}{${tag}}:address:${name}:${this.pseudonym(scope)}`);
    const answer = await this.store.run(ADDRESS, keys, [
      ...limitArguments(limits),
      ...scopes.map(({ factor }) => factor),
    ]);
    return Number(answer);
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
    const id = this.pseudonym(key);
    const [totalHits, expiresMs, waitMs] = (await this.store.run(
      INCREMENT,
      [`${KEY_PREFIX}{${id}}:address:${throttlerName}:${id}`],
      limitArguments([{ count: limit, seconds: ttl / 1_000 }]),
    )) as [number, number, number];
    return {
      totalHits,
      timeToExpire: Math.ceil(expiresMs / 1_000),
      isBlocked: waitMs > 0,
      timeToBlockExpire: Math.ceil(Math.max(waitMs, waitMs > 0 ? blockDuration : 0) / 1_000),
    };
  }

  private pseudonym(text: string): string {
    return hmac128(this.key, text);
  }
}
