import { rmSync } from 'node:fs';
import { Redis } from 'ioredis';
import type { Finding } from '../../src/doctor/finding';
import { examineRedis } from '../../src/doctor/examine-redis';
import { REDIS_CHECKS, type RedisKind } from '../../src/doctor/redis-checks';
import { redisClient } from '../../src/redis/connection';
import { connectedPrimaries, primariesOf } from '../../src/redis/primaries';
import { RedisProxy } from '../support/redis-proxy';
import { type RedisServer, startRedis } from '../support/redis-server';
import { call, sendOtp, startInstance, until, type Instance } from '../support/world';

/** Nothing to mend. */
const KEEPS = ['--appendonly', 'yes'];
const PASSWORD = 'a-password-of-a-test';
const user = (...rules: string[]): string[] => [
  ...KEEPS,
  ...['--user', 'otp', 'on', `>${PASSWORD}`, '~*', '&*', '+@all', ...rules],
];
const asUser = ({ port }: RedisServer): string => `redis://otp:${PASSWORD}@127.0.0.1:${port}`;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function redisWith(args: string[]): Promise<RedisServer> {
  const redis = await startRedis({ args });
  closing.push(() => redis.stop());
  return redis;
}

/** What the checks find over a connection of their own. */
async function examine(url: string, kind: RedisKind = 'standalone', now?: () => number): Promise<Finding[]> {
  const client = redisClient(url);
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await examineRedis(kind, await connectedPrimaries(client), now);
  } finally {
    client.disconnect();
  }
}

const toMend = (findings: Finding[]): string[] =>
  findings.filter(({ level }) => level !== 'ok').map(({ check, level }) => `${check} ${level}`);

describe('over a real Redis', () => {
  it('find nothing to mend where nothing is', async () => {
    const findings = await examine((await redisWith(KEEPS)).url);
    expect(toMend(findings)).toEqual([]);
    expect(findings.map(({ check }) => check)).toEqual(
      REDIS_CHECKS.filter((check) => check !== 'redis_replicas'),
    );
  });

  it.each<[string, string[], string[]]>([
    ['evicts', [...KEEPS, '--maxmemory-policy', 'volatile-lru'], ['redis_eviction warning']],
    ['keeps nothing', [], ['redis_persistence warning']],
    ['keeps snapshots, and has taken none yet', ['--save', '3600 1'], ['redis_persistence warning']],
  ])('see that it %s', async (_, args, expected) => {
    expect(toMend(await examine((await redisWith(args)).url))).toEqual(expected);
  });

  it('see a snapshot once there is one', async () => {
    const redis = await redisWith(['--save', '3600 1']);
    const client = new Redis(redis.url);
    closing.push(() => {
      client.disconnect();
    });
    await client.set('key', 'value');
    await client.bgsave();
    await until(async () => (await client.info('persistence')).includes('rdb_bgsave_in_progress:0'));
    expect(toMend(await examine(redis.url))).toEqual([]);
  });

  it('see a snapshot that could not be saved, although there is an append-only file', async () => {
    const redis = await redisWith([]);
    const client = new Redis(redis.url);
    closing.push(() => {
      client.disconnect();
    });
    const [, folder = ''] = (await client.config('GET', 'dir')) as string[];
    rmSync(folder, { recursive: true });
    await client.bgsave();
    await until(async () => (await client.info('persistence')).includes('rdb_last_bgsave_status:err'));
    const [finding, ...others] = (await examine(redis.url)).filter(({ level }) => level !== 'ok');
    expect([finding?.check, others]).toEqual(['redis_persistence', []]);
    expect(finding?.message).toContain('could not save its last snapshot');
  });

  it.each([
    ['EVAL', '-eval'],
    ['EVALSHA', '-evalsha'],
    ['all scripts', '-@scripting'],
    ['what scripts ask for', '-time'],
  ])('see that a user may not run %s', async (_, rule) => {
    const findings = await examine(asUser(await redisWith(user(rule))));
    expect(toMend(findings)).toContain('redis_scripts fault');
    const text = findings.map(({ message }) => message).join('\n');
    expect(text).toContain('refuses scripts (');
    expect(text).not.toContain(PASSWORD);
  });

  it('say that INFO is refused, and check what they can', async () => {
    jest.spyOn(console, 'warn').mockImplementation(() => undefined); // ioredis says it, too.
    const findings = await examine(asUser(await redisWith(user('-info'))));
    jest.restoreAllMocks();
    expect(toMend(findings)).toEqual(['redis_info warning']);
    expect(findings.map(({ check }) => check)).toEqual([
      'redis_reached',
      'redis_info',
      'redis_scripts',
      'redis_clock',
    ]);
  });

  it('never use CONFIG, which managed Redis forbids, and change nothing', async () => {
    const redis = await redisWith(user('-config', '-@write', '-@admin'));
    expect(toMend(await examine(asUser(redis)))).toEqual([]);
  });

  it.each([
    [60_000, 'behind'],
    [-60_000, 'ahead of'],
  ])('see a clock that is a minute off (%i)', async (aheadMs, word) => {
    const { url } = await redisWith(KEEPS);
    const findings = await examine(url, 'standalone', () => Date.now() + aheadMs);
    expect(toMend(findings)).toEqual(['redis_clock warning']);
    const { message = '' } = findings.find(({ check }) => check === 'redis_clock') ?? {};
    expect(Number(/is ([\d.]+) s/.exec(message)?.[1])).toBeCloseTo(60, 0);
    expect(message).toContain(word);
  });

  it('take a long way there and back for no wrong clock', async () => {
    const { url } = await redisWith(KEEPS);
    // Six seconds there, and none back: where on the way the clock was read, nobody knows.
    const times = [Date.now() - 6_000, Date.now()];
    expect(toMend(await examine(url, 'standalone', () => times.shift() ?? 0))).toEqual([]);
  });

  it('say that a primary has no replica, where one is to take over', async () => {
    const redis = await redisWith(KEEPS);
    expect(toMend(await examine(redis.url, 'sentinel'))).toEqual(['redis_replicas warning']);
    await redisWith(['--replicaof', '127.0.0.1', String(redis.port)].map(String));
    const client = new Redis(redis.url);
    closing.push(() => {
      client.disconnect();
    });
    await until(async () => (await client.info('replication')).includes('connected_slaves:1'));
    expect(toMend(await examine(redis.url, 'sentinel'))).toEqual([]);
  });

  it('say so when a Redis that was reached no longer answers', async () => {
    const redis = await redisWith(KEEPS);
    const client = redisClient(redis.url);
    client.on('error', () => undefined);
    closing.push(() => {
      client.disconnect();
    });
    await client.connect();
    redis.pause();
    const paused = await examineRedis('standalone', primariesOf(client));
    expect(toMend(paused)).toEqual(['redis_reached fault']);
    redis.resume();
    await redis.kill();
    await until(() => client.status !== 'ready');
    expect(toMend(await examineRedis('standalone', primariesOf(client)))).toEqual(['redis_reached fault']);
  });

  it('ask every primary of a cluster, and name the one that has something to mend', async () => {
    const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', ...KEEPS];
    const good = await redisWith(args);
    const evicting = await redisWith([...args, '--maxmemory-policy', 'allkeys-lru']);
    const [first, second] = [new Redis(good.url), new Redis(evicting.url)];
    closing.push(() => {
      first.disconnect();
      second.disconnect();
    });
    await first.call('CLUSTER', 'ADDSLOTSRANGE', '0', '8191');
    await second.call('CLUSTER', 'ADDSLOTSRANGE', '8192', '16383');
    await first.call('CLUSTER', 'MEET', '127.0.0.1', String(evicting.port));
    for (const each of [first, second])
      await until(async () => String(await each.call('CLUSTER', 'INFO')).includes('cluster_state:ok'));

    const findings = await examine(`redis+cluster://127.0.0.1:${good.port}`, 'cluster');
    expect(toMend(findings)).toEqual([
      'redis_eviction warning',
      'redis_replicas warning',
      'redis_replicas warning',
    ]);
    const eviction = findings.find(({ check }) => check === 'redis_eviction');
    expect(eviction?.message).toContain(`Redis 127.0.0.1:${evicting.port} evicts keys`);
    // What is well everywhere is told once.
    expect(findings.find(({ check }) => check === 'redis_scripts')?.message).toMatch(/, as 1 more$/);
  });
});

describe('at the start of the service', () => {
  async function serviceOver(url: string, more: Record<string, string> = {}): Promise<Instance> {
    const instance = await startInstance({
      REDIS_URL: url,
      STARTMESSAGING_BASE_URL: 'http://127.0.0.1:9',
      ...more,
    });
    closing.push(() => instance.close());
    return instance;
  }

  /** The gauge by its checks; empty before the first look. */
  async function gauge({ url }: Instance): Promise<Record<string, number>> {
    const { body } = await call('GET', `${url}/metrics`);
    const lines = [...String(body).matchAll(/^otp_login_check_failed\{check="(\w+)"\} (\d+)$/gm)];
    return Object.fromEntries(lines.map(([, check, value]) => [check, Number(value)]));
  }

  const looked = async (instance: Instance): Promise<Record<string, number>> => {
    await until(async () => Object.keys(await gauge(instance)).length > 0);
    return gauge(instance);
  };
  const warned = ({ logs }: Instance): unknown[] =>
    logs
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ check }) => check !== undefined)
      .map(({ level, check, severity }) => [level, check, severity]);
  const only = (...failed: string[]): Record<string, number> =>
    Object.fromEntries(REDIS_CHECKS.map((check) => [check, failed.includes(check) ? 1 : 0]));

  it('nothing is said where nothing is to mend', async () => {
    const instance = await serviceOver((await redisWith(KEEPS)).url);
    expect(await looked(instance)).toEqual(only());
    expect(warned(instance)).toEqual([]);
  });

  it('each finding is one line and one gauge, and the service serves', async () => {
    const { url } = await redisWith(['--maxmemory-policy', 'volatile-lru']);
    const instance = await serviceOver(url);
    expect(await looked(instance)).toEqual(only('redis_eviction', 'redis_persistence'));
    expect(warned(instance)).toEqual([
      ['warn', 'redis_eviction', 'warning'],
      ['warn', 'redis_persistence', 'warning'],
    ]);
    expect((await call('GET', `${instance.url}/health/ready`)).body).toEqual({ status: 'ok' });
  });

  it('a Redis without scripts is told as what it is, and nothing refuses to start', async () => {
    const instance = await serviceOver(asUser(await redisWith(user('-@scripting'))));
    expect(await looked(instance)).toEqual(only('redis_scripts'));
    expect(warned(instance)).toEqual([['warn', 'redis_scripts', 'fault']]);
    expect((await sendOtp(instance.url, '+919876543210')).body.code).toBe('store_unavailable');
    expect(instance.logs.join('')).not.toContain(PASSWORD);
  });

  it('a Redis that refuses INFO is a warning in words', async () => {
    jest.spyOn(console, 'warn').mockImplementation(() => undefined); // ioredis says it, too.
    const instance = await serviceOver(asUser(await redisWith(user('-info'))));
    expect(await looked(instance)).toEqual(only('redis_info'));
    jest.restoreAllMocks();
    expect(instance.logs.join('')).toContain('Redis refuses INFO (NOPERM)');
  });

  it('they run again when Redis is reached again, and tell what has changed', async () => {
    const redis = await redisWith(KEEPS);
    const instance = await serviceOver(redis.url);
    expect(await looked(instance)).toEqual(only());
    const { port } = redis;
    await redis.kill();
    const other = await startRedis({ port, args: [...KEEPS, '--maxmemory-policy', 'allkeys-lru'] });
    closing.push(() => other.stop());
    await until(async () => (await gauge(instance)).redis_eviction === 1);
    expect(warned(instance).at(-1)).toEqual(['warn', 'redis_eviction', 'warning']);
    await other.kill();
    const mended = await startRedis({ port, args: KEEPS });
    closing.push(() => mended.stop());
    await until(async () => (await gauge(instance)).redis_eviction === 0);
    expect(await gauge(instance)).toEqual(only());
  });

  it('they run again every hour, and tell only what is new', async () => {
    const intervals = jest.spyOn(globalThis, 'setInterval');
    const redis = await redisWith(['--maxmemory-policy', 'allkeys-lru']);
    const instance = await serviceOver(redis.url);
    const [hourly] = intervals.mock.calls.find(([, ms]) => ms === 3_600_000) ?? [];
    intervals.mockRestore();
    expect(await looked(instance)).toEqual(only('redis_eviction', 'redis_persistence'));
    const client = new Redis(redis.url);
    closing.push(() => {
      client.disconnect();
    });
    await client.config('SET', 'appendonly', 'yes');
    (hourly as () => void)();
    await until(async () => (await gauge(instance)).redis_persistence === 0);
    await client.config('SET', 'appendonly', 'no');
    (hourly as () => void)();
    await until(async () => (await gauge(instance)).redis_persistence === 1);
    expect(warned(instance).map((line) => (line as string[])[1])).toEqual([
      'redis_eviction',
      'redis_persistence',
      'redis_persistence',
    ]);
  });

  it('a Redis that stalls under the first question holds up neither readiness nor what comes after', async () => {
    const redis = await redisWith(KEEPS);
    const proxy = await RedisProxy.before(redis);
    closing.push(() => proxy.close());
    const stalled = proxy.trap('TIME', 'hold');
    // Resolves when it is ready.
    const instance = await serviceOver(proxy.url);
    await stalled.caught();
    expect(await gauge(instance)).toEqual({});
    expect((await call('GET', `${instance.url}/health/ready`)).body).toEqual({ status: 'ok' });
    expect(await looked(instance)).toEqual(only('redis_reached'));
    expect(warned(instance)).toEqual([['warn', 'redis_reached', 'fault']]);
    stalled.letGo();
    await redis.restart();
    await until(async () => (await gauge(instance)).redis_reached === 0);
    expect(await gauge(instance)).toEqual(only());
  });
});
