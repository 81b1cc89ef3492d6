import { Redis } from 'ioredis';
import { readConfig } from '../../src/config/read-config';
import { ApiError } from '../../src/errors/api-error';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import type { Admission } from '../../src/throttling/admission';
import type { Admitted } from '../../src/throttling/applicant';
import { admissionOver, applicant } from '../support/applicant';
import { type RedisServer, startRedis } from '../support/redis-server';
import { setClock } from '../support/simulated-clock';

// Sends under an Idempotency-Key come again: after a failure, a crash, a lost answer. Minutes pass in milliseconds.
jest.mock('node:fs', () =>
  jest
    .requireActual<typeof import('../support/simulated-clock')>('../support/simulated-clock')
    .fsWithSimulatedClock(),
);

const PHONE: [count: number, ms: number][] = [
  [1, 3_000],
  [2, 8_000],
  [3, 20_000],
  [5, 60_000],
];
/** Of the holders of a device's token. */
const DEVICE: [count: number, ms: number][] = [[5, 86_400_000]];
const PAUSES_MS = [0, 1, 500, 1_500, 2_999, 3_000, 3_001, 7_000];
const KEY_LIFE_MS = 600_000;

let redis: RedisServer;
let raw: Redis;
let store: Store;
let now: number;

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  store = new Store(redisClient(redis.url), new Logger('silent', { write: () => undefined }));
  store.connect();
});
beforeEach(async () => {
  await raw.flushall();
  // What expires is to live on by Redis's own clock.
  now = Date.now();
  await setClock(raw, now);
});
afterAll(async () => {
  store.close();
  raw.disconnect();
  await redis.stop();
});

function admissionWith(variables: Record<string, string>): Admission {
  const config = readConfig({
    NODE_ENV: 'test',
    STARTMESSAGING_API_KEY: 'k',
    LIMIT_GLOBAL: '1000/1',
    ...variables,
  });
  return admissionOver(config, store, new Metrics(), new Logger('silent', { write: () => undefined }));
}
const pass = (ms: number): Promise<void> => setClock(raw, (now += ms));
const repeat = (of: string, turn: number, sendsAgain = true) => ({ repeat: { of, turn, sendsAgain } });
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'admitted',
    (error: unknown) => (error as ApiError).code,
  );
const spent = async (): Promise<number> =>
  Object.values(await raw.hgetall('otp-login:{admission}:budget:minutes')).reduce(
    (sum, paise) => sum + Number(paise),
    0,
  );
const counted = (): Promise<string[]> => raw.lrange('otp-login:{admission}:phone:p', 0, -1);

/** The same in every run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Key {
  name: string;
  since: number;
  turn: number;
  /** When it may have been sent, since it was last given back. */
  tries: number[];
  allowance: string;
  admitted?: Admitted;
  done: boolean;
}

describe('sends that come again', () => {
  it('never let more than N SMS pass in any window, whichever try was the one, and are charged once', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/3,2/8,3/20,5/60' });
    let known = 0;
    for (let run = 0; run < 60; run++) {
      await raw.flushall();
      const chance = random(run);
      const one = <T>(of: readonly T[]): T => of[Math.floor(chance() * of.length)]!;
      const keys: Key[] = [];
      const lone: { at: number; allowance: string }[] = [];
      let charged = 0;
      for (let step = 0; step < 50; step++) {
        await pass(one(PAUSES_MS));
        let key: Key | undefined;
        if (chance() < 0.8) {
          key = keys.length > 0 && chance() < 0.6 ? one(keys) : undefined;
          if (!key) {
            key = { name: `k${keys.length}`, since: now, turn: 0, tries: [], allowance: '', done: false };
            keys.push(key);
          }
          if (key.done || now - key.since > KEY_LIFE_MS) continue;
          key.turn += 1;
        }
        const who = { byDevice: chance() < 0.2, ...(key && repeat(key.name, key.turn)) };
        const admitted = await admission.admit(applicant('p', who)).catch((error: unknown) => {
          if (!(error instanceof ApiError)) throw error;
          return undefined;
        });
        if (admitted === undefined) continue;
        const { allowance } = admitted.sms;
        if (!key) {
          lone.push({ at: now, allowance });
          charged += 1;
          continue;
        }
        expect([run, step, admitted.again]).toEqual([run, step, key.admitted !== undefined]);
        if (admitted.again) known += 1;
        else charged += 1;
        Object.assign(key, { admitted, allowance, tries: [...key.tries, now] });
        const fate = chance();
        if (fate < 0.3) {
          await admission.refund(admitted);
          await admission.refund(admitted);
          charged -= 1;
          Object.assign(key, { admitted: undefined, tries: [] });
        } else if (fate < 0.5) key.done = true;
      }
      expect([run, await spent()]).toEqual([run, charged * 25]);
      for (const [list, limits] of [['phone', PHONE] as const, ['device', DEVICE] as const]) {
        const alone = lone.filter(({ allowance }) => allowance === list).map(({ at }) => at);
        const sent = keys.filter(({ allowance, tries }) => allowance === list && tries.length > 0);
        // The SMS of each went out at the first of its tries, the last, or any.
        for (const part of [0, 0.999, chance(), chance()]) {
          const times = [...alone, ...sent.map(({ tries }) => tries[Math.floor(part * tries.length)]!)];
          times.sort((a, b) => a - b);
          for (const [count, ms] of limits)
            times.forEach((at, i) => {
              const beyond = times[i + count];
              expect([run, list, beyond === undefined || beyond - at > ms]).toEqual([run, list, true]);
            });
        }
      }
    }
    expect(known).toBeGreaterThan(100);
  }, 120_000);

  it('are refused when a later one of the key was here: whoever stood still does not send beside it', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/600' });
    const later = await admission.admit(applicant('p', repeat('k', 2)));
    expect(await codeOf(admission.admit(applicant('p', repeat('k', 1))))).toBe('idempotency_in_progress');
    expect([await counted(), await spent()]).toEqual([[String(later.sms.at)], 25]);

    // Nor does the one before give back what the next one has in hand, also when that sends nothing.
    const next = await admission.admit(applicant('p', repeat('k', 3, false)));
    expect(next).toMatchObject({ again: true, sms: later.sms });
    await admission.refund(later);
    expect(await spent()).toBe(25);
    await admission.refund(next);
    expect(await spent()).toBe(0);
  });

  it('stay within the limit of the whole service, many at once', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/600', LIMIT_GLOBAL: '2/5' });
    for (const who of ['a', 'b', 'c', 'd']) {
      await admission.admit(applicant(who, repeat(who, 1)));
      await pass(5_001);
    }
    const again = ['a', 'b', 'c', 'd'].map((of) => codeOf(admission.admit(applicant(of, repeat(of, 2)))));
    expect(await Promise.all(again)).toEqual(['admitted', 'admitted', 'overloaded', 'overloaded']);
    // Who sends nothing is not held up.
    expect(await codeOf(admission.admit(applicant('c', repeat('c', 3, false))))).toBe('admitted');
  });

  it('give back what was charged, whatever an SMS costs by now', async () => {
    const [before, after] = [
      admissionWith({ SMS_PRICE_PAISE: '20', LIMIT_PHONE: '5/600' }),
      admissionWith({ SMS_PRICE_PAISE: '50', LIMIT_PHONE: '5/600' }),
    ];
    await before.admit(applicant('p'));
    await before.admit(applicant('p', repeat('k', 1)));
    await after.refund(await after.admit(applicant('p', repeat('k', 2))));
    expect(await spent()).toBe(20);
  });
});
