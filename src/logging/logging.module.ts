import { Module, type DynamicModule } from '@nestjs/common';
import type { DestinationStream } from 'pino';
import { Config } from '../config/config';
import { Logger } from './logger';

/** JSON lines to one destination. */
@Module({})
export class LoggingModule {
  static register(destination: DestinationStream): DynamicModule {
    const logger = {
      provide: Logger,
      inject: [Config],
      useFactory: (config: Config) => new Logger(config.logLevel, destination),
    };
    return { module: LoggingModule, global: true, providers: [logger], exports: [Logger] };
  }
}
