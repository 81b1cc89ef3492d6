// First: the scripts are read with the rest.
import { setClock } from '../support/simulated-clock';
import { Redis } from 'ioredis';
import { AbuseControl } from '../../src/abuse/abuse-control';
import { KEYS } from '../support/keys';
import { full } from '../support/scale';
import { loadServiceHere } from '../support/service';
import { noOutcome, share, Town, type Outcome } from '../support/town';
import { startWorld, type World } from '../support/world';

// A day passes in a minute or two: the scripts go by a clock of their own.
loadServiceHere();
// Proofs of work are made easy: the simulation counts how many are asked for, not how long a phone takes.
jest.mock('node:crypto', () => ({
  ...jest.requireActual<typeof import('node:crypto')>('node:crypto'),
  randomInt: () => 2,
}));

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** A quarter of the town, of its attackers and of its budget tells as much. */
const SCALE = full ? 1 : 1 / 4;
const REGULARS = 2_000 * SCALE;
const ATTACK = { addresses: 10_000 * SCALE, conversion: 0.003, from: 22 * HOUR, to: 30 * HOUR };
const BUDGET_PAISE = 125_000 * SCALE;

describe.each([
  {
    name: 'the default: budget and reserve, conversion observed',
    sends: full ? 380_000 : 15_000,
    variables: {},
  },
  // Fewer, because each of them costs this one process the making of a challenge.
  {
    name: 'conversion enforced',
    sends: full ? 60_000 : 5_000,
    variables: { ABUSE_CONVERSION: 'enforce' },
  },
])('a night of SMS pumping, $name', ({ name, sends, variables }) => {
  let world: World;
  let redis: Redis;

  beforeAll(async () => {
    world = await startWorld({
      variables: {
        STARTMESSAGING_CONTRACT: 'caller',
        LIMIT_PHONE: undefined,
        LIMIT_GLOBAL: undefined,
        LIMIT_FAILED_CODES: undefined,
        BUDGET_PAISE_PER_DAY: String(BUDGET_PAISE),
        // Days of traffic: the lines of every request would fill the memory.
        LOG_LEVEL: 'error',
        ...variables,
      },
    });
    redis = new Redis(world.redis.url);
  });
  afterAll(async () => {
    redis.disconnect();
    await world.close();
  });

  it(`an SMS pumping attack gets no more than the budget, and known users still log in (${name})`, async () => {
    const { app } = world.instances[0]!;
    const abuse = app.get(AbuseControl);
    const town = new Town(world);

    // Tomorrow: what expires at a time that has passed by Redis's own clock would be gone at once.
    const start = (Math.floor(Date.now() / (24 * HOUR)) + 1) * 24 * HOUR;
    const address = (n: number): string => `10.${n >> 12}.${(n >> 4) & 255}.${n & 15}`;

    const regulars = Array.from({ length: REGULARS * 0.9 }, () => town.number());
    const attackers = noOutcome();
    const [before, returning, newcomers] = [noOutcome(), noOutcome(), noOutcome()];
    let peak = 0;

    /** One day from six in the morning: the regulars spread over it, fewer by night; and by night the attack. */
    const day = async (dayStart: number, attack: boolean, known: Outcome, fresh: Outcome): Promise<void> => {
      const events = new Map<number, (() => Promise<void>)[]>();
      const at = (ms: number, event: () => Promise<void>): void => {
        const second = Math.floor(ms / 1_000);
        const there = events.get(second);
        if (there) there.push(event);
        else events.set(second, [event]);
      };
      // One in five logs in between ten in the evening and six in the morning.
      const moment = (): number =>
        6 * HOUR + (town.chance() < 0.8 ? town.upTo(16 * HOUR) : 16 * HOUR + town.upTo(8 * HOUR));
      regulars.forEach((phone, i) => {
        at(moment(), () => town.login(phone, address(200_000 + i), known));
      });
      for (let i = 0; i < REGULARS * 0.1; i += 1) {
        const phone = town.number();
        at(moment(), () => town.login(phone, address(300_000 + i), fresh));
      }
      if (attack) {
        for (let i = 0; i < sends; i += 1) {
          const phone = town.number();
          const when = ATTACK.from + ((ATTACK.to - ATTACK.from) * i) / sends;
          const enters = town.chance() < ATTACK.conversion ? 'right' : 'none';
          at(when, () =>
            town.login(phone, address(i % ATTACK.addresses), attackers, { enters, solves: false }),
          );
        }
      }
      let minute = 0;
      for (const second of [...events.keys()].sort((a, b) => a - b)) {
        await setClock(redis, dayStart + second * 1_000);
        await Promise.all(events.get(second)!.map((event) => event()));
        if (Math.floor(second / 60) === minute) continue;
        minute = Math.floor(second / 60);
        await town.flush();
        const quarters = await redis.hgetall(KEYS.quarters);
        const current = Math.floor((dayStart + second * 1_000) / (15 * MINUTE));
        const spent = Object.entries(quarters)
          .filter(([quarter]) => Number(quarter) > current - 96)
          .reduce((sum, [, paise]) => sum + Number(paise), 0);
        peak = Math.max(peak, spent);
      }
      town.taken = new Set(regulars);
    };

    await day(start, false, before, before);
    await day(start + 24 * HOUR, true, returning, newcomers);

    const { decisions } = await abuse.explain();
    const steps = decisions
      .filter(({ scope, to, from }) => scope === 'service' && to !== 'none' && from !== to)
      .reverse()
      .map(({ at, from, to }) => `${clock(at.getTime() - start)} ${from} → ${to}`);
    process.stderr.write(
      [
        '',
        `| ${name} | |`,
        '|---|---|',
        `| sends asked for by the attack | ${attackers.tried.toLocaleString('en')} |`,
        `| SMS that the attack got | ${attackers.sent.toLocaleString('en')} |`,
        `| most that was spent in 24 hours, of a budget of Rs ${BUDGET_PAISE / 100} | Rs ${peak / 100} |`,
        `| numbers known from the day before that logged in | ${share(returning)} of ${returning.tried} |`,
        `| new people that logged in | ${share(newcomers)} of ${newcomers.tried} |`,
        `| proofs of work: asked of known, of new people, of the attack | ${returning.challenged}, ${newcomers.challenged}, ${attackers.challenged.toLocaleString('en')} |`,
        `| levels of the whole service | ${steps.join('; ') || 'none'} |`,
        '',
      ].join('\n'),
    );

    expect(before.loggedIn).toBe(REGULARS);
    expect(attackers.tried).toBe(sends);
    expect(peak).toBeLessThanOrEqual(BUDGET_PAISE);
    expect(returning.loggedIn / returning.tried).toBeGreaterThanOrEqual(0.99);
    expect(steps.length).toBeGreaterThan(0);
  }, 900_000);
});

function clock(ms: number): string {
  const minutes = Math.floor(ms / MINUTE) % (24 * 60);
  return `${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`;
}
