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
  const all = async (commands: string[][]): Promise<unknown[]> =>
    ((await redis.pipeline(commands).exec()) ?? []).map(([, answer]) => answer);
  try {
    await redis.connect();
    const keys = await redis.keys('*');
    const types = (await all(keys.map((key) => ['type', key]))) as string[];
    const [values, ttls] = await Promise.all([
      all(keys.map((key, i) => readOf(key, types[i]))),
      all(keys.map((key) => ['pttl', key])),
    ]);
    return keys.map((key, i) => ({ key, value: JSON.stringify(values[i]), ttl: Number(ttls[i]) }));
  } finally {
    redis.disconnect();
  }
}

/** A key that has just expired is of the type none. */
function readOf(key: string, type = 'none'): string[] {
  const [command = 'get', ...rest] = READ[type] ?? [];
  return [command, key, ...rest];
}
