import { parseRedisUrl } from '../config/redis-url';
import { redact } from '../logging/redact';
import { redisClient, type RedisClient } from '../redis/connection';
import { connectedPrimaries } from '../redis/primaries';
import { examineRedis } from './examine-redis';
import { fault, ok, type Finding } from './finding';

const PATIENCE_MS = 5_000;
/** Errors that another try does not repair. */
const FINAL = /^(WRONGPASS|NOAUTH|NOPERM|ERR invalid password|ERR AUTH|Redis refuses database)/;

/** Connects as the service does, and looks at what it finds. `onReached` gets the connection first. */
export async function reachRedis(
  redisUrl: string | undefined,
  onReached: (client: RedisClient) => Promise<void> = () => Promise.resolve(),
): Promise<Finding[]> {
  const target = parseRedisUrl(redisUrl ?? '');
  if (redisUrl === undefined || target === undefined) {
    return [ok('redis_reached', 'REDIS_URL is not set: the embedded store ends with the process')];
  }
  const client = redisClient(redisUrl);
  try {
    const trouble = await connect(client);
    if (trouble === undefined) {
      await onReached(client);
      return await examineRedis(target.kind, await connectedPrimaries(client));
    }
    const nodes = target.nodes.map(({ host, port }) => `${host}:${port}`).join(', ');
    const message = `Redis is not reached at ${nodes} (${redact(trouble)}): nothing that the service does works.`;
    return [fault('redis_reached', message)];
  } finally {
    client.disconnect();
  }
}

/** Undefined once it is reached, or why it is not. */
async function connect(client: RedisClient): Promise<string | undefined> {
  let last = 'no answer came in time';
  let timer: NodeJS.Timeout | undefined;
  const outcome = new Promise<string | undefined>((resolve) => {
    timer = setTimeout(() => {
      resolve(last);
    }, PATIENCE_MS);
    client.once('ready', () => {
      resolve(undefined);
    });
    client.on('error', ({ message }: Error) => {
      last = message;
      if (FINAL.test(message)) resolve(message);
    });
  });
  // Its own error says less than the event: only that the connection is closed.
  client.connect().catch(() => undefined);
  return outcome.finally(() => {
    clearTimeout(timer);
  });
}
