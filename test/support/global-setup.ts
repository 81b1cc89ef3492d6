import type { Config } from 'jest';
import { compileService } from './compile';
import { DATABASES, offerToWorkers } from './redis-of-worker';
import { type RedisServer, startRedis } from './redis-server';

declare global {
  // Where Jest's global teardown finds what its global setup started.
  var redisOfWorkers: RedisServer[] | undefined;
}

/** One Redis for each Jest worker, and the compiled service. */
export default async function startServers({ maxWorkers }: Config & { maxWorkers: number }): Promise<void> {
  compileService();
  const args = ['--databases', String(DATABASES)];
  globalThis.redisOfWorkers = await Promise.all(
    Array.from({ length: maxWorkers }, () => startRedis({ args })),
  );
  offerToWorkers(globalThis.redisOfWorkers);
}
