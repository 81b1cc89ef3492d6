import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { Ledger, LEDGER_KEY, type Outcome } from '../../src/ledger/ledger';
import { sum, UsageReader } from '../../src/ledger/usage';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { redisClient, type RedisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import type { Admission } from '../../src/throttling/admission';
import { admissionOver, applicant } from '../support/applicant';
import { type RedisServer, startRedis } from '../support/redis-server';
import { setClock } from '../support/simulated-clock';
import { until } from '../support/world';

jest.mock('node:fs', () =>
  jest
    .requireActual<typeof import('../support/simulated-clock')>('../support/simulated-clock')
    .fsWithSimulatedClock(),
);

const DAY_MS = 86_400_000;
const KOLKATA_MS = 19_800_000;
/** The next midnight of Asia/Kolkata. */
const MIDNIGHT = Math.ceil((Date.now() + KOLKATA_MS) / DAY_MS) * DAY_MS - KOLKATA_MS;

let redis: RedisServer;
let raw: Redis;
let client: RedisClient;
let store: Store;
let ledger: Ledger;
let usage: UsageReader;
const metrics = new Metrics();
const logs: string[] = [];
const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });

function admissionWith(variables: Environment = {}): Admission {
  const config = readConfig({
    NODE_ENV: 'test',
    SECRET: 'ledger-secret-0123456789-abcdefghi',
    SUBJECT_SECRET: 'ledger-subject-0123456789-abcdefghi',
    STARTMESSAGING_API_KEY: `sm_live_${'5e'.repeat(20)}`,
    LIMIT_PHONE: '1000000/60',
    LIMIT_GLOBAL: '1000000/60',
    ...variables,
  });
  return admissionOver(config, store, metrics, logger);
}

/** What the stream says, the oldest first, as objects. */
async function events(): Promise<Record<string, string>[]> {
  const entries = await raw.xrange(LEDGER_KEY, '-', '+');
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

const answers = async (): Promise<boolean> => Boolean(await raw.ping());

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  raw.on('error', () => undefined);
});
beforeEach(async () => {
  await until(answers);
  await raw.flushall();
  await setClock(raw, MIDNIGHT);
  logs.length = 0;
  client = redisClient(redis.url);
  store = new Store(client, logger);
  store.connect();
  await until(() => store.available);
  ledger = new Ledger(store, logger);
  usage = new UsageReader(store);
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

describe('an SMS in the ledger', () => {
  it('is there with its price in the step that charges for it', async () => {
    const { sms, charged } = await admissionWith({ SMS_PRICE_PAISE: '30' }).admit(
      applicant('the-pseudonym', { provider: 'somebody' }),
    );
    expect(await events()).toEqual([
      { id: sms.entry, event: 'sent', phone: 'the-pseudonym', provider: 'somebody', cost: '3000' },
    ]);
    expect(await raw.hgetall('otp-login:{admission}:budget:minutes')).toEqual({ [charged[0]]: '30' });
    expect(sms).toMatchObject({ at: MIDNIGHT, allowance: 'phone', network: '203.0.113.0/24', message: '' });
  });

  it('is not there when it was refused', async () => {
    const refusing: [Environment, string][] = [
      [{ LIMIT_PHONE: '1/60' }, 'rate_limited'],
      [{ LIMIT_GLOBAL: '1/60' }, 'overloaded'],
      [{ BUDGET_PAISE_PER_DAY: '25' }, 'sms_unavailable'],
    ];
    await admissionWith().admit(applicant('somebody'));
    for (const [variables, code] of refusing)
      await expect(admissionWith(variables).admit(applicant('somebody'))).rejects.toMatchObject({ code });
    expect(await events()).toHaveLength(1);
    const [day] = await usage.read(dayAfter, dayAfter);
    expect(day).toMatchObject({ sent: 1, cost: 2_500 });
  });

  it('is followed by what became of it, under its name', async () => {
    const admission = admissionWith();
    const { sms } = await admission.admit(applicant('the-pseudonym'));
    const refunded = await admission.admit(applicant('another'));
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

  it('is written soon without anybody asking, and a call does not wait for it', async () => {
    const started = performance.now();
    for (let i = 0; i < 1_200; i += 1) ledger.record(delivered(`1-${i}`));
    expect(performance.now() - started).toBeLessThan(500);
    await until(async () => (await raw.xlen(LEDGER_KEY)) === 1_200);
    expect((await events()).map(({ sms }) => sms)).toEqual(Array.from({ length: 1_200 }, (_, i) => `1-${i}`));
  });
});

describe('how long it is kept', () => {
  it('ninety days', async () => {
    const oldest = MIDNIGHT - 90 * DAY_MS;
    await raw.xadd(LEDGER_KEY, `${oldest - 1}-0`, 'event', 'too old');
    await raw.xadd(LEDGER_KEY, `${oldest}-0`, 'event', 'old');
    await admissionWith().admit(applicant('somebody'));
    expect((await events()).map(({ event }) => event)).toEqual(['old', 'sent']);
    expect(Math.round((await raw.pttl(LEDGER_KEY)) / DAY_MS)).toBe(90);
  });

  it('ninety days also where nothing but outcomes is written', async () => {
    await admissionWith().admit(applicant('somebody'));
    // Entries are named by Redis's own clock.
    await setClock(raw, Date.now() + 89 * DAY_MS);
    ledger.record(delivered('1-1'));
    await ledger.flush();
    expect((await events()).map(({ event }) => event)).toEqual(['sent', 'delivery']);
    await setClock(raw, Date.now() + 91 * DAY_MS);
    ledger.record(delivered('1-2'));
    await ledger.flush();
    expect(await events()).toEqual([]);
  });

  it('two hundred thousand events', async () => {
    const fill = "for i = 1, 205000 do redis.call('XADD', KEYS[1], '*', 'event', 'filler') end";
    await raw.eval(fill, 1, LEDGER_KEY);
    const { sms } = await admissionWith().admit(applicant('somebody'));
    // Redis trims whole nodes of a hundred.
    expect(await raw.xlen(LEDGER_KEY)).toBeLessThanOrEqual(200_100);
    expect(await raw.xlen(LEDGER_KEY)).toBeGreaterThanOrEqual(200_000);
    expect((await raw.xrevrange(LEDGER_KEY, '+', '-', 'COUNT', 1))[0]?.[0]).toBe(sms.entry);
  });

  it('every key expires', async () => {
    const { sms } = await admissionWith().admit(applicant('somebody'));
    ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: ['service'], tried: ['service'] });
    ledger.record(delivered(sms.entry));
    await ledger.flush();
    const keys = await raw.keys('otp-login:*');
    expect(keys.filter((key) => key.startsWith(LEDGER_KEY))).toHaveLength(3);
    for (const key of keys) expect([key, (await raw.pttl(key)) > 0]).toEqual([key, true]);
    const totals = keys.find((key) => key.includes(':usage:'))!;
    const end = Date.now() + (await raw.pttl(totals));
    // As long as the events of its last minute, and a day of Asia/Kolkata more.
    expect(Math.round((end - MIDNIGHT) / DAY_MS)).toBe(91);
  });
});

const dayBefore = UsageReader.dayOf(new Date(MIDNIGHT - 1));
const dayAfter = UsageReader.dayOf(new Date(MIDNIGHT));

describe('the totals', () => {
  it('belong to hours and days of Asia/Kolkata, and an outcome to the hour in which its SMS was sent', async () => {
    const admission = admissionWith();
    const admit = async (at: number, count: number): Promise<{ entry: string; at: number }[]> => {
      await setClock(raw, at);
      const all = [];
      for (let i = 0; i < count; i += 1) all.push((await admission.admit(applicant(`p-${i}`))).sms);
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
    await setClock(raw, MIDNIGHT + 2 * DAY_MS);
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

  it('a day begins at half past six in the evening of the day before, UTC', () => {
    expect(UsageReader.dayOf(new Date('2026-12-31T18:29:59.999Z'))).toBe('2026-12-31');
    expect(UsageReader.dayOf(new Date('2026-12-31T18:30:00.000Z'))).toBe('2027-01-01');
  });

  it('take out what was given back, in the hour in which it was charged', async () => {
    const admission = admissionWith();
    await setClock(raw, MIDNIGHT - 1);
    const admitted = await admission.admit(applicant('somebody'));
    await admission.admit(applicant('another'));
    await setClock(raw, MIDNIGHT + 10_000);
    await admission.refund(admitted);
    const [before, after] = await usage.read(dayBefore, dayAfter);
    expect(before).toMatchObject({ sent: 2, refunded: 1, cost: 2_500 });
    expect(after).toMatchObject({ sent: 0, refunded: 0, cost: 0, hours: [] });
  });

  it('add up with the stream, whatever happens at once', async () => {
    const admission = admissionWith();
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const admitted = await admission.admit(applicant(`p-${i}`));
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

describe('while Redis is in trouble', () => {
  it('a batch whose answer was late is not written twice', async () => {
    redis.pause();
    for (let i = 0; i < 3; i += 1) ledger.record(delivered(`1-${i}`, 100));
    await ledger.flush();
    // It goes out again under its own name, and what came meanwhile after it.
    ledger.record(delivered('1-3', 100));
    await ledger.flush();
    redis.resume();
    await until(async () => (await raw.xlen(LEDGER_KEY)) >= 4);
    await ledger.flush();
    await sleep(1_500);
    expect((await events()).map(({ sms }) => sms)).toEqual(['1-0', '1-1', '1-2', '1-3']);
    const [day] = await usage.read(dayAfter, dayAfter);
    expect(day).toMatchObject({ delivered: 4, cost: 400 });
  });

  it('a batch whose connection broke before the answer is not written twice', async () => {
    redis.pause();
    for (let i = 0; i < 3; i += 1) ledger.record(delivered(`1-${i}`));
    const flushing = ledger.flush();
    await sleep(100);
    client.disconnect(true);
    await flushing;
    // What the kernel took is carried out.
    redis.resume();
    await until(async () => (await raw.xlen(LEDGER_KEY)) === 3);
    ledger.record(delivered('1-3'));
    await until(async () => (await raw.xlen(LEDGER_KEY)) > 3);
    await sleep(1_500);
    expect((await events()).map(({ sms }) => sms)).toEqual(['1-0', '1-1', '1-2', '1-3']);
  });

  it('nothing is thrown while it is away, and what happened is written when it is back, in order', async () => {
    await redis.kill();
    await until(() => !store.available);
    for (let i = 0; i < 700; i += 1) ledger.record(delivered(`1-${i}`));
    await expect(ledger.flush()).resolves.toBeUndefined();
    await expect(ledger.flush()).resolves.toBeUndefined();
    expect(logs.join('')).toContain('"step":"record"');
    await redis.restart();
    await until(answers);
    await setClock(raw, MIDNIGHT);
    // Nobody asks: it is tried again by itself.
    await until(async () => (await raw.xlen(LEDGER_KEY)) === 700);
    expect((await events()).map(({ sms }) => sms)).toEqual(Array.from({ length: 700 }, (_, i) => `1-${i}`));
  });

  it('what waits is bounded: the oldest is dropped, and that is told', async () => {
    await redis.kill();
    await until(() => !store.available);
    for (let i = 0; i < 20_500; i += 1) ledger.record(delivered(`1-${i}`));
    await redis.restart();
    await until(answers);
    await setClock(raw, MIDNIGHT);
    await until(() => store.available);
    await ledger.flush();
    const written = await events();
    expect(written).toHaveLength(20_000);
    expect(written.at(-1)?.sms).toBe('1-20499');
    const told = logs.filter((line) => line.includes('The ledger lost outcomes'));
    expect(told.map((line) => (JSON.parse(line) as { lost: number }).lost)).toEqual([500]);
  });

  it('the end of the process does not wait for a Redis that is away', async () => {
    await redis.kill();
    await until(() => !store.available);
    ledger.record(delivered('1-1'));
    const started = Date.now();
    await expect(ledger.onApplicationShutdown()).resolves.toBeUndefined();
    expect(Date.now() - started).toBeLessThan(2_000);
    await redis.restart();
    await until(answers);
  });
});
