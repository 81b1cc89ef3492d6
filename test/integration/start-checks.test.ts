import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { Finding } from '../../src/doctor/finding';
import { examineRedis } from '../../src/doctor/examine-redis';
import { REDIS_CHECKS, type RedisKind } from '../../src/doctor/redis-checks';
import { redisClient } from '../../src/redis/connection';
import { connectedPrimaries, primariesOf } from '../../src/redis/primaries';
import { until } from '../support/hang';
import { holdTimers, type HeldTimers } from '../support/held-timers';
import { RedisProxy } from '../support/redis-proxy';
import { type RedisServer, startRedis } from '../support/redis-server';
import { holdTimersOfService } from '../support/service-clock';
import { call, launchInstance, sendOtp, startInstance, type Instance } from '../support/world';

const SOURCES = join(__dirname, '../../src');
/** Nothing to mend. */
const KEEPS = ['--appendonly', 'yes'];
const PASSWORD = 'a-password-of-a-test';
/** How long the checks wait for a Redis, and how long a silent connection is kept. */
const PATIENCE_MS = 2_000;
const SOCKET_MS = 3_000;
const isPatience = (ms: number): boolean => ms === PATIENCE_MS || ms === SOCKET_MS;

/** One that the tests configure. */
let redis: RedisServer;
let owner: Redis;
/** The checks wait until the test says that their time is over. */
let timers: HeldTimers;
const closing: (() => unknown)[] = [];

beforeAll(async () => {
  redis = await startRedis({ args: KEEPS });
  owner = new Redis(redis.url);
});
beforeEach(async () => {
  await owner.config('SET', 'appendonly', 'yes');
  await owner.config('SET', 'maxmemory-policy', 'noeviction');
  timers = holdTimers(isPatience);
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  jest.restoreAllMocks();
});
afterAll(async () => {
  owner.disconnect();
  await redis.stop();
});

async function redisWith(args: string[]): Promise<RedisServer> {
  const server = await startRedis({ args });
  closing.push(() => server.stop());
  return server;
}

function connectionTo({ url }: RedisServer): Redis {
  const client = new Redis(url);
  closing.push(() => {
    client.disconnect();
  });
  return client;
}

/** The address of Redis for a user with these rules. */
async function asUser(...rules: string[]): Promise<string> {
  await owner.call('ACL', 'SETUSER', 'otp', 'reset', 'on', `>${PASSWORD}`, '~*', '&*', '+@all', ...rules);
  return redis.url.replace('//', `//otp:${PASSWORD}@`);
}

/** ioredis says itself that INFO is refused. */
const silenceIoredis = (): void => {
  jest.spyOn(console, 'warn').mockImplementation(() => undefined);
  jest.spyOn(globalThis.globalOfService.console, 'warn').mockImplementation(() => undefined);
};

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

describe('checks of Redis', () => {
  it('the checks find nothing to mend in a well configured Redis', async () => {
    const findings = await examine(redis.url);
    expect(toMend(findings)).toEqual([]);
    expect(findings.map(({ check }) => check)).toEqual(
      REDIS_CHECKS.filter((check) => check !== 'redis_replicas'),
    );
  });

  it.each([
    ['maxmemory-policy', 'volatile-lru', 'redis_eviction warning'],
    ['appendonly', 'no', 'redis_persistence warning'],
  ])('the checks see a Redis with %s %s and find: %s', async (name, value, expected) => {
    await owner.config('SET', name, value);
    expect(toMend(await examine(redis.url))).toEqual([expected]);
  });

  it('the checks miss a snapshot until Redis has taken one', async () => {
    const saving = await redisWith(['--save', '3600 1']);
    const client = connectionTo(saving);
    expect(toMend(await examine(saving.url))).toEqual(['redis_persistence warning']);
    await client.set('key', 'value');
    await client.bgsave();
    await until(
      async () => (await client.info('persistence')).includes('rdb_bgsave_in_progress:0'),
      'the snapshot',
    );
    expect(toMend(await examine(saving.url))).toEqual([]);
  });

  it('the checks see a snapshot that could not be saved, although Redis keeps an append-only file', async () => {
    const broken = await redisWith(KEEPS);
    const client = connectionTo(broken);
    const [, folder = ''] = (await client.config('GET', 'dir')) as string[];
    rmSync(folder, { recursive: true });
    await client.bgsave();
    await until(
      async () => (await client.info('persistence')).includes('rdb_last_bgsave_status:err'),
      'the end of the snapshot',
    );
    const [finding, ...others] = (await examine(broken.url)).filter(({ level }) => level !== 'ok');
    expect([finding?.check, others]).toEqual(['redis_persistence', []]);
    expect(finding?.message).toContain('could not save its last snapshot');
  });

  it.each([
    ['EVAL', '-eval'],
    ['EVALSHA', '-evalsha'],
    ['any script', '-@scripting'],
    ['TIME, which scripts need', '-time'],
    ['HSET', '-hset'],
    ['XADD', '-xadd'],
    ['any write', '-@write'],
    ['anything on the keys of the service', 'resetkeys ~other:*'],
    ['anything on most keys of the service', 'resetkeys ~otp-login:{admission}*'],
    ['a write to the keys of the service', 'resetkeys %R~otp-login:*'],
  ])('the checks see a Redis user that may not run %s', async (_, rules) => {
    const findings = await examine(await asUser(...rules.split(' ')));
    expect(toMend(findings)).toContain('redis_scripts fault');
    const text = findings.map(({ message }) => message).join('\n');
    expect(text).toContain('refuses the scripts of the service (');
    expect(text).not.toContain(PASSWORD);
  });

  it('the checks report a refused INFO and check the rest', async () => {
    silenceIoredis();
    const findings = await examine(await asUser('-info'));
    expect(toMend(findings)).toEqual(['redis_info warning']);
    expect(findings.map(({ check }) => check)).toEqual([
      'redis_reached',
      'redis_info',
      'redis_scripts',
      'redis_clock',
    ]);
  });

  it('the checks need no CONFIG, which managed Redis forbids, and leave nothing in Redis', async () => {
    await owner.flushall();
    expect(toMend(await examine(await asUser('-config', '-@admin', '+info')))).toEqual([]);
    expect(await owner.dbsize()).toBe(0);
  });

  it('the finding names the commands that the Redis user lacks', async () => {
    const findings = await examine(await asUser('-hset', '-del', '-xtrim'));
    const { message } = findings.find(({ check }) => check === 'redis_scripts')!;
    expect(message).toContain('(NOPERM: HSET, XTRIM, DEL)');
  });

  it('the check of rights tries every command that a script of the service uses', () => {
    const scripts = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.lua'),
    );
    const used = scripts
      .map((name) => readFileSync(join(SOURCES, name), 'utf8'))
      .flatMap((text) => [...text.matchAll(/redis\.p?call\('([A-Z]+)'/g)].map(([, command]) => command!));
    const rights = readFileSync(join(SOURCES, 'redis/rights.lua'), 'utf8');
    const tried = [...rights.matchAll(/try\('([A-Z]+)'/g)].map(([, command]) => command);
    expect(used.filter((command) => !tried.includes(command))).toEqual([]);
  });

  it('every question of the checks passes a key, because some managed caches refuse scripts without one', async () => {
    const monitor = await owner.monitor();
    const asked: string[][] = [];
    monitor.on('monitor', (_time: string, args: string[]) => asked.push(args));
    await examine(redis.url);
    await owner.echo('end');
    await until(() => asked.some(([name]) => /^echo$/i.test(name!)), 'the end of the questions');
    monitor.disconnect();
    const scripts = asked.filter(([name]) => /^eval/i.test(name!));
    expect(scripts.map(([name]) => name!.toLowerCase())).toEqual(['evalsha', 'eval']);
    for (const [, , count, key] of scripts) expect([count, key]).toEqual(['1', 'otp-login:{check-0}:rights']);
  });

  it.each([
    ['is full', ['maxmemory', '1'], ['maxmemory', '0']],
    ['refuses writes because it cannot save', ['min-replicas-to-write', '1'], ['min-replicas-to-write', '0']],
  ])('the checks do not take a Redis that %s for a refused right', async (_, set, reset) => {
    await owner.config('SET', ...(set as [string, string]));
    try {
      expect(toMend(await examine(redis.url))).toEqual([]);
    } finally {
      await owner.config('SET', ...(reset as [string, string]));
    }
  });

  it.each([
    [60_000, 'behind'],
    [-60_000, 'ahead of'],
  ])('the checks see a service clock that is off by %i ms: Redis is %s it', async (aheadMs, word) => {
    const started = Date.now();
    const findings = await examine(redis.url, 'standalone', () => Date.now() + aheadMs);
    const tookSeconds = (Date.now() - started) / 1_000;
    expect(toMend(findings)).toEqual(['redis_clock warning']);
    const { message = '' } = findings.find(({ check }) => check === 'redis_clock') ?? {};
    expect(Math.abs(Number(/is ([\d.]+) s/.exec(message)?.[1]) - 60)).toBeLessThan(tookSeconds + 0.1);
    expect(message).toContain(word);
  });

  it('the checks do not take a slow answer of Redis for a wrong clock', async () => {
    // Six seconds there, and none back: where on the way the clock was read is not known.
    let asked = false;
    const now = (): number => {
      const early = asked ? 0 : 6_000;
      asked = true;
      return Date.now() - early;
    };
    expect(toMend(await examine(redis.url, 'standalone', now))).toEqual([]);
  });

  it('the checks see a primary without replicas where a replica has to take over', async () => {
    const primary = await redisWith(KEEPS);
    const client = connectionTo(primary);
    expect(toMend(await examine(primary.url, 'sentinel'))).toEqual(['redis_replicas warning']);
    await redisWith(['--replicaof', '127.0.0.1', String(primary.port)]);
    await until(
      async () => (await client.info('replication')).includes('connected_slaves:1'),
      'the replica of the primary',
    );
    expect(toMend(await examine(primary.url, 'sentinel'))).toEqual([]);
  });

  it('the checks report a Redis that was reached and no longer answers', async () => {
    const server = await redisWith(KEEPS);
    const client = redisClient(server.url);
    client.on('error', () => undefined);
    closing.push(() => {
      client.disconnect();
    });
    await client.connect();
    server.pause();
    const paused = examineRedis('standalone', primariesOf(client));
    timers.fire(PATIENCE_MS);
    expect(toMend(await paused)).toEqual(['redis_reached fault']);
    await server.kill();
    await until(() => client.status !== 'ready', 'the loss of Redis');
    expect(toMend(await examineRedis('standalone', primariesOf(client)))).toEqual(['redis_reached fault']);
  });

  it('the checks ask every primary of a cluster and name the one with a finding', async () => {
    const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', ...KEEPS];
    const good = await redisWith(args);
    const evicting = await redisWith([...args, '--maxmemory-policy', 'allkeys-lru']);
    const [first, second] = [connectionTo(good), connectionTo(evicting)];
    await first.call('CLUSTER', 'ADDSLOTSRANGE', '0', '8191');
    await second.call('CLUSTER', 'ADDSLOTSRANGE', '8192', '16383');
    await first.call('CLUSTER', 'MEET', '127.0.0.1', String(evicting.port));
    for (const each of [first, second])
      await until(
        async () => String(await each.call('CLUSTER', 'INFO')).includes('cluster_state:ok'),
        'the cluster',
      );

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

describe('checks of a running service', () => {
  /** The checks of the service wait, too. */
  let timersOfService: HeldTimers;
  beforeEach(() => {
    timersOfService = holdTimersOfService(isPatience);
  });

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
    await until(async () => Object.keys(await gauge(instance)).length > 0, 'the first look at Redis');
    return gauge(instance);
  };
  const warned = ({ logs }: Instance): unknown[] =>
    logs
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ check }) => check !== undefined)
      .map(({ level, check, severity }) => [level, check, severity]);
  const only = (...failed: string[]): Record<string, number> =>
    Object.fromEntries(REDIS_CHECKS.map((check) => [check, failed.includes(check) ? 1 : 0]));

  it('the service reports nothing about a well configured Redis', async () => {
    const instance = await serviceOver(redis.url);
    expect(await looked(instance)).toEqual(only());
    expect(warned(instance)).toEqual([]);
  });

  it('the service reports each finding by one log line and one gauge, and is ready', async () => {
    await owner.config('SET', 'maxmemory-policy', 'volatile-lru', 'appendonly', 'no');
    const instance = await serviceOver(redis.url);
    expect(await looked(instance)).toEqual(only('redis_eviction', 'redis_persistence'));
    expect(warned(instance)).toEqual([
      ['warn', 'redis_eviction', 'warning'],
      ['warn', 'redis_persistence', 'warning'],
    ]);
    expect((await call('GET', `${instance.url}/health/ready`)).body).toEqual({ status: 'ok' });
  });

  async function unreadyOver(url: string): Promise<Instance> {
    const instance = await launchInstance({ REDIS_URL: url, STARTMESSAGING_BASE_URL: 'http://127.0.0.1:9' });
    closing.push(() => instance.close());
    return instance;
  }
  const ready = async ({ url }: Instance) => {
    const { status, body } = await call('GET', `${url}/health/ready`);
    return [status, body.status as string];
  };
  const errorsOf = ({ logs }: Instance): string[] =>
    logs
      .map((line) => JSON.parse(line) as { level: string; msg: string })
      .flatMap(({ level, msg }) => (level === 'error' ? [msg] : []));

  it.each([
    ['scripts', '-@scripting', /what the service needs \(NOPERM\)/],
    ['EVALSHA', '-evalsha', /what the service needs \(NOPERM\)/],
    ['the keys of the service', 'resetkeys ~other:*', /what the service needs \(NOPERM\)/],
    ['a command', '-hset', /what the service needs \(NOPERM: HSET\)/],
  ])(
    'an instance whose Redis user has no right to %s is not ready, names the fault, and is ready when the right is given',
    async (_, rules, fault) => {
      const instance = await unreadyOver(await asUser(...rules.split(' ')));
      expect(await looked(instance)).toEqual(only('redis_scripts'));
      expect(warned(instance)).toEqual([['warn', 'redis_scripts', 'fault']]);
      await until(() => errorsOf(instance).some((message) => fault.test(message)), 'the log line');
      expect(errorsOf(instance).filter((message) => message.includes('REDIS_URL'))).toEqual([
        expect.stringMatching(/the service is not ready$/),
      ]);
      expect(await ready(instance)).toEqual([503, 'starting']);
      expect((await sendOtp(instance.url, '+919876543210')).body.code).toBe('store_unavailable');
      expect(instance.logs.join('')).not.toContain(PASSWORD);

      await asUser();
      await until(async () => (await ready(instance))[0] === 200, 'the readiness');
      await until(async () => (await gauge(instance)).redis_scripts === 0, 'the end of the finding');
    },
  );

  it('an instance that was ready stays ready when its Redis user loses a right', async () => {
    const instance = await serviceOver(await asUser());
    await looked(instance);
    await asUser('-@scripting');
    await owner.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(async () => (await gauge(instance)).redis_scripts === 1, 'the finding');
    expect((await ready(instance))[0]).toBe(200);
  });

  it.each([
    ['is full', ['maxmemory', '1'], ['maxmemory', '0']],
    ['is read-only', ['replicaof', '127.0.0.1 1'], ['replicaof', 'no one']],
  ])('an instance is ready over a Redis that %s', async (what, set, reset) => {
    const change = ([name, value]: string[]) =>
      name === 'replicaof' ? owner.call(name, ...value!.split(' ')) : owner.config('SET', name!, value!);
    await change(set);
    try {
      const instance = await unreadyOver(redis.url);
      await until(async () => (await ready(instance))[0] === 200, `the readiness over a Redis that ${what}`);
    } finally {
      await change(reset);
    }
  });

  it.each([
    ['that does not exist', '99', []],
    ['to which its user has no right', '3', ['-select']],
  ])(
    'an instance with a Redis database %s is not ready, names the fault, and uses no other database',
    async (_, db, rules) => {
      await owner.flushall();
      const url = `${await asUser(...rules)}/${db}`;
      const instance = await unreadyOver(url);
      await until(async () => (await gauge(instance)).redis_reached === 1, 'the finding');
      expect(errorsOf(instance).filter((message) => message.includes('REDIS_URL'))).toEqual([
        expect.stringMatching(
          new RegExp(
            `^Redis refuses database ${db} of REDIS_URL \\(SELECT: (ERR|NOPERM)\\): the service is not ready$`,
          ),
        ),
      ]);
      expect((await sendOtp(instance.url, '+919876543210')).body.code).toBe('store_unavailable');
      expect(await ready(instance)).toEqual([503, 'starting']);
      expect(await owner.dbsize()).toBe(0);
      await expect(examine(url)).rejects.toThrow();
    },
  );

  it('an instance uses its own database only, also when a new connection may not select it', async () => {
    await owner.flushall();
    const instance = await serviceOver(`${await asUser()}/3`);
    await sendOtp(instance.url, '+919876543210');
    expect([await owner.dbsize(), await owner.info('keyspace')]).toEqual([
      0,
      expect.stringContaining('db3:'),
    ]);
    await asUser('-select');
    await owner.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(() => errorsOf(instance).some((message) => message.includes('database 3')), 'the refusal');
    expect((await sendOtp(instance.url, '+919876543211')).body.code).toBe('store_unavailable');
    expect(await ready(instance)).toEqual([200, 'degraded']);
    expect(await owner.dbsize()).toBe(0);
    await asUser();
    await until(async () => (await ready(instance))[1] === 'ok', 'the connection to database 3');
    await sendOtp(instance.url, '+919876543212');
    expect(await owner.dbsize()).toBe(0);
  });

  it('the service reports a refused INFO as a warning with the reason', async () => {
    silenceIoredis();
    const instance = await serviceOver(await asUser('-info'));
    expect(await looked(instance)).toEqual(only('redis_info'));
    expect(instance.logs.join('')).toContain('Redis refuses INFO (NOPERM)');
  });

  it('the service checks Redis again after each new connection and reports changes', async () => {
    const instance = await serviceOver(redis.url);
    expect(await looked(instance)).toEqual(only());
    await owner.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await owner.client('KILL', 'TYPE', 'normal');
    await until(async () => (await gauge(instance)).redis_eviction === 1, 'the finding');
    expect(warned(instance).at(-1)).toEqual(['warn', 'redis_eviction', 'warning']);
    await owner.config('SET', 'maxmemory-policy', 'noeviction');
    await owner.client('KILL', 'TYPE', 'normal');
    await until(async () => (await gauge(instance)).redis_eviction === 0, 'the end of the finding');
    expect(await gauge(instance)).toEqual(only());
  });

  it('the service checks Redis again every hour and reports only new findings', async () => {
    await owner.config('SET', 'maxmemory-policy', 'allkeys-lru', 'appendonly', 'no');
    const intervals = jest.spyOn(globalThis.globalOfService, 'setInterval');
    const instance = await serviceOver(redis.url);
    const [hourly] = intervals.mock.calls.find(([, ms]) => ms === 3_600_000) ?? [];
    expect(await looked(instance)).toEqual(only('redis_eviction', 'redis_persistence'));
    await owner.config('SET', 'appendonly', 'yes');
    (hourly as () => void)();
    await until(async () => (await gauge(instance)).redis_persistence === 0, 'the end of the finding');
    await owner.config('SET', 'appendonly', 'no');
    (hourly as () => void)();
    await until(async () => (await gauge(instance)).redis_persistence === 1, 'the finding');
    expect(warned(instance).map((line) => (line as string[])[1])).toEqual([
      'redis_eviction',
      'redis_persistence',
      'redis_persistence',
    ]);
  });

  it('the service is ready while Redis does not answer the checks, and checks it after the next connection', async () => {
    const proxy = await RedisProxy.before(redis);
    closing.push(() => proxy.close());
    const stalled = proxy.trap('TIME', 'hold');
    // Resolves when it is ready.
    const instance = await serviceOver(proxy.url);
    await stalled.caught();
    expect(await gauge(instance)).toEqual({});
    expect((await call('GET', `${instance.url}/health/ready`)).body).toEqual({ status: 'ok' });
    timersOfService.fire(PATIENCE_MS);
    expect(await looked(instance)).toEqual(only('redis_reached'));
    expect(warned(instance)).toEqual([['warn', 'redis_reached', 'fault']]);
    stalled.letGo();
    await owner.client('KILL', 'TYPE', 'normal');
    await until(async () => (await gauge(instance)).redis_reached === 0, 'the end of the finding');
    expect(await gauge(instance)).toEqual(only());
  });
});
