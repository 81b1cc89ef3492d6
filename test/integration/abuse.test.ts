// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import type { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import { Alerts } from '../../src/alerts/alerts';
import { AbuseControl, type AbuseDecision } from '../../src/abuse/abuse-control';
import { Ledger } from '../../src/ledger/ledger';
import { Metrics } from '../../src/metrics/metrics';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import type { AdmissionControl } from '../../src/throttling/admission';
import type { Admission, AdmissionRequest } from '../../src/throttling/admission';
import { networkOf } from '../../src/net/addresses';
import { admissionOver, admissionRequest } from '../support/applicant';
import { abuseLevelKey, abuseScopeKey, KEYS } from '../support/keys';
import { outcome, refusal, refusalCode } from '../support/outcomes';
import { settings } from '../support/settings';
import { MIDNIGHT as START, type SimulatedClock } from '../support/simulated-clock';

const REPLICAS = 3;
const MINUTE_MS = 60_000;
const QUARTER_MS = 15 * MINUTE_MS;
const DAY_MS = 96 * QUARTER_MS;
const SERVICE = ['service'];
const ENFORCE = { ABUSE_CONVERSION: 'enforce', ABUSE_WRONG_CODES: 'enforce' };

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;
let ledger: Ledger;
const metrics = new Metrics();

const admissionWith = (variables: Environment = {}, store = redis.stores[0]!): AdmissionControl =>
  admissionOver(settings(variables), store, metrics, redis.logger);

let admission: AdmissionControl;
/** Judges and counts nothing: the abuse control looks before the limits refuse. */
let broke: AdmissionControl;
let abuse: AbuseControl;

/** Modes of the abuse control for what follows in a test. */
function configure(variables: Environment): void {
  admission = admissionWith(variables);
  broke = admissionWith({ ...variables, BUDGET_PAISE_PER_DAY: '0' });
  abuse = new AbuseControl(
    settings(variables),
    redis.stores[0]!,
    metrics,
    redis.logger,
    new Alerts(metrics, redis.logger),
  );
}

beforeAll(async () => {
  redis = await simulatedStores(REPLICAS);
  ({ raw, clock } = redis);
});

beforeEach(async () => {
  await clock.empty();
  await minute(0);
  redis.logs.length = 0;
  ledger = new Ledger(settings(), redis.stores[0]!, redis.logger);
  configure(ENFORCE);
});

afterAll(() => {
  redis.close();
});

/** It is this many minutes after the start. */
const minute = (minutes: number): Promise<void> => clock.set(START + minutes * MINUTE_MS);

let people = 0;
const somebody = (more: Partial<AdmissionRequest> = {}): AdmissionRequest =>
  admissionRequest(`person-${(people += 1)}`, { scopes: SERVICE, ...more });
const solver = (more: Partial<AdmissionRequest> = {}): AdmissionRequest =>
  somebody({ solution: `solution-${people}`, ...more });

/** Sends SMS to new numbers, and has `back` of their codes come back. With `solving` each sender has a proof of work. */
async function send(
  count: number,
  {
    back = 0,
    scopes = SERVICE,
    solving = false,
  }: { back?: number; scopes?: string[]; solving?: boolean } = {},
): Promise<Admission[]> {
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
    ledger.record({ what: 'verified', sms: '1-1', at: clock.now, scopes: [], tried: scopes });
  await ledger.flush();
}

/** Has the abuse control judge. */
async function judge(scopes = SERVICE): Promise<void> {
  expect(await refusalCode(broke.admit(admissionRequest('nobody', { scopes })))).toBe('sms_unavailable');
}

/** The level that holds now; changes nothing. */
async function level(scope = 'service'): Promise<string> {
  return (await abuse.explain()).raised.find((raised) => raised.scope === scope)?.level ?? 'none';
}

async function decisions(): Promise<AbuseDecision[]> {
  return (await abuse.explain()).decisions;
}

function alerts(): string[] {
  return redis.logs
    .map((line) => (JSON.parse(line) as { alert?: string }).alert)
    .filter((alert): alert is string => alert?.startsWith('abuse_') === true);
}

/** From minute 0 on senders solve each proof of work and never enter a code. At minute 5 the level is deny. */
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

describe('scopes', () => {
  it('the abuse control counts by number series of six digits, by address range, and for the whole service', () => {
    const scopesOf = (phone: string, address: string): string[] =>
      abuse.scopesOf(phone as PhoneNumber, networkOf(address));
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
    'the abuse control denies a bad %s among good traffic and touches nothing else',
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

      const { raised } = await abuse.explain();
      expect(raised.map((each) => [each.scope, each.level])).toEqual([[bad, 'deny']]);
      expect(await outcome(admission.admit(somebody({ scopes: around(2_000) })))).toBe('rate_limited');
      expect(await outcome(admission.admit(somebody({ scopes: good })))).toBe('done');
    },
  );

  it('the abuse control decides about a send by the highest level of its scopes', async () => {
    await pump(['series:987654']);
    await send(5, { scopes: ['network:203.0.113.0/24'] });
    const scopes = ['network:203.0.113.0/24', 'series:987654', 'service'];
    expect(await outcome(admission.admit(somebody({ scopes })))).toBe('rate_limited');
    expect(await outcome(admission.admit(somebody({ scopes: [...scopes].reverse() })))).toBe('rate_limited');
  });
});

describe('conversion', () => {
  it.each([
    [19, 0, 'none'],
    [20, 5, 'observe'],
    [20, 6, 'none'],
    [39, 0, 'observe'],
    [40, 5, 'challenge'],
    [40, 6, 'observe'],
    [40, 12, 'none'],
    [200, 59, 'observe'],
    [200, 60, 'none'],
  ])(
    'the abuse control sees %i SMS in a quarter hour of which %i codes come back, and the level is %s',
    async (sent, back, expected) => {
      await send(sent, { back });
      await minute(2);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it.each([
    [9, 0, 'none'],
    [10, 2, 'observe'],
    [10, 3, 'none'],
    [20, 1, 'challenge'],
    [20, 2, 'observe'],
    [20, 3, 'none'],
  ])(
    'the abuse control sees ten SMS in each of %i quarter hours of which %i codes come back, and the level is %s',
    async (quarters, back, expected) => {
      for (let quarter = 0; quarter < quarters; quarter += 1) {
        await minute(15 * quarter);
        await send(10, { back });
        if (quarter < 9) expect(await level()).toBe('none');
      }
      if (quarters > 10) {
        // What was decided on the way, as if nobody had looked.
        await raw.set(abuseLevelKey('service'), '0 0 0 0 none');
        await raw.del(`${KEYS.abuse}:raised`);
      }
      await minute(15 * quarters);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it.each([
    [1, 'none'],
    [2, 'observe'],
    [16, 'observe'],
    [17, 'none'],
  ])(
    'the abuse control judges the SMS of one minute from the second to the sixteenth minute after it: in minute %i the level is %s',
    async (m, expected) => {
      await send(20);
      await minute(m);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it.each([
    [96, 'observe'],
    [97, 'none'],
  ])(
    'the abuse control judges the SMS of one quarter hour for a day: after %i quarter hours the level is %s',
    async (quarter, expected) => {
      for (let i = 0; i < 10; i += 1) {
        await minute(15 * i);
        await send(10);
      }
      await minute(15 * quarter);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it('the abuse control does not judge the SMS of the current and the last minute, because their codes are under way', async () => {
    const sent = await send(20);
    for (const m of [0, 1]) {
      await minute(m);
      await send(20);
      expect(await level()).toBe('none');
    }
    await minute(1.9);
    for (const { sms } of sent.slice(0, 15))
      ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: SERVICE, tried: [] });
    await ledger.flush();
    await minute(2);
    // Of 40 in the first minute 15 came back, in time.
    await judge();
    expect(await level()).toBe('none');
  });

  it('a code that comes back late counts for the minute in which its SMS was sent', async () => {
    const [first, ...others] = await send(20);
    await minute(9);
    for (const { sms } of [first!, ...others.slice(0, 5)])
      ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: SERVICE, tried: [] });
    await ledger.flush();
    await minute(10);
    await judge();
    expect((await abuse.explain()).service[0]?.figures).toMatchObject({ sent: 20, verified: 6 });
    await minute(17);
    expect((await abuse.explain()).service[0]?.figures).toMatchObject({ sent: 0, verified: 0 });
  });

  it('an SMS that was refunded does not count as sent for the abuse control', async () => {
    for (const admitted of await send(40)) await admission.refund(admitted);
    await minute(2);
    await judge();
    expect(await level()).toBe('none');
  });

  it('the abuse control raises nothing when a good share of many codes comes back', async () => {
    const scopes = ['series:987654', 'network:203.0.113.0/24', 'service'];
    for (let m = 0; m < 20; m += 1) {
      await minute(m);
      await send(50, { back: 15, scopes });
    }
    await minute(60);
    await judge(scopes);
    expect((await abuse.explain()).service.map(({ figures }) => figures.sent)).toEqual([0, 1_000]);
    expect(await decisions()).toEqual([]);
    expect(alerts()).toEqual([]);
  });

  it('the abuse control raises a level further only for SMS that were sent after the last rise', async () => {
    await send(20);
    await minute(2);
    await judge();
    expect(await level()).toBe('observe');
    // The same twenty, again and again.
    for (let m = 3; m <= 16; m += 1) {
      await minute(m);
      await judge();
      expect(await level()).toBe('observe');
    }
    await send(19);
    await minute(18);
    await judge();
    expect(await level()).toBe('observe');
    await send(1);
    await minute(20);
    await judge();
    expect(await level()).toBe('challenge');
    await send(20, { solving: true });
    await minute(21);
    await judge();
    expect(await level()).toBe('challenge');
    await minute(22);
    await judge();
    expect(await level()).toBe('deny');
  });

  it('the minute of a rise counts for this rise only', async () => {
    await send(20);
    await minute(2.5);
    await send(20);
    expect(await level()).toBe('observe');
    await minute(5);
    await judge();
    expect(await level()).toBe('observe');
  });

  it('the level of the abuse control falls by one in each quarter hour after it was last justified', async () => {
    await pump();
    const heights: string[] = [];
    for (let m = 5; m <= 80; m += 1) {
      await minute(m);
      await judge();
      heights[m] = await level();
    }
    // What was sent in minute 3 is judged until minute 19, and justified the level for the last time then.
    expect([33, 34, 48, 49, 63, 64, 80].map((m) => heights[m])).toEqual(
      'deny challenge challenge observe observe none none'.split(' '),
    );
    expect(heights.slice(5, 34).every((height) => height === 'deny')).toBe(true);
  });

  it('the level of the abuse control falls on time even if no send makes the abuse control judge', async () => {
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
      expect([m, await level()]).toEqual([m, height]);
    }
    await minute(36);
    // Twenty of minute 3 are out of the window; nothing is bad any more.
    expect(await outcome(admission.admit(somebody()))).toBe('done');
    expect(await level()).toBe('observe');
  });

  it('the window of a day never raises the abuse control to deny', async () => {
    const seen = new Set<string>();
    for (let quarter = 0; quarter < 60; quarter += 1) {
      for (const m of [0, 5, 10]) {
        await minute(15 * quarter + m);
        if (m === 0) await send(10, { solving: true });
        else await judge();
        seen.add(await level());
      }
    }
    expect([...seen]).toEqual(['none', 'observe', 'challenge']);
    expect(await level()).toBe('challenge');
    for (const { minutes, to } of await decisions()) expect([minutes, to]).not.toEqual([1_440, 'deny']);
    expect((await decisions())[0]).toMatchObject({ to: 'challenge', minutes: 1_440 });
  });
});

describe('wrong codes', () => {
  it.each([
    [49, 0, 'none'],
    [50, 0, 'observe'],
    [50, 49, 'observe'],
    [50, 50, 'none'],
    [100, 33, 'challenge'],
    [100, 34, 'observe'],
    [100, 100, 'none'],
  ])(
    'the abuse control sees %i numbers with a wrong code and %i with a right code, and the level is %s',
    async (wrong, right, expected) => {
      await guess(wrong, right);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it.each([
    [14, 'observe'],
    [15, 'none'],
  ])(
    'the abuse control judges wrong codes at once and until the fourteenth minute: in minute %i the level is %s',
    async (m, expected) => {
      await guess(50);
      await minute(m);
      await judge();
      expect(await level()).toBe(expected);
    },
  );

  it('the abuse control counts wrong codes over a day as well, and never denies by this window', async () => {
    for (let quarter = 0; quarter < 30; quarter += 1) {
      await minute(15 * quarter);
      await guess(20);
      await judge();
      const height = await level();
      if (quarter === 8) expect(height).toBe('none');
      if (quarter === 9) expect(height).toBe('observe');
      expect(height).not.toBe('deny');
    }
    expect(await level()).toBe('challenge');
    expect((await decisions())[0]).toMatchObject({ signal: 'wrong_codes', minutes: 1_440 });
  });

  it('one number with many wrong codes does not raise the abuse control', async () => {
    await minute(1);
    ledger.record({ what: 'wrong', quiet: -1, tried: SERVICE });
    for (let i = 0; i < 500; i += 1) ledger.record({ what: 'wrong', quiet: 5_000, tried: SERVICE });
    await ledger.flush();
    await judge();
    expect(await level()).toBe('none');
    const { service } = await abuse.explain();
    expect(service.map(({ figures }) => figures.wrong)).toEqual([1, 1]);
  });

  it('a number with wrong codes counts again in the next quarter hour and on the next day, but only once in each', async () => {
    const firstDay = Math.ceil(clock.now / DAY_MS) * DAY_MS;
    // Every fourteen minutes for a day and a half: with each the last one is younger than a window.
    for (let i = 0; i < 154; i += 1) {
      await clock.set(firstDay + i * 14 * MINUTE_MS);
      ledger.record({ what: 'wrong', quiet: i === 0 ? -1 : 14 * MINUTE_MS, tried: SERVICE });
      await ledger.flush();
    }
    const { service } = await abuse.explain();
    const [minutes, day] = service.map(({ figures }) => figures.wrong);
    expect(minutes).toBeGreaterThanOrEqual(1);
    expect(day).toBe(1);
    for (let i = 0; i < 20; i += 1) ledger.record({ what: 'wrong', quiet: 1_000, tried: SERVICE });
    await ledger.flush();
    expect((await abuse.explain()).service.map(({ figures }) => figures.wrong)).toEqual([minutes, day]);
  });

  it('wrong codes of 110, 220 and 1,000 numbers challenge a carrier’s range, a series and the service, and never deny', async () => {
    const scopes = ['series:987654', 'network:198.51.100.0/24', 'service'];
    const there = { scopes };
    let m = 0;
    for (const codes of [110, 110, 780]) {
      await minute((m += 1));
      await guess(codes, 0, scopes);
      await judge(scopes);
      expect(await Promise.all(scopes.map(level))).toEqual(Array(3).fill('challenge'));
      expect(await outcome(admission.admit(somebody(there)))).toBe('challenge_required');
      expect(await outcome(admission.admit(solver(there)))).toBe('done');
      expect(await outcome(admission.admit(solver({ ...there, returning: true })))).toBe('done');
      expect(await outcome(admission.admit(somebody({ ...there, byDevice: true })))).toBe('done');
    }
  });

  it('a right code counts as sent in the scopes of its SMS, and as tried in those that are recorded with it', async () => {
    await guess(50, 0, ['network:198.51.100.0/24', 'service']);
    ledger.record({
      what: 'verified',
      sms: '1-1',
      at: clock.now,
      scopes: ['network:203.0.113.0/24'],
      tried: [],
    });
    await ledger.flush();
    await judge(['network:198.51.100.0/24', 'network:203.0.113.0/24']);
    expect(await level('network:198.51.100.0/24')).toBe('observe');
    expect(await level('network:203.0.113.0/24')).toBe('none');
    expect(await raw.hgetall(abuseScopeKey('network:203.0.113.0/24'))).toMatchObject({
      [`m${Math.floor(clock.now / MINUTE_MS)}:v`]: '1',
    });
  });
});

describe('levels', () => {
  it('the level observe lets every send pass', async () => {
    await send(20);
    await minute(2);
    await judge();
    expect(await level()).toBe('observe');
    expect(await outcome(admission.admit(somebody()))).toBe('done');
  });

  it('the level challenge asks every sender for a solution except the holders of device tokens', async () => {
    await send(40);
    await minute(2);
    expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    expect(await outcome(admission.admit(somebody({ returning: true })))).toBe('challenge_required');
    expect(await outcome(admission.admit(solver()))).toBe('done');
    expect(await outcome(admission.admit(solver({ returning: true })))).toBe('done');
    expect(await outcome(admission.admit(somebody({ byDevice: true })))).toBe('done');
  });

  it('the level deny refuses new numbers even with a solution, and challenges numbers that logged in before', async () => {
    await pump();
    const { code, retryAfterSeconds } = await refusal(admission.admit(somebody()));
    expect([code, retryAfterSeconds]).toEqual(['rate_limited', 900]);
    await minute(12);
    expect((await refusal(admission.admit(solver()))).retryAfterSeconds).toBe(900);
    await minute(12 + 4 / 60);
    // Judged a moment ago: the same end.
    expect((await refusal(admission.admit(solver()))).retryAfterSeconds).toBe(896);
    expect(await outcome(admission.admit(somebody({ returning: true })))).toBe('challenge_required');
    expect(await outcome(admission.admit(solver({ returning: true })))).toBe('done');
    expect(await outcome(admission.admit(somebody({ byDevice: true })))).toBe('done');
    expect(await outcome(admission.admit(somebody({ byDevice: true, returning: true })))).toBe('done');
  });

  it('a solution works for exactly one of 60 concurrent sends on several replicas', async () => {
    await send(40);
    await minute(2);
    const replicas = redis.stores.map((store) => admissionWith(ENFORCE, store));
    const solution = 'the-one';
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, (_, i) => outcome(replicas[i % REPLICAS]!.admit(somebody({ solution })))),
    );
    expect(outcomes.filter((each) => each === 'done')).toHaveLength(1);
    expect(outcomes.filter((each) => each === 'challenge_required')).toHaveLength(59);
  });

  it('a send that is refused by a limit does not use up its solution', async () => {
    await send(40);
    await minute(2);
    const person = solver();
    expect(await outcome(broke.admit(person))).toBe('sms_unavailable');
    expect(await outcome(admission.admit(person))).toBe('done');
    expect(await outcome(admission.admit(person))).toBe('challenge_required');
  });

  it('a send that the abuse control refuses counts for no limit and no budget, and is not in the ledger', async () => {
    await pump();
    const before = [
      await raw.llen(KEYS.serviceLimit),
      await raw.xlen(KEYS.ledger),
      await raw.hgetall(KEYS.minutes),
    ];
    await refusal(admission.admit(somebody()));
    await refusal(admission.admit(somebody({ returning: true })));
    expect([
      await raw.llen(KEYS.serviceLimit),
      await raw.xlen(KEYS.ledger),
      await raw.hgetall(KEYS.minutes),
    ]).toEqual(before);
  });
});

describe('unsolved challenges', () => {
  it('unsolved challenges keep the level at challenge until they stop', async () => {
    await send(40);
    await minute(2);
    await judge();
    for (let m = 3; m <= 120; m += 1) {
      await minute(m);
      for (let i = 0; i < 2; i += 1)
        expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    }
    expect(await level()).toBe('challenge');
    // They stop: fewer than twenty are left in the window eight minutes later.
    for (let m = 121; m <= 125; m += 1) {
      await minute(m);
      await judge();
    }
    await minute(143);
    await judge();
    expect(await level()).toBe('observe');
  });

  it.each([
    ['network:203.0.113.0/24', 5, 'observe'],
    ['network:203.0.113.0/24', 10, 'observe'],
    ['network:203.0.113.0/24', 11, 'challenge'],
    ['service', 10, 'observe'],
    ['service', 11, 'challenge'],
  ])(
    'challenges of %s that %i clients leave unsolved, thousands of them, leave the level at %s',
    async (scope, clients, expected) => {
      const scopes = [scope];
      await send(40, { scopes });
      await minute(2);
      await judge(scopes);
      for (let m = 3; m <= 40; m += 1) {
        await minute(m);
        for (let i = 0; i < 30; i += 1) {
          const client = `client-${i % clients}`;
          await outcome(admission.admit(somebody({ scopes, clients: [client, client], byDevice: false })));
        }
        // Other users solve theirs.
        for (let i = 0; i < 10; i += 1) {
          const user = solver({ scopes });
          await outcome(admission.admit({ ...user, solution: undefined }));
          await outcome(admission.admit(user));
        }
        // What they are sent comes back: nothing but the unsolved challenges could hold the level.
        for (const bucket of [
          `m${Math.floor(clock.now / MINUTE_MS)}`,
          `q${Math.floor(clock.now / QUARTER_MS)}`,
        ])
          await raw.hincrby(abuseScopeKey(scope), `${bucket}:v`, 40);
        if (expected === 'observe' && (await level(scope)) === 'observe') return;
      }
      expect(await level(scope)).toBe(expected);
    },
  );

  it('the addresses that one attacker may hold are one client: an IPv6 /64 within its /48, and a /48 elsewhere', () => {
    const [one, sameLink, sameSite, other] = [
      '2001:0db8:0001:0002:0000:0000:0000:0001',
      '2001:0db8:0001:0002:0000:0000:0000:0009',
      '2001:0db8:0001:0003:0000:0000:0000:0001',
      '2001:0db8:0002:0003:0000:0000:0000:0001',
    ].map((address) => abuse.clientsOf(address));
    expect(sameLink).toEqual(one);
    expect([sameSite![0] === one![0], sameSite![1] === one![1]]).toEqual([false, true]);
    expect(other![1]).not.toBe(one![1]);
    const [v4, neighbour] = ['203.0.113.7', '203.0.113.8'].map((address) => abuse.clientsOf(address));
    expect([v4![0] === v4![1], v4![1] === neighbour![1]]).toEqual([true, false]);
    expect(JSON.stringify([one, v4])).not.toMatch(/2001|203\.0/);
  });

  it('the abuse control stores at most 64 clients of a scope with unsolved challenges, for a quarter of an hour', async () => {
    await send(40);
    await minute(2);
    await judge();
    for (let i = 0; i < 300; i += 1) await outcome(admission.admit(somebody()));
    const key = `${KEYS.abuse}:unsolved:service`;
    expect(await raw.zcard(key)).toBe(64);
    expect(await raw.memory('USAGE', key)).toBeLessThan(4_000);
    expect(await clock.ttl(key)).toBe(QUARTER_MS);
  });

  it('unsolved challenges never raise the abuse control to deny, and do not keep it at deny', async () => {
    await pump();
    for (let m = 6; m <= 60; m += 1) {
      await minute(m);
      for (let i = 0; i < 3; i += 1) await refusal(admission.admit(somebody()));
    }
    expect(await level()).toBe('challenge');
  });

  it('unsolved challenges do not count against senders with solutions', async () => {
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
    const { figures } = (await abuse.explain()).service[0]!;
    expect([figures.challenged, figures.passed]).toEqual([30, 30]);
    // From minute 13 on enough comes back; a quarter hour after minute 12 it falls.
    await minute(27);
    expect(await outcome(admission.admit(somebody()))).toBe('done');
  });
});

describe('modes', () => {
  const SIGNALS = {
    conversion: { name: 'ABUSE_CONVERSION', alert: 'abuse_conversion', attack: () => send(40) },
    wrong_codes: { name: 'ABUSE_WRONG_CODES', alert: 'abuse_wrong_codes', attack: () => guess(100) },
  };

  describe.each(['conversion', 'wrong_codes'] as const)('mode of %s', (signal) => {
    const { name, alert, attack } = SIGNALS[signal];

    it(`${name}=off decides nothing and reports nothing`, async () => {
      configure({ ...ENFORCE, [name]: 'off' });
      await attack();
      await minute(2);
      await judge();
      expect(await decisions()).toEqual([]);
      expect(alerts()).toEqual([]);
      expect(await outcome(admission.admit(somebody()))).toBe('done');
    });

    it(`${name}=observe decides and reports, and lets every send pass`, async () => {
      configure({ ...ENFORCE, [name]: 'observe' });
      for (const m of [0, 2, 4, 6]) {
        await minute(m);
        await attack();
      }
      await minute(8);
      await judge();
      expect(await level()).toBe('observe');
      expect(await decisions()).toMatchObject([{ signal, from: 'none', to: 'observe' }]);
      expect(alerts()).toEqual([alert]);
      expect(await outcome(admission.admit(somebody()))).toBe('done');
    });

    it(`${name}=enforce decides, reports, and asks for solutions`, async () => {
      configure({ ABUSE_CONVERSION: 'off', ABUSE_WRONG_CODES: 'off', [name]: 'enforce' });
      await attack();
      await minute(2);
      await judge();
      expect(await decisions()).toMatchObject([{ signal, from: 'none', to: 'challenge' }]);
      expect(alerts()).toEqual([alert]);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
    });

    it(`a level is no longer enforced after ${name} changes from enforce to observe or off`, async () => {
      await attack();
      await minute(2);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
      const off = { ABUSE_CONVERSION: 'off', ABUSE_WRONG_CODES: 'off' };
      configure({ ...off, [name]: 'observe' });
      expect(await outcome(admission.admit(somebody()))).toBe('done');
      configure(off);
      await minute(3);
      expect(await outcome(admission.admit(somebody()))).toBe('done');
    });

    it(`a level is no longer enforced after ${name} changes to observe, even if the other signal is enforced`, async () => {
      await attack();
      await minute(2);
      expect(await outcome(admission.admit(somebody()))).toBe('challenge_required');
      configure({ ...ENFORCE, [name]: 'observe' });
      expect(await outcome(admission.admit(somebody()))).toBe('done');
      await minute(3);
      expect(await outcome(admission.admit(somebody()))).toBe('done');
    });
  });

  it('the default settings observe the share of codes that come back and enforce wrong codes', async () => {
    configure({});
    await send(40);
    await minute(2);
    expect(await outcome(admission.admit(somebody()))).toBe('done');
    expect(await level()).toBe('observe');
    const elsewhere = { scopes: ['network:198.51.100.0/24'] };
    await guess(100, 0, elsewhere.scopes);
    expect(await outcome(admission.admit(somebody(elsewhere)))).toBe('challenge_required');
  });
});

describe('reports', () => {
  it('each decision of the abuse control is reported with its signal and its figures', async () => {
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
    const state = await abuse.explain();
    expect(state.now).toEqual(new Date(START + 2 * MINUTE_MS));
    expect(state.raised).toEqual([
      { scope: 'service', level: 'observe', until: new Date(START + 17 * MINUTE_MS) },
    ]);
    expect(state.service.map(({ minutes }) => minutes)).toEqual([15, 1_440]);
    expect(state.service[0]?.figures).toEqual((await decisions())[0]?.figures);
  });

  it('the decisions of the abuse control are listed with the newest first, and only rises raise an alert', async () => {
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
    expect((await abuse.explain()).raised).toEqual([]);
    // Down is no alert.
    expect(alerts()).toEqual(['abuse_conversion', 'abuse_conversion']);
  });

  it('the fall of a level raises no alert, even if a longer window is still bad', async () => {
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

  it('a rise of a level is reported once over several replicas and while it lasts', async () => {
    await send(20);
    await guess(50, 0, ['series:987654']);
    await minute(2);
    const replicas = redis.stores.map((store) => admissionWith(ENFORCE, store));
    for (let m = 2; m <= 12; m += 1) {
      await minute(m);
      await Promise.all(
        Array.from({ length: 30 }, (_, i) =>
          replicas[i % REPLICAS]!.admit(somebody({ byDevice: true, scopes: ['series:987654', 'service'] })),
        ),
      );
      // Good again, so that nothing but the first twenty is bad.
      for (const key of SERVICE)
        await raw.hincrby(abuseScopeKey(key), `m${Math.floor(clock.now / MINUTE_MS)}:v`, 30);
      await raw.hincrby(abuseScopeKey('series:987654'), `m${Math.floor(clock.now / MINUTE_MS)}:v`, 30);
      await raw.hincrby(abuseScopeKey('service'), `q${Math.floor(clock.now / QUARTER_MS)}:v`, 30);
      await raw.hincrby(abuseScopeKey('series:987654'), `q${Math.floor(clock.now / QUARTER_MS)}:v`, 30);
    }
    expect(alerts().sort()).toEqual(['abuse_conversion', 'abuse_wrong_codes']);
    expect(await decisions()).toHaveLength(2);
  });

  it('the decisions and alerts of the abuse control hold no pseudonym of a number', async () => {
    await pump(['series:987654', 'network:203.0.113.0/24', 'service']);
    const told =
      redis.logs.filter((line) => line.includes('abuse_')).join('') + JSON.stringify(await abuse.explain());
    expect(told).toContain('network:203.0.113.0/24');
    expect(told).not.toContain('person-');
  });

  it('the abuse control judges a scope every five seconds', async () => {
    // The third send judges, because two in one minute may be the start of an attack, and finds nothing bad.
    for (let i = 0; i < 3; i += 1) await send(1);
    await guess(50);
    await judge();
    expect(await level()).toBe('none');
    await minute(4.9 / 60);
    await judge();
    expect(await level()).toBe('none');
    await minute(5 / 60);
    await judge();
    expect(await level()).toBe('observe');
  });
});

describe('storage', () => {
  const fields = (scope: string): Promise<string[]> => raw.hkeys(abuseScopeKey(scope));

  it('each key of the abuse control has a time to live', async () => {
    await pump(['series:987654', 'network:203.0.113.0/24', 'service']);
    await refusal(admission.admit(somebody()));
    await guess(1, 1, ['network:198.51.100.0/24']);
    const keys = await clock.keys();
    expect(keys.filter((key) => key.startsWith(KEYS.abuse)).length).toBeGreaterThanOrEqual(6);
    for (const key of keys) expect([key, (await clock.ttl(key)) > 0]).toEqual([key, true]);
    for (const scope of ['service', 'network:198.51.100.0/24'])
      expect(await clock.ttl(abuseScopeKey(scope))).toBeGreaterThan(DAY_MS);
  });

  it('the abuse control deletes old buckets, so that its hash for a scope stays small however long traffic lasts', async () => {
    let most = 0;
    // A quarter hour at a time for 28 hours, then a minute at a time.
    const quarters = Array.from({ length: 28 * 4 }, (_, i) => 15 * i);
    const minutes = Array.from({ length: 40 }, (_, i) => 28 * 60 + i);
    for (const m of [...quarters, ...minutes]) {
      await minute(m);
      await admission.admit(solver());
      await admission.admit(somebody()).catch(() => undefined);
      ledger.record({
        what: 'verified',
        sms: '1-1',
        at: clock.now - MINUTE_MS,
        scopes: SERVICE,
        tried: SERVICE,
      });
      ledger.record({ what: 'wrong', quiet: -1, tried: SERVICE });
      await ledger.flush();
      most = Math.max(most, await raw.hlen(abuseScopeKey('service')));
    }
    // Six counts in each of 18 minutes and 98 quarter hours.
    expect(most).toBeLessThanOrEqual(6 * (18 + 98));
    expect(most).toBeGreaterThan(300);
    const ages = (await fields('service')).flatMap((field) => {
      const [, window, bucket] = /^([mq])(\d+):/.exec(field) ?? [];
      if (bucket === undefined) return [];
      const width = window === 'm' ? MINUTE_MS : QUARTER_MS;
      return [[window === 'm' ? 17 : 97, Math.floor(clock.now / width) - Number(bucket)] as const];
    });
    for (const [oldest, age] of ages) expect(age).toBeLessThanOrEqual(oldest);
    expect((await raw.memory('USAGE', abuseScopeKey('service')))!).toBeLessThan(100_000);
  });

  it('the abuse control stores a thousand decisions at most and lists the last hundred', async () => {
    // Some at a time, so that no script keeps Redis busy for long.
    for (let a = 0; a < 21; a += 1) {
      const scopes = Array.from({ length: 50 }, (_, b) => `network:10.${a}.${b}.0/24`);
      await guess(50, 0, scopes);
      await judge(scopes);
    }
    expect(await raw.xlen(`${KEYS.abuse}:decisions`)).toBe(1_000);
    const { decisions: told, raised } = await abuse.explain();
    expect([told.length, raised.length]).toEqual([100, 100]);
  });

  it('a scope with one SMS in each minute and quarter hour has no level, and keeps 200 counters until it is judged', async () => {
    for (let quarter = 0; quarter < 130; quarter += 1) {
      await minute(15 * quarter);
      await send(1);
      expect(await raw.hlen(abuseScopeKey('service'))).toBeLessThanOrEqual(205);
    }
    expect(await clock.keys(abuseLevelKey('*'))).toEqual([abuseLevelKey('service')]);
    expect(await decisions()).toEqual([]);
  });

  it('the abuse control stores nothing for a scope in which nothing was sent', async () => {
    await judge(['series:600000']);
    expect(await clock.keys(`${KEYS.abuse}*`)).toEqual([]);
  });
});
