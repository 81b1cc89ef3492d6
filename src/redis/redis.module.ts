import { Global, Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { redisClient } from './connection';
import { startEmbeddedStore, type EmbeddedStore } from './embedded';
import { Store } from './store';

const EMBEDDED = Symbol('embedded store');

/** One connection to Redis, or to the embedded store when development names none. */
@Global()
@Module({
  providers: [
    {
      provide: EMBEDDED,
      inject: [Config, Logger],
      useFactory: async (config: Config, logger: Logger): Promise<EmbeddedStore | undefined> => {
        if (config.redisUrl !== undefined) return undefined;
        logger.warn('REDIS_URL is not set: everything is kept in this process and ends with it');
        return startEmbeddedStore();
      },
    },
    {
      provide: Store,
      inject: [Config, Logger, EMBEDDED],
      useFactory: (config: Config, logger: Logger, embedded: EmbeddedStore | undefined): Store => {
        const store = new Store(redisClient(config.redisUrl ?? embedded?.url ?? ''), logger);
        store.connect();
        return store;
      },
    },
  ],
  exports: [Store],
})
export class RedisModule implements OnApplicationShutdown {
  constructor(
    private readonly store: Store,
    @Inject(EMBEDDED) private readonly embedded: EmbeddedStore | undefined,
  ) {}

  async onApplicationShutdown(): Promise<void> {
    this.store.close();
    await this.embedded?.close();
  }
}
