// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { Environment, Limit } from '../../src/config/config';
import { Metrics } from '../../src/metrics/metrics';
import type { AdmissionControl } from '../../src/throttling/admission';
import type { Admission } from '../../src/throttling/admission';
import { RedisThrottlerStorage } from '../../src/throttling/redis-throttler-storage';
import { admissionOver, admissionRequest } from '../support/applicant';
import { admittedSendsKey, abuseScopeKey, KEYS, usageKey } from '../support/keys';
import { outcomes, refusal, refusalCode } from '../support/outcomes';
import { Random } from '../support/random';
import { valuesIn } from '../support/redis-contents';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

const CONNECTIONS = 3;
const CALLS = 300;
const MINUTE_MS = 60_000;
const QUARTER_MS = 900_000;

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;
let logs: string[];

beforeAll(async () => {
  redis = await simulatedStores(CONNECTIONS);
  ({ raw, clock, logs } = redis);
});
beforeEach(async () => {
  await clock.empty();
  logs.length = 0;
});
afterAll(() => {
  redis.close();
});

/** Every key and its value, but for when the abuse control looked last. */
async function contents(): Promise<Record<string, unknown>> {
  const everything = await valuesIn(raw, await clock.keys());
  return JSON.parse(JSON.stringify(everything), (name, value: unknown) =>
    name === 'judged' ? undefined : value,
  ) as Record<string, unknown>;
}

const timesToLive = async (): Promise<number[]> =>
  Promise.all((await clock.keys()).map((key) => clock.ttl(key)));

const timestampsIn = async (key: string): Promise<number[]> => (await raw.lrange(key, 0, -1)).map(Number);

/** True when some window of this length, its edges included, holds more than `count` of the timestamps. */
function exceeds(timestamps: readonly number[], { count, seconds }: Limit): boolean {
  return timestamps.some((start, i) => {
    const first = timestamps[i + count];
    return first !== undefined && first - start <= seconds * 1_000;
  });
}

describe('limits of a client address', () => {
  const ADDRESS = '203.0.113.77';
  let replicas: RedisThrottlerStorage[];

  beforeAll(() => {
    replicas = redis.stores.map((store) => new RedisThrottlerStorage(settings(), store));
  });

  const admit = async (
    address: string,
    limits: readonly Limit[],
    replica = 0,
    name = 'send',
  ): Promise<number> => (await replicas[replica % CONNECTIONS]!.admit(name, address, limits)).waitMs;

  /** The timestamps of the only address that was counted: six bytes each. */
  async function theOnlyList(): Promise<number[]> {
    const lists: Buffer[] = [];
    for (const key of await clock.keys()) {
      const values = await raw.hgetallBuffer(key);
      lists.push(...Object.entries(values).flatMap(([id, list]) => (id === '#' ? [] : [list])));
    }
    expect(lists).toHaveLength(1);
    const [list] = lists as [Buffer];
    return Array.from({ length: list.length / 6 }, (_, i) => list.readUIntBE(6 * i, 6));
  }

  it('an address limit lets exactly N of 300 concurrent calls over three connections pass', async () => {
    const limits = [{ count: 20, seconds: 60 }];
    const waits = await Promise.all(Array.from({ length: CALLS }, (_, i) => admit(ADDRESS, limits, i)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(20);
    for (const wait of waits) expect(wait).toBeLessThanOrEqual(60_001);
  });

  it('an address limit never lets more than N calls pass in any window, its edges included, under steady pressure', async () => {
    // The second limit refuses nobody; it makes Redis keep every timestamp.
    const limit = { count: 5, seconds: 1 };
    const limits = [limit, { count: 10_000, seconds: 60 }];
    const random = new Random(1);
    let admitted = 0;
    for (let presses = 0; presses < 100; presses += 1) {
      const waits = await Promise.all([0, 1, 2].map((replica) => admit(ADDRESS, limits, replica)));
      admitted += waits.filter((wait) => wait === 0).length;
      await clock.pass(random.below(80));
    }
    const timestamps = await theOnlyList();
    expect(timestamps).toHaveLength(admitted);
    expect(exceeds(timestamps, limit)).toBe(false);
    // And they slide: in each full second as many pass as may.
    const seconds = Math.floor((timestamps.at(-1)! - timestamps[0]!) / 1_080);
    expect(seconds).toBeGreaterThanOrEqual(2);
    expect(admitted).toBeGreaterThanOrEqual(5 * seconds);
  });

  it('an address limit still counts an entry that is exactly one window old', async () => {
    const limits = [{ count: 1, seconds: 1 }];
    expect(await admit(ADDRESS, limits)).toBe(0);
    await clock.pass(1_000);
    expect(await admit(ADDRESS, limits)).toBe(1);
    await clock.pass(1);
    expect(await admit(ADDRESS, limits)).toBe(0);
  });

  it('an address limit asks all of its windows in one command', async () => {
    const limits = [1, 2, 3, 4, 5].map((seconds) => ({ count: 100, seconds }));
    const [store] = redis.stores;
    const [scripts, commands] = [jest.spyOn(store!, 'run'), jest.spyOn(store!, 'command')];
    for (let calls = 0; calls < 7; calls += 1) await admit(ADDRESS, limits);
    expect(scripts).toHaveBeenCalledTimes(7);
    expect(commands).not.toHaveBeenCalled();
    jest.restoreAllMocks();
  });

  it('an address limit refuses when any of its windows is full', async () => {
    const limits = [
      { count: 2, seconds: 1 },
      { count: 3, seconds: 60 },
    ];
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect(await admit(ADDRESS, limits)).toBe(1_001);
    await clock.pass(1_001);
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect(await admit(ADDRESS, limits)).toBe(60_001 - 1_001);
  });

  it('an address limit counts no refused call in any window', async () => {
    const limits = [
      { count: 3, seconds: 60 },
      { count: 100, seconds: 600 },
    ];
    for (let calls = 0; calls < 3; calls += 1) await admit(ADDRESS, limits);
    const before = await contents();
    await Promise.all(Array.from({ length: 50 }, (_, i) => admit(ADDRESS, limits, i)));
    expect(await contents()).toEqual(before);
  });

  it('an address limit tells a retry time that holds to the millisecond', async () => {
    const limits = [
      { count: 2, seconds: 1 },
      { count: 1_000, seconds: 60 },
    ];
    await admit(ADDRESS, limits);
    await admit(ADDRESS, limits);
    const opensAt = clock.now + 1_001;
    for (let asked = 0; asked < 5; asked += 1) {
      // Whenever it is asked, the wait leads to the same moment.
      expect(clock.now + (await admit(ADDRESS, limits))).toBe(opensAt);
      await clock.pass(200);
    }
    await clock.pass(await admit(ADDRESS, limits));
    expect(await admit(ADDRESS, limits)).toBe(0);
    expect((await theOnlyList())[2]).toBe(opensAt);
  });

  it('an address limit counts each IPv4 address and each kind of call by itself', async () => {
    const limits = [{ count: 1, seconds: 60 }];
    expect(await admit('203.0.113.77', limits)).toBe(0);
    expect(await admit('203.0.113.78', limits)).toBe(0);
    expect(await admit('203.0.113.77', limits, 0, 'verify')).toBe(0);
    expect(await admit('203.0.113.77', limits)).toBeGreaterThan(0);
  });

  it('an address limit counts IPv6 addresses by their /64, however they are written', async () => {
    const limits = [{ count: 3, seconds: 60 }];
    expect(await admit('2001:db8:1:2::1', limits)).toBe(0);
    expect(await admit('2001:0DB8:0001:0002:ffff:ffff:ffff:ffff', limits)).toBe(0);
    expect(await admit('2001:db8:1:2:0:0:192.0.2.1', limits)).toBe(0);
    expect(await admit('2001:db8:1:2:abcd::', limits)).toBeGreaterThan(0);
    expect(await admit('2001:db8:1:3::1', limits)).toBe(0);
  });

  it('an address limit counts IPv6 addresses by their /48 as well, at ten times the limit', async () => {
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

  it('an address limit lets exactly ten times N of 300 concurrent calls from one /48 pass', async () => {
    const limits = [{ count: 4, seconds: 60 }];
    const waits = await Promise.all(
      Array.from({ length: CALLS }, (_, i) => admit(`2001:db8:1:${(i % 100).toString(16)}::1`, limits, i)),
    );
    expect(waits.filter((wait) => wait === 0)).toHaveLength(40);
  });

  it('an address limit stores no address in clear text and sets an expiry on each key', async () => {
    const limits = [
      { count: 20, seconds: 600 },
      { count: 100, seconds: 3_600 },
    ];
    await admit(ADDRESS, limits);
    await admit('2001:db8:abcd:1234::1', limits);
    expect(JSON.stringify(await contents())).not.toMatch(/203\.0|113\.77|2001:|db8:|abcd:1234/i);

    const keys = await clock.keys();
    expect(keys).toHaveLength(2);
    const ids = (await Promise.all(keys.map((key) => raw.hkeys(key)))).flat().filter((id) => id !== '#');
    expect(ids).toHaveLength(3);
    for (const key of ids) {
      expect(key).toMatch(/^[\w-]{11}$/);
      // A bare hash would tell the address to whoever tries all four thousand million.
      for (const hash of ['sha1', 'sha256', 'md5'])
        for (const encoding of ['hex', 'base64url'] as const)
          expect(key).not.toContain(createHash(hash).update(ADDRESS).digest(encoding).slice(0, 12));
    }
    for (const ttl of await timesToLive()) {
      expect(ttl).toBeGreaterThan(3_600_000);
      expect(ttl).toBeLessThanOrEqual(7_200_000);
    }
  });

  it('an address limit stores as many timestamps as it needs and no more', async () => {
    const limits = [{ count: 3, seconds: 1 }];
    for (let admitted = 0; admitted < 7;) {
      const wait = await admit(ADDRESS, limits);
      if (wait === 0) admitted += 1;
      else await clock.pass(Math.max(wait, 334));
      expect((await theOnlyList()).length).toBeLessThanOrEqual(3);
    }
  });

  describe('the storage of @nestjs/throttler', () => {
    // What ThrottlerGuard.generateKey answers: a SHA-256 in hex, and no address.
    const key = createHash('sha256').update('AuthController-sendOtp-default-203.0.113.77').digest('hex');

    it('the throttler storage counts hits up to the limit and blocks the next one', async () => {
      const storage = replicas[0]!;
      for (const totalHits of [1, 2, 3]) {
        const record = await storage.increment(key, 60_000, 3, 0, 'default');
        expect(record).toMatchObject({ totalHits, isBlocked: false });
        expect(record.timeToExpire).toBe(61);
      }
      const blocked = await storage.increment(key, 60_000, 3, 0, 'default');
      expect(blocked.isBlocked).toBe(true);
      expect(blocked.totalHits).toBeGreaterThan(3);
      // Seconds, because the abuse control writes them into Retry-After.
      expect(blocked.timeToBlockExpire).toBe(61);
    });

    it('the throttler storage counts each key and each throttler by itself', async () => {
      const storage = replicas[0]!;
      const other = createHash('sha256').update('another').digest('hex');
      expect((await storage.increment(key, 60_000, 1, 0, 'short')).isBlocked).toBe(false);
      expect((await storage.increment(key, 60_000, 1, 0, 'long')).isBlocked).toBe(false);
      expect((await storage.increment(other, 60_000, 1, 0, 'short')).isBlocked).toBe(false);
      expect((await storage.increment(key, 60_000, 1, 0, 'short')).isBlocked).toBe(true);
    });

    it('the throttler storage blocks all but N of 300 concurrent calls', async () => {
      const records = await Promise.all(
        Array.from({ length: CALLS }, (_, i) =>
          replicas[i % CONNECTIONS]!.increment(key, 60_000, 10, 60_000, 'default'),
        ),
      );
      expect(records.filter(({ isBlocked }) => !isBlocked)).toHaveLength(10);
    });
  });
});

describe('admission of an SMS', () => {
  let metrics: Metrics;

  beforeEach(() => {
    metrics = new Metrics();
  });

  /** The service on three replicas. */
  const replicasWith = (variables: Environment): AdmissionControl[] =>
    redis.stores.map((store) => admissionOver(settings(variables), store, metrics, redis.logger));

  const admissionWith = (variables: Environment): AdmissionControl => replicasWith(variables)[0]!;

  const pseudonym = (person: number): string => `person-${String(person).padStart(15, '0')}`;

  async function counted(metric: 'limitsHit' | 'alerts', value: string): Promise<number> {
    const { values } = await metrics[metric].get();
    return values.find(({ labels }) => Object.values(labels).includes(value))?.value ?? 0;
  }

  const currentBuckets = (): { minute: number; quarter: number } => ({
    minute: Math.floor(clock.now / MINUTE_MS),
    quarter: Math.floor(clock.now / QUARTER_MS),
  });

  const concurrently = (replicas: AdmissionControl[], person: (call: number) => number): Promise<unknown>[] =>
    Array.from({ length: CALLS }, (_, i) =>
      replicas[i % CONNECTIONS]!.admit(admissionRequest(pseudonym(person(i)))),
    );

  it('admission lets exactly N of 300 concurrent sends to one number pass', async () => {
    const replicas = replicasWith({ LIMIT_PHONE: '5/60,100/3600' });
    expect(await outcomes(concurrently(replicas, () => 1))).toEqual({ done: 5, rate_limited: 295 });
    expect(await counted('limitsHit', 'phone')).toBe(295);
    expect(await replicas[0]!.admit(admissionRequest(pseudonym(2)))).toBeDefined();
  });

  it('admission lets exactly N of 300 concurrent sends of the whole service pass', async () => {
    const replicas = replicasWith({ LIMIT_GLOBAL: '7/60' });
    expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ done: 7, overloaded: 293 });
    expect(await counted('limitsHit', 'service')).toBe(293);
    expect(await clock.keys(admittedSendsKey('*'))).toHaveLength(7);
  });

  it.each(['BUDGET_PAISE_PER_HOUR', 'BUDGET_PAISE_PER_DAY'])(
    'admission lets exactly as many of 300 concurrent sends pass as %s pays for',
    async (budget) => {
      // 110 paise pay for four SMS of 25, and ten paise are left over.
      const replicas = replicasWith({ [budget]: '110', SMS_PRICE_PAISE: '25' });
      expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ done: 4, sms_unavailable: 296 });
      expect(await counted('limitsHit', 'budget')).toBe(296);
      expect(await clock.keys(admittedSendsKey('*'))).toHaveLength(4);
      expect(await raw.llen(KEYS.serviceLimit)).toBe(4);
    },
  );

  it('admission raises an alert when the budget is used up, and none when a limit refuses', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/60', BUDGET_PAISE_PER_DAY: '25' });
    await admission.admit(admissionRequest(pseudonym(1)));
    await refusal(admission.admit(admissionRequest(pseudonym(1))));
    expect(logs.filter((line) => line.includes('"alert"'))).toEqual([]);
    expect(await counted('alerts', 'budget_exhausted')).toBe(0);

    await refusal(admission.admit(admissionRequest(pseudonym(2))));
    const alerts = logs
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ alert }) => alert !== undefined);
    expect(alerts).toEqual([expect.objectContaining({ alert: 'budget_exhausted', level: 'error' })]);
    expect(await counted('alerts', 'budget_exhausted')).toBe(1);
    // Worse, and told although new numbers took the minute's line.
    await refusal(admission.admit(admissionRequest(pseudonym(3), { returning: true })));
    await refusal(admission.admit(admissionRequest(pseudonym(4), { returning: true })));
    const told = logs
      .filter((line) => line.includes('"alert"'))
      .map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(told).toEqual([
      'The SMS budget is used up for numbers that are new here, until it has room again',
      'The SMS budget is used up for all numbers, until it has room again',
    ]);
  });

  it('admission never lets more than N sends pass in any window, its edges included, for a number or the service', async () => {
    // The long windows refuse nobody; they make Redis keep every timestamp.
    const replicas = replicasWith({ LIMIT_PHONE: '2/1,1000/60', LIMIT_GLOBAL: '5/1,10000/60' });
    const random = new Random(2);
    for (let presses = 0; presses < 100; presses += 1) {
      const calls = [0, 1, 2].map((replica) =>
        outcomes([replicas[replica]!.admit(admissionRequest(pseudonym(random.below(6))))]),
      );
      await Promise.all(calls);
      await clock.pass(random.below(80));
    }
    const service = await timestampsIn(KEYS.serviceLimit);
    expect(exceeds(service, { count: 5, seconds: 1 })).toBe(false);
    expect(service.length).toBeGreaterThanOrEqual(10);
    for (const key of await clock.keys(admittedSendsKey('*')))
      expect(exceeds(await timestampsIn(key), { count: 2, seconds: 1 })).toBe(false);
  });

  it('admission counts nothing when the limit of the number refuses', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/60', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.admit(admissionRequest(pseudonym(1)));
    const before = await contents();
    for (let calls = 0; calls < 5; calls += 1)
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(1))))).toBe('rate_limited');
    expect(await contents()).toEqual(before);
  });

  it('admission counts nothing when the limit of the service refuses', async () => {
    const admission = admissionWith({ LIMIT_GLOBAL: '1/60', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.admit(admissionRequest(pseudonym(1)));
    const before = await contents();
    for (const person of [1, 2, 3])
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(person))))).toBe('overloaded');
    expect(await contents()).toEqual(before);
  });

  it.each([
    ['hour', { BUDGET_PAISE_PER_HOUR: '25', BUDGET_PAISE_PER_DAY: '1000' }],
    ['day', { BUDGET_PAISE_PER_HOUR: '1000', BUDGET_PAISE_PER_DAY: '25' }],
  ])('admission counts nothing when the budget of the %s is used up', async (_, budgets) => {
    const admission = admissionWith(budgets);
    await admission.admit(admissionRequest(pseudonym(1)));
    const before = await contents();
    for (const person of [1, 2, 3])
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(person))))).toBe('sms_unavailable');
    expect(await contents()).toEqual(before);
  });

  it('admission tells when the number may ask again, and lets it pass exactly then', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/1,1000/60' });
    const { resendAfterMs } = await admission.admit(admissionRequest(pseudonym(1)));
    expect(resendAfterMs).toBe(1_001);
    await clock.pass(resendAfterMs - 1);
    expect(await refusalCode(admission.admit(admissionRequest(pseudonym(1))))).toBe('rate_limited');
    await clock.pass(1);
    expect((await admission.admit(admissionRequest(pseudonym(1)))).resendAfterMs).toBeGreaterThan(0);
    expect((await admissionWith({}).admit(admissionRequest(pseudonym(2)))).resendAfterMs).toBe(0);
  });

  it('admission lets a refused number and the whole service pass after the seconds that it told', async () => {
    const phone = admissionWith({ LIMIT_PHONE: '1/1' });
    await phone.admit(admissionRequest(pseudonym(1)));
    const perPhone = await refusal(phone.admit(admissionRequest(pseudonym(1))));
    const service = admissionWith({ LIMIT_GLOBAL: '1/1' });
    const whole = await refusal(service.admit(admissionRequest(pseudonym(2))));
    expect([perPhone.code, whole.code]).toEqual(['rate_limited', 'overloaded']);
    expect([perPhone.retryAfterSeconds, whole.retryAfterSeconds]).toEqual([2, 2]);
    await clock.pass(2_000);
    expect(await service.admit(admissionRequest(pseudonym(2)))).toBeDefined();
    expect(await phone.admit(admissionRequest(pseudonym(1)))).toBeDefined();
  });

  it('admission tells the retry time of the longest window that refuses', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/30,1/300,1/3600' });
    await admission.admit(admissionRequest(pseudonym(1)));
    const { retryAfterSeconds } = await refusal(admission.admit(admissionRequest(pseudonym(1))));
    expect(retryAfterSeconds).toBe(3_601);
  });

  it('admission sets an expiry on each key, and stores only pseudonyms and counts', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/60,9/86400', BUDGET_PAISE_PER_DAY: '1000' });
    await admission.refund(await admission.admit(admissionRequest(pseudonym(1))));
    const usage = usageKey(Math.floor((clock.now + 19_800_000) / 86_400_000));
    expect(await clock.keys()).toEqual(
      [
        KEYS.minutes,
        KEYS.quarters,
        admittedSendsKey(pseudonym(1)),
        KEYS.serviceLimit,
        abuseScopeKey('network:203.0.113.0/24'),
        abuseScopeKey('series:987654'),
        abuseScopeKey('service'),
        KEYS.ledger,
        usage,
      ].sort(),
    );
    for (const ttl of await timesToLive()) expect(ttl).toBeGreaterThan(0);
    expect(await clock.ttl(admittedSendsKey(pseudonym(1)))).toBe(86_401_000);
    // A bucket counts until all of it has left its window.
    expect(await clock.ttl(KEYS.minutes)).toBe(3_660_000);
    expect(await clock.ttl(KEYS.quarters)).toBe(86_400_000 + QUARTER_MS);
  });

  describe('budgets', () => {
    const HOUR = { BUDGET_PAISE_PER_HOUR: '100', SMS_PRICE_PAISE: '25' };
    const DAY = { BUDGET_PAISE_PER_DAY: '100', SMS_PRICE_PAISE: '25' };

    it('a budget charges the current minute and the current quarter hour', async () => {
      const { minute, quarter } = currentBuckets();
      const admission = admissionWith({ SMS_PRICE_PAISE: '30' });
      expect((await admission.admit(admissionRequest(pseudonym(1)))).charged).toMatchObject({
        minute: String(minute),
        quarter: String(quarter),
      });
      await admission.admit(admissionRequest(pseudonym(2)));
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [minute]: '60' });
      expect(await raw.hgetall(KEYS.quarters)).toEqual({ [quarter]: '60' });
    });

    it('the budget of an hour counts a minute until all of it is older than an hour, and deletes it then', async () => {
      const { minute } = currentBuckets();
      const admission = admissionWith(HOUR);
      await raw.hset(KEYS.minutes, { [minute - 60]: 100 });
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(1))))).toBe('sms_unavailable');
      expect(await raw.hexists(KEYS.minutes, String(minute - 60))).toBe(1);

      await raw.del(KEYS.minutes);
      await raw.hset(KEYS.minutes, { [minute - 61]: 100, [minute - 5_000]: 100, [minute - 59]: 75 });
      await admission.admit(admissionRequest(pseudonym(1)));
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [minute - 59]: '75', [minute]: '25' });
    });

    it('the budget of a day counts a quarter hour until all of it is older than a day, and deletes it then', async () => {
      const { quarter } = currentBuckets();
      const admission = admissionWith(DAY);
      await raw.hset(KEYS.quarters, { [quarter - 96]: 100 });
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(1))))).toBe('sms_unavailable');
      expect(await raw.hexists(KEYS.quarters, String(quarter - 96))).toBe(1);

      await raw.del(KEYS.quarters);
      await raw.hset(KEYS.quarters, { [quarter - 97]: 100, [quarter - 500]: 100, [quarter - 95]: 75 });
      await admission.admit(admissionRequest(pseudonym(1)));
      expect(await raw.hgetall(KEYS.quarters)).toEqual({ [quarter - 95]: '75', [quarter]: '25' });
    });

    it('admission deletes old minutes and quarter hours even if no budget is set', async () => {
      const { minute, quarter } = currentBuckets();
      await raw.hset(KEYS.minutes, { [minute - 5_000]: 25 });
      await raw.hset(KEYS.quarters, { [quarter - 500]: 25 });
      await admissionWith({}).admit(admissionRequest(pseudonym(1)));
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [minute]: '25' });
      expect(await raw.hgetall(KEYS.quarters)).toEqual({ [quarter]: '25' });
    });

    it('a refusal by the budget of an hour tells when enough of the hour has left for one more send', async () => {
      const { minute } = currentBuckets();
      await raw.hset(KEYS.minutes, { [minute - 40]: 10, [minute - 30]: 40, [minute - 10]: 50 });
      const { retryAfterSeconds } = await refusal(admissionWith(HOUR).admit(admissionRequest(pseudonym(1))));
      // The 10 paise that leave first are not enough.
      const opensAt = (minute - 30 + 61) * MINUTE_MS;
      expect(retryAfterSeconds).toBe(Math.ceil((opensAt - clock.now) / 1_000));
    });

    it('a refusal by both budgets tells the later of the two moments', async () => {
      const { minute, quarter } = currentBuckets();
      await raw.hset(KEYS.minutes, { [minute - 30]: 100 });
      await raw.hset(KEYS.quarters, { [quarter - 10]: 100 });
      const { retryAfterSeconds } = await refusal(
        admissionWith({ ...HOUR, ...DAY }).admit(admissionRequest(pseudonym(1))),
      );
      const opensAt = (quarter - 10 + 97) * QUARTER_MS;
      expect(retryAfterSeconds).toBe(Math.ceil((opensAt - clock.now) / 1_000));
    });

    it.each(['0', '24'])('a budget of %s paise allows no send', async (budget) => {
      const error = await refusal(
        admissionWith({ BUDGET_PAISE_PER_DAY: budget }).admit(admissionRequest(pseudonym(1))),
      );
      expect(error.code).toBe('sms_unavailable');
      expect(error.retryAfterSeconds).toBeGreaterThan(0);
      expect(await contents()).toEqual({});
    });

    it('a refund makes room in the budget for one more send, and none in the limits', async () => {
      const admission = admissionWith({ ...HOUR, ...DAY });
      const charges: Admission[] = [];
      for (const person of [1, 2, 3, 4])
        charges.push(await admission.admit(admissionRequest(pseudonym(person))));
      await refusal(admission.admit(admissionRequest(pseudonym(5))));
      await admission.refund(charges[0]!);
      expect(await raw.llen(KEYS.serviceLimit)).toBe(4);
      await admission.admit(admissionRequest(pseudonym(5)));
      expect(await refusalCode(admission.admit(admissionRequest(pseudonym(6))))).toBe('sms_unavailable');
    });

    it('a charge that is refunded 30 times at once is given back once', async () => {
      const replicas = replicasWith({ ...HOUR, ...DAY });
      const charge = await replicas[0]!.admit(admissionRequest(pseudonym(1)));
      await Promise.all(Array.from({ length: 30 }, (_, i) => replicas[i % CONNECTIONS]!.refund(charge)));
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [charge.charged.minute]: '0' });
      expect(await raw.hgetall(KEYS.quarters)).toEqual({ [charge.charged.quarter]: '0' });
      expect(await outcomes(concurrently(replicas, (i) => i))).toEqual({ done: 4, sms_unavailable: 296 });
    });

    it('a refund does not restore a bucket that has gone, which would have no time to live', async () => {
      const admission = admissionWith({ ...HOUR, ...DAY });
      const charge = await admission.admit(admissionRequest(pseudonym(1)));
      await raw.del(KEYS.minutes);
      await admission.refund(charge);
      expect(await raw.exists(KEYS.minutes)).toBe(0);
      expect(await raw.hgetall(KEYS.quarters)).toEqual({ [charge.charged.quarter]: '0' });

      await raw.del(KEYS.quarters);
      await admission.refund(charge);
      expect(await raw.exists(KEYS.minutes, KEYS.quarters)).toBe(0);

      const next = await admission.admit(admissionRequest(pseudonym(2)));
      await admission.refund({ ...next, charged: { ...next.charged, minute: '1', quarter: '1' } });
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [next.charged.minute]: '25' });
      for (const ttl of await timesToLive()) expect(ttl).toBeGreaterThan(0);
    });
  });
});
