import { Cluster, type Redis, type RedisOptions } from 'ioredis';
import { retryDelay, stopSocketTimer } from './reconnecting';

interface Address {
  readonly host: string;
  readonly port: number;
}

const SLOTS = 16_384;
/** How often the map of slots is read anew: a failover that no command ran into is seen, too. */
const REFRESH_EVERY_MS = 3_000;
/** While some of the slots are out of reach. */
const SEARCH_EVERY_MS = 500;

/**
 * A client of a cluster. ioredis follows MOVED, ASK and TRYAGAIN, which say that nothing was run: at most 16 times, with
 * 40 ms before a TRYAGAIN's next try, so within the time that a caller waits. Any other failure is reported to the caller:
 * ioredis would send it again after "Connection is closed", also where it was written and may have run.
 */
export function clusterClient(seeds: readonly Address[], redisOptions: RedisOptions): Cluster {
  const startup: Address[] = [...seeds];
  const client: Cluster = new Cluster(startup, {
    redisOptions,
    enableOfflineQueue: false,
    lazyConnect: true,
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    retryDelayOnTryAgain: 40,
    slotsRefreshTimeout: 1_000,
    // A cluster that says "fail" answers each command so; hanging up and coming back would not help it.
    enableReadyCheck: false,
    clusterRetryStrategy: (attempt) => {
      // First those of the configuration, which a name may lead to new addresses; then those that were there last.
      startup.splice(0, startup.length, ...seeds, ...(attempt % 2 === 0 ? known : []));
      return retryDelay(attempt);
    },
    // Managed clusters over TLS announce names that their certificate holds: looked up addresses would not match.
    dnsLookup: (address, callback) => {
      callback(null, address);
    },
  });
  let known: Address[] = [];
  client.on('refresh', () => {
    known = client.nodes().map(({ options: { host = '', port = 0 } }) => ({ host, port }));
  });
  client.on('+node', (node: Redis) => {
    // ioredis connects at the first command, and would keep that one until the node is there.
    node.options.enableOfflineQueue = false;
    node.on('close', () => {
      stopSocketTimer(node);
    });
    node.connect().catch(() => undefined);
  });
  keepLooking(client);
  return client;
}

/** Whether the primary of every slot is connected. */
export function isComplete(client: Cluster): boolean {
  if (client.status !== 'ready') return false;
  const connected = new Set(
    client
      .nodes('master')
      .filter(({ status }) => status === 'ready')
      .map(addressOf),
  );
  let range: string[] | undefined;
  for (let slot = 0; slot < SLOTS; slot++) {
    // The slots of a range share one list.
    if (client.slots[slot] === range && range !== undefined) continue;
    range = client.slots[slot];
    if (!connected.has(range?.[0] ?? '')) return false;
  }
  return true;
}

/** Resolves when no connection to a primary is still on its way. */
export async function settled(client: Cluster): Promise<void> {
  await Promise.all(
    client.nodes('master').map(
      (node) =>
        new Promise<void>((resolve) => {
          if (['ready', 'end'].includes(node.status)) resolve();
          node.once('ready', resolve).once('end', resolve);
        }),
    ),
  );
}

/** Reads the map of slots anew; if no known node answers, starts over from the addresses of the configuration. */
export function refreshSlots(client: Cluster): void {
  if (client.status !== 'ready' || client.nodes().length === 0) return;
  client.refreshSlotsCache((error) => {
    if (error && client.status === 'ready') client.disconnect(true);
  });
}

export const addressOf = ({ options: { host = '', port = 0 } }: Redis): string => `${host}:${port}`;

function keepLooking(client: Cluster): void {
  let timer: NodeJS.Timeout | undefined;
  let due = Infinity;
  const within = (ms: number): void => {
    const at = Date.now() + ms / 2 + (Math.random() * ms) / 2;
    // Nodes that go and come all the time must not put it off.
    if (at >= due || client.status === 'end') return;
    due = at;
    clearTimeout(timer);
    timer = setTimeout(() => {
      due = Infinity;
      refreshSlots(client);
      within(isComplete(client) ? REFRESH_EVERY_MS : SEARCH_EVERY_MS);
    }, at - Date.now()).unref();
  };
  client.on('ready', () => {
    within(SEARCH_EVERY_MS);
  });
  client.on('-node', () => {
    within(SEARCH_EVERY_MS);
  });
  client.on('end', () => {
    clearTimeout(timer);
  });
}
