import { Cluster, Command, type Redis } from 'ioredis';
import { addressOf, settled } from './cluster';
import type { RedisClient } from './connection';

/** One server that holds keys and takes writes. */
export interface Primary {
  /** `Redis`, and where there are several its address too. */
  readonly name: string;
  readonly client: Redis;
  /** A key of the service that lies on this server and holds nothing. */
  readonly key: string;
}

/** A cluster of a hundred primaries needs about this many tries to find a key for each of them. */
const MOST_TRIES = 2_000;

/** Every primary as this client knows them now: all of a cluster's, elsewhere the one that it is connected to. */
export function primariesOf(client: RedisClient): Primary[] {
  if (!(client instanceof Cluster)) return [{ name: 'Redis', client, key: keyOf(0) }];
  return client.nodes('master').map((node) => {
    const { host = '', port = 0 } = node.options;
    const name = `Redis ${host.includes(':') ? `[${host}]` : host}:${port}`;
    return { name, client: node, key: keyOn(client, addressOf(node)) };
  });
}

/** The same, once none of them is still being connected: a cluster is ready when its map is read, before its nodes are. */
export async function connectedPrimaries(client: RedisClient): Promise<Primary[]> {
  if (client instanceof Cluster) await settled(client);
  return primariesOf(client);
}

const keyOf = (i: number): string => `otp-login:{check-${i}}:rights`;

/** For a primary without slots any key does: it answers MOVED, and that after it looked at the user's rights. */
function keyOn(client: Cluster, address: string): string {
  for (let i = 0; i < MOST_TRIES; i++) {
    if (client.slots[new Command('get', [keyOf(i)]).getSlot()]?.[0] === address) return keyOf(i);
  }
  return keyOf(0);
}
