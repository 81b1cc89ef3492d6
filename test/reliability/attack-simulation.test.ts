// First: the scripts are read with the rest.
import { setClock } from '../support/simulated-clock';
import { Redis } from 'ioredis';
import { ApiError } from '../../src/errors/api-error';
import { AbuseControl } from '../../src/abuse/abuse-control';
import { Ledger } from '../../src/ledger/ledger';
import { OtpService } from '../../src/otp/otp.service';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { KEYS } from '../support/keys';
import { Random } from '../support/random';
import { full } from '../support/scale';
import { loadServiceHere } from '../support/service';
import { startWorld, type World } from '../support/world';

// A day passes in a minute or two: the scripts go by a clock of their own.
loadServiceHere();
// Proofs of work are made easy: the simulation counts how many are asked for, not how long a phone takes.
jest.mock('node:crypto', () => {
  const crypto = jest.requireActual<typeof import('node:crypto')>('node:crypto');
  return {
    ...crypto,
    randomInt: (...bounds: number[]) => (bounds[0] === 2_000 ? 2 : crypto.randomInt(bounds[0]!, bounds[1]!)),
  };
});

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** A quarter of the town, of its attackers and of its budget tells as much. */
const SCALE = full ? 1 : 1 / 4;
const REGULARS = 2_000 * SCALE;
const ATTACK = { addresses: 10_000 * SCALE, conversion: 0.003, from: 22 * HOUR, to: 30 * HOUR };
const BUDGET_PAISE = 125_000 * SCALE;

interface Outcome {
  tried: number;
  sent: number;
  loggedIn: number;
  challenged: number;
}
const noOutcome = (): Outcome => ({ tried: 0, sent: 0, loggedIn: 0, challenged: 0 });

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
    const [otp, ledger, abuse] = [app.get(OtpService), app.get(Ledger), app.get(AbuseControl)];
    const random = new Random(4);
    const chance = (): number => random.next();
    const upTo = (n: number): number => Math.floor(chance() * n);
    world.upstream.settings.balance = 1e6;

    // Tomorrow: what expires at a time that has passed by Redis's own clock would be gone at once.
    const start = (Math.floor(Date.now() / (24 * HOUR)) + 1) * 24 * HOUR;
    let taken = new Set<string>();
    const number = (): PhoneNumber => {
      for (;;) {
        const text = `+91${6 + upTo(4)}${String(upTo(1e9)).padStart(9, '0')}`;
        if (!isPhoneNumber(text) || taken.has(text)) continue;
        taken.add(text);
        return text;
      }
    };
    const codes = new Map<string, string>();
    let read = 0;
    const codeOf = (phone: PhoneNumber): string => {
      for (; read < world.upstream.messages.length; read += 1) {
        const message = world.upstream.messages[read]!;
        codes.set(message.phoneNumber, message.code);
      }
      return codes.get(phone) ?? '';
    };
    const address = (n: number): string => `10.${n >> 12}.${(n >> 4) & 255}.${n & 15}`;

    /** Asks for a code, solves what is to be solved unless it is a bot, and logs in. */
    const login = async (
      phone: PhoneNumber,
      from: string,
      who: Outcome,
      finishes: boolean,
      solves: boolean,
    ): Promise<void> => {
      who.tried += 1;
      try {
        const context = { address: from };
        const { requestId } = await otp.request(phone, context).catch(async (error: unknown) => {
          if (!(error instanceof ApiError) || error.code !== 'challenge_required') throw error;
          who.challenged += 1;
          if (!solves) throw error;
          return otp.request(phone, { ...context, solution: await solve(error.proofOfWork) });
        });
        who.sent += 1;
        if (!finishes) return;
        await otp.verify(requestId, codeOf(phone), context);
        who.loggedIn += 1;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
      }
    };

    const regulars = Array.from({ length: REGULARS * 0.9 }, number);
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
      const moment = (): number => 6 * HOUR + (chance() < 0.8 ? upTo(16 * HOUR) : 16 * HOUR + upTo(8 * HOUR));
      regulars.forEach((phone, i) => {
        at(moment(), () => login(phone, address(200_000 + i), known, true, true));
      });
      for (let i = 0; i < REGULARS * 0.1; i += 1) {
        const phone = number();
        at(moment(), () => login(phone, address(300_000 + i), fresh, true, true));
      }
      if (attack) {
        for (let i = 0; i < sends; i += 1) {
          const phone = number();
          const when = ATTACK.from + ((ATTACK.to - ATTACK.from) * i) / sends;
          const finishes = chance() < ATTACK.conversion;
          at(when, () => login(phone, address(i % ATTACK.addresses), attackers, finishes, false));
        }
      }
      let minute = 0;
      for (const second of [...events.keys()].sort((a, b) => a - b)) {
        await setClock(redis, dayStart + second * 1_000);
        await Promise.all(events.get(second)!.map((event) => event()));
        if (Math.floor(second / 60) === minute) continue;
        minute = Math.floor(second / 60);
        await ledger.flush();
        const quarters = await redis.hgetall(KEYS.quarters);
        const current = Math.floor((dayStart + second * 1_000) / (15 * MINUTE));
        const spent = Object.entries(quarters)
          .filter(([quarter]) => Number(quarter) > current - 96)
          .reduce((sum, [, paise]) => sum + Number(paise), 0);
        peak = Math.max(peak, spent);
      }
      taken = new Set(regulars);
    };

    await day(start, false, before, before);
    await day(start + 24 * HOUR, true, returning, newcomers);

    const { decisions } = await abuse.explain();
    const steps = decisions
      .filter(({ scope, to, from }) => scope === 'service' && to !== 'none' && from !== to)
      .reverse()
      .map(({ at, from, to }) => `${clock(at.getTime() - start)} ${from} → ${to}`);
    const share = ({ loggedIn, tried }: Outcome): string => `${((100 * loggedIn) / tried).toFixed(1)} %`;
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

async function solve(challenge: unknown): Promise<string> {
  const { solveChallenge } = await import('altcha-lib');
  const { deriveKey } = await import('altcha-lib/algorithms/pbkdf2');
  const solution = await solveChallenge({ challenge: challenge as never, deriveKey });
  return Buffer.from(JSON.stringify({ challenge, solution })).toString('base64');
}
