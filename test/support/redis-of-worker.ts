import { Redis } from 'ioredis';
import type { RedisServer } from './redis-server';

/** Enough for every world of a test file: each gets a database of its own. */
export const DATABASES = 512;
const VARIABLE = 'REDIS_OF_WORKERS';

let used = 0;

/** Called once before all tests, so that every Jest worker inherits the addresses. */
export function offerToWorkers(servers: readonly RedisServer[]): void {
  process.env[VARIABLE] = servers.map(({ url }) => url).join(',');
}

/**
 * The address of an empty database on the one Redis that all test files of this Jest worker share, one after the other. A
 * test that kills, pauses, fills, configures or counts the commands of a server starts its own with `startRedis`.
 */
export async function redisOfWorker(): Promise<{ url: string }> {
  const servers = (process.env[VARIABLE] ?? '').split(',');
  const server = servers[Number(process.env.JEST_WORKER_ID ?? '1') - 1];
  if (!server) throw new Error('The Redis of this worker was not started: run the tests through Jest');
  if (used >= DATABASES) throw new Error(`This test file uses more than ${DATABASES} databases`);
  // The first call of a test file: what the file before it left is from instances that are closed.
  if (used === 0) await flushAll(server);
  return { url: `${server}/${used++}` };
}

async function flushAll(url: string): Promise<void> {
  const redis = new Redis(url);
  try {
    await redis.flushall();
  } finally {
    redis.disconnect();
  }
}
