// First: the scripts are read with the rest.
import { SimulatedClock } from './simulated-clock';
import { Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import type { Store } from '../../src/redis/store';
import { redisOfWorker } from './redis-of-worker';
import { connectedStores } from './stores';

/**
 * The stores of several replicas over one database, whose scripts go by a clock that the test moves. A test file imports this
 * module first.
 */
export interface SimulatedStores {
  stores: Store[];
  /** A connection past the service. */
  raw: Redis;
  clock: SimulatedClock;
  logger: Logger;
  /** Every line of the logger. */
  logs: string[];
  close(): void;
}

/** On an empty database of the worker's Redis, unless the address of another Redis is given. */
export async function simulatedStores(count = 3, address?: string): Promise<SimulatedStores> {
  const url = address ?? (await redisOfWorker()).url;
  const logs: string[] = [];
  const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });
  const stores = await connectedStores(url, count, logger);
  const raw = new Redis(url);
  return {
    stores,
    raw,
    logger,
    logs,
    clock: await SimulatedClock.start(raw),
    close: () => {
      for (const store of stores) store.close();
      raw.disconnect();
    },
  };
}
