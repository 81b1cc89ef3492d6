import { readInfo, type RedisAnswers } from '../../src/doctor/ask-redis';
import { checkRedis, REDIS_CHECKS, type RedisKind } from '../../src/doctor/redis-checks';

/** As Redis 7.0 answers INFO, of a primary that has nothing to mend. */
const GOOD: Record<string, string> = {
  redis_version: '7.0.15',
  server_time_usec: '1795263047032109',
  uptime_in_seconds: '7200',
  maxmemory: '0',
  maxmemory_policy: 'noeviction',
  rdb_bgsave_in_progress: '0',
  rdb_last_save_time: String(1795263047 - 7200),
  rdb_last_bgsave_status: 'ok',
  rdb_last_bgsave_time_sec: '-1',
  rdb_saves: '0',
  rdb_last_load_keys_loaded: '0',
  aof_enabled: '1',
  aof_last_write_status: 'ok',
  role: 'master',
  connected_slaves: '1',
};

function answers(changed: Record<string, string | undefined> = {}, more: Partial<RedisAnswers> = {}) {
  const fields = Object.entries({ ...GOOD, ...changed }).filter(([, value]) => value !== undefined);
  const text = `# Server\r\n${fields.map(([name, value]) => `${name}:${value}\r\n`).join('')}\r\n`;
  return { name: 'Redis', info: readInfo(text), scripts: true as const, clockAheadMs: 0, ...more };
}

/** What is to mend, as `check level: message`. */
const toMend = (given: RedisAnswers, kind: RedisKind = 'sentinel'): string[] =>
  checkRedis(kind, given)
    .filter(({ level }) => level !== 'ok')
    .map(({ check, level, message }) => `${check} ${level}: ${message}`);

test('a well configured Redis primary passes every check once, without advice', () => {
  const findings = checkRedis('cluster', answers());
  expect(findings.map(({ check }) => check).sort()).toEqual([...REDIS_CHECKS].sort());
  expect(toMend(answers())).toEqual([]);
});

describe('the version', () => {
  test.each(['2.8.24', '5.0.14', '6.0.20', '6.1.240'])(
    'Redis of version %s is reported as too old',
    (version) => {
      expect(toMend(answers({ redis_version: version }))).toEqual([
        `redis_version fault: Redis runs Redis ${version}: version 6.2 of Redis is needed, and 7 or newer is wanted.`,
      ]);
    },
  );

  test.each(['6.2.0', '6.10.1', '7.0.15', '8.2.1', '10.0.0'])(
    'Redis of version %s is new enough',
    (version) => {
      expect(toMend(answers({ redis_version: version }))).toEqual([]);
    },
  );

  test.each([
    [{}, 'Redis 7.0.15'],
    [{ server_name: 'redis', gcc_version: '12.2.0' }, 'Redis 7.0.15'],
    [
      { redis_version: '7.2.4', server_name: 'valkey', valkey_version: '9.1.2', gcc_version: '14.2.0' },
      'Valkey 9.1.2, compatible with Redis 7.2.4',
    ],
    [{ redis_version: '7.2.11', redict_version: '7.3.6' }, 'Redict 7.3.6, compatible with Redis 7.2.11'],
    [
      { redis_version: '7.4.0', dragonfly_version: 'df-v1.34.2' },
      'Dragonfly df-v1.34.2, compatible with Redis 7.4.0',
    ],
  ])('the check names the server and its own version: %j is %s', (fields, server) => {
    const found = checkRedis('sentinel', answers(fields)).find(({ check }) => check === 'redis_version');
    expect(found).toEqual({ check: 'redis_version', level: 'ok', message: `Redis runs ${server}` });
  });

  test.each([undefined, '', 'unstable'])('an unreadable Redis version %p is a warning', (version) => {
    expect(toMend(answers({ redis_version: version }))).toEqual([
      expect.stringMatching(/^redis_version warning: Redis does not tell its version/),
    ]);
  });
});

describe('eviction', () => {
  test.each(['volatile-lru', 'allkeys-lru', 'volatile-ttl', 'allkeys-random'])(
    'the eviction policy %s is a warning, with a memory limit and without',
    (policy) => {
      for (const maxmemory of ['0', '1000000'])
        expect(toMend(answers({ maxmemory_policy: policy, maxmemory }))).toEqual([
          `redis_eviction warning: Redis evicts keys when it is full (maxmemory-policy ${policy}): ` +
            'limits and budgets can vanish silently. Set noeviction.',
        ]);
    },
  );

  test('an eviction policy that Redis does not show is a warning', () => {
    expect(toMend(answers({ maxmemory_policy: undefined }))).toEqual([
      expect.stringMatching(/^redis_eviction warning: .*make sure that it is noeviction/),
    ]);
  });
});

describe('persistence', () => {
  const NOTHING = { aof_enabled: '0' };

  test('a Redis without snapshots and without append-only file is a warning that says since when', () => {
    expect(toMend(answers(NOTHING))).toEqual([
      expect.stringMatching(
        /^redis_persistence warning: .*since it started 120 minutes ago\): a restart loses limits, budgets and sessions/,
      ),
    ]);
  });

  test.each<[string, Record<string, string>]>([
    ['saved since its start', { rdb_saves: '1' }],
    ['saved in the background', { rdb_last_bgsave_time_sec: '0' }],
    ['is saved just now', { rdb_bgsave_in_progress: '1' }],
    ['was read at the start', { rdb_last_load_keys_loaded: '12' }],
    ['was saved by a Redis that counts nothing', { rdb_last_save_time: '1795263000' }],
  ])('a Redis snapshot that %s is enough persistence', (_, fields) => {
    expect(toMend(answers({ ...NOTHING, ...fields }))).toEqual([]);
  });

  test('the start time of Redis is no snapshot, and nor are missing fields', () => {
    const missing = { rdb_saves: undefined, rdb_last_bgsave_time_sec: undefined };
    expect(toMend(answers({ ...NOTHING, ...missing }))).toHaveLength(1);
    expect(toMend(answers({ ...NOTHING, rdb_last_save_time: undefined }))).toHaveLength(1);
    expect(toMend(answers({ ...NOTHING, server_time_usec: undefined }))).toHaveLength(1);
  });

  test('each failed write to disk of Redis is reported by itself', () => {
    const failed = { rdb_last_bgsave_status: 'err', aof_last_write_status: 'err' };
    expect(toMend(answers(failed))).toEqual([
      expect.stringMatching(/^redis_persistence warning: .*could not save its last snapshot/),
      expect.stringMatching(/^redis_persistence warning: .*could not write to its append-only file/),
    ]);
  });
});

test('a missing replica is a warning where one is expected, and no finding for a single Redis', () => {
  const alone = answers({ connected_slaves: '0' });
  for (const kind of ['sentinel', 'cluster'] as const)
    expect(toMend(alone, kind)).toEqual([expect.stringMatching(/^redis_replicas warning: .*no replica/)]);
  expect(toMend(alone, 'standalone')).toEqual([]);
});

test.each([
  [2_000, []],
  [-2_000, []],
  [2_001, [expect.stringMatching(/^redis_clock warning: .* 2\.0 s ahead of this process/)]],
  [-90_000, [expect.stringMatching(/^redis_clock warning: .* 90\.0 s behind this process/)]],
])('the check judges a Redis clock that is %i ms ahead', (clockAheadMs, expected) => {
  expect(toMend(answers({}, { clockAheadMs }))).toEqual(expected);
});

test('a command that Redis refuses is reported with the first word of its error', () => {
  const refused = { refused: 'NOPERM' };
  expect(toMend(answers({}, { info: refused, scripts: refused, clockAheadMs: refused }))).toEqual([
    expect.stringMatching(/^redis_scripts fault: Redis refuses the scripts of the service \(NOPERM\)/),
    expect.stringMatching(/^redis_clock warning: Redis refuses TIME \(NOPERM\)/),
    expect.stringMatching(/^redis_info warning: Redis refuses INFO \(NOPERM\)/),
  ]);
});

test.each(['', '# Server', 'no colon', ':\r\n::\r\n', 'redis_version'])(
  'the checks read the INFO %j without an error',
  (text) => {
    expect(readInfo(text).get('redis_version')).toBeUndefined();
  },
);
