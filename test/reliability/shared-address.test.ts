// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { RedisThrottlerStorage, type Credential } from '../../src/throttling/redis-throttler-storage';
import type { Redis } from 'ioredis';
import { figures, full } from '../support/scale';
import { Random } from '../support/random';
import { settings } from '../support/settings';
import { setClock } from '../support/simulated-clock';

// 5,000 people behind one IPv4 address log in within a day, under the default limits, and one of them is an attacker.

const PEOPLE = 5_000;
const DAY_MS = 86_400_000;
const ADDRESS = '203.0.113.9';
/** A person whose request is refused tries again after five minutes, twice, and then gives up. */
const TRIES = 3;
const PATIENCE_MS = 300_000;

type Rules = 'before' | 'after';
/** The attacker takes each place within ten seconds from the moment when it becomes free. */
const ATTACKS = {
  none: 'no attacker',
  junk: 'empty posts',
  guesses: 'verifications of unknown request ids',
  sends: 'valid sends',
  work: 'valid sends with solved proofs of work',
} as const;
type Attack = keyof typeof ATTACKS;

let redis: SimulatedStores;
let storage: RedisThrottlerStorage;
const { limitIp, limitVerifyIp } = settings();
const looser = limitIp.map(({ count, seconds }) => ({ count: 10 * count, seconds }));

beforeAll(async () => {
  redis = await simulatedStores(1);
  storage = new RedisThrottlerStorage(settings(), redis.stores[0]!);
});
afterAll(() => {
  redis.close();
});

/** How many people log in. */
async function loggedIn(rules: Rules, attack: Attack): Promise<number> {
  const begin = (redis.clock.now += 10 * DAY_MS);
  await redis.clock.empty();
  const random = new Random(11);
  let works = 0;
  const now = rules === 'after';
  const wait = async (bucket: string, credential: Credential = {}): Promise<number> => {
    const limits = { send: limitIp, verify: limitVerifyIp, 'send-refused': looser }[bucket]!;
    return (await storage.admit(bucket, ADDRESS, limits, credential)).waitMs;
  };
  /** The client solves the proof of work of a 429, where there is one. */
  const send = async (solves: boolean): Promise<number> => {
    const refused = await wait('send');
    return refused > 0 && now && solves ? wait('send', { work: `work ${works++}` }) : refused;
  };
  const logsIn = async (): Promise<boolean> => {
    if ((await send(true)) > 0) return false;
    // A right code gives its place back, and with a challenge of this address it has a bucket of its own.
    return now || (await wait('verify')) === 0;
  };
  const attacks: Record<Attack, () => Promise<number>> = {
    none: () => Promise.resolve(Infinity),
    junk: () => wait(now ? 'send-refused' : 'send'),
    guesses: () => wait('verify'),
    sends: () => send(false),
    work: () => send(true),
  };

  const people = Array.from({ length: PEOPLE }, () => ({ at: begin + random.below(DAY_MS), tries: 0 }));
  people.sort((one, other) => one.at - other.at);
  /** People who try again: in order, because all wait for the same time. */
  const again: typeof people = [];
  let attackAt = attack === 'none' ? Infinity : begin;
  let count = 0;
  while (people.length + again.length > 0) {
    const queue = (again[0]?.at ?? Infinity) < (people[0]?.at ?? Infinity) ? again : people;
    const at = Math.min(queue[0]!.at, attackAt);
    // On the connection of the store, which keeps the order.
    void redis.stores[0]!.command('set', (client) => setClock(client as Redis, at));
    if (at === attackAt) {
      attackAt += Math.min(await attacks[attack](), 10_000);
      continue;
    }
    const { tries } = queue.shift()!;
    if (await logsIn()) count += 1;
    else if (tries + 1 < TRIES) again.push({ at: at + PATIENCE_MS, tries: tries + 1 });
  }
  return count;
}

const shown: Attack[] = full ? (Object.keys(ATTACKS) as Attack[]) : ['none', 'junk', 'guesses'];

it('of 5,000 people behind one address, an attacker with junk or guesses keeps fewer than 1 % from logging in', async () => {
  const table = new Map<Attack, Record<Rules, number>>();
  for (const attack of shown) {
    const counts = { before: await loggedIn('before', attack), after: await loggedIn('after', attack) };
    table.set(attack, counts);
    figures(`${ATTACKS[attack]}: before ${counts.before}, after ${counts.after} of ${PEOPLE} log in`);
    expect(counts.after).toBeGreaterThanOrEqual(counts.before);
  }
  for (const attack of ['none', 'junk', 'guesses'] as const)
    expect(table.get(attack)!.after).toBeGreaterThan(0.99 * PEOPLE);
  expect(table.get('junk')!.before).toBeLessThan(0.05 * PEOPLE);
}, 900_000);
