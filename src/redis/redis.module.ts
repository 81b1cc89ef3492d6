import { Global, Inject, Module, type DynamicModule, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { redisClient, type RedisClient } from './connection';
import { changeCredentials } from './credentials';
import { startEmbeddedStore, type EmbeddedStore } from './embedded';
import { watchMemory } from './memory-gauges';
import { Store, type OnCommand } from './store';

/** An operator that changes a password changes it at Redis within minutes. */
const TRY_AGAIN_MS = 5_000;

const EMBEDDED = Symbol('embedded store');
const COMMAND_TIMEOUT_MS = Symbol('command timeout');

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
      inject: [Config, Logger, Metrics, EMBEDDED, COMMAND_TIMEOUT_MS],
      useFactory: (
        config: Config,
        logger: Logger,
        metrics: Metrics,
        embedded: EmbeddedStore | undefined,
        commandTimeoutMs: number | undefined,
      ): Store => {
        const client = redisClient(config.redisUrl ?? embedded?.url ?? '');
        const onCommand: OnCommand = ({ command, outcome, seconds }) => {
          metrics.redisCommands.observe({ command, outcome }, seconds);
        };
        const store = new Store(client, logger, onCommand, commandTimeoutMs);
        metrics.onScrape(() => {
          metrics.redisAvailable.set(store.available ? 1 : 0);
        });
        watchMemory(store, metrics);
        store.connect();
        followCredentials(client, config, logger, metrics);
        return store;
      },
    },
  ],
  exports: [Store],
})
export class RedisModule implements OnApplicationShutdown {
  /** @param commandTimeoutMs how long a command may take, where it is not the usual time */
  static register(commandTimeoutMs?: number): DynamicModule {
    return {
      module: RedisModule,
      providers: [{ provide: COMMAND_TIMEOUT_MS, useValue: commandTimeoutMs }],
    };
  }

  constructor(
    private readonly store: Store,
    @Inject(EMBEDDED) private readonly embedded: EmbeddedStore | undefined,
  ) {}

  async onApplicationShutdown(): Promise<void> {
    this.store.close();
    await this.embedded?.close();
  }
}

/**
 * Only the user and the password can change while the service runs, not the server: see `SecretFiles`. Refused credentials
 * are tried again until Redis accepts them.
 */
function followCredentials(client: RedisClient, config: Config, logger: Logger, metrics: Metrics): void {
  let current = config.redisUrl;
  if (current === undefined) return;
  const refused = (is: 0 | 1): void => {
    metrics.secretsRefused.set({ source: 'redis' }, is);
  };
  const change = async (redisUrl: string, tries = 0): Promise<void> => {
    if (redisUrl !== current) return;
    let taken = false;
    try {
      taken = await changeCredentials(client, redisUrl);
      if (taken && redisUrl === current) refused(0);
    } catch (error) {
      if (redisUrl !== current) return;
      refused(1);
      if (tries === 0)
        logger.error('Redis refuses the user or the password that REDIS_URL names now', { error });
    }
    // Without a connection Redis has not answered yet.
    if (!taken) setTimeout(() => void change(redisUrl, tries + 1), TRY_AGAIN_MS).unref();
  };
  refused(0);
  config.onSecrets(() => {
    if (config.redisUrl === undefined || config.redisUrl === current) return;
    current = config.redisUrl;
    void change(current);
  });
}
