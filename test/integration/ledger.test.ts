// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import { Ledger, type Outcome } from '../../src/ledger/ledger';
import { sum, UsageReader } from '../../src/ledger/usage';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import type { AdmissionControl } from '../../src/throttling/admission';
import { admissionOver, admissionRequest } from '../support/applicant';
import { until, withoutHang } from '../support/hang';
import { KEYS } from '../support/keys';
import { refusalCode } from '../support/outcomes';
import { type RedisServer, startRedis } from '../support/redis-server';
import { settings } from '../support/settings';
import { MIDNIGHT, setClock, type SimulatedClock } from '../support/simulated-clock';

const DAY_MS = 86_400_000;
const dayBefore = UsageReader.dayOf(new Date(MIDNIGHT - 1));
const dayAfter = UsageReader.dayOf(new Date(MIDNIGHT));

/** What the stream says, the oldest first, as objects. */
async function eventsIn(redis: Redis): Promise<Record<string, string>[]> {
  const entries = await redis.xrange(KEYS.ledger, '-', '+');
  return entries.map(([id, flat]) => ({
    id,
    ...Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : []))),
  }));
}

const delivered = (sms: string, cost = 0): Outcome => ({
  what: 'delivery',
  sms,
  at: MIDNIGHT,
  delivery: 'delivered',
  cost,
});

const numbered = (count: number): string[] => Array.from({ length: count }, (_, i) => `1-${i}`);

describe('with Redis', () => {
  let redis: SimulatedStores;
  let raw: Redis;
  let clock: SimulatedClock;
  let ledger: Ledger;
  let usage: UsageReader;

  const admissionWith = (variables: Environment = {}): AdmissionControl =>
    admissionOver(settings(variables), redis.stores[0]!, new Metrics(), redis.logger);
  const events = (): Promise<Record<string, string>[]> => eventsIn(raw);

  beforeAll(async () => {
    redis = await simulatedStores(1);
    ({ raw, clock } = redis);
  });
  beforeEach(async () => {
    await clock.empty();
    await clock.set(MIDNIGHT);
    ledger = new Ledger(settings(), redis.stores[0]!, redis.logger);
    usage = new UsageReader(redis.stores[0]!);
  });
  afterEach(() => ledger.onApplicationShutdown());
  afterAll(() => {
    redis.close();
  });

  describe('an SMS in the ledger', () => {
    it('admission writes an SMS into the ledger with its price in the step that charges for it', async () => {
      const { sms, charged } = await admissionWith({ SMS_PRICE_PAISE: '30' }).admit(
        admissionRequest('the-pseudonym', { provider: 'somebody' }),
      );
      expect(await events()).toEqual([
        { id: sms.entry, event: 'sent', phone: 'the-pseudonym', provider: 'somebody', cost: '3000' },
      ]);
      expect(await raw.hgetall(KEYS.minutes)).toEqual({ [charged.minute]: '30' });
      expect(sms).toMatchObject({ at: MIDNIGHT, allowance: 'phone', network: '203.0.113.0/24', message: '' });
    });

    it('admission writes no refused SMS into the ledger', async () => {
      const refusing: [Environment, string][] = [
        [{ LIMIT_PHONE: '1/60' }, 'rate_limited'],
        [{ LIMIT_GLOBAL: '1/60' }, 'overloaded'],
        [{ BUDGET_PAISE_PER_DAY: '25' }, 'sms_unavailable'],
      ];
      await admissionWith().admit(admissionRequest('somebody'));
      for (const [variables, code] of refusing)
        expect(await refusalCode(admissionWith(variables).admit(admissionRequest('somebody')))).toBe(code);
      expect(await events()).toHaveLength(1);
      const [day] = await usage.read(dayAfter, dayAfter);
      expect(day).toMatchObject({ sent: 1, cost: 2_500 });
    });

    it('the ledger writes the outcomes of an SMS under the id of the SMS', async () => {
      const admission = admissionWith();
      const { sms } = await admission.admit(admissionRequest('the-pseudonym'));
      const refunded = await admission.admit(admissionRequest('another'));
      await admission.refund(refunded);
      const { entry, at } = sms;
      ledger.record({ what: 'verified', sms: entry, at, scopes: ['service'], tried: ['service'] });
      ledger.record({ what: 'delivery', sms: entry, at, delivery: 'delivered', cost: -100 });
      ledger.record({ what: 'wrong', quiet: -1, tried: ['service'] });
      await ledger.flush();
      expect((await events()).map((event) => ({ ...event, id: '' }))).toEqual([
        { id: '', event: 'sent', phone: 'the-pseudonym', provider: 'startmessaging', cost: '2500' },
        { id: '', event: 'sent', phone: 'another', provider: 'startmessaging', cost: '2500' },
        { id: '', event: 'refunded', sms: refunded.sms.entry },
        { id: '', event: 'verified', sms: entry },
        { id: '', event: 'delivery', sms: entry, delivery: 'delivered', cost: '-100' },
      ]);
    });

    it('the ledger writes outcomes in the background and in order', async () => {
      for (const sms of numbered(1_200)) ledger.record(delivered(sms));
      await until(async () => (await raw.xlen(KEYS.ledger)) === 1_200, 'the ledger with 1200 outcomes');
      expect((await events()).map(({ sms }) => sms)).toEqual(numbered(1_200));
    });
  });

  describe('how long it is kept', () => {
    it('the ledger drops events that are older than ninety days', async () => {
      const oldest = MIDNIGHT - 90 * DAY_MS;
      await raw.xadd(KEYS.ledger, `${oldest - 1}-0`, 'event', 'too old');
      await raw.xadd(KEYS.ledger, `${oldest}-0`, 'event', 'old');
      await admissionWith().admit(admissionRequest('somebody'));
      expect((await events()).map(({ event }) => event)).toEqual(['old', 'sent']);
      expect(await clock.ttl(KEYS.ledger)).toBe(90 * DAY_MS);
    });

    it('the ledger drops events that are older than ninety days even if only outcomes are written', async () => {
      await admissionWith().admit(admissionRequest('somebody'));
      await clock.pass(89 * DAY_MS);
      ledger.record(delivered('1-1'));
      await ledger.flush();
      expect((await events()).map(({ event }) => event)).toEqual(['sent', 'delivery']);
      await clock.pass(2 * DAY_MS);
      ledger.record(delivered('1-2'));
      await ledger.flush();
      expect((await events()).map(({ event }) => event)).toEqual(['delivery', 'delivery']);
    });

    it('the ledger holds two hundred thousand events at most', async () => {
      // Some at a time, so that no script keeps Redis busy for long.
      const fill =
        "for i = ARGV[2], ARGV[2] + 40999 do redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. i, 'event', 'x') end";
      for (let from = 1; from < 205_000; from += 41_000) await raw.eval(fill, 1, KEYS.ledger, MIDNIGHT, from);
      const { sms } = await admissionWith().admit(admissionRequest('somebody'));
      // Redis trims whole nodes of a hundred.
      expect(await raw.xlen(KEYS.ledger)).toBeLessThanOrEqual(200_100);
      expect(await raw.xlen(KEYS.ledger)).toBeGreaterThanOrEqual(200_000);
      expect((await raw.xrevrange(KEYS.ledger, '+', '-', 'COUNT', 1))[0]?.[0]).toBe(sms.entry);
    });

    it('each key of the ledger has a time to live', async () => {
      const { sms } = await admissionWith().admit(admissionRequest('somebody'));
      ledger.record({
        what: 'verified',
        sms: sms.entry,
        at: sms.at,
        scopes: ['service'],
        tried: ['service'],
      });
      ledger.record(delivered(sms.entry));
      await ledger.flush();
      const keys = await clock.keys();
      expect(keys.filter((key) => key.startsWith(KEYS.ledger))).toHaveLength(3);
      for (const key of keys) expect([key, (await clock.ttl(key)) > 0]).toEqual([key, true]);
      const totals = keys.find((key) => key.includes(':usage:'))!;
      // As long as the events of its last minute, and a day of Asia/Kolkata more.
      expect(await raw.pexpiretime(totals)).toBe(MIDNIGHT + 91 * DAY_MS);
    });
  });

  describe('the totals', () => {
    it('the totals belong to hours and days of Asia/Kolkata, and an outcome to the hour in which its SMS was sent', async () => {
      const admission = admissionWith();
      const admit = async (at: number, count: number): Promise<{ entry: string; at: number }[]> => {
        await clock.set(at);
        const all = [];
        for (let i = 0; i < count; i += 1) all.push((await admission.admit(admissionRequest(`p-${i}`))).sms);
        return all;
      };
      const [late] = await admit(MIDNIGHT - 1, 2);
      const [early] = await admit(MIDNIGHT, 3);
      await admit(MIDNIGHT + 3_599_999, 1);
      await admit(MIDNIGHT + 3_600_000, 4);
      await admit(MIDNIGHT + DAY_MS - 1, 1);
      for (const { entry, at } of [late!, early!]) {
        ledger.record({ what: 'verified', sms: entry, at, scopes: [], tried: [] });
        ledger.record({ what: 'delivery', sms: entry, at, delivery: 'delivered', cost: 150 });
      }
      ledger.record({ what: 'delivery', sms: early!.entry, at: early!.at, delivery: 'failed', cost: 0 });
      ledger.record({ what: 'delivery', sms: early!.entry, at: early!.at, delivery: 'unknown', cost: -50 });
      await ledger.flush();
      await clock.set(MIDNIGHT + 2 * DAY_MS);
      const nothing = { sent: 0, refunded: 0, verified: 0, delivered: 0, failed: 0, unknown: 0, cost: 0 };

      const days = await usage.read(dayBefore, dayAfter);
      expect(days.map(({ date, sent }) => [date, sent])).toEqual([
        [dayBefore, 2],
        [dayAfter, 9],
      ]);
      expect(days[0]?.hours).toEqual([
        { ...nothing, hour: 23, sent: 2, verified: 1, delivered: 1, cost: 2 * 2_500 + 150 },
      ]);
      expect(days[1]?.hours).toEqual([
        {
          ...nothing,
          hour: 0,
          sent: 4,
          verified: 1,
          delivered: 1,
          failed: 1,
          unknown: 1,
          cost: 4 * 2_500 + 100,
        },
        { ...nothing, hour: 1, sent: 4, cost: 10_000 },
        { ...nothing, hour: 23, sent: 1, cost: 2_500 },
      ]);
      expect(days[1]).toMatchObject(sum(days[1]!.hours));
    });

    it('a day of the totals begins at 18:30 UTC of the day before', () => {
      expect(UsageReader.dayOf(new Date('2026-12-31T18:29:59.999Z'))).toBe('2026-12-31');
      expect(UsageReader.dayOf(new Date('2026-12-31T18:30:00.000Z'))).toBe('2027-01-01');
    });

    it('a refund is subtracted in the hour in which its SMS was charged', async () => {
      const admission = admissionWith();
      await clock.set(MIDNIGHT - 1);
      const admitted = await admission.admit(admissionRequest('somebody'));
      await admission.admit(admissionRequest('another'));
      await clock.set(MIDNIGHT + 10_000);
      await admission.refund(admitted);
      const [before, after] = await usage.read(dayBefore, dayAfter);
      expect(before).toMatchObject({ sent: 2, refunded: 1, cost: 2_500 });
      expect(after).toMatchObject({ sent: 0, refunded: 0, cost: 0, hours: [] });
    });

    it('the totals add up with the stream after 200 concurrent sends with outcomes and refunds', async () => {
      const admission = admissionWith();
      await Promise.all(
        Array.from({ length: 200 }, async (_, i) => {
          const admitted = await admission.admit(admissionRequest(`p-${i}`));
          if (i % 5 === 0) return admission.refund(admitted);
          const { entry, at } = admitted.sms;
          if (i % 2 === 0) ledger.record({ what: 'verified', sms: entry, at, scopes: [], tried: [] });
          ledger.record({
            what: 'delivery',
            sms: entry,
            at,
            delivery: i % 3 === 0 ? 'failed' : 'delivered',
            cost: 7,
          });
        }),
      );
      await ledger.flush();
      const all = await events();
      const count = (event: string, delivery?: string): number =>
        all.filter((each) => each.event === event && each.delivery === delivery).length;
      const cost = all.reduce((total, each) => total + Number(each.cost ?? 0), 0) - 2_500 * count('refunded');
      const [day] = await usage.read(dayAfter, dayAfter);
      expect(day).toMatchObject({
        sent: 200,
        refunded: count('refunded'),
        verified: count('verified'),
        delivered: count('delivery', 'delivered'),
        failed: count('delivery', 'failed'),
        cost,
      });
      expect([day?.refunded, day?.verified]).toEqual([40, 80]);
    });
  });
});

describe('while Redis is in trouble', () => {
  let redis: RedisServer;
  let raw: Redis;
  let client: Redis;
  let store: Store;
  let ledger: Ledger;
  const logs: string[] = [];
  const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });

  const written = async (count: number): Promise<void> =>
    until(async () => (await raw.xlen(KEYS.ledger)) >= count, `the ledger with ${count} outcomes`);
  const names = async (): Promise<(string | undefined)[]> => (await eventsIn(raw)).map(({ sms }) => sms);
  const clockIsSet = (): Promise<void> =>
    until(async () => {
      await setClock(raw, MIDNIGHT);
      return true;
    }, 'Redis');

  beforeAll(async () => {
    redis = await startRedis();
    raw = new Redis(redis.url, { retryStrategy: () => 20, disconnectTimeout: 50 });
    raw.on('error', () => undefined); // Redis goes away on purpose here.
  });
  beforeEach(async () => {
    if (redis.pid === undefined) await redis.restart();
    await clockIsSet();
    await raw.flushall();
    await clockIsSet();
    logs.length = 0;
    client = redisClient(redis.url) as Redis;
    store = new Store(client, logger);
    store.connect();
    await until(() => store.available, 'the connection to Redis');
    ledger = new Ledger(settings(), store, logger);
  });
  afterEach(async () => {
    redis.resume();
    await ledger.onApplicationShutdown();
    store.close();
  });
  afterAll(async () => {
    raw.disconnect();
    await redis.stop();
  });

  it('a batch of outcomes whose answer was late is not written twice', async () => {
    redis.pause();
    for (let i = 0; i < 3; i += 1) ledger.record(delivered(`1-${i}`, 100));
    await ledger.flush();
    // It goes out again under its own name, and what came meanwhile after it.
    ledger.record(delivered('1-3', 100));
    await ledger.flush();
    redis.resume();
    await written(4);
    // Both tries of the first batch stand before this on their connections.
    await ledger.flush();
    ledger.record(delivered('1-4', 100));
    await written(5);
    expect(await names()).toEqual(numbered(5));
    const [day] = await new UsageReader(store).read(dayAfter, dayAfter);
    expect(day).toMatchObject({ delivered: 5, cost: 500 });
  });

  it('a batch of outcomes whose connection broke before the answer is not written twice', async () => {
    await client.ping();
    // This one: on a busy machine the store may give up on it and connect again before the test sees what it wrote.
    const { stream } = client;
    const sent = stream.bytesWritten;
    redis.pause();
    for (let i = 0; i < 3; i += 1) ledger.record(delivered(`1-${i}`));
    const flushing = ledger.flush();
    await until(() => stream.bytesWritten > sent, 'the batch on the wire');
    client.disconnect(true);
    await flushing;
    // What the kernel took is carried out.
    redis.resume();
    await written(3);
    ledger.record(delivered('1-3'));
    await written(4);
    expect(await names()).toEqual(numbered(4));
  });

  it('the ledger throws nothing while Redis is away, and writes the outcomes in order when Redis is back', async () => {
    await redis.kill();
    await until(() => !store.available, 'the loss of Redis');
    for (const sms of numbered(700)) ledger.record(delivered(sms));
    await expect(ledger.flush()).resolves.toBeUndefined();
    await expect(ledger.flush()).resolves.toBeUndefined();
    expect(logs.join('')).toContain('"command":"record"');
    await redis.restart();
    await clockIsSet();
    // Nobody asks: the ledger tries again by itself.
    await written(700);
    expect(await names()).toEqual(numbered(700));
  });

  it('the ledger drops the oldest outcomes when too many wait for Redis, and logs how many', async () => {
    await redis.kill();
    await until(() => !store.available, 'the loss of Redis');
    for (const sms of numbered(20_500)) ledger.record(delivered(sms));
    await redis.restart();
    await clockIsSet();
    await written(20_000);
    expect(await names()).toEqual(numbered(20_500).slice(500));
    const told = logs.filter((line) => line.includes('The ledger lost outcomes'));
    expect(told.map((line) => (JSON.parse(line) as { lost: number }).lost)).toEqual([500]);
  });

  it('the ledger shuts down while Redis is away', async () => {
    await redis.kill();
    await until(() => !store.available, 'the loss of Redis');
    ledger.record(delivered('1-1'));
    await withoutHang(ledger.onApplicationShutdown(), 'the end of the ledger');
    expect(redis.pid).toBeUndefined();
  });
});
