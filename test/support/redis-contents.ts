import { Redis } from 'ioredis';

export interface Entry {
  key: string;
  value: string;
  /** Milliseconds; -1 for a key that never expires. */
  ttl: number;
}

const READ: Record<string, string[]> = {
  string: ['get'],
  hash: ['hgetall'],
  list: ['lrange', '0', '-1'],
  set: ['smembers'],
  zset: ['zrange', '0', '-1', 'WITHSCORES'],
  stream: ['xrange', '-', '+'],
};

/** Every key with its value as text and its time to live, in three round trips. Throws when Redis is away. */
export async function contentsOf(url: string): Promise<Entry[]> {
  const redis = new Redis(url, {
    lazyConnect: true,
    retryStrategy: null,
    connectTimeout: 1_000,
    commandTimeout: 5_000,
  });
  redis.on('error', () => undefined);
  try {
    await redis.connect();
    const keys = await redis.keys('*');
    const [values, ttls] = await Promise.all([valuesOf(redis, keys), all(redis, 'pttl', keys)]);
    return keys.map((key, i) => ({ key, value: JSON.stringify(values[i]), ttl: Number(ttls[i]) }));
  } finally {
    redis.disconnect();
  }
}

/** These keys with their values, in two round trips. */
export async function valuesIn(redis: Redis, keys: string[]): Promise<Record<string, unknown>> {
  const values = await valuesOf(redis, keys);
  return Object.fromEntries(keys.map((key, i) => [key, values[i]]));
}

async function valuesOf(redis: Redis, keys: string[]): Promise<unknown[]> {
  const types = (await all(redis, 'type', keys)) as string[];
  return exec(
    redis,
    keys.map((key, i) => readOf(key, types[i])),
  );
}

const all = (redis: Redis, command: string, keys: string[]): Promise<unknown[]> =>
  exec(
    redis,
    keys.map((key) => [command, key]),
  );

const exec = async (redis: Redis, commands: string[][]): Promise<unknown[]> =>
  ((await redis.pipeline(commands).exec()) ?? []).map(([, answer]) => answer);

/** A key that has just expired is of the type none. */
function readOf(key: string, type = 'none'): string[] {
  const [command = 'get', ...rest] = READ[type] ?? [];
  return [command, key, ...rest];
}
