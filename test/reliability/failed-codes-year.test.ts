// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { NumberUnlocks } from '../../src/challenges/number-unlocks';
import type { Device } from '../../src/devices/device-tokens';
import { ApiError } from '../../src/errors/api-error';
import { otpSteps, type OtpSteps } from '../support/otp-steps';
import { identityOf, phoneNumber } from '../support/phone-number';
import { figures } from '../support/scale';
import { MADE_HERE } from '../support/senders';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

const DAY_MS = 86_400_000;
const DAYS = 365;
const NUMBER = identityOf(phoneNumber('+919876543210'));

/** The computation of docs/security.md: a burst of 60, two a day, and two more for each pause of 30 days. */
const PAUSES = Math.ceil(DAYS / 30);
const BY_NUMBER = 60 + 2 * DAYS + 2 * PAUSES;
const BY_UNLOCKS = 2 * 3 * PAUSES;
const BY_DEVICE = 40 * PAUSES;
const CODES = 1_000_000;

interface Strategy {
  name: string;
  /** The owner logs in every day, which ends the count of consecutive failures. */
  ownerLogsIn?: boolean;
  /** Guesses until the slope begins, and then waits until the number has forgotten. */
  pauses?: boolean;
  /** Has an operator unlock the number whenever it is locked. */
  unlocks?: boolean;
  /** Has a device token of the number. */
  stolenToken?: boolean;
  most: number;
}

let redis: SimulatedStores;
let clock: SimulatedClock;
let service: OtpSteps;
let operators: NumberUnlocks;

beforeAll(async () => {
  redis = await simulatedStores(1);
  ({ clock } = redis);
  service = otpSteps(settings({ LIMIT_FAILED_CODES: undefined }), redis.stores[0]!);
  operators = new NumberUnlocks(redis.stores[0]!);
});
beforeEach(() => clock.empty());
afterAll(() => {
  redis.close();
});

/** Enters wrong codes until the number refuses. Returns how many, and for how long it refuses (ms). */
async function guess(by?: Device): Promise<{ guesses: number; waitMs: number }> {
  let guesses = 0;
  try {
    for (;;) {
      const draft = await service.challenges.create(NUMBER, MADE_HERE, undefined, by);
      if (draft.kind === 'replay') throw new Error('There is no Idempotency-Key');
      await service.challenges.activate(draft, { delivery: 'accepted' }, 0);
      for (let i = 0; i < 3; i += 1) {
        await service.tries.take(draft.requestId, undefined, () => by);
        guesses += 1;
      }
    }
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'phone_locked') throw error;
    return { guesses, waitMs: error.retryAfterSeconds! * 1_000 };
  }
}

/** The owner logs in, by the device or without it, if one of the two ways is open. */
async function logIn(device: Device): Promise<boolean> {
  for (const by of [device, undefined]) {
    try {
      const draft = await service.challenges.create(NUMBER, MADE_HERE, undefined, by);
      if (draft.kind === 'replay') continue;
      await service.challenges.activate(draft, { delivery: 'accepted' }, 0);
      const attempt = await service.tries.take(draft.requestId, undefined, () => by);
      if (attempt.kind === 'taken' && (await service.tries.consume(attempt))) return true;
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'phone_locked') throw error;
    }
  }
  return false;
}

async function guessForAYear({ ownerLogsIn, pauses, unlocks, stolenToken }: Strategy): Promise<{
  guesses: number;
  logins: number;
}> {
  const end = clock.now + DAYS * DAY_MS;
  let [guesses, logins] = [0, 0];
  let nextLogin = clock.now;
  let restUntil = 0;
  while (clock.now < end) {
    const device = { id: 'A'.repeat(22), issuedAt: clock.now };
    if (ownerLogsIn && clock.now >= nextLogin) {
      nextLogin = clock.now + DAY_MS;
      if (await logIn(device)) logins += 1;
      await clock.pass(1);
    }
    let wait = DAY_MS;
    if (clock.now >= restUntil) {
      const tried = await guess();
      guesses += tried.guesses;
      wait = tried.waitMs;
      if (unlocks) {
        await clock.pass(1);
        if (
          await operators.unlock(NUMBER.pseudonym).then(
            () => true,
            () => false,
          )
        )
          continue;
      }
      // Ten in an hour and twenty in a day are over; a wait of a day is the slope, or the day's twenty.
      if (pauses && guesses > 0 && guesses % 60 === 0) restUntil = clock.now + 30 * DAY_MS + 2_000;
    } else wait = restUntil - clock.now;
    if (stolenToken) {
      const tried = await guess(device);
      guesses += tried.guesses;
      wait = Math.min(wait, tried.waitMs);
    }
    await clock.pass(ownerLogsIn ? Math.min(wait, Math.max(1, nextLogin - clock.now)) : wait);
  }
  return { guesses, logins };
}

const rows: string[] = [];
afterAll(() => {
  figures(
    [
      '',
      `| guesses at one number in a simulated year | most, computed | reached | chance |`,
      '|---|---|---|---|',
      ...rows,
      '',
    ].join('\n'),
  );
});

it.each<Strategy>([
  { name: 'as soon as the number allows, no login', most: BY_NUMBER },
  { name: 'as soon as the number allows, the owner logs in daily', ownerLogsIn: true, most: BY_NUMBER },
  { name: 'sixty, then a pause of 30 days', pauses: true, most: BY_NUMBER },
  {
    name: 'with every unlock, the owner logs in daily',
    ownerLogsIn: true,
    unlocks: true,
    most: BY_NUMBER + BY_UNLOCKS,
  },
  {
    name: 'with every unlock and a stolen device token, the owner logs in daily',
    ownerLogsIn: true,
    unlocks: true,
    stolenToken: true,
    most: BY_NUMBER + BY_UNLOCKS + BY_DEVICE,
  },
])(
  'a patient guesser stays under 0.15 % a year at one number: $name',
  async (strategy) => {
    const { guesses, logins } = await guessForAYear(strategy);
    const { name, most } = strategy;
    rows.push(`| ${name} | ${most} | ${guesses} | ${((100 * guesses) / CODES).toFixed(3)} % |`);
    expect(most / CODES).toBeLessThan(0.0015);
    expect(guesses).toBeLessThanOrEqual(most);
    // The simulation is a real attack: it comes near to what is possible.
    expect(guesses).toBeGreaterThan(400);
    // With a stolen token the attacker uses up the way in of the owner's devices, too.
    if (strategy.ownerLogsIn && !strategy.stolenToken) expect(logins).toBeGreaterThan(0.9 * DAYS);
  },
  600_000,
);
