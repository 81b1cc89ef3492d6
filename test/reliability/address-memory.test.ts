import { Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import type { Limit } from '../../src/config/config';
import { RedisThrottlerStorage } from '../../src/throttling/redis-throttler-storage';
import { figures, full } from '../support/scale';
import { settings } from '../support/settings';
import { startRedis, type RedisServer } from '../support/redis-server';
import { connectedStores } from '../support/stores';
import type { Store } from '../../src/redis/store';

const MB = 1_000_000;

describe('requests from very many addresses', () => {
  let server: RedisServer;
  let redis: Redis;
  let stores: Store[];
  let storage: RedisThrottlerStorage;
  const config = settings();
  const refused: Limit[] = config.limitIp.map(({ count, seconds }) => ({ count: 10 * count, seconds }));

  beforeEach(async () => {
    server = await startRedis();
    redis = new Redis(server.url);
    stores = await connectedStores(server.url, 1, new Logger('silent', { write: () => undefined }));
    storage = new RedisThrottlerStorage(config, stores[0]!);
  });
  afterEach(async () => {
    for (const store of stores) store.close();
    redis.disconnect();
    await server.stop();
  });

  const memory = async (): Promise<number> => {
    const [, used] = /used_memory:(\d+)/.exec(await redis.info('memory')) ?? [];
    return Number(used);
  };

  let next = 0;
  /** Requests from so many further addresses, and how much more memory Redis uses then. */
  async function flood(addresses: number, bucket: string, limits: Limit[]): Promise<number> {
    const before = await memory();
    const end = next + addresses;
    const attack = async (): Promise<void> => {
      while (next < end) {
        const i = next++;
        // Each in a /48 of its own: such an address takes two records.
        const network = `2001:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}`;
        await storage.admit(bucket, `${network}::1`, limits);
      }
    };
    await Promise.all(Array.from({ length: 500 }, attack));
    for (const key of await redis.keys('*')) expect(await redis.pttl(key)).toBeGreaterThan(0);
    return (await memory()) - before;
  }

  it('refused sends from 40,000 IPv6 networks take less than 8 MB in Redis', async () => {
    const bytes = await flood(40_000, 'send-refused', refused);
    figures(`40000 addresses take ${(bytes / MB).toFixed(1)} MB in Redis`);
    expect(bytes).toBeLessThan(8 * MB);
    expect(await storage.counts('send-refused', refused)).toMatchObject({ exact: 10_000 });
  });

  it('requests of every kind from a million IPv6 networks take less than 20 MB in Redis', async () => {
    const kinds: [string, Limit[]][] = [
      ['send', [...config.limitIp]],
      ['send-refused', refused],
      ['verify', [...config.limitVerifyIp]],
      ['verify-refused', [...config.limitVerifyIp]],
      ['status', [...config.limitVerifyIp]],
    ];
    let bytes = 0;
    // A million in all. Each table is full after 10,000 addresses, so a tenth of them take as much.
    const addresses = full ? 200_000 : 20_000;
    for (const [bucket, limits] of kinds) bytes += await flood(addresses, bucket, limits);
    figures(`${5 * addresses} addresses take ${(bytes / MB).toFixed(1)} MB in Redis`);
    expect(bytes).toBeLessThan(20 * MB);
    // An honest client whose address is new shares a counter, and still passes.
    expect((await storage.admit('send', '203.0.113.77', config.limitIp)).waitMs).toBe(0);
  }, 1_200_000);
});
