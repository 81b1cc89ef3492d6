import { type DynamicModule, Global, Module } from '@nestjs/common';
import { ConfigModule as NestConfigModule } from '@nestjs/config';
import { Config, type Environment } from './config';
import { SecretFiles } from './secret-files';

/** Gives every module the one `Config`. The only place that reads `process.env`, through `@nestjs/config`. */
@Global()
@Module({})
export class ConfigModule {
  /**
   * Reads the configuration and registers it. `config` is for the code that composes the application.
   * @param environment all settings when it is given; otherwise `process.env`, and below it the file `.env`.
   * @throws ConfigError with all faults at once.
   */
  static register(environment?: Environment): DynamicModule & { config: Config } {
    let outcome: { files: SecretFiles } | { fault: unknown } | undefined;
    const settings = NestConfigModule.forRoot({
      ignoreEnvFile: environment !== undefined,
      validatePredefined: environment === undefined,
      // ConfigService must not become a second way to the environment.
      skipProcessEnv: true,
      validate(variables) {
        try {
          outcome = { files: new SecretFiles(environment ?? variables) };
        } catch (fault) {
          outcome = { fault };
        }
        // Nest copies what this answers into process.env, for child processes and crash reports to see. It answers
        // nothing, so the secrets of .env stay out of there.
        return {};
      },
    });
    // forRoot is an async function and validates before its first await. Thrown here, a fault is an exception for the
    // caller; within forRoot it would be an unhandled rejection.
    if (outcome === undefined) throw new Error('@nestjs/config no longer validates at once');
    if ('fault' in outcome) throw outcome.fault;
    const { files } = outcome;
    return {
      config: files.config,
      module: ConfigModule,
      imports: [settings],
      providers: [
        { provide: Config, useValue: files.config },
        { provide: SecretFiles, useValue: files },
      ],
      exports: [Config, SecretFiles],
    };
  }
}
