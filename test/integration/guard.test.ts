import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Config, Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { ApiError } from '../../src/errors/api-error';
import { Guard, type GuardDecision } from '../../src/guard/guard';
import { Ledger } from '../../src/ledger/ledger';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import type { Admission } from '../../src/throttling/admission';
import type { Admitted, Applicant } from '../../src/throttling/applicant';
import { networkOf } from '../../src/throttling/client-address';
import { admissionOver, applicant } from '../support/applicant';
import { type RedisServer, startRedis } from '../support/redis-server';
import { setClock } from '../support/simulated-clock';

jest.mock('node:fs', () =>
  jest
    .requireActual<typeof import('../support/simulated-clock')>('../support/simulated-clock')
    .fsWithSimulatedClock(),
);

const REPLICAS = 3;
const MINUTE_MS = 60_000;
const QUARTER_MS = 15 * MINUTE_MS;
/** A quarter hour that begins soon: what has a time to live must not be over by Redis's own clock. */
const START = Math.ceil(Date.now() / QUARTER_MS) * QUARTER_MS;

const GUARD = 'otp-login:{admission}:guard';
const SERVICE = ['service'];
const ENFORCE = { GUARD_CONVERSION: 'enforce', GUARD_WRONG_CODES: 'enforce' };

let redis: RedisServer;
let raw: Redis;
let stores: Store[];
let ledger: Ledger;
const logs: string[] = [];
const metrics = new Metrics();
const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });

function settings(variables: Environment = {}): Config {
  return readConfig({
    NODE_ENV: 'test',
    SECRET: 'guard-secret-0123456789-abcdefghij',
    SUBJECT_SECRET: 'guard-subject-0123456789-abcdefghij',
    STARTMESSAGING_API_KEY: `sm_live_${'5e'.repeat(20)}`,
    LIMIT_PHONE: '1000000/60',
    LIMIT_GLOBAL: '1000000/1',
    ...variables,
  });
}

const admissionWith = (variables: Environment = {}, store = stores[0]!): Admission =>
  admissionOver(settings(variables), store, metrics, logger);

let admission: Admission;
/** Judges and counts nothing: the guard looks before the limits refuse. */
let broke: Admission;
let guard: Guard;

/** Modes of the guard for what follows in a test. */
function configure(variables: Environment): void {
  admission = admissionWith(variables);
  broke = admissionWith({ ...variables, BUDGET_PAISE_PER_DAY: '0' });
  guard = new Guard(settings(variables), stores[0]!, metrics, logger);
}

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  stores = Array.from({ length: REPLICAS }, () => new Store(redisClient(redis.url), logger));
  for (const store of stores) store.connect();
  for (const end = Date.now() + 10_000; !stores.every((store) => store.available);) {
    if (Date.now() > end) throw new Error('Redis was not reached');
    await sleep(5);
  }
});

beforeEach(async () => {
  await raw.flushall();
  logs.length = 0;
  ledger = new Ledger(stores[0]!, logger);
  configure(ENFORCE);
  await minute(0);
});

afterAll(async () => {
  for (const store of stores) store.close();
  raw.disconnect();
  await redis.stop();
});

let now = START;

/** It is this many minutes after the start. */
async function minute(minutes: number): Promise<void> {
  now = START + minutes * MINUTE_MS;
  await setClock(raw, now);
}

let people = 0;
const somebody = (more: Partial<Applicant> = {}): Applicant =>
  applicant(`person-${(people += 1)}`, { scopes: SERVICE, ...more });
const solver = (more: Partial<Applicant> = {}): Applicant =>
  somebody({ solution: `solution-${people}`, ...more });

/** This many SMS to new numbers, of which `back` codes come back. Whoever is `solving` brings a proof of work. */
async function send(
  count: number,
  {
    back = 0,
    scopes = SERVICE,
    solving = false,
  }: { back?: number; scopes?: string[]; solving?: boolean } = {},
): Promise<Admitted[]> {
  const sent = await Promise.all(
    Array.from({ length: count }, () => admission.admit(solving ? solver({ scopes }) : somebody({ scopes }))),
  );
  for (const { sms } of sent.slice(0, back))
    ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes, tried: [] });
  await ledger.flush();
  return sent;
}

/** Numbers that saw a wrong code for the first time in long, and right codes. */
async function guess(wrong: number, right = 0, scopes = SERVICE): Promise<void> {
  for (let i = 0; i < wrong; i += 1) ledger.record({ what: 'wrong', quiet: -1, tried: scopes });
  for (let i = 0; i < right; i += 1)
    ledger.record({ what: 'verified', sms: '1-1', at: now, scopes: [], tried: scopes });
  await ledger.flush();
}

async function refusal(admitted: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await admitted.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ApiError)) throw new Error(`not refused: ${String(error)}`);
  return error;
}

const outcome = (admitted: Promise<unknown>): Promise<string> =>
  admitted.then(
    () => 'admitted',
    (error: unknown) => (error as ApiError).code,
  );

/** Has the guard look, once a minute. */
async function judge(scopes = SERVICE): Promise<void> {
  expect((await refusal(broke.admit(applicant('nobody', { scopes })))).code).toBe('sms_unavailable');
}

/** The step that holds now; changes nothing. */
async function step(scope = 'service'): Promise<string> {
  return (await guard.explain()).raised.find((raised) => raised.scope === scope)?.step ?? 'none';
}

async function decisions(): Promise<GuardDecision[]> {
  return (await guard.explain()).decisions;
}

function alerts(): string[] {
  return logs
    .map((line) => (JSON.parse(line) as { alert?: string }).alert)
    .filter((alert): alert is string => alert?.startsWith('guard_') === true);
}

/** From the start on, by whoever solves each proof of work and never enters a code. At minute 5 it is denied. */
async function pump(scopes = SERVICE): Promise<void> {
  await minute(0);
  await send(40, { scopes });
  await minute(2);
  await judge(scopes);
  await minute(3);
  await send(20, { scopes, solving: true });
  await minute(5);
  await judge(scopes);
}

describe('what counts together', () => {
  it('a number series of six national digits, a range of addresses, and the whole service', () => {
    const scopesOf = (phone: string, address: string): string[] =>
      guard.scopesOf(phone as PhoneNumber, networkOf(address));
    expect(scopesOf('+919876543210', '203.0.113.77')).toEqual([
      'series:987654',
      'network:203.0.113.0/24',
      'service',
    ]);
    expect(scopesOf('+919876549999', '2001:0db8:0001:0002:0003:0004:0005:0006').slice(0, 2)).toEqual([
      'series:987654',
      'network:2001:db8:1::/48',
    ]);
    expect(scopesOf('+919876553210', '203.0.114.77').slice(0, 2)).toEqual([
      'series:987655',
      'network:203.0.114.0/24',
    ]);
  });

  it.each(['series:987654', 'network:203.0.113.0/24'])(
    'a bad %s is found among good traffic, and nothing outside of it is touched',
    async (bad) => {
      const good = ['series:700000', 'network:198.51.100.0/24', 'service'];
      // Wherever the attack cannot stay the same, it is another one each time.
      const around = (i: number): string[] =>
        bad.startsWith('series')
          ? [bad, `network:10.0.${i}.0/24`, 'service']
          : [`series:8${10_000 + i}`, bad, 'service'];
      await send(300, { back: 200, scopes: good });
      for (let i = 0; i < 40; i += 1) await send(1, { scopes: around(i) });
      await minute(2);
      await judge(around(1_000));
      await minute(3);
      for (let i = 0; i < 20; i += 1) await send(1, { scopes: around(i), solving: true });
      await minute(5);
      await judge(around(1_001));

      const { raised } = await guard.explain();
      expect(raised.map(({ scope, step: height }) => [scope, height])).toEqual([[bad, 'deny']]);
      expect(await outcome(admission.admit(somebody({ scopes: around(2_000) })))).toBe('rate_limited');
      expect(await outcome(admission.admit(somebody({ scopes: good })))).toBe('admitted');
    },
  );

  it('the worst of its scopes decides over a send', async () => {
    await pump(['series:987654']);
    await send(5, { scopes: ['network:203.0.113.0/24'] });
    const scopes = ['network:203.0.113.0/24', 'series:987654', 'service'];
    expect(await outcome(admission.admit(somebody({ scopes })))).toBe('rate_limited');
    expect(await outcome(admission.admit(somebody({ scopes: [...scopes].reverse() })))).toBe('rate_limited');
  });
});

describe('few codes that come back', () => {
  it.each([
    [19, 0, 'none'],
    [20, 5, 'observe'],
    [20, 6, 'none'],
    [39, 0, 'observe'],
    [40, 5, 'challenge'],
    [40, 6, 'observe'],
    [40, 12, 'none'],
    [1_000, 299, 'observe'],
    [1_000, 300, 'none'],
  ])('of %i SMS in a quarter hour %i come back: %s', async (sent, back, expected) => {
    await send(sent, { back });
    await minute(2);
    await judge();
    expect(await step()).toBe(expected);
  });

  it.each([
    [9, 0, 'none'],
    [10, 2, 'observe'],
    [10, 3, 'none'],
    [20, 1, 'challenge'],
    [20, 2, 'observe'],
    [20, 3, 'none'],
  ])('of ten SMS in each of %i quarter hours %i come back: %s', async (quarters, back, expected) => {
    for (let quarter = 0; quarter < quarters; quarter += 1) {
      await minute(15 * quarter);
      await send(10, { back });
      if (quarter < 9) expect(await step()).toBe('none');
    }
    if (quarters > 10) {
      // What was decided on the way, as if nobody had looked.
      await raw.hdel(`${GUARD}:scope:service`, 'step', 'until', 'risen');
      await raw.del(`${GUARD}:raised`);
    }
    await minute(15 * quarters);
    await judge();
    expect(await step()).toBe(expected);
  });

  it.each([
    [1, 'none'],
    [2, 'observe'],
    [16, 'observe'],
    [17, 'none'],
  ])(
    'SMS of one minute are judged from the second minute after it to the sixteenth: %i',
    async (m, expected) => {
      await send(20);
      await minute(m);
      await judge();
      expect(await step()).toBe(expected);
    },
  );

  it.each([
    [96, 'observe'],
    [97, 'none'],
  ])('SMS of one quarter hour are judged until it is a day old: %i', async (quarter, expected) => {
    for (let i = 0; i < 10; i += 1) {
      await minute(15 * i);
      await send(10);
    }
    await minute(15 * quarter);
    await judge();
    expect(await step()).toBe(expected);
  });

  it('SMS of the current and the last minute are not judged: their codes are on their way', async () => {
    const sent = await send(20);
    for (const m of [0, 1]) {
      await minute(m);
      await send(20);
      expect(await step()).toBe('none');
    }
    await minute(1.9);
    for (const { sms } of sent.slice(0, 15))
      ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: SERVICE, tried: [] });
    await ledger.flush();
    await minute(2);
    // Of 40 in the first minute 15 came back, in time.
    await judge();
    expect(await step()).toBe('none');
  });

  it('a code that comes back late counts where its SMS was sent', async () => {
    const [first, ...others] = await send(20);
    await minute(9);
    for (const { sms } of [first!, ...others.slice(0, 5)])
      ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: SERVICE, tried: [] });
    await ledger.flush();
    await minute(10);
    await judge();
    expect((await guard.explain()).service[0]?.figures).toMatchObject({ sent: 20, verified: 6 });
    await minute(17);
    expect((await guard.explain()).service[0]?.figures).toMatchObject({ sent: 0, verified: 0 });
  });

  it('an SMS whose price was given back was not sent: while the provider is away nobody is to blame', async () => {
    for (const admitted of await send(40)) await admission.refund(admitted);
    await minute(2);
    await judge();
    expect(await step()).toBe('none');
  });

  it('a good share raises nothing, at any volume', async () => {
    const scopes = ['series:987654', 'network:203.0.113.0/24', 'service'];
    for (let m = 0; m < 40; m += 1) {
      await minute(m);
      await send(100, { back: 30, scopes });
    }
    await minute(60);
    await judge(scopes);
    expect((await guard.explain()).service.map(({ figures }) => figures.sent)).toEqual([0, 4_000]);
    expect(await decisions()).toEqual([]);
    expect(alerts()).toEqual([]);
  });

  it('rises further only by what came after it rose', async () => {
    await send(20);
    await minute(2);
    await judge();
    expect(await step()).toBe('observe');
    // The same twenty, again and again.
    for (let m = 3; m <= 16; m += 1) {
      await minute(m);
      await judge();
      expect(await step()).toBe('observe');
    }
    await send(19);
    await minute(18);
    await judge();
    expect(await step()).toBe('observe');
    await send(1);
    await minute(20);
    await judge();
    expect(await step()).toBe('challenge');
    await send(20, { solving: true });
    await minute(21);
    await judge();
    expect(await step()).toBe('challenge');
    await minute(22);
    await judge();
    expect(await step()).toBe('deny');
  });

  it('the minute in which it rose counts for the rise only', async () => {
    await send(20);
    await minute(2.5);
    await send(20);
    expect(await step()).toBe('observe');
    await minute(5);
    await judge();
    expect(await step()).toBe('observe');
  });

  it('falls by itself, one step in each quarter hour after it was last justified', async () => {
    await pump();
    const heights: string[] = [];
    for (let m = 5; m <= 80; m += 1) {
      await minute(m);
      await judge();
      heights[m] = await step();
    }
    // What was sent in minute 3 is judged until minute 19, and justified the step for the last time then.
    expect([33, 34, 48, 49, 63, 64, 80].map((m) => heights[m])).toEqual(
      'deny challenge challenge observe observe none none'.split(' '),
    );
    expect(heights.slice(5, 34).every((height) => height === 'deny')).toBe(true);
  });

  it('falls also while nobody looks', async () => {
    await pump();
    for (const [m, height] of [
      [19.99, 'deny'],
      [20, 'challenge'],
      [34.99, 'challenge'],
      [35, 'observe'],
      [49.99, 'observe'],
      [50, 'none'],
      [500, 'none'],
    ] as const) {
      await minute(m);
      expect([m, await step()]).toEqual([m, height]);
    }
    await minute(36);
    // Twenty of minute 3 are out of the window; nothing is bad any more.
    expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    expect(await step()).toBe('observe');
  });

  it("a day's window never denies", async () => {
    const seen = new Set<string>();
    for (let quarter = 0; quarter < 60; quarter += 1) {
      for (const m of [0, 5, 10]) {
        await minute(15 * quarter + m);
        if (m === 0) await send(10, { solving: true });
        else await judge();
        seen.add(await step());
      }
    }
    expect([...seen]).toEqual(['none', 'observe', 'challenge']);
    expect(await step()).toBe('challenge');
    for (const { minutes, to } of await decisions()) expect([minutes, to]).not.toEqual([1_440, 'deny']);
    expect((await decisions())[0]).toMatchObject({ to: 'challenge', minutes: 1_440 });
  });
});

describe('numbers that see wrong codes', () => {
  it.each([
    [49, 0, 'none'],
    [50, 0, 'observe'],
    [50, 49, 'observe'],
    [50, 50, 'none'],
    [100, 33, 'challenge'],
    [100, 34, 'observe'],
    [100, 100, 'none'],
  ])('%i numbers see a wrong code, %i a right one: %s', async (wrong, right, expected) => {
    await guess(wrong, right);
    await judge();
    expect(await step()).toBe(expected);
  });

  it.each([
    [14, 'observe'],
    [15, 'none'],
  ])('are judged at once, and until the fourteenth minute: %i', async (m, expected) => {
    await guess(50);
    await minute(m);
    await judge();
    expect(await step()).toBe(expected);
  });

  it('are counted over a day too, and denied by none', async () => {
    for (let quarter = 0; quarter < 30; quarter += 1) {
      await minute(15 * quarter);
      await guess(20);
      await judge();
      const height = await step();
      if (quarter === 8) expect(height).toBe('none');
      if (quarter === 9) expect(height).toBe('observe');
      expect(height).not.toBe('deny');
    }
    expect(await step()).toBe('challenge');
    expect((await decisions())[0]).toMatchObject({ signal: 'wrong_codes', minutes: 1_440 });
  });

  it('one number with many wrong codes is no theft', async () => {
    await minute(1);
    ledger.record({ what: 'wrong', quiet: -1, tried: SERVICE });
    for (let i = 0; i < 500; i += 1) ledger.record({ what: 'wrong', quiet: 5_000, tried: SERVICE });
    await ledger.flush();
    await judge();
    expect(await step()).toBe('none');
    const { service } = await guard.explain();
    expect(service.map(({ figures }) => figures.wrong)).toEqual([1, 1]);
  });

  it('a number counts again in the next quarter of an hour, and the next day, however often it is tried', async () => {
    const quarter = Math.ceil(now / (24 * 60 * MINUTE_MS)) * 24 * 60 * MINUTE_MS;
    // Every fourteen minutes for a day and a half: with each the last one is younger than a window.
    for (let i = 0; i < 154; i += 1) {
      now = quarter + i * 14 * MINUTE_MS;
      await setClock(raw, now);
      ledger.record({ what: 'wrong', quiet: i === 0 ? -1 : 14 * MINUTE_MS, tried: SERVICE });
      await ledger.flush();
    }
    const { service } = await guard.explain();
    const [minutes, day] = service.map(({ figures }) => figures.wrong);
    expect(minutes).toBeGreaterThanOrEqual(1);
    expect(day).toBe(1);
    for (let i = 0; i < 20; i += 1) ledger.record({ what: 'wrong', quiet: 1_000, tried: SERVICE });
    await ledger.flush();
    expect((await guard.explain()).service.map(({ figures }) => figures.wrong)).toEqual([minutes, day]);
  });

  it('are denied when theft goes on, but not in the whole service: it would be a lever to shut everybody out', async () => {
    const scopes = ['network:198.51.100.0/24', 'service'];
    const there = { scopes };
    await guess(100, 0, scopes);
    await judge(scopes);
    expect(await outcome(admission.admit(somebody(there)))).toBe('challenge_required');
    await minute(1);
    await guess(50, 0, scopes);
    await judge(scopes);
    expect([await step(scopes[0]), await step('service')]).toEqual(['deny', 'challenge']);
    expect(await outcome(admission.admit(somebody(there)))).toBe('rate_limited');
    expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
  });

  it('count where they are tried, not where the SMS was asked for', async () => {
    await guess(50, 0, ['network:198.51.100.0/24', 'service']);
    ledger.record({ what: 'verified', sms: '1-1', at: now, scopes: ['network:203.0.113.0/24'], tried: [] });
    await ledger.flush();
    await judge(['network:198.51.100.0/24', 'network:203.0.113.0/24']);
    expect(await step('network:198.51.100.0/24')).toBe('observe');
    expect(await step('network:203.0.113.0/24')).toBe('none');
    expect(await raw.hgetall(`${GUARD}:scope:network:203.0.113.0/24`)).toMatchObject({
      [`m${Math.floor(now / MINUTE_MS)}:v`]: '1',
    });
  });
});

describe('who is held up', () => {
  it('at observe nobody is', async () => {
    await send(20);
    await minute(2);
    await judge();
    expect(await step()).toBe('observe');
    expect(await outcome(admission.admit(somebody()))).toBe('admitted');
  });

  it('at challenge everybody without a solution, but for the holders of device tokens', async () => {
    await send(40);
    await minute(2);
    expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    expect(await outcome(admission.admit(somebody({ returning: true })))).toBe('challenge_required');
    expect(await outcome(admission.admit(solver()))).toBe('admitted');
    expect(await outcome(admission.admit(solver({ returning: true })))).toBe('admitted');
    expect(await outcome(admission.admit(somebody({ byDevice: true })))).toBe('admitted');
  });

  it('at deny new numbers are refused whatever they solve, numbers that logged in before are challenged', async () => {
    await pump();
    const { code, retryAfterSeconds } = await refusal(admission.admit(somebody()));
    expect([code, retryAfterSeconds]).toEqual(['rate_limited', 900]);
    await minute(12);
    expect((await refusal(admission.admit(solver()))).retryAfterSeconds).toBe(900);
    await minute(12 + 4 / 60);
    // Judged a moment ago: the same end.
    expect((await refusal(admission.admit(solver()))).retryAfterSeconds).toBe(896);
    expect(await outcome(admission.admit(somebody({ returning: true })))).toBe('challenge_required');
    expect(await outcome(admission.admit(solver({ returning: true })))).toBe('admitted');
    expect(await outcome(admission.admit(somebody({ byDevice: true })))).toBe('admitted');
    expect(await outcome(admission.admit(somebody({ byDevice: true, returning: true })))).toBe('admitted');
  });

  it('a solution works once, of many at once on several replicas', async () => {
    await send(40);
    await minute(2);
    const replicas = stores.map((store) => admissionWith(ENFORCE, store));
    const solution = 'the-one';
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, (_, i) => outcome(replicas[i % REPLICAS]!.admit(somebody({ solution })))),
    );
    expect(outcomes.filter((each) => each === 'admitted')).toHaveLength(1);
    expect(outcomes.filter((each) => each === 'challenge_required')).toHaveLength(59);
  });

  it('who is refused by a limit keeps the solution', async () => {
    await send(40);
    await minute(2);
    const person = solver();
    expect(await outcome(broke.admit(person))).toBe('sms_unavailable');
    expect(await outcome(admission.admit(person))).toBe('admitted');
    expect(await outcome(admission.admit(person))).toBe('challenge_required');
  });

  it('a refusal counts for no limit and no budget, and writes nothing into the ledger', async () => {
    await pump();
    const before = [
      await raw.llen('otp-login:{admission}:service'),
      await raw.xlen('otp-login:{admission}:ledger'),
      await raw.hgetall('otp-login:{admission}:budget:minutes'),
    ];
    await refusal(admission.admit(somebody()));
    await refusal(admission.admit(somebody({ returning: true })));
    expect([
      await raw.llen('otp-login:{admission}:service'),
      await raw.xlen('otp-login:{admission}:ledger'),
      await raw.hgetall('otp-login:{admission}:budget:minutes'),
    ]).toEqual(before);
  });
});

describe('challenges that nobody solves', () => {
  it('hold the step up', async () => {
    await send(40);
    await minute(2);
    await judge();
    for (let m = 3; m <= 120; m += 1) {
      await minute(m);
      for (let i = 0; i < 2; i += 1)
        expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    }
    expect(await step()).toBe('challenge');
    // They stop: fewer than twenty are left in the window eight minutes later.
    for (let m = 121; m <= 125; m += 1) {
      await minute(m);
      await judge();
    }
    await minute(143);
    await judge();
    expect(await step()).toBe('observe');
  });

  it('never raise one to deny, and do not hold deny', async () => {
    await pump();
    for (let m = 6; m <= 60; m += 1) {
      await minute(m);
      for (let i = 0; i < 3; i += 1) await refusal(admission.admit(somebody()));
    }
    expect(await step()).toBe('challenge');
  });

  it('are not held against those who solve them', async () => {
    await send(40);
    await minute(2);
    await judge();
    for (let m = 3; m <= 26; m += 1) {
      await minute(m);
      for (let i = 0; i < 2; i += 1) {
        expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
        await send(1, { back: 1, solving: true });
      }
    }
    const { figures } = (await guard.explain()).service[0]!;
    expect([figures.challenged, figures.passed]).toEqual([30, 30]);
    // From minute 13 on enough comes back; a quarter hour after minute 12 it falls.
    await minute(27);
    expect(await outcome(admission.admit(somebody()))).toBe('admitted');
  });
});

describe('its modes', () => {
  const SIGNALS = {
    conversion: { name: 'GUARD_CONVERSION', alert: 'guard_conversion', attack: () => send(40) },
    wrong_codes: { name: 'GUARD_WRONG_CODES', alert: 'guard_wrong_codes', attack: () => guess(100) },
  };

  describe.each(['conversion', 'wrong_codes'] as const)('for %s', (signal) => {
    const { name, alert, attack } = SIGNALS[signal];

    it('off: nothing is decided, and nothing told', async () => {
      configure({ ...ENFORCE, [name]: 'off' });
      await attack();
      await minute(2);
      await judge();
      expect(await decisions()).toEqual([]);
      expect(alerts()).toEqual([]);
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    });

    it('observe: it is decided and told, and nothing is enforced', async () => {
      configure({ ...ENFORCE, [name]: 'observe' });
      for (const m of [0, 2, 4, 6]) {
        await minute(m);
        await attack();
      }
      await minute(8);
      await judge();
      expect(await step()).toBe('observe');
      expect(await decisions()).toMatchObject([{ signal, from: 'none', to: 'observe' }]);
      expect(alerts()).toEqual([alert]);
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    });

    it('enforce: it is decided, told, and enforced', async () => {
      configure({ GUARD_CONVERSION: 'off', GUARD_WRONG_CODES: 'off', [name]: 'enforce' });
      await attack();
      await minute(2);
      await judge();
      expect(await decisions()).toMatchObject([{ signal, from: 'none', to: 'challenge' }]);
      expect(alerts()).toEqual([alert]);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    });

    it('a step that holds is enforced no more when the signal is only to be observed, or not at all', async () => {
      await attack();
      await minute(2);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
      const off = { GUARD_CONVERSION: 'off', GUARD_WRONG_CODES: 'off' };
      configure({ ...off, [name]: 'observe' });
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
      configure(off);
      await minute(3);
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    });

    it('that holds also while the other signal is enforced', async () => {
      await attack();
      await minute(2);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
      configure({ ...ENFORCE, [name]: 'observe' });
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
      await minute(3);
      expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    });
  });

  it('by default few codes that come back are observed, wrong codes enforced', async () => {
    configure({});
    await send(40);
    await minute(2);
    expect(await outcome(admission.admit(somebody()))).toBe('admitted');
    expect(await step()).toBe('observe');
    const elsewhere = { scopes: ['network:198.51.100.0/24'] };
    await guess(100, 0, elsewhere.scopes);
    expect(await outcome(admission.admit(somebody(elsewhere)))).toBe('challenge_required');
  });
});

describe('what operators are told', () => {
  it('each decision, with its signal and the figures that it was taken for', async () => {
    await send(25, { back: 5 });
    await guess(3, 4);
    await minute(2);
    await judge();
    expect(await decisions()).toEqual([
      {
        at: new Date(START + 2 * MINUTE_MS),
        scope: 'service',
        from: 'none',
        to: 'observe',
        signal: 'conversion',
        minutes: 15,
        figures: { sent: 25, verified: 5, wrong: 3, right: 4, challenged: 0, passed: 0 },
      },
    ]);
    const state = await guard.explain();
    expect(state.now).toEqual(new Date(START + 2 * MINUTE_MS));
    expect(state.raised).toEqual([
      { scope: 'service', step: 'observe', until: new Date(START + 17 * MINUTE_MS) },
    ]);
    expect(state.service.map(({ minutes }) => minutes)).toEqual([15, 1_440]);
    expect(state.service[0]?.figures).toEqual((await decisions())[0]?.figures);
  });

  it('the way up and the way down, the newest first', async () => {
    await pump();
    for (const m of [21, 22, 50, 65, 100]) {
      await minute(m);
      await judge();
    }
    expect((await decisions()).map(({ from, to, signal }) => `${from} ${to} ${signal}`)).toEqual([
      'challenge none quiet',
      'deny challenge quiet',
      'challenge deny conversion',
      'none challenge conversion',
    ]);
    expect((await decisions())[0]?.figures).toEqual({
      sent: 0,
      verified: 0,
      wrong: 0,
      right: 0,
      challenged: 0,
      passed: 0,
    });
    expect((await guard.explain()).raised).toEqual([]);
    // Down is no alert.
    expect(alerts()).toEqual(['guard_conversion', 'guard_conversion']);
  });

  it('and a fall is no alert, also while something is still bad', async () => {
    await send(100);
    await pump();
    await minute(20);
    await judge();
    expect((await decisions()).map(({ from, to, signal, minutes }) => [from, to, signal, minutes])).toEqual([
      ['deny', 'challenge', 'conversion', 1_440],
      ['challenge', 'deny', 'conversion', 15],
      ['none', 'challenge', 'conversion', 15],
    ]);
    expect(alerts()).toHaveLength(2);
  });

  it('of a rise once, over several replicas and while it lasts', async () => {
    await send(20);
    await guess(50, 0, ['series:987654']);
    await minute(2);
    const replicas = stores.map((store) => admissionWith(ENFORCE, store));
    for (let m = 2; m <= 12; m += 1) {
      await minute(m);
      await Promise.all(
        Array.from({ length: 30 }, (_, i) =>
          replicas[i % REPLICAS]!.admit(somebody({ byDevice: true, scopes: ['series:987654', 'service'] })),
        ),
      );
      // Good again, so that nothing but the first twenty is bad.
      for (const key of SERVICE)
        await raw.hincrby(`${GUARD}:scope:${key}`, `m${Math.floor(now / MINUTE_MS)}:v`, 30);
      await raw.hincrby(`${GUARD}:scope:series:987654`, `m${Math.floor(now / MINUTE_MS)}:v`, 30);
      await raw.hincrby(`${GUARD}:scope:service`, `q${Math.floor(now / QUARTER_MS)}:v`, 30);
      await raw.hincrby(`${GUARD}:scope:series:987654`, `q${Math.floor(now / QUARTER_MS)}:v`, 30);
    }
    expect(alerts().sort()).toEqual(['guard_conversion', 'guard_wrong_codes']);
    expect(await decisions()).toHaveLength(2);
  });

  it('and nothing of who asked: neither a pseudonym nor an address', async () => {
    await pump(['series:987654', 'network:203.0.113.0/24', 'service']);
    const told =
      logs.filter((line) => line.includes('guard_')).join('') + JSON.stringify(await guard.explain());
    expect(told).toContain('network:203.0.113.0/24');
    expect(told).not.toContain('person-');
  });

  it('a scope is judged every five seconds', async () => {
    // The first finds nothing to judge.
    await send(2);
    await guess(50);
    await judge();
    expect(await step()).toBe('none');
    await minute(4.9 / 60);
    await judge();
    expect(await step()).toBe('none');
    await minute(5 / 60);
    await judge();
    expect(await step()).toBe('observe');
  });
});

describe('what it keeps', () => {
  const fields = (scope: string): Promise<string[]> => raw.hkeys(`${GUARD}:scope:${scope}`);

  it('expires, all of it', async () => {
    await pump(['series:987654', 'network:203.0.113.0/24', 'service']);
    await refusal(admission.admit(somebody()));
    await guess(1, 1, ['network:198.51.100.0/24']);
    const keys = (await raw.keys('otp-login:*')).filter((key) => key !== 'test:clock');
    expect(keys.filter((key) => key.startsWith(GUARD)).length).toBeGreaterThanOrEqual(6);
    for (const key of keys) expect([key, (await raw.pttl(key)) > 0]).toEqual([key, true]);
    for (const scope of ['service', 'network:198.51.100.0/24'])
      expect(await raw.ttl(`${GUARD}:scope:${scope}`)).toBeGreaterThan(86_400);
  });

  it('is bounded, and old buckets are deleted, however long traffic lasts', async () => {
    let most = 0;
    for (let m = 0; m < 28 * 60; m += 1) {
      await minute(m);
      await admission.admit(solver());
      await admission.admit(somebody()).catch(() => undefined);
      ledger.record({ what: 'verified', sms: '1-1', at: now - MINUTE_MS, scopes: SERVICE, tried: SERVICE });
      ledger.record({ what: 'wrong', quiet: -1, tried: SERVICE });
      await ledger.flush();
      if (m % 60 === 0) most = Math.max(most, await raw.hlen(`${GUARD}:scope:service`));
    }
    // Six counts in each of 18 minutes and 98 quarter hours, and five fields of the step.
    expect(most).toBeLessThanOrEqual(6 * (18 + 98) + 5);
    expect(most).toBeGreaterThan(300);
    const ages = (await fields('service')).flatMap((field) => {
      const [, window, bucket] = /^([mq])(\d+):/.exec(field) ?? [];
      if (bucket === undefined) return [];
      const width = window === 'm' ? MINUTE_MS : QUARTER_MS;
      return [[window === 'm' ? 17 : 97, Math.floor(now / width) - Number(bucket)] as const];
    });
    for (const [oldest, age] of ages) expect(age).toBeLessThanOrEqual(oldest);
    expect((await raw.memory('USAGE', `${GUARD}:scope:service`))!).toBeLessThan(100_000);
  });

  it('a thousand decisions at most, of which it tells the last hundred', async () => {
    const scopes = Array.from({ length: 1_200 }, (_, i) => `network:10.${i >> 8}.${i & 255}.0/24`);
    await guess(50, 0, scopes);
    await judge(scopes);
    expect(await raw.xlen(`${GUARD}:decisions`)).toBe(1_000);
    const { decisions: told, raised } = await guard.explain();
    expect([told.length, raised.length]).toEqual([100, 100]);
  });

  it('a scope in which nothing was sent leaves nothing behind', async () => {
    await judge(['series:600000']);
    expect(await raw.keys(`${GUARD}*`)).toEqual([]);
  });
});
