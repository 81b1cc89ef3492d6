import { Cluster, Redis, type ClusterOptions, type RedisOptions } from 'ioredis';

export type RedisClient = Redis | Cluster;

/**
 * A command is answered, or its caller is told 503: nothing waits in a queue while Redis is away and runs later, when
 * nobody wants it any more.
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

interface Endpoint {
  host: string;
  port: number;
}

/** Splits `host:port,[::1]:port`, with a default port. */
function endpoints(hosts: string, defaultPort: number): Endpoint[] {
  return hosts.split(',').map((entry) => {
    const url = new URL(`redis://${entry}`);
    return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port ? Number(url.port) : defaultPort };
  });
}

/**
 * A client for `redis[s]://`, `redis[s]+sentinel://` or `redis[s]+cluster://` (rediss+… for TLS), not yet connected.
 * The URL was checked with the configuration.
 */
export function redisClient(redisUrl: string): RedisClient {
  const match = /^(rediss?)(\+cluster|\+sentinel)?:\/\/(?:([^@/]*)@)?([^@/]+)(?:\/(.*))?$/.exec(redisUrl);
  if (match === null) throw new Error('REDIS_URL is of no known form');
  const [, scheme, topology, credentials, hosts = '', path] = match;
  const colon = credentials?.indexOf(':') ?? -1;
  const username = credentials && colon > 0 ? decodeURIComponent(credentials.slice(0, colon)) : undefined;
  const password = credentials && colon >= 0 ? decodeURIComponent(credentials.slice(colon + 1)) : undefined;
  const options: RedisOptions = {
    ...COMMON,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(scheme === 'rediss' ? { tls: {} } : {}),
  };

  if (topology === '+cluster') {
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
    return new Cluster(endpoints(hosts, 6379), clusterOptions);
  }
  if (topology === '+sentinel') {
    return new Redis({
      ...options,
      sentinels: endpoints(hosts, 26379),
      name: path ?? '',
      ...(scheme === 'rediss' ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {}),
    });
  }
  const [endpoint] = endpoints(hosts, 6379);
  return new Redis({ ...options, ...endpoint, db: path ? Number(path) : 0 });
}
