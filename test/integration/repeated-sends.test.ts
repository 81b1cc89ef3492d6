// First: the scripts go by a clock that the test moves. Sends under an Idempotency-Key come again after minutes.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import type { Redis } from 'ioredis';
import { ApiError } from '../../src/errors/api-error';
import { Metrics } from '../../src/metrics/metrics';
import type { AdmissionControl } from '../../src/throttling/admission';
import type { Admission, SendPlan } from '../../src/throttling/admission';
import { admissionOver, admissionRequest } from '../support/applicant';
import { admissionEntryKey, admittedSendsKey, KEYS } from '../support/keys';
import { outcome } from '../support/outcomes';
import { Random } from '../support/random';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

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

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;

beforeAll(async () => {
  redis = await simulatedStores(1);
  ({ raw, clock } = redis);
});
beforeEach(async () => {
  await clock.empty();
  createdAt = clock.now;
});
afterAll(() => {
  redis.close();
});

const admissionWith = (variables: Record<string, string>): AdmissionControl =>
  admissionOver(
    settings({ LIMIT_GLOBAL: '1000/1', ...variables }),
    redis.stores[0]!,
    new Metrics(),
    redis.logger,
  );
/** When the challenges of a test were created. */
let createdAt: number;
const repeat = (of: string, fencingToken: number, resume: SendPlan = 'repeat', at = createdAt) => ({
  retry: { of, createdAt: at, fencingToken, resume },
});
const spent = async (): Promise<number> =>
  Object.values(await raw.hgetall(KEYS.minutes)).reduce((sum, paise) => sum + Number(paise), 0);
const counted = (): Promise<string[]> => raw.lrange(admittedSendsKey('p'), 0, -1);

interface Key {
  name: string;
  since: number;
  fencingToken: number;
  /** When it may have been sent, since it was last given back. */
  tries: number[];
  allowance: string;
  admitted?: Admission;
  done: boolean;
}

describe('repeated sends', () => {
  it('repeated sends never let more than N SMS pass in any window, whichever try sent the SMS, and are charged once', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/3,2/8,3/20,5/60' });
    let known = 0;
    for (let run = 0; run < 30; run++) {
      await clock.empty();
      const random = new Random(run);
      const keys: Key[] = [];
      const lone: { at: number; allowance: string }[] = [];
      let charged = 0;
      for (let step = 0; step < 50; step++) {
        await clock.pass(random.pick(PAUSES_MS));
        let key: Key | undefined;
        if (random.chance(0.8)) {
          key = keys.length > 0 && random.chance(0.6) ? random.pick(keys) : undefined;
          if (!key) {
            key = {
              name: `k${keys.length}`,
              since: clock.now,
              fencingToken: 0,
              tries: [],
              allowance: '',
              done: false,
            };
            keys.push(key);
          }
          if (key.done || clock.now - key.since > KEY_LIFE_MS) continue;
          key.fencingToken += 1;
        }
        const who = {
          byDevice: random.chance(0.2),
          ...(key && repeat(key.name, key.fencingToken, 'repeat', key.since)),
        };
        const admitted = await admission.admit(admissionRequest('p', who)).catch((error: unknown) => {
          if (!(error instanceof ApiError)) throw error;
          return undefined;
        });
        if (admitted === undefined) continue;
        const { allowance } = admitted.sms;
        if (!key) {
          lone.push({ at: clock.now, allowance });
          charged += 1;
          continue;
        }
        expect([run, step, admitted.first]).toEqual([run, step, key.admitted === undefined]);
        if (!admitted.first) known += 1;
        else charged += 1;
        Object.assign(key, { admitted, allowance, tries: [...key.tries, clock.now] });
        const fate = random.next();
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
        for (const part of [0, 0.999, random.next(), random.next()]) {
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
    expect(known).toBeGreaterThan(50);
  });

  it('an earlier request of an Idempotency-Key is refused after a later one, and refunds nothing of it', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/600' });
    const later = await admission.admit(admissionRequest('p', repeat('k', 2)));
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 1))))).toBe(
      'idempotency_in_progress',
    );
    expect([await counted(), await spent()]).toEqual([[String(later.sms.at)], 25]);

    // Nor does the one before give back what the next one has in hand, also when that sends nothing.
    const next = await admission.admit(admissionRequest('p', repeat('k', 3, 'tell')));
    expect(next).toMatchObject({ first: false, plan: 'tell', sms: later.sms });
    await admission.refund(later);
    expect(await spent()).toBe(25);
    await admission.refund(next);
    expect(await spent()).toBe(0);
  });

  it('a request that stalled until a later one was refused is refused as well, while its lease could last', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/600' });
    await admission.admit(admissionRequest('p'));
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 2))))).toBe('rate_limited');
    expect(await raw.pttl(admissionEntryKey('k'))).toBeGreaterThan(50_000);
    await raw.del(admittedSendsKey('p'));
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 1))))).toBe(
      'idempotency_in_progress',
    );
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 3))))).toBe('done');
    expect(await spent()).toBe(50);
  });

  it('a refused first request under an Idempotency-Key leaves nothing in Redis', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '1/600' });
    await admission.admit(admissionRequest('p'));
    const before = await clock.keys();
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 1))))).toBe('rate_limited');
    expect(await clock.keys()).toEqual(before);
  });

  it('a key that is used again for a later challenge is limited and charged anew, and supersedes the earlier challenge', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '2/600' });
    const first = await admission.admit(admissionRequest('p', repeat('k', 3)));
    const second = await admission.admit(admissionRequest('p', repeat('k', 1, 'repeat', createdAt + 1)));
    expect([first.first, second.first, await spent()]).toEqual([true, true, 50]);
    expect(second.sms.entry).not.toBe(first.sms.entry);
    expect(await counted()).toHaveLength(2);
    await admission.refund(first);
    expect(await spent()).toBe(50);
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 9))))).toBe(
      'idempotency_in_progress',
    );
    expect(await outcome(admission.admit(admissionRequest('p', repeat('k', 1, 'send', createdAt + 2))))).toBe(
      'rate_limited',
    );
  });

  it('concurrent repeats stay within the limit of the whole service', async () => {
    const admission = admissionWith({ LIMIT_PHONE: '5/600', LIMIT_GLOBAL: '2/5' });
    for (const who of ['a', 'b', 'c', 'd']) {
      await admission.admit(admissionRequest(who, repeat(who, 1)));
      await clock.pass(5_001);
    }
    const again = ['a', 'b', 'c', 'd'].map((of) =>
      outcome(admission.admit(admissionRequest(of, repeat(of, 2)))),
    );
    expect(await Promise.all(again)).toEqual(['done', 'done', 'overloaded', 'overloaded']);
    // Who sends nothing is not held up.
    expect(await outcome(admission.admit(admissionRequest('c', repeat('c', 3, 'tell'))))).toBe('done');
  });

  it('a repeat refunds the price that was charged, even if the price of an SMS changed since', async () => {
    const [before, after] = [
      admissionWith({ SMS_PRICE_PAISE: '20', LIMIT_PHONE: '5/600' }),
      admissionWith({ SMS_PRICE_PAISE: '50', LIMIT_PHONE: '5/600' }),
    ];
    await before.admit(admissionRequest('p'));
    await before.admit(admissionRequest('p', repeat('k', 1)));
    await after.refund(await after.admit(admissionRequest('p', repeat('k', 2))));
    expect(await spent()).toBe(20);
  });
});
