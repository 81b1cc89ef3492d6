import { Redis } from 'ioredis';
import { holdTimers, type HeldTimers } from './held-timers';
import { admissionEntryKey, admittedSendsKey, KEYS } from './keys';
import type { World } from './world';

declare global {
  /** Of test/support/environment.js: the global object of the service that Node.js loaded, which is not that of the test. */
  var globalOfService: typeof globalThis;
}

/** `Date` as the running service has it: `jest.spyOn(dateOfService(), 'now')` sets the clock of the service. */
export const dateOfService = (): DateConstructor => globalThis.globalOfService.Date;

/** Holds timers of the running service until `jest.restoreAllMocks()`: see {@link holdTimers}. */
export const holdTimersOfService = (isHeld: (delayMs: number) => boolean): HeldTimers =>
  holdTimers(isHeld, globalThis.globalOfService);

const realNow = performance.now.bind(performance);

/** Moves the clock of all timeouts and pauses of the service forward, until `jest.restoreAllMocks()`. Timers stay as they are. */
export function moveMonotonicClock(ms: number): void {
  const ahead = performance.now() - realNow() + ms;
  jest.spyOn(performance, 'now').mockImplementation(() => realNow() + ahead);
}

/**
 * Makes every admitted send older, of each number and of the whole service, as if it had been sent so much earlier. A limit of
 * minutes passes at once.
 */
export async function makeSendsOlder(world: World, ms: number): Promise<void> {
  const redis = new Redis(world.redis.url);
  try {
    const older = redis.pipeline();
    for (const list of [...(await redis.keys(admittedSendsKey('*'))), KEYS.serviceLimit])
      for (const [i, time] of (await redis.lrange(list, 0, -1)).entries())
        older.lset(list, i, String(Number(time) - ms));
    // A send under an Idempotency-Key knows its place in the list by its time.
    for (const key of await redis.keys(admissionEntryKey('*'))) {
      const send = JSON.parse((await redis.get(key)) ?? '{}') as { place?: string };
      if (send.place === undefined) continue;
      send.place = String(Number(send.place) - ms);
      older.set(key, JSON.stringify(send), 'KEEPTTL');
    }
    await older.exec();
  } finally {
    redis.disconnect();
  }
}
