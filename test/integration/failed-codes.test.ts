// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { NumberUnlocks } from '../../src/challenges/number-unlocks';
import type { Environment } from '../../src/config/config';
import type { Device } from '../../src/devices/device-tokens';
import { keysOfNumber } from '../support/keys';
import { otpSteps, type OtpSteps } from '../support/otp-steps';
import { outcomes, refusal, refusalCode } from '../support/outcomes';
import { identityOf, phoneNumber } from '../support/phone-number';
import { MADE_HERE } from '../support/senders';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

const REPLICAS = 3;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** As they are by default. */
const LIMITS = '10/3600,20/86400';
const OWNER = identityOf(phoneNumber('+919876543210'));

let redis: SimulatedStores;
let clock: SimulatedClock;
let service: OtpSteps;
let unlocks: NumberUnlocks;

beforeAll(async () => {
  redis = await simulatedStores(REPLICAS);
  ({ clock } = redis);
  unlocks = new NumberUnlocks(redis.stores[0]!);
});
beforeEach(async () => {
  await clock.empty();
  service = replica();
});
afterAll(() => {
  redis.close();
});

const replica = (variables: Environment = {}, connection = 0): OtpSteps =>
  otpSteps(settings({ LIMIT_FAILED_CODES: LIMITS, ...variables }), redis.stores[connection]!);

/** A device on which the owner logged in at this moment. */
const device = (): Device => ({ id: 'A'.repeat(22), issuedAt: clock.now });

/** Asks for a code, as a client of the owner or as a stranger. */
async function ask(
  by?: Device,
  on = service,
): Promise<{ requestId: string; nonce: string; needsProof: boolean }> {
  const draft = await on.challenges.create(OWNER, MADE_HERE, undefined, by);
  if (draft.kind === 'replay') throw new Error('There is no Idempotency-Key');
  await on.challenges.activate(draft, { delivery: 'accepted' }, 0);
  return draft;
}

/** Enters wrong codes until the number refuses them, but not more than so many. Returns their number. */
async function guess(most = Infinity, by?: Device): Promise<number> {
  let guesses = 0;
  while (guesses < most) {
    const request = await ask(by).catch(() => undefined);
    for (let i = 0; i < 3 && guesses < most; i += 1) {
      if (request === undefined) return guesses;
      const taken = await service.tries.take(request.requestId, undefined, () => by).catch(() => undefined);
      if (taken === undefined) return guesses;
      guesses += 1;
    }
  }
  return guesses;
}

async function logIn(by?: Device): Promise<void> {
  const { requestId } = await ask(by);
  const attempt = await service.tries.take(requestId, undefined, () => by);
  if (attempt.kind !== 'taken') throw new Error('There is no Idempotency-Key');
  expect(await service.tries.consume(attempt)).toBe(true);
}

/** For how long a client is refused, in hours rounded up; 0 if it is not. */
async function lockedHours(by?: Device): Promise<number> {
  try {
    await ask(by);
    return 0;
  } catch (error) {
    const { code, retryAfterSeconds } = error as { code: string; retryAfterSeconds: number };
    expect(code).toBe('phone_locked');
    return Math.ceil((retryAfterSeconds - 2) / 3_600);
  }
}

/** Strangers enter sixty wrong codes, ten in each of six hours, and a day passes. */
async function reachSlope(): Promise<void> {
  for (let day = 0; day < 3; day += 1) {
    expect([await guess(), await guess()]).toEqual([10, 0]);
    await clock.pass(HOUR_MS + 1);
    expect(await guess()).toBe(10);
    await clock.pass(DAY_MS + 1);
  }
}

/** Strangers enter a hundred wrong codes, without a login between them. */
async function reachHundred(): Promise<void> {
  await reachSlope();
  for (let day = 0; day < 20; day += 1) {
    expect([day, await guess()]).toEqual([day, 2]);
    await clock.pass(DAY_MS + 1);
  }
}

describe('the slope', () => {
  it('a number that saw 59 wrong codes in 30 days allows the limits of LIMIT_FAILED_CODES, and one that saw 60 allows two a day', async () => {
    await reachSlope();
    expect(await guess()).toBe(2);
    expect(await lockedHours()).toBe(24);
    await clock.pass(DAY_MS + 1);
    expect(await guess()).toBe(2);

    await clock.empty();
    for (let day = 0; day < 3; day += 1) {
      await guess(day === 2 ? 9 : 10);
      await clock.pass(HOUR_MS + 1);
      await guess(10);
      await clock.pass(DAY_MS + 1);
    }
    // The sixtieth, after which only two in 24 hours remain.
    expect(await guess()).toBe(2);
    await clock.pass(DAY_MS + 1);
    expect(await guess()).toBe(2);
  });

  it('a number that saw 100 wrong codes without a login allows one a day, and a login ends this', async () => {
    await reachHundred();
    for (let day = 0; day < 40; day += 1) {
      expect([day, await guess()]).toEqual([day, 1]);
      await clock.pass(DAY_MS + 1);
    }
    await logIn();
    // Forty in thirty days: the number is below the slope as well.
    await clock.pass(1);
    expect(await guess()).toBe(10);
  });

  it('a login ends the count of consecutive wrong codes and not the count of 30 days', async () => {
    await reachHundred();
    await logIn();
    await clock.pass(1);
    // 100 wrong codes within 24 days.
    expect(await guess()).toBe(2);
    for (let day = 0; day < 10; day += 1) {
      await clock.pass(DAY_MS + 1);
      expect([day, await guess()]).toEqual([day, 2]);
    }
  });

  it('a number is never locked for longer than a day by the defaults', async () => {
    for (let day = 0; day < 60; day += 1) {
      while (await guess()) {
        expect(await lockedHours()).toBeLessThanOrEqual(24);
        await clock.pass(HOUR_MS + 1);
      }
      await clock.pass(DAY_MS - 2 * HOUR_MS);
    }
  });

  it('of sixty guesses at once over three connections exactly two are checked beyond the slope', async () => {
    await reachSlope();
    const all = redis.stores.map((_, connection) => replica({ OTP_MAX_ATTEMPTS: '5' }, connection));
    const requests = await Promise.all(all.map((on) => ask(undefined, on)));
    const guesses = Array.from({ length: 60 }, (_, i) =>
      all[i % REPLICAS]!.tries.take(requests[i % 3]!.requestId),
    );
    expect((await outcomes(guesses)).done).toBe(2);
  });

  it('a success with a device token ends the count of consecutive wrong codes as well', async () => {
    await reachHundred();
    await logIn(device());
    await clock.pass(1);
    expect(await guess()).toBe(2);
  });
});

describe('the proof of work of a number', () => {
  it.each([
    [LIMITS, 9, 10],
    ['7/86400', 3, 4],
    ['5/600,4/3600', 1, 2],
    ['6/60,100/2592000', 2, 3],
  ])(
    'with LIMIT_FAILED_CODES=%s a send is free after %i wrong codes and needs a proof after %i',
    async (limits, free, proof) => {
      service = replica({ LIMIT_FAILED_CODES: limits });
      await guess(free);
      expect((await ask()).needsProof).toBe(false);
      await guess(proof - free);
      // The hour may be used up by then.
      await clock.pass(limits === LIMITS ? HOUR_MS + 1 : 0);
      expect((await ask()).needsProof).toBe(true);
      expect((await ask(device())).needsProof).toBe(false);
    },
  );

  it('a send never needs a proof where LIMIT_FAILED_CODES has no window of a day or less', async () => {
    service = replica({ LIMIT_FAILED_CODES: '90/2592000' });
    await guess(59);
    expect((await ask()).needsProof).toBe(false);
  });

  it('each send of a client without a device token needs a proof from 100 wrong codes in a row on, until a login', async () => {
    await reachHundred();
    await clock.pass(10 * DAY_MS);
    expect((await ask()).needsProof).toBe(true);
    expect((await ask(device())).needsProof).toBe(false);
    await logIn();
    await clock.pass(DAY_MS + 1);
    expect((await ask()).needsProof).toBe(false);
  });
});

describe('the allowance of devices', () => {
  it('a device has ten wrong codes a day and forty in 30 days, whatever strangers do', async () => {
    await reachHundred();
    await guess();
    expect(await lockedHours()).toBe(24);
    const known = device();
    for (let day = 0; day < 4; day += 1) {
      expect([day, await guess(Infinity, known)]).toEqual([day, 10]);
      expect(await lockedHours(known)).toBeGreaterThan(0);
      await clock.pass(DAY_MS + 1);
    }
    expect(await guess(Infinity, known)).toBe(0);
    expect(await lockedHours(known)).toBe(26 * 24);
    await clock.pass(26 * DAY_MS);
    expect(await guess(Infinity, known)).toBe(10);
  });

  it('the wrong codes of a device use up nothing of the strangers’ limits, and ask no stranger for a proof', async () => {
    expect(await guess(Infinity, device())).toBe(10);
    expect((await ask()).needsProof).toBe(false);
    expect(await guess()).toBe(10);
  });

  it('the owner of a device token logs in after each day of an attack', async () => {
    const known = device();
    for (let day = 0; day < 30; day += 1) {
      await guess();
      await clock.pass(HOUR_MS + 1);
      await guess();
      await logIn(known);
      await clock.pass(DAY_MS - HOUR_MS);
    }
  });
});

describe('an unlock', () => {
  it('an unlock clears the windows of a day or less, of strangers and of devices, and not the count of 30 days', async () => {
    await reachSlope();
    const known = device();
    expect([await guess(), await guess(Infinity, known)]).toEqual([2, 10]);
    await clock.pass(1);
    await unlocks.unlock(OWNER.pseudonym);
    expect((await ask()).needsProof).toBe(false);
    await clock.pass(1);
    expect([await guess(), await guess(Infinity, known)]).toEqual([2, 10]);
  });

  it('an unlock below the slope gives the whole limits of LIMIT_FAILED_CODES again', async () => {
    expect(await guess()).toBe(10);
    await clock.pass(1);
    await unlocks.unlock(OWNER.pseudonym);
    await clock.pass(1);
    expect(await guess()).toBe(10);
  });

  it('an unlock does not end the count of consecutive wrong codes', async () => {
    await reachHundred();
    expect(await guess()).toBe(1);
    await clock.pass(1);
    await unlocks.unlock(OWNER.pseudonym);
    expect((await ask()).needsProof).toBe(true);
    await clock.pass(1);
    expect(await guess()).toBe(1);
  });

  it('an unlock clears no window of more than a day', async () => {
    service = replica({ LIMIT_FAILED_CODES: '4/90000' });
    expect(await guess()).toBe(4);
    await clock.pass(1);
    await unlocks.unlock(OWNER.pseudonym);
    expect(await lockedHours()).toBe(25);
  });

  it('a number can be unlocked three times in 30 days, also by many operators at once, and again when the first is 30 days old', async () => {
    const [first, ...others] = redis.stores.map((store) => new NumberUnlocks(store));
    await first!.unlock(OWNER.pseudonym);
    await clock.pass(DAY_MS);
    const all = Array.from({ length: 20 }, (_, i) => others[i % 2]!.unlock(OWNER.pseudonym));
    expect(await outcomes(all)).toEqual({ done: 2, rate_limited: 18 });
    const error = await refusal(first!.unlock(OWNER.pseudonym));
    expect([error.code, error.status]).toEqual(['rate_limited', 429]);
    expect(error.retryAfterSeconds).toBe(29 * 86_400 + 1);
    await clock.pass(29 * DAY_MS + 1);
    await first!.unlock(OWNER.pseudonym);
    expect(await refusalCode(first!.unlock(OWNER.pseudonym))).toBe('rate_limited');
  });
});

it('wrong codes in the millisecond of a login or of an unlock count', async () => {
  await logIn();
  expect(await guess()).toBe(10);
  await clock.pass(1);
  await unlocks.unlock(OWNER.pseudonym);
  expect(await guess()).toBe(10);
});

it('every key of a number that was attacked, logged in to and unlocked expires within 31 days', async () => {
  const { failed, cleared, unlocks: unlocked } = keysOfNumber(OWNER.pseudonym);
  await guess(3);
  await logIn();
  await unlocks.unlock(OWNER.pseudonym);
  await clock.pass(20 * DAY_MS);
  await guess();
  for (const key of await clock.keys()) expect([key, (await clock.ttl(key)) > 0]).toEqual([key, true]);
  // The time of the login lives as long as the failures before it.
  expect([await clock.ttl(failed), await clock.ttl(cleared)]).toEqual(Array(2).fill(30 * DAY_MS + 1_000));
  expect(await clock.ttl(unlocked)).toBe(10 * DAY_MS + 1_000);
  await clock.pass(61 * DAY_MS);
  expect(await clock.keys()).toEqual([]);
});
