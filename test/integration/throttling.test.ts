import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Config, Environment, Limit } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { ApiError } from '../../src/errors/api-error';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { Admission } from '../../src/throttling/admission';
import type { Admitted } from '../../src/throttling/applicant';
import { RedisThrottlerStorage } from '../../src/throttling/redis-throttler-storage';
import { admissionOver, applicant } from '../support/applicant';
import { type RedisServer, startRedis } from '../support/redis-server';

const CONNECTIONS = 3;
const CALLS = 300;
const MINUTE_MS = 60_000;
const QUARTER_MS = 900_000;

const PHONE_LIST = 'otp-login:{admission}:phone:';
const SERVICE_LIST = 'otp-login:{admission}:service';
const MINUTES = 'otp-login:{admission}:budget:minutes';
const QUARTERS = 'otp-login:{admission}:budget:quarters';

let redis: RedisServer;
let raw: Redis;
let stores: Store[];
const logs: string[] = [];
const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });

/** Settings under which nothing is limited, so that a test names the limits that it is about. */
function settings(variables: Environment = {}): Config {
  return readConfig({
    NODE_ENV: 'test',
    SECRET: 'throttling-secret-0123456789-abcdef',
    SUBJECT_SECRET: 'throttling-subject-0123456789-abcdef',
    STARTMESSAGING_API_KEY: `sm_live_${'5e'.repeat(20)}`,
    LIMIT_PHONE: '1000000/60',
    LIMIT_GLOBAL: '1000000/60',
    ...variables,
  });
}

/** The clock that the limits go by, in milliseconds. */
async function redisNow(): Promise<number> {
  const [seconds, microseconds] = await raw.time();
  return Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
}

/** Everything that Redis holds, times to live aside. */
/** Every key and its value, but for when the guard looked last. */
async function contents(): Promise<Record<string, unknown>> {
  const keys = (await raw.keys('*')).sort();
  const everything: Record<string, unknown> = {};
  for (const key of keys) {
    const type = await raw.type(key);
    if (type === 'list') everything[key] = await raw.lrange(key, 0, -1);
    else if (type === 'stream') everything[key] = await raw.xrange(key, '-', '+');
    else everything[key] = { ...(await raw.hgetall(key)), judged: undefined };
  }
  return everything;
}

async function timesToLive(): Promise<number[]> {
  return Promise.all((await raw.keys('*')).map((key) => raw.pttl(key)));
}

/** True when some window of this length, its edges included, holds more than `count` of the timestamps. */
function exceeds(timestamps: readonly number[], { count, seconds }: Limit): boolean {
  return timestamps.some((start, i) => {
    const first = timestamps[i + count];
    return first !== undefined && first - start <= seconds * 1_000;
  });
}

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  stores = Array.from({ length: CONNECTIONS }, () => new Store(redisClient(redis.url), logger));
  for (const store of stores) store.connect();
  for (const end = Date.now() + 10_000; !stores.every((store) => store.available);) {
    if (Date.now() > end) throw new Error('Redis was not reached');
    await sleep(5);
  }
});

beforeEach(async () => {
  await raw.flushall();
  logs.length = 0;
});

afterAll(async () => {
  for (const store of stores) store.close();
  raw.disconnect();
  await redis.stop();
});

describe('the limits of a client address', () => {
  const ADDRESS = '203.0.113.77';
  let replicas: RedisThrottlerStorage[];

  beforeAll(() => {
    replicas = stores.map((store) => new RedisThrottlerStorage(settings(), store));
  });

  const admit = (address: string, limits: readonly Limit[], replica = 0, name = 'send'): Promise<number> =>
    replicas[replica % CONNECTIONS]!.admit(name, address, limits);

  async function theOnlyList(): Promise<number[]> {
    const keys = await raw.keys('*');
    expect(keys).toHaveLength(1);
    return (await raw.lrange(keys[0]!, 0, -1)).map(Number);
  }

  it('let exactly N of 300 concurrent calls over three connections pass', async () => {
    const limits = [{ count: 20, seconds: 60 }];
    const waits = await Promise.all(Array.from({ length: CALLS }, (_, i) => admit(ADDRESS, limits, i)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(20);
    for (const wait of waits) expect(wait).toBeLessThanOrEqual(60_001);
  });

  it('never let more than N pass in any closed window, however hard they are pressed', async () => {
    // The second limit refuses nobody; it makes Redis keep every timestamp.
    const limit = { count: 5, seconds: 1 };
    const limits = [limit, { count: 10_000, seconds: 60 }];
    let admitted = 0;
    const press = async (replica: number): Promise<void> => {
      for (const end = Date.now() + 3_500; Date.now() < end;) {
        if ((await admit(ADDRESS, limits, replica)) === 0) admitted += 1;
        await sleep(replica);
      }
    };
    await Promise.all([0, 1, 2, 0, 1, 2].map(press));

    const timestamps = await theOnlyList();
    expect(timestamps).toHaveLength(admitted);
    expect(exceeds(timestamps, limit)).toBe(false);
    // And they slide: places come back one by one, not a whole window later than they could.
    expect(admitted).toBeGreaterThanOrEqual(10);
  });

  it('count an entry that is exactly one window old', async () => {
    const limits = [
      { count: 1, seconds: 1 },
      { count: 1_000, seconds: 60 },
    ];
    for (let edges = 0; edges < 2; edges += 1) {
      await raw.flushall();
      expect(await admit(ADDRESS, limits)).toBe(0);
      while ((await admit(ADDRESS, limits)) > 0);
      const [first = 0, second = 0] = await theOnlyList();
      expect(second - first).toBeGreaterThan(1_000);
    }
  });

  it('ask all windows in one command', async () => {
    const limits = [1, 2, 3, 4, 5].map((seconds) => ({ count: 100, seconds }));
    await admit(ADDRESS, limits);
    await raw.config('RESETSTAT');
    for (let calls = 0; calls < 7; calls += 1) await admit(ADDRESS, limits);
    const stats = await raw.info('commandstats');
    expect(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1]).toBe('7');
    expect(stats).not.toMatch(/cmdstat_eval:/);
  });

  it('refuse by whichever of several windows is full', async () => {
    const limits = [
      { count: 2, seconds: 1 },
      { count: 3, seconds: 60 },
    ];
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect(await admit(ADDRESS, limits)).toBe(0);
    const short = await admit(ADDRESS, limits);
    expect(short).toBeGreaterThan(0);
    expect(short).toBeLessThanOrEqual(1_001);
    await sleep(short + 5);
    expect(await admit(ADDRESS, limits)).toBe(0);
    const long = await admit(ADDRESS, limits);
    expect(long).toBeGreaterThan(1_001);
    expect(long).toBeLessThanOrEqual(60_001);
  });

  it('count nothing when they refuse, in any window', async () => {
    const limits = [
      { count: 3, seconds: 60 },
      { count: 100, seconds: 600 },
    ];
    for (let calls = 0; calls < 3; calls += 1) await admit(ADDRESS, limits);
    const before = await contents();
    await Promise.all(Array.from({ length: 50 }, (_, i) => admit(ADDRESS, limits, i)));
    expect(await contents()).toEqual(before);
  });

  it('promise a retry time that holds: not before, and then at once', async () => {
    const limits = [
      { count: 2, seconds: 1 },
      { count: 1_000, seconds: 60 },
    ];
    await admit(ADDRESS, limits);
    await admit(ADDRESS, limits);
    const opensAt = (await theOnlyList())[0]! + 1_001;
    for (let asked = 0; asked < 5; asked += 1) {
      const before = await redisNow();
      const wait = await admit(ADDRESS, limits);
      // Whenever it is asked, the wait leads to the same moment.
      expect(opensAt - wait).toBeGreaterThanOrEqual(before);
      expect(opensAt - wait).toBeLessThanOrEqual(await redisNow());
      await sleep(20);
    }
    await sleep((await admit(ADDRESS, limits)) + 5);
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect((await theOnlyList())[2]).toBeGreaterThanOrEqual(opensAt);
  });

  it('count each IPv4 address and each kind of call by itself', async () => {
    const limits = [{ count: 1, seconds: 60 }];
    expect(await admit('203.0.113.77', limits)).toBe(0);
    expect(await admit('203.0.113.78', limits)).toBe(0);
    expect(await admit('203.0.113.77', limits, 0, 'verify')).toBe(0);
    expect(await admit('203.0.113.77', limits)).toBeGreaterThan(0);
  });

  it('count IPv6 by /64, whichever address of it calls and however it is written', async () => {
    const limits = [{ count: 3, seconds: 60 }];
    expect(await admit('2001:db8:1:2::1', limits)).toBe(0);
    expect(await admit('2001:0DB8:0001:0002:ffff:ffff:ffff:ffff', limits)).toBe(0);
    expect(await admit('2001:db8:1:2:0:0:192.0.2.1', limits)).toBe(0);
    expect(await admit('2001:db8:1:2:abcd::', limits)).toBeGreaterThan(0);
    expect(await admit('2001:db8:1:3::1', limits)).toBe(0);
  });

  it('count IPv6 by /48 too, at ten times the limit', async () => {
    const limits = [{ count: 2, seconds: 60 }];
    for (let subnet = 0; subnet < 10; subnet += 1) {
      expect(await admit(`2001:db8:1:${subnet.toString(16)}::1`, limits)).toBe(0);
      expect(await admit(`2001:db8:1:${subnet.toString(16)}::2`, limits)).toBe(0);
    }
    const before = await contents();
    expect(await admit('2001:db8:1:ff::1', limits)).toBeGreaterThan(0);
    // The /64 had room; the /48 refused, and neither was counted.
    expect(await contents()).toEqual(before);
    expect(await admit('2001:db8:2:ff::1', limits)).toBe(0);
  });

  it('let exactly ten times N of 300 concurrent calls from one /48 pass', async () => {
    const limits = [{ count: 4, seconds: 60 }];
    const waits = await Promise.all(
      Array.from({ length: CALLS }, (_, i) => admit(`2001:db8:1:${(i % 100).toString(16)}::1`, limits, i)),
    );
    expect(waits.filter((wait) => wait === 0)).toHaveLength(40);
  });

  it('keep no address in clear, and nothing for ever', async () => {
    const limits = [
      { count: 20, seconds: 600 },
      { count: 100, seconds: 3_600 },
    ];
    await admit(ADDRESS, limits);
    await admit('2001:db8:abcd:1234::1', limits);
    expect(JSON.stringify(await contents())).not.toMatch(/203\.0|113\.77|2001:|db8:|abcd:1234/i);

    const keys = await raw.keys('*');
    expect(keys).toHaveLength(3);
    for (const key of keys) {
      expect(key).toMatch(/^otp-login:\{[\w-]{16}\}:address:send:[\w-]{16}$/);
      // A bare hash would tell the address to whoever tries all four thousand million.
      for (const hash of ['sha1', 'sha256', 'md5'])
        for (const encoding of ['hex', 'base64url'] as const)
          expect(key).not.toContain(createHash(hash).update(ADDRESS).digest(encoding).slice(0, 12));
    }
    for (const ttl of await timesToLive()) {
      expect(ttl).toBeGreaterThan(3_590_000);
      expect(ttl).toBeLessThanOrEqual(3_601_000);
    }
  });

  it('keep as many timestamps as they need and no more', async () => {
    const limits = [{ count: 3, seconds: 1 }];
    for (let admitted = 0; admitted < 7;) {
      const wait = await admit(ADDRESS, limits);
      if (wait === 0) admitted += 1;
      else await sleep(wait + 2);
    }
    expect(await theOnlyList()).toHaveLength(3);
  });

  describe('asked through the interface of @nestjs/throttler', () => {
    // What ThrottlerGuard.generateKey answers: a SHA-256 in hex, and no address.
    const key = createHash('sha256').update('AuthController-sendOtp-default-203.0.113.77').digest('hex');

    it('count hits up to the limit, and block the next one', async () => {
      const storage = replicas[0]!;
      for (const totalHits of [1, 2, 3]) {
        const record = await storage.increment(key, 60_000, 3, 0, 'default');
        expect(record).toMatchObject({ totalHits, isBlocked: false });
        expect(record.timeToExpire).toBeGreaterThan(0);
        expect(record.timeToExpire).toBeLessThanOrEqual(61);
      }
      const blocked = await storage.increment(key, 60_000, 3, 0, 'default');
      expect(blocked.isBlocked).toBe(true);
      expect(blocked.totalHits).toBeGreaterThan(3);
      // Seconds, because the guard writes them into Retry-After.
      expect(blocked.timeToBlockExpire).toBeGreaterThan(50);
      expect(blocked.timeToBlockExpire).toBeLessThanOrEqual(61);
    });

    it('count each key and each throttler by itself', async () => {
      const storage = replicas[0]!;
      const other = createHash('sha256').update('another').digest('hex');
      expect((await storage.increment(key, 60_000, 1, 0, 'short')).isBlocked).toBe(false);
      expect((await storage.increment(key, 60_000, 1, 0, 'long')).isBlocked).toBe(false);
      expect((await storage.increment(other, 60_000, 1, 0, 'short')).isBlocked).toBe(false);
      expect((await storage.increment(key, 60_000, 1, 0, 'short')).isBlocked).toBe(true);
    });

    it('block all but N of 300 concurrent calls', async () => {
      const records = await Promise.all(
        Array.from({ length: CALLS }, (_, i) =>
          replicas[i % CONNECTIONS]!.increment(key, 60_000, 10, 60_000, 'default'),
        ),
      );
      expect(records.filter(({ isBlocked }) => !isBlocked)).toHaveLength(10);
    });
  });
});

describe('the admission of an SMS', () => {
  let metrics: Metrics;

  beforeEach(() => {
    metrics = new Metrics();
  });

  /** The service on three replicas. */
  const replicasWith = (variables: Environment): Admission[] =>
    stores.map((store) => admissionOver(settings(variables), store, metrics, logger));

  const admissionWith = (variables: Environment): Admission => replicasWith(variables)[0]!;

  const pseudonym = (person: number): string => `person-${String(person).padStart(15, '0')}`;

  /** How many calls ended how: `admitted`, or the code of the error. */
  async function outcomes(calls: Promise<unknown>[]): Promise<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const call of await Promise.allSettled(calls)) {
      const outcome = call.status === 'fulfilled' ? 'admitted' : (call.reason as ApiError).code;
      counts[outcome] = (counts[outcome] ?? 0) + 1;
    }
    return counts;
  }

  async function refusal(call: Promise<unknown>): Promise<ApiError> {
    const error: unknown = await call.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(ApiError);
    return error as ApiError;
  }

  async function counted(metric: 'limitsHit' | 'alerts', value: string): Promise<number> {
    const { values } = await metrics[metric].get();
    return values.find(({ labels }) => Object.values(labels).includes(value))?.value ?? 0;
  }

  /** Waits out the end of a minute, for tests that write buckets by hand: they must mean the same minute. */
  async function currentBuckets(): Promise<{ minute: number; quarter: number }> {
    const left = MINUTE_MS - ((await redisNow()) % MINUTE_MS);
    if (left < 5_000) await sleep(left + 10);
    const now = await redisNow();
    return { minute: Math.floor(now / MINUTE_MS), quarter: Math.floor(now / QUARTER_MS) };
  }

  const concurrently = (replicas: Admission[], person: (call: number) => number): Promise<unknown>[] =>
    Array.from({ length: CALLS }, (_, i) =>
      replicas[i % CONNECTIONS]!.admit(applicant(pseudonym(person(i)))),
    );

  it('lets exactly N of 300 concurrent calls for one phone pass', async () => {
    const replicas = replicasWith({ LIMIT_PHONE: '5/60,100/3600' });
    expect(await outcomes(concurrently(replicas, () => 1))).toEqual({ admitted: 5, rate_limited: 295 });
    expect(await counted('limitsHit', 'phone')).toBe(295);
    expect(await replicas[0]!.admit(applicant(pseudonym(2)))).toBeDefined();
  });

  it('lets exactly N of 300 concurrent calls of the whole service pass', async () => {
    const replicas = replicasWith({ LIMIT_GLOBAL: '7/60' });
    expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ admitted: 7, overloaded: 293 });
    expect(await counted('limitsHit', 'service')).toBe(293);
    expect(await raw.keys(`${PHONE_LIST}*`)).toHaveLength(7);
  });

  it.each(['BUDGET_PAISE_PER_HOUR', 'BUDGET_PAISE_PER_DAY'])(
    'lets exactly as many of 300 concurrent calls pass as %s pays for',
    async (budget) => {
      // 110 paise pay for four SMS of 25, and ten paise are left over.
      const replicas = replicasWith({ [budget]: '110', SMS_PRICE_PAISE: '25' });
      expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ admitted: 4, sms_unavailable: 296 });
      expect(await counted('limitsHit', 'budget')).toBe(296);
      expect(await raw.keys(`${PHONE_LIST}*`)).toHaveLength(4);
      expect(await raw.llen(SERVICE_LIST)).toBe(4);
    },
  );

  it('tells operations when the budget is used up, and nobody when a limit is hit', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/60', BUDGET_PAISE_PER_DAY: '25' });
    await admission.admit(applicant(pseudonym(1)));
    await refusal(admission.admit(applicant(pseudonym(1))));
    expect(logs.filter((line) => line.includes('"alert"'))).toEqual([]);
    expect(await counted('alerts', 'budget_exhausted')).toBe(0);

    await refusal(admission.admit(applicant(pseudonym(2))));
    const alerts = logs
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ alert }) => alert !== undefined);
    expect(alerts).toEqual([expect.objectContaining({ alert: 'budget_exhausted', level: 'error' })]);
    expect(await counted('alerts', 'budget_exhausted')).toBe(1);
    // Worse, and told although new numbers took the minute's line.
    await refusal(admission.admit(applicant(pseudonym(3), { returning: true })));
    await refusal(admission.admit(applicant(pseudonym(4), { returning: true })));
    const told = logs
      .filter((line) => line.includes('"alert"'))
      .map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(told).toEqual([
      'The SMS budget is used up for numbers that are new here, until it has room again',
      'The SMS budget is used up for all numbers, until it has room again',
    ]);
  });

  it('never lets more than N pass in any closed window, for a phone or the service', async () => {
    // The long windows refuse nobody; they make Redis keep every timestamp.
    const replicas = replicasWith({ LIMIT_PHONE: '2/1,1000/60', LIMIT_GLOBAL: '5/1,10000/60' });
    const end = Date.now() + 3_000;
    const press = async (replica: number): Promise<void> => {
      while (Date.now() < end) {
        await replicas[replica % CONNECTIONS]!.admit(applicant(pseudonym(replica))).catch(() => undefined);
        await sleep(replica);
      }
    };
    await Promise.all([0, 1, 2, 3, 4, 5].map(press));

    const timestamps = async (key: string): Promise<number[]> => (await raw.lrange(key, 0, -1)).map(Number);
    const service = await timestamps(SERVICE_LIST);
    expect(exceeds(service, { count: 5, seconds: 1 })).toBe(false);
    expect(service.length).toBeGreaterThanOrEqual(10);
    for (const key of await raw.keys(`${PHONE_LIST}*`))
      expect(exceeds(await timestamps(key), { count: 2, seconds: 1 })).toBe(false);
  });

  it('counts nothing when the phone is refused', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/60', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.admit(applicant(pseudonym(1)));
    const before = await contents();
    for (let calls = 0; calls < 5; calls += 1)
      expect((await refusal(admission.admit(applicant(pseudonym(1))))).code).toBe('rate_limited');
    expect(await contents()).toEqual(before);
  });

  it('counts nothing when the service is full', async () => {
    const admission = admissionWith({ LIMIT_GLOBAL: '1/60', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.admit(applicant(pseudonym(1)));
    const before = await contents();
    for (const person of [1, 2, 3])
      expect((await refusal(admission.admit(applicant(pseudonym(person))))).code).toBe('overloaded');
    expect(await contents()).toEqual(before);
  });

  it.each([
    ['hour', { BUDGET_PAISE_PER_HOUR: '25', BUDGET_PAISE_PER_DAY: '1000' }],
    ['day', { BUDGET_PAISE_PER_HOUR: '1000', BUDGET_PAISE_PER_DAY: '25' }],
  ])('counts nothing when the budget of the %s is used up', async (_, budgets) => {
    const admission = admissionWith(budgets);
    await admission.admit(applicant(pseudonym(1)));
    const before = await contents();
    for (const person of [1, 2, 3])
      expect((await refusal(admission.admit(applicant(pseudonym(person))))).code).toBe('sms_unavailable');
    expect(await contents()).toEqual(before);
  });

  it('says when the phone may ask again, and keeps its word', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/1,1000/60' });
    const { resendAfterMs } = await admission.admit(applicant(pseudonym(1)));
    expect(resendAfterMs).toBeGreaterThan(0);
    expect(resendAfterMs).toBeLessThanOrEqual(1_001);
    await sleep(resendAfterMs + 5);
    expect((await admission.admit(applicant(pseudonym(1)))).resendAfterMs).toBeGreaterThan(0);
    expect((await admissionWith({}).admit(applicant(pseudonym(2)))).resendAfterMs).toBe(0);
  });

  it('says honestly after how many seconds the phone or the service may ask again', async () => {
    const phone = admissionWith({ LIMIT_PHONE: '1/1' });
    await phone.admit(applicant(pseudonym(1)));
    const perPhone = await refusal(phone.admit(applicant(pseudonym(1))));
    const service = admissionWith({ LIMIT_GLOBAL: '1/1' });
    const whole = await refusal(service.admit(applicant(pseudonym(2))));
    expect([perPhone.code, whole.code]).toEqual(['rate_limited', 'overloaded']);
    for (const { retryAfterSeconds } of [perPhone, whole]) expect([1, 2]).toContain(retryAfterSeconds);
    await sleep(Math.max(perPhone.retryAfterSeconds!, whole.retryAfterSeconds!) * 1_000 + 5);
    expect(await service.admit(applicant(pseudonym(2)))).toBeDefined();
    expect(await phone.admit(applicant(pseudonym(1)))).toBeDefined();
  });

  it('waits for the longest of the windows that refuse', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/30,1/300,1/3600' });
    await admission.admit(applicant(pseudonym(1)));
    const { retryAfterSeconds } = await refusal(admission.admit(applicant(pseudonym(1))));
    expect(retryAfterSeconds).toBeGreaterThan(3_500);
    expect(retryAfterSeconds).toBeLessThanOrEqual(3_601);
  });

  it('lets nothing live for ever, and holds no more than pseudonyms and numbers', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/60,9/86400', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.refund(await admission.admit(applicant(pseudonym(1))));
    const usage = `otp-login:{admission}:ledger:usage:${Math.floor(((await redisNow()) + 19_800_000) / 86_400_000)}`;
    expect((await raw.keys('*')).sort()).toEqual(
      [
        MINUTES,
        QUARTERS,
        `${PHONE_LIST}${pseudonym(1)}`,
        SERVICE_LIST,
        'otp-login:{admission}:guard:scope:network:203.0.113.0/24',
        'otp-login:{admission}:guard:scope:series:987654',
        'otp-login:{admission}:guard:scope:service',
        'otp-login:{admission}:ledger',
        usage,
      ].sort(),
    );
    for (const ttl of await timesToLive()) expect(ttl).toBeGreaterThan(0);
    expect(await raw.ttl(`${PHONE_LIST}${pseudonym(1)}`)).toBeGreaterThan(86_000);
    // A bucket counts until all of it has left its window.
    expect(await raw.ttl(MINUTES)).toBeGreaterThan(3_600);
    expect(await raw.ttl(QUARTERS)).toBeGreaterThan(86_400);
  });

  describe('within a budget', () => {
    const HOUR = { BUDGET_PAISE_PER_HOUR: '100', SMS_PRICE_PAISE: '25' };
    const DAY = { BUDGET_PAISE_PER_DAY: '100', SMS_PRICE_PAISE: '25' };

    it('charges the minute and the quarter hour of now', async () => {
      const { minute, quarter } = await currentBuckets();
      const admission = admissionWith({ SMS_PRICE_PAISE: '30' });
      expect((await admission.admit(applicant(pseudonym(1)))).charged).toEqual([
        String(minute),
        String(quarter),
      ]);
      await admission.admit(applicant(pseudonym(2)));
      expect(await raw.hgetall(MINUTES)).toEqual({ [minute]: '60' });
      expect(await raw.hgetall(QUARTERS)).toEqual({ [quarter]: '60' });
    });

    it('counts a bucket until all of it is older than the hour, and deletes it then', async () => {
      const { minute } = await currentBuckets();
      const admission = admissionWith(HOUR);
      await raw.hset(MINUTES, { [minute - 60]: 100 });
      expect((await refusal(admission.admit(applicant(pseudonym(1))))).code).toBe('sms_unavailable');
      expect(await raw.hexists(MINUTES, String(minute - 60))).toBe(1);

      await raw.del(MINUTES);
      await raw.hset(MINUTES, { [minute - 61]: 100, [minute - 5_000]: 100, [minute - 59]: 75 });
      await admission.admit(applicant(pseudonym(1)));
      expect(await raw.hgetall(MINUTES)).toEqual({ [minute - 59]: '75', [minute]: '25' });
    });

    it('counts a bucket until all of it is older than the day, and deletes it then', async () => {
      const { quarter } = await currentBuckets();
      const admission = admissionWith(DAY);
      await raw.hset(QUARTERS, { [quarter - 96]: 100 });
      expect((await refusal(admission.admit(applicant(pseudonym(1))))).code).toBe('sms_unavailable');
      expect(await raw.hexists(QUARTERS, String(quarter - 96))).toBe(1);

      await raw.del(QUARTERS);
      await raw.hset(QUARTERS, { [quarter - 97]: 100, [quarter - 500]: 100, [quarter - 95]: 75 });
      await admission.admit(applicant(pseudonym(1)));
      expect(await raw.hgetall(QUARTERS)).toEqual({ [quarter - 95]: '75', [quarter]: '25' });
    });

    it('deletes old buckets also where no budget is set', async () => {
      const { minute, quarter } = await currentBuckets();
      await raw.hset(MINUTES, { [minute - 5_000]: 25 });
      await raw.hset(QUARTERS, { [quarter - 500]: 25 });
      await admissionWith({}).admit(applicant(pseudonym(1)));
      expect(await raw.hgetall(MINUTES)).toEqual({ [minute]: '25' });
      expect(await raw.hgetall(QUARTERS)).toEqual({ [quarter]: '25' });
    });

    it('says when enough of the hour has left for one more', async () => {
      const { minute } = await currentBuckets();
      await raw.hset(MINUTES, { [minute - 40]: 10, [minute - 30]: 40, [minute - 10]: 50 });
      const before = await redisNow();
      const { retryAfterSeconds } = await refusal(admissionWith(HOUR).admit(applicant(pseudonym(1))));
      // The 10 paise that leave first are not enough.
      const opensAt = (minute - 30 + 61) * MINUTE_MS;
      expect(retryAfterSeconds).toBeLessThanOrEqual(Math.ceil((opensAt - before) / 1_000));
      expect(retryAfterSeconds).toBeGreaterThanOrEqual(Math.ceil((opensAt - (await redisNow())) / 1_000));
    });

    it('says the later moment when hour and day are both used up', async () => {
      const { minute, quarter } = await currentBuckets();
      await raw.hset(MINUTES, { [minute - 30]: 100 });
      await raw.hset(QUARTERS, { [quarter - 10]: 100 });
      const before = await redisNow();
      const { retryAfterSeconds } = await refusal(
        admissionWith({ ...HOUR, ...DAY }).admit(applicant(pseudonym(1))),
      );
      const opensAt = (quarter - 10 + 97) * QUARTER_MS;
      expect(retryAfterSeconds).toBeLessThanOrEqual(Math.ceil((opensAt - before) / 1_000));
      expect(retryAfterSeconds).toBeGreaterThanOrEqual(Math.ceil((opensAt - (await redisNow())) / 1_000));
    });

    it.each(['0', '24'])('sends nothing on a budget of %s paise', async (budget) => {
      const error = await refusal(
        admissionWith({ BUDGET_PAISE_PER_DAY: budget }).admit(applicant(pseudonym(1))),
      );
      expect(error.code).toBe('sms_unavailable');
      expect(error.retryAfterSeconds).toBeGreaterThan(0);
      expect(await contents()).toEqual({});
    });

    it('has room for one more after a refund, and counts the limits as before', async () => {
      const admission = admissionWith({ ...HOUR, ...DAY });
      const charges: Admitted[] = [];
      for (const person of [1, 2, 3, 4]) charges.push(await admission.admit(applicant(pseudonym(person))));
      await refusal(admission.admit(applicant(pseudonym(5))));
      await admission.refund(charges[0]!);
      expect(await raw.llen(SERVICE_LIST)).toBe(4);
      await admission.admit(applicant(pseudonym(5)));
      expect((await refusal(admission.admit(applicant(pseudonym(6))))).code).toBe('sms_unavailable');
    });

    it('gives back no more than was charged, however often it is asked', async () => {
      const replicas = replicasWith({ ...HOUR, ...DAY });
      const charge = await replicas[0]!.admit(applicant(pseudonym(1)));
      await Promise.all(Array.from({ length: 30 }, (_, i) => replicas[i % CONNECTIONS]!.refund(charge)));
      expect(await raw.hgetall(MINUTES)).toEqual({ [charge.charged[0]]: '0' });
      expect(await raw.hgetall(QUARTERS)).toEqual({ [charge.charged[1]]: '0' });
      expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ admitted: 4, sms_unavailable: 296 });
    });

    it('brings no bucket back that has gone, and so no key without a time to live', async () => {
      const admission = admissionWith({ ...HOUR, ...DAY });
      const charge = await admission.admit(applicant(pseudonym(1)));
      await raw.del(MINUTES);
      await admission.refund(charge);
      expect(await raw.exists(MINUTES)).toBe(0);
      expect(await raw.hgetall(QUARTERS)).toEqual({ [charge.charged[1]]: '0' });

      await raw.del(QUARTERS);
      await admission.refund(charge);
      expect(await raw.exists(MINUTES, QUARTERS)).toBe(0);

      const next = await admission.admit(applicant(pseudonym(2)));
      await admission.refund({ ...next, charged: ['1', '1'] });
      expect(await raw.hgetall(MINUTES)).toEqual({ [next.charged[0]]: '25' });
      for (const ttl of await timesToLive()) expect(ttl).toBeGreaterThan(0);
    });
  });
});
