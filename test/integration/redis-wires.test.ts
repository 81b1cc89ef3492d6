import { Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { until } from '../support/hang';
import { type RedisServer, startRedis } from '../support/redis-server';
import { StaleSentinel } from '../support/stale-sentinel';
import { expectUnavailable, StepTimers } from '../support/step-timers';
import { TcpLink } from '../support/tcp-link';

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
        'the cluster',
      );
    for (const one of [raw, other])
      await until(
        async () => String(await one.call('CLUSTER', 'SLOTS')).includes(String(link.port)),
        'the address of the link in the map of slots',
      );
    other.disconnect();
  }
  const urls = {
    standalone: `redis://127.0.0.1:${link.port}`,
    sentinel: `redis+sentinel://127.0.0.1:${sentinel.port}/otp`,
    cluster: `redis+cluster://127.0.0.1:${link.port}`,
  };
  const store = new Store(redisClient(urls[kind]), new Logger('silent', { write: () => undefined }));
  store.connect();
  await until(() => store.available, 'the connection to Redis');
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

const KEY = '{a}n';
/** A step that tells how often it has run. */
const count = (store: Store): Promise<number> => store.command('count', (client) => client.incr(KEY));
const counted = async (raw: Redis): Promise<number> => Number(await raw.get(KEY));
/** Counts as soon as Redis takes steps again. */
async function countAgain(store: Store): Promise<number> {
  let answer = 0;
  await until(async () => (answer = await count(store)) > 0, 'an answer of Redis');
  return answer;
}

/** No step is given up, and no connection left, before the test says so. */
let timers: StepTimers;
beforeEach(() => {
  timers = StepTimers.hold();
});
afterEach(() => {
  timers.release();
});

describe.each(['standalone', 'sentinel', 'cluster'] as const)('a bad wire to Redis, %s', (kind) => {
  let redis: Wired;
  beforeAll(async () => {
    redis = await wired(kind);
  });
  afterAll(() => redis.stop());

  it(`the store leaves a connection (${kind}) that swallows everything, and repeats no lost command later`, async () => {
    const { store, link, raw } = redis;
    const before = await count(store);
    const { connections } = link;
    link.dropping = true;
    await timers.giveUp([count(store), count(store)]);
    timers.leaveConnections();
    await until(() => !store.available && link.connections > connections, 'a new connection');
    await expectUnavailable([count(store)]);
    link.dropping = false;
    // Those that were made meanwhile stay silent, too.
    timers.leaveConnections();
    expect(await countAgain(store)).toBe(before + 1);
    expect(await count(store)).toBe(before + 2);
    expect(await counted(raw)).toBe(before + 2);
  });

  it(`the store repeats no command whose answer was lost on the connection (${kind})`, async () => {
    const { store, link, raw } = redis;
    const before = await countAgain(store);
    link.losingAnswers = true;
    const refused = expectUnavailable([count(store)]);
    await until(async () => (await counted(raw)) === before + 1, 'the command in Redis');
    link.losingAnswers = false;
    link.cut();
    await refused;
    expect(await countAgain(store)).toBe(before + 2);
    expect(await counted(raw)).toBe(before + 2);
  });

  it(`the store takes a late answer (${kind}) until the step is given up, and no later`, async () => {
    const { store, link, raw } = redis;
    const before = await countAgain(store);
    link.withhold();
    const late = count(store);
    await until(async () => (await counted(raw)) === before + 1, 'the command in Redis');
    link.release();
    expect(await late).toBe(before + 1);

    link.withhold();
    await timers.giveUp([count(store)]);
    link.release();
    expect(await countAgain(store)).toBe(before + 3);
  });
});

describe.each(['standalone', 'sentinel'] as const)('a demoted primary, %s', (kind) => {
  let redis: Wired;
  let other: RedisServer;
  beforeAll(async () => {
    [redis, other] = await Promise.all([wired(kind), startRedis()]);
  });
  afterAll(() => Promise.all([redis.stop(), other.stop()]));

  it(`the store asks a demoted primary (${kind}) again over new connections until it finds the new primary`, async () => {
    const { store, link, raw } = redis;
    expect(await count(store)).toBe(1);
    await raw.call('REPLICAOF', '127.0.0.1', '1');
    const { connections } = link;
    await expectUnavailable([count(store)]);
    await until(() => link.connections > connections, 'a new connection');
    link.target = other.port;
    await until(async () => {
      await count(store);
      return true;
    }, 'an answer of the new primary');
    expect(await counted(raw)).toBe(1);
  });
});
