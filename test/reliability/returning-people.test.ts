// First: the scripts are read with the rest.
import { setClock, SimulatedClock } from '../support/simulated-clock';
import { Redis } from 'ioredis';
import { figures } from '../support/scale';
import { loadServiceHere } from '../support/service';
import { noOutcome, share, Town, type Outcome } from '../support/town';
import { call, startWorld, type Answer, type Variables, type World } from '../support/world';

// Days pass in seconds: the scripts go by a clock of their own.
loadServiceHere();
// Proofs of work are made easy: the simulation counts how many are asked for, not how long a phone takes.
jest.mock('node:crypto', () => ({
  ...jest.requireActual<typeof import('node:crypto')>('node:crypto'),
  randomInt: () => 2,
}));

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

let world: World;
let redis: Redis;
let clock: SimulatedClock;
let town: Town;

async function start(variables: Variables): Promise<void> {
  world = await startWorld({
    variables: {
      STARTMESSAGING_CONTRACT: 'caller',
      TRUSTED_PROXIES: '127.0.0.0/8',
      LIMIT_PHONE: undefined,
      LIMIT_GLOBAL: undefined,
      LIMIT_FAILED_CODES: undefined,
      // Days of traffic: the lines of every request would fill the memory.
      LOG_LEVEL: 'error',
      ...variables,
    },
  });
  redis = new Redis(world.redis.url);
  clock = await SimulatedClock.start(redis);
  town = new Town(world);
}
afterEach(async () => {
  redis.disconnect();
  await world.close();
});

/** What happens in which second. */
class Schedule {
  private readonly seconds = new Map<number, (() => Promise<void>)[]>();

  at(ms: number, event: () => Promise<void>): void {
    const second = Math.floor(ms / 1_000);
    const there = this.seconds.get(second);
    if (there) there.push(event);
    else this.seconds.set(second, [event]);
  }

  /** Runs them in order, those of a second at once, and moves the clock. */
  async run(from: number): Promise<void> {
    let swept = 0;
    for (const second of [...this.seconds.keys()].sort((a, b) => a - b)) {
      // Looking through all keys for those that have expired takes long.
      if (second - swept < 300) await setClock(redis, from + second * 1_000);
      else await clock.set(from + (swept = second) * 1_000);
      await Promise.all(this.seconds.get(second)!.map((event) => event()));
      await town.flush();
    }
  }
}

const rowsOf = (rows: Record<string, Outcome>): string[] =>
  Object.entries(rows).flatMap(([who, outcome]) => [
    `| ${who} that logged in | ${share(outcome)} of ${outcome.tried} |`,
    `| challenges to them | ${outcome.challenged} |`,
  ]);
const table = (title: string, rows: string[]): void => {
  figures(['', `| ${title} | |`, '|---|---|', ...rows, ''].join('\n'));
};

/** A person that uses the service every day: the session is refreshed, and opened again when it has ended. */
class Regular {
  readonly logins = noOutcome();
  private refreshToken: string | undefined;

  constructor(
    private readonly phoneNumber: string,
    private readonly address: string,
  ) {}

  private post(path: string, body: object): Promise<Answer> {
    return call('POST', `${world.url}/auth/${path}`, body, { 'x-forwarded-for': this.address });
  }

  async useService(): Promise<void> {
    if (this.refreshToken !== undefined) {
      const { status, body } = await this.post('refresh', { refreshToken: this.refreshToken });
      expect([200, 401]).toContain(status);
      this.refreshToken = status === 200 ? (body.refreshToken as string) : undefined;
    }
    if (this.refreshToken !== undefined) return;
    this.logins.tried += 1;
    const sent = await this.post('send-otp', { phoneNumber: this.phoneNumber });
    if (sent.status !== 200) return;
    const otpCode = town.codeOf(this.phoneNumber);
    const { status, body } = await this.post('verify-otp', { requestId: sent.body.requestId, otpCode });
    if (status !== 200) return;
    this.refreshToken = body.refreshToken as string;
    this.logins.loggedIn += 1;
  }
}

const sum = (outcomes: Outcome[]): Outcome =>
  outcomes.reduce((all, each) => {
    for (const key of Object.keys(all) as (keyof Outcome)[]) all[key] += each[key];
    return all;
  }, noOutcome());

it('users of every day log in again on the day that their session ends, while an attack uses up the budget of new numbers', async () => {
  // 400 SMS a day, and none of a budget of the hour.
  await start({ BUDGET_PAISE_PER_DAY: '10000' });
  const regulars = Array.from(
    { length: 90 },
    (_, i) => new Regular(town.number(), `10.1.${i >> 8}.${i & 255}`),
  );
  const attack = noOutcome();
  const schedule = new Schedule();
  for (let day = 0; day < 40; day += 1) {
    for (const regular of regulars)
      schedule.at(day * DAY + 6 * HOUR + town.upTo(17 * HOUR), () => regular.useService());
    if (day < 28 || day > 34) continue;
    for (let i = 0; i < 400; i += 1)
      schedule.at(day * DAY + Math.floor((i * DAY) / 400), () =>
        town.login(town.number(), `10.9.${i >> 8}.${i & 255}`, attack, { enters: 'none', solves: false }),
      );
  }
  await schedule.run(clock.now);
  const logins = sum(regulars.map((regular) => regular.logins));
  table('40 days of 90 daily users, an attack from day 28 to day 34, a budget of 400 SMS a day', [
    ...rowsOf({ 'daily users': logins }),
    `| SMS that the attack got, of ${attack.tried} asked for | ${attack.sent} |`,
  ]);
  // On the first day, and on the day that the session ended.
  expect(logins.tried).toBeGreaterThanOrEqual(2 * regulars.length);
  expect(attack.sent).toBeLessThan(attack.tried);
  expect(logins.loggedIn / logins.tried).toBeGreaterThanOrEqual(0.99);
}, 900_000);

it.each<[string, Variables]>([
  ['the default', {}],
  ['conversion enforced', { ABUSE_CONVERSION: 'enforce' }],
])(
  "people within a carrier's /24 log in while a poisoner inside of it makes up evidence (%s)",
  async (name, variables) => {
    await start(variables);
    const carrier = (i: number): string => `203.0.113.${10 + (i % 240)}`;
    const [first, returning, fresh, poisoner] = [noOutcome(), noOutcome(), noOutcome(), noOutcome()];
    const people = Array.from({ length: 200 }, () => town.number());
    const schedule = new Schedule();
    people.forEach((phone, i) => {
      schedule.at(town.upTo(10 * HOUR), () => town.login(phone, carrier(i), first));
      schedule.at(DAY + 30 * MINUTE + town.upTo(3 * HOUR), () => town.login(phone, carrier(i), returning));
    });
    for (let i = 0; i < 30; i += 1)
      schedule.at(DAY + 30 * MINUTE + town.upTo(3 * HOUR), () =>
        town.login(town.number(), carrier(i), fresh),
      );
    // 225 numbers with a wrong code in each quarter of an hour, from five addresses; each challenge is solved.
    for (let minute = 0; minute < 4 * 60; minute += 1)
      for (let i = 0; i < 15; i += 1)
        schedule.at(DAY + minute * MINUTE + i * 4_000, () =>
          town.login(town.number(), `203.0.113.${1 + (i % 5)}`, poisoner, { enters: 'wrong' }),
        );
    await schedule.run(clock.now);
    table(`a poisoner inside a carrier's /24, ${name}`, [
      ...rowsOf({ 'returning people of the /24': returning, 'new people of the /24': fresh }),
      `| wrong codes that the poisoner entered, each after an SMS | ${poisoner.sent} |`,
      `| challenges to the poisoner | ${poisoner.challenged} |`,
    ]);
    expect(first.loggedIn).toBe(people.length);
    expect(poisoner.challenged).toBeGreaterThan(0);
    expect(returning.loggedIn / returning.tried).toBeGreaterThanOrEqual(0.99);
    // Only conversion denies, and only where it is enforced.
    if (name === 'the default') expect(fresh.loggedIn / fresh.tried).toBeGreaterThanOrEqual(0.99);
  },
  900_000,
);

it('people log in at a deployment with only a daily budget of Rs 500 while an attack sends 14 SMS a second, and goes on', async () => {
  await start({ BUDGET_PAISE_PER_DAY: '50000' });
  const [first, returning, fresh, attack] = [noOutcome(), noOutcome(), noOutcome(), noOutcome()];
  const people = Array.from({ length: 200 }, () => town.number());
  const schedule = new Schedule();
  const address = (i: number): string => `10.2.${i >> 8}.${i & 255}`;
  people.forEach((phone, i) => {
    schedule.at(6 * HOUR + town.upTo(18 * HOUR), () => town.login(phone, address(i), first));
    schedule.at(DAY + 6 * HOUR + town.upTo(18 * HOUR), () => town.login(phone, address(i), returning));
  });
  for (let i = 0; i < 50; i += 1)
    schedule.at(DAY + 6 * HOUR + town.upTo(18 * HOUR), () =>
      town.login(town.number(), address(1_000 + i), fresh),
    );
  const pump = (ms: number, i: number): void => {
    schedule.at(ms, () =>
      town.login(town.number(), `10.3.${(i >> 8) & 255}.${i & 255}`, attack, {
        enters: 'none',
        solves: false,
      }),
    );
  };
  for (let second = 0; second < 103; second += 1)
    for (let i = 0; i < 14; i += 1) pump(DAY + 10 * HOUR + second * 1_000, 14 * second + i);
  for (let minute = 0; minute < 13 * 60; minute += 1)
    for (let i = 0; i < 5; i += 1) pump(DAY + 10 * HOUR + (3 + minute) * MINUTE + i * 12_000, 5 * minute + i);
  await schedule.run(clock.now);
  table('a deployment with only a daily budget of Rs 500', [
    ...rowsOf({ 'returning people': returning, 'new people': fresh }),
    `| SMS that the attack got, of ${attack.tried} asked for | ${attack.sent} |`,
  ]);
  expect(first.loggedIn).toBe(people.length);
  expect(returning.loggedIn / returning.tried).toBeGreaterThanOrEqual(0.99);
  expect(attack.sent).toBeLessThanOrEqual(0.7 * (50_000 / 25));
}, 900_000);
