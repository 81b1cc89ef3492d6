import { Cluster, type Redis } from 'ioredis';
import { settled } from './cluster';
import type { RedisClient } from './connection';

/** One server that holds keys and takes writes. */
export interface Primary {
  /** `Redis`, and where there are several its address too. */
  readonly name: string;
  readonly client: Redis;
}

/** Every primary as this client knows them now: all of a cluster's, elsewhere the one that it is connected to. */
export function primariesOf(client: RedisClient): Primary[] {
  if (!(client instanceof Cluster)) return [{ name: 'Redis', client }];
  return client.nodes('master').map((node) => {
    const { host = '', port = 0 } = node.options;
    return { name: `Redis ${host.includes(':') ? `[${host}]` : host}:${port}`, client: node };
  });
}

/** The same, once none of them is still being connected: a cluster is ready when its map is read, before its nodes are. */
export async function connectedPrimaries(client: RedisClient): Promise<Primary[]> {
  if (client instanceof Cluster) await settled(client);
  return primariesOf(client);
}
