import { Module, type DynamicModule } from '@nestjs/common';
import type { DestinationStream } from 'pino';
import { Config } from '../config/config';
import { Logger } from './logger';

/** A shorter one may be a word of our own lines; production takes none but a client's or Redis's. */
const SHORTEST = 8;
const secrets = ({ knownSecrets }: Config): string[] =>
  knownSecrets.filter(({ length }) => length >= SHORTEST);

/** JSON lines to one destination. */
@Module({})
export class LoggingModule {
  static register(destination: DestinationStream): DynamicModule {
    const logger = {
      provide: Logger,
      inject: [Config],
      useFactory: (config: Config) => {
        const logger = new Logger(config.logLevel, destination, secrets(config));
        config.onSecrets(() => {
          logger.hide(secrets(config));
        });
        return logger;
      },
    };
    return { module: LoggingModule, global: true, providers: [logger], exports: [Logger] };
  }
}
