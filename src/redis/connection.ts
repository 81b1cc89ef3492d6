import { Cluster, Redis, type ClusterOptions, type RedisOptions } from 'ioredis';
import { parseRedisUrl } from '../config/redis-url';

export type RedisClient = Redis | Cluster;

/**
 * A command is answered, or its caller is told 503: nothing waits in a queue while Redis is away and runs later, when
 * nobody wants it any more. (A cluster's nodes may run one up to `connectTimeout` later: each script bears that.)
 */
const COMMON: RedisOptions = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  enableAutoPipelining: true,
  connectTimeout: 2_000,
  // A peer that went silent (paused, cut off) is left for a new connection.
  socketTimeout: 5_000,
  keepAlive: 10_000,
  // Back within two seconds of its return, and not all replicas at once.
  retryStrategy: (attempt) => Math.min(100 * attempt, 1_500) + Math.random() * 100,
  // A demoted primary answers READONLY: look for the new one.
  reconnectOnError: (error) => error.message.startsWith('READONLY'),
  lazyConnect: true,
};

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

  if (kind === 'cluster') {
    const clusterOptions: ClusterOptions = {
      redisOptions: options,
      enableOfflineQueue: false,
      enableAutoPipelining: true,
      lazyConnect: true,
      clusterRetryStrategy: (attempt) => Math.min(100 * attempt, 1_500),
      // Managed clusters over TLS announce names that their certificate holds: looked up addresses would not match.
      dnsLookup: (address, callback) => {
        callback(null, address);
      },
    };
    return new Cluster([...nodes], clusterOptions);
  }
  if (kind === 'sentinel') {
    return new Redis({
      ...options,
      sentinels: [...nodes],
      name: masterName ?? '',
      ...(tls ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {}),
    });
  }
  return new Redis({ ...options, ...nodes[0], db });
}
