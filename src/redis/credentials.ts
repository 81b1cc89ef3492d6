import { Cluster } from 'ioredis';
import { parseRedisUrl } from '../config/redis-url';
import type { RedisClient } from './connection';

/**
 * Uses the user and the password of this URL from now on: for new connections, and on existing ones,
 * because Redis closes the connections of a deleted user. Until Redis accepts them, connections keep the old user.
 * @returns whether Redis accepted them; false when no connection was open
 * @throws Error of Redis when it refuses them.
 */
export async function changeCredentials(client: RedisClient, redisUrl: string): Promise<boolean> {
  const { username, password } = parseRedisUrl(redisUrl) ?? { username: '', password: '' };
  const connections = client instanceof Cluster ? client.nodes('all') : [client];
  const future = client instanceof Cluster ? [client.options.redisOptions ?? {}] : [];
  for (const options of [...future, ...connections.map((each) => each.options)]) {
    // ioredis reads them whenever it connects.
    Object.assign(options, { username, password });
    // Connections to sentinels use the same credentials.
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
