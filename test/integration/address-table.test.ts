// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import type { Redis } from 'ioredis';
import type { Limit } from '../../src/config/config';
import {
  RedisThrottlerStorage,
  type Admittance,
  type Credential,
  type Place,
} from '../../src/throttling/redis-throttler-storage';
import { Random } from '../support/random';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

const MOST_EXACT = 10_000;
const MINUTE = 60;

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;
let replicas: RedisThrottlerStorage[];

beforeAll(async () => {
  redis = await simulatedStores(3);
  ({ raw, clock } = redis);
  replicas = redis.stores.map((store) => new RedisThrottlerStorage(settings(), store));
});
beforeEach(() => clock.empty());
afterAll(() => {
  redis.close();
});

const ask = (
  address: string,
  limits: readonly Limit[],
  credential?: Credential,
  replica = 0,
): Promise<Admittance> => replicas[replica % 3]!.admit('send', address, limits, credential);
const passes = async (...question: Parameters<typeof ask>): Promise<boolean> =>
  (await ask(...question)).waitMs === 0;
const place = async (...question: Parameters<typeof ask>): Promise<Place> => {
  const answer = await ask(...question);
  if (!('place' in answer)) throw new Error('The request was refused');
  return answer.place;
};
const many = <Answer>(count: number, one: (i: number) => Promise<Answer>): Promise<Answer[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => one(i)));
const address = (i: number): string => `11.${i >> 16}.${(i >> 8) & 255}.${i & 255}`;

/** Puts as many addresses into the table of a bucket; full, it makes each new address share a counter. */
async function fill(limits: readonly Limit[], count = MOST_EXACT): Promise<void> {
  const longest = Math.max(...limits.map(({ seconds }) => 1_000 * seconds));
  const key = `otp-login:{addresses}:send:address:${longest}:${Math.floor(clock.now / longest)}`;
  const records = Array.from({ length: count }, (_, i) => [`filler-${i}`, 'x'.repeat(6)]).flat();
  await raw.hset(key, '#', 6 * count, ...records);
  await raw.pexpireat(key, clock.now + 2 * longest);
}

it('10,000 addresses are counted exactly, and each further one shares a counter', async () => {
  const limits = [{ count: 2, seconds: MINUTE }];
  await fill(limits, MOST_EXACT - 10);
  for (let round = 0; round < 2; round += 1)
    expect((await many(10, (i) => passes(address(i), limits, {}, i))).every(Boolean)).toBe(true);
  expect(await replicas[0]!.counts('send', limits)).toEqual({ exact: MOST_EXACT, sharing: 0 });
  await many(100, (i) => passes(address(10 + i), limits, {}, i));
  const { exact, sharing } = await replicas[0]!.counts('send', limits);
  expect(exact).toBe(MOST_EXACT);
  // HyperLogLog counts within a few of a hundred.
  expect(sharing).toBeGreaterThan(90);
  expect((await many(10, (i) => passes(address(i), limits, {}, i))).some(Boolean)).toBe(false);
});

it('a shared counter never lets more than N calls of an address pass in any window, and lets calls pass again', async () => {
  const limits = [
    { count: 4, seconds: 8 },
    { count: 9, seconds: 30 },
  ];
  await fill(limits);
  const random = new Random(7);
  const passed: number[] = [];
  for (let step = 0; step < 600; step += 1) {
    // The filler lives as long as two windows: it is renewed.
    if (step % 50 === 0) await fill(limits);
    const answers = await many(3, (i) => passes('203.0.113.9', limits, {}, i));
    passed.push(...answers.flatMap((passes) => (passes ? [clock.now] : [])));
    await clock.pass(random.below(500));
  }
  for (const { count, seconds } of limits)
    for (const [i, start] of passed.entries())
      expect((passed[i + count] ?? Infinity) - start).toBeGreaterThan(seconds * 1_000);
  // Early by a quarter of a window at most.
  expect(passed.length).toBeGreaterThan(9 * 3);
});

it('a shared counter tells a retry time after which the address passes', async () => {
  const limits = [{ count: 3, seconds: MINUTE }];
  await fill(limits);
  await many(3, () => passes('203.0.113.9', limits));
  const { waitMs } = await ask('203.0.113.9', limits);
  expect(waitMs).toBeGreaterThan(0);
  await clock.pass(waitMs - 1);
  expect(await passes('203.0.113.9', limits)).toBe(false);
  await clock.pass(1);
  expect(await passes('203.0.113.9', limits)).toBe(true);
});

it('an address that shares a counter is not counted from zero when the table has room again', async () => {
  const limits = [{ count: 3, seconds: MINUTE }];
  await fill(limits);
  await many(3, () => passes('203.0.113.9', limits));
  for (const key of await clock.keys('*:address:*')) await raw.del(key);
  expect(await passes('203.0.113.9', limits)).toBe(false);
  // Other addresses use the room.
  expect(await passes('203.0.113.10', limits)).toBe(true);
  expect((await replicas[0]!.counts('send', limits)).exact).toBe(1);
});

it('a device token passes a shared counter, and raises an exact limit to three times its value', async () => {
  const limits = [{ count: 2, seconds: MINUTE }];
  const device = { device: true };
  expect((await many(20, (i) => passes('203.0.113.1', limits, {}, i))).filter(Boolean)).toHaveLength(2);
  expect((await many(20, (i) => passes('203.0.113.1', limits, device, i))).filter(Boolean)).toHaveLength(4);
  expect(await passes('203.0.113.1', limits)).toBe(false);

  await fill(limits);
  expect((await many(20, (i) => passes('203.0.113.2', limits, {}, i))).filter(Boolean)).toHaveLength(2);
  expect((await many(20, (i) => passes('203.0.113.2', limits, device, i))).every(Boolean)).toBe(true);
});

it('each solved proof of work raises the limit once, to three times its value and never beyond', async () => {
  const limits = [{ count: 2, seconds: MINUTE }];
  await many(2, () => passes('203.0.113.1', limits));
  expect(await ask('203.0.113.1', limits)).toEqual({ waitMs: 60_001, raisable: true });
  const answers = await many(10, (i) => passes('203.0.113.1', limits, { work: 'the same' }, i));
  expect(answers.filter(Boolean)).toHaveLength(1);
  await clock.pass(1);
  expect(await passes('203.0.113.1', limits, { work: 'the same' })).toBe(false);
  const more = await many(10, (i) => passes('203.0.113.1', limits, { work: `number ${i}` }, i));
  expect(more.filter(Boolean)).toHaveLength(3);
  expect(await ask('203.0.113.1', limits)).toMatchObject({ raisable: false });
});

it.each(['exact', 'shared'])(
  'a place that is given back in a counter (%s) is free once more',
  async (kind) => {
    const limits = [
      { count: 3, seconds: MINUTE },
      { count: 5, seconds: 600 },
    ];
    if (kind === 'shared') await fill(limits);
    const given = await place('203.0.113.1', limits);
    await many(2, () => passes('203.0.113.1', limits));
    expect(await passes('203.0.113.1', limits)).toBe(false);
    await replicas[1]!.giveBack(given);
    const answers = await many(9, (i) => passes('203.0.113.1', limits, {}, i));
    expect(answers.filter(Boolean)).toHaveLength(1);
    await clock.pass(700_000);
    await replicas[1]!.giveBack(given);
    for (const key of await clock.keys()) expect(await clock.ttl(key)).toBeGreaterThan(0);
  },
);

it('300 calls that each give their place back leave the limit as it was', async () => {
  const limits = [{ count: 300, seconds: MINUTE }];
  const address = '2001:db8:1:2::1';
  await many(300, async (i) => replicas[(i + 1) % 3]!.giveBack(await place(address, limits, {}, i)));
  expect((await many(400, (i) => passes(address, limits, {}, i))).filter(Boolean)).toHaveLength(300);
});

it('an address with many timestamps moves to a shared counter when their bytes are used up, and stays refused', async () => {
  const limits = [{ count: 30, seconds: MINUTE }];
  await many(20, () => passes('203.0.113.1', limits));
  const [key] = await clock.keys('*:address:*');
  await raw.hincrby(key!, '#', 400_000);
  expect(await passes('203.0.113.1', limits)).toBe(true);
  expect(await raw.hkeys(key!)).toEqual(['#']);
  // A new address with few timestamps is counted exactly as before.
  expect(await passes('203.0.113.2', limits)).toBe(true);
  expect(await raw.hlen(key!)).toBe(2);
  expect((await many(30, (i) => passes('203.0.113.1', limits, {}, i))).filter(Boolean)).toHaveLength(9);
});

it('an address is counted on over the end of a period, and its record moves to the next one', async () => {
  const limits = [{ count: 2, seconds: MINUTE }];
  await clock.pass(50_000);
  expect(await passes('203.0.113.1', limits)).toBe(true);
  await clock.pass(20_000);
  expect(await passes('203.0.113.1', limits)).toBe(true);
  expect(await passes('203.0.113.1', limits)).toBe(false);
  expect((await replicas[0]!.counts('send', limits)).exact).toBe(1);
  await clock.pass(2 * 60_000);
  expect(await clock.keys('*:address:*')).toHaveLength(0);
});
