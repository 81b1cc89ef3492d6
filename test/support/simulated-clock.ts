import type { Redis } from 'ioredis';

const CLOCK = 'test:clock';

/**
 * `node:fs` under which every script asks this key for the time instead of Redis's own clock, so that a day passes in a
 * second. For `jest.mock('node:fs', ...)`. Times to live still pass by Redis's clock.
 */
export function fsWithSimulatedClock(): object {
  const fs = jest.requireActual<typeof import('node:fs')>('node:fs');
  const readFileSync = (path: string, ...more: unknown[]): unknown => {
    const text: unknown = (fs.readFileSync as (...all: unknown[]) => unknown)(path, ...more);
    if (typeof text !== 'string' || !path.endsWith('prelude.lua')) return text;
    const simulated = text.replace("redis.call('TIME')", `redis.call('HMGET', '${CLOCK}', 's', 'us')`);
    if (simulated === text)
      throw new Error('The scripts no longer ask for the time where this test expects it');
    return simulated;
  };
  return { ...fs, readFileSync };
}

/** Sets the clock of the scripts, in milliseconds since 1970. */
export async function setClock(redis: Redis, ms: number): Promise<void> {
  await redis.hset(CLOCK, 's', Math.floor(ms / 1_000), 'us', (ms % 1_000) * 1_000);
}
