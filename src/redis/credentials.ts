import { Cluster } from 'ioredis';
import { parseRedisUrl } from '../config/redis-url';
import type { RedisClient } from './connection';

/**
 * Asks Redis by the user and the password of this URL from now on: where connections are made anew, and on those that there
 * are, for Redis hangs up on a user who is deleted. Until Redis takes them, connections go on as who they were.
 * @returns whether Redis said so; false when no connection could be asked
 * @throws Error of Redis when it refuses them.
 */
export async function changeCredentials(client: RedisClient, redisUrl: string): Promise<boolean> {
  const { username, password } = parseRedisUrl(redisUrl) ?? { username: '', password: '' };
  const connections = client instanceof Cluster ? client.nodes('all') : [client];
  const future = client instanceof Cluster ? [client.options.redisOptions ?? {}] : [];
  for (const options of [...future, ...connections.map((each) => each.options)]) {
    // ioredis reads them whenever it connects.
    Object.assign(options, { username, password });
    // Of sentinels those that ask are given the same.
    if ('sentinelPassword' in options && options.sentinelPassword) {
      Object.assign(options, { sentinelUsername: username, sentinelPassword: password });
    }
  }
  const open = connections.filter(({ status }) => status === 'ready');
  if (password === '') return open.length > 0;
  const answers = await Promise.allSettled(
    open.map((each) => (username === '' ? each.auth(password) : each.auth(username, password))),
  );
  const refused = answers.find((answer) => answer.status === 'rejected');
  if (refused !== undefined) throw refused.reason;
  return open.length > 0;
}
