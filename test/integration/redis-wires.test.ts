import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { ApiError } from '../../src/errors/api-error';
import { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { TOLD_WITHIN_MS } from '../support/invariants';
import { type RedisServer, startRedis } from '../support/redis-server';
import { StaleSentinel } from '../support/stale-sentinel';
import { TcpLink } from '../support/tcp-link';
import { until } from '../support/world';

/** Longer than a silent connection is kept, and the way back. */
const BACK_WITHIN_MS = 12_000;

interface Wired {
  store: Store;
  link: TcpLink;
  raw: Redis;
  stop: () => Promise<void>;
}

async function wired(kind: 'standalone' | 'sentinel' | 'cluster'): Promise<Wired> {
  const args =
    kind === 'cluster' ? ['--cluster-enabled', 'yes', '--cluster-require-full-coverage', 'no'] : [];
  const redis: RedisServer = await startRedis({ args });
  // A cluster of which one half is well: there ioredis has somewhere to go, and its reasons to try again.
  const well: RedisServer | undefined = kind === 'cluster' ? await startRedis({ args }) : undefined;
  const link = await TcpLink.to(redis);
  const raw = new Redis(redis.url, { disconnectTimeout: 50 });
  const sentinel = await StaleSentinel.naming(link);
  if (kind === 'cluster') {
    await raw.call('CONFIG', 'SET', 'cluster-announce-ip', '127.0.0.1');
    await raw.call('CONFIG', 'SET', 'cluster-announce-port', String(link.port));
    // The key that is counted lies here.
    await raw.call('CLUSTER', 'ADDSLOTSRANGE', '8192', '16383');
    const other = new Redis(well?.url ?? '', { disconnectTimeout: 50 });
    await other.call('CLUSTER', 'SET-CONFIG-EPOCH', '2');
    await other.call('CLUSTER', 'ADDSLOTSRANGE', '0', '8191');
    await other.call('CLUSTER', 'MEET', '127.0.0.1', String(redis.port), String(redis.port + 10_000));
    for (const one of [raw, other])
      await until(
        async () => /state:ok[^]*slots_ok:16384/.test(String(await one.call('CLUSTER', 'INFO'))),
        20_000,
      );
    for (const one of [raw, other])
      await until(async () => String(await one.call('CLUSTER', 'SLOTS')).includes(String(link.port)));
    other.disconnect();
  }
  const urls = {
    standalone: `redis://127.0.0.1:${link.port}`,
    sentinel: `redis+sentinel://127.0.0.1:${sentinel.port}/otp`,
    cluster: `redis+cluster://127.0.0.1:${link.port}`,
  };
  const store = new Store(redisClient(urls[kind]), new Logger('silent', { write: () => undefined }));
  store.connect();
  await until(() => store.available);
  return {
    store,
    link,
    raw,
    stop: async () => {
      store.close();
      raw.disconnect();
      await Promise.all([link.close(), sentinel.close()]);
      await Promise.all([redis.stop(), well?.stop()]);
    },
  };
}

const count = (store: Store): Promise<number> => store.command('count', (client) => client.incr('{a}n'));

async function expectRefused(asked: Promise<unknown>): Promise<void> {
  const from = Date.now();
  const error: unknown = await asked.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ApiError);
  expect((error as ApiError).code).toBe('store_unavailable');
  expect(Date.now() - from).toBeLessThan(TOLD_WITHIN_MS);
}

describe.each(['standalone', 'sentinel', 'cluster'] as const)('a Redis behind a bad wire, %s', (kind) => {
  let redis: Wired;
  beforeEach(async () => {
    redis = await wired(kind);
  });
  afterEach(() => redis.stop());

  it('that swallows everything is left within seconds, and taken back', async () => {
    const { store, link, raw } = redis;
    await count(store);
    link.dropping = true;
    const { connections } = link;
    const refused: Promise<void>[] = [];
    await until(async () => {
      refused.push(expectRefused(count(store)));
      await sleep(200);
      return link.connections > connections && !store.available;
    }, BACK_WITHIN_MS);
    await Promise.all(refused);
    link.dropping = false;
    await until(() => store.available, BACK_WITHIN_MS);
    await until(() => count(store).then(() => true), BACK_WITHIN_MS);
    // Nothing that was refused came through later, but for what was on the wire.
    const counted = Number(await raw.get('{a}n'));
    await sleep(1_000);
    expect(Number(await raw.get('{a}n'))).toBe(counted);
    expect(counted).toBeLessThanOrEqual(3);
  });

  it('that loses answers runs nothing twice', async () => {
    const { store, link, raw } = redis;
    link.losingAnswers = true;
    const refused = expectRefused(count(store));
    await until(async () => (await raw.get('{a}n')) === '1');
    link.losingAnswers = false;
    link.cut();
    await refused;
    await until(() => store.available, BACK_WITHIN_MS);
    await sleep(500);
    expect(await raw.get('{a}n')).toBe('1');
    expect(await count(store)).toBe(2);
  });

  it('that is slow is waited for, and not too long', async () => {
    const { store, link } = redis;
    link.delayMs = 150;
    expect(await count(store)).toBe(1);
    link.delayMs = 600;
    await expectRefused(count(store));
    link.delayMs = 0;
    await until(() => count(store).then((n) => n >= 3), BACK_WITHIN_MS);
  });
});

describe.each(['standalone', 'sentinel'] as const)('a primary that was demoted, %s', (kind) => {
  let redis: Wired;
  beforeEach(async () => {
    redis = await wired(kind);
  });
  afterEach(() => redis.stop());

  it('refuses each step (READONLY), and is asked again by a new connection until another is found', async () => {
    const { store, link, raw } = redis;
    const other = await startRedis();
    try {
      expect(await count(store)).toBe(1);
      await raw.call('REPLICAOF', '127.0.0.1', '1');
      const { connections } = link;
      await expectRefused(count(store));
      await until(() => link.connections > connections, BACK_WITHIN_MS);
      link.target = other.port;
      await until(() => count(store).then(() => true), BACK_WITHIN_MS);
      expect(await raw.get('{a}n')).toBe('1');
    } finally {
      await other.stop();
    }
  });
});
