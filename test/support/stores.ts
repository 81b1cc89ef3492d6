import type { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { HANG_MS, until } from './hang';

/**
 * As many replicas of the service hold: stores over connections of their own to one Redis, connected. They wait for a Redis of a
 * busy machine.
 */
export async function connectedStores(url: string, count: number, logger: Logger): Promise<Store[]> {
  const stores = Array.from({ length: count }, () => new Store(redisClient(url), logger, undefined, HANG_MS));
  for (const store of stores) store.connect();
  await until(() => stores.every(({ available }) => available), 'the connection to Redis');
  return stores;
}
