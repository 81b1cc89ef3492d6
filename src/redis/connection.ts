import { type Cluster, Redis, type RedisOptions } from 'ioredis';
import { parseRedisUrl } from '../config/redis-url';
import { clusterClient } from './cluster';
import { retryDelay, stopSocketTimer } from './reconnecting';

export type RedisClient = Redis | Cluster;

/**
 * A command is answered, or its caller gets 503. No command waits in a queue while Redis is away and runs later without a
 * caller, and no command that may have run is sent a second time. One case remains: a command that was written to a peer
 * which then stalls may run when the peer wakes up. Each script tolerates that.
 */
const COMMON: RedisOptions = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 2_000,
  // A peer that went silent (paused, cut off) is left for a new connection.
  socketTimeout: 3_000,
  disconnectTimeout: 500,
  keepAlive: 10_000,
  maxLoadingRetryTime: 1_000,
  retryStrategy: retryDelay,
  // A demoted primary answers READONLY: look for the new one.
  reconnectOnError: (error) => error.message.startsWith('READONLY'),
  lazyConnect: true,
};

/** Redis does not let the service use the database of REDIS_URL: it has no such database, or the user has no right to it. */
export class DatabaseRefused extends Error {
  override readonly name = 'DatabaseRefused';

  constructor(db: number, cause: Error) {
    // The first word only: the rest may repeat what was sent.
    const code = /^[A-Z]+/.exec(cause.message)?.[0] ?? 'an error';
    super(`Redis refuses database ${db} of REDIS_URL (SELECT: ${code})`, { cause });
  }
}

/**
 * A client for `redis[s]://`, `redis[s]+sentinel://` or `redis[s]+cluster://` (rediss+… for TLS), not yet connected.
 * The URL was checked with the configuration.
 */
export function redisClient(redisUrl: string): RedisClient {
  const target = parseRedisUrl(redisUrl);
  if (target === undefined) throw new Error('REDIS_URL is of no known form');
  const { kind, tls, username, password, nodes, db, masterName } = target;
  const options: RedisOptions = {
    ...COMMON,
    ...(username ? { username } : {}),
    ...(password ? { password } : {}),
    ...(tls ? { tls: {} } : {}),
  };
  if (kind === 'cluster') return clusterClient(nodes, options);

  const client = new Redis({
    ...options,
    // One write for what is asked at once. Not in a cluster, where ioredis would repeat such a batch by its own rules.
    enableAutoPipelining: true,
    ...(kind === 'sentinel'
      ? {
          sentinels: [...nodes],
          name: masterName ?? '',
          // One that accepts and never answers (paused, cut off) must not keep us from the next one.
          sentinelCommandTimeout: 1_000,
          sentinelRetryStrategy: retryDelay,
          ...(tls ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {}),
        }
      : { ...nodes[0], db }),
  });
  // ioredis leaves the timer of `socketTimeout` running when a socket closes under a command, and it would destroy the
  // next, healthy socket.
  client.on('close', () => {
    stopSocketTimer(client);
  });
  if (db > 0) neverUseAnotherDatabase(client, db);
  if (kind === 'sentinel' && password) {
    // The password is the store's. Most sentinels want none, and are not shown it; those that ask are given the same.
    client.on('sentinelError', ({ message }: Error) => {
      if (message.includes('NOAUTH'))
        Object.assign(client.options, {
          sentinelUsername: client.options.username,
          sentinelPassword: client.options.password,
        });
    });
  }
  return client;
}

/**
 * ioredis reports a refused SELECT and then goes on in database 0, where another service may keep its keys, and where other
 * replicas do not look. Here such a connection never becomes ready: it is closed, and a new one is tried.
 */
function neverUseAnotherDatabase(client: Redis, db: number): void {
  let refused = false;
  const select = client.select.bind(client);
  client.select = async (database: number) => {
    refused = false;
    try {
      return await select(database);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'ReplyError') throw error;
      refused = true;
      throw new DatabaseRefused(db, error);
    }
  };
  // ioredis asks this before a connection becomes ready; the answer to SELECT, which was sent first, is there by then.
  const { connector } = client as unknown as { connector: { check(info: unknown): boolean } };
  const check = connector.check.bind(connector);
  connector.check = (info) => !refused && check(info);
}
