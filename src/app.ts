import cookie from '@fastify/cookie';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { DestinationStream } from 'pino';
import { AppModule } from './app.module';
import type { Environment } from './config/config';
import { ProblemFilter } from './http/problem.filter';
import { Routes } from './http/routes';
import { Lifecycle } from './health/lifecycle';
import { acceptBodies } from './http/bodies';
import { allowCrossOrigin } from './http/cross-origin';
import { separateManagement } from './http/management';
import { serveOpenApi } from './http/openapi';
import { shedLoad } from './http/overload';
import { observeRequests } from './http/request-log';
import { addSecurityHeaders } from './http/security-headers';
import { addAnswerHooks, httpServer, refuseExpectations } from './http/server';
import { validation } from './http/validation';
import { Logger } from './logging/logger';
import { standardOutput } from './logging/standard-output';
import { Metrics } from './metrics/metrics';
import { AddressLimits } from './throttling/address-limits';

export interface AppOptions {
  /** The whole configuration; without it, the process's environment and `.env`. */
  environment?: Environment;
  /** Where JSON lines go; stdout by default. */
  logs?: DestinationStream;
  /** How long a command to Redis may take; 750 ms by default. Tests on a busy machine are more patient. */
  redisTimeoutMs?: number | undefined;
}

/**
 * The Nest application that main, tests and other entry points share, ready to listen. Throws `ConfigError` with every
 * fault of the configuration.
 */
export async function createApp({
  environment,
  logs = standardOutput(),
  redisTimeoutMs,
}: AppOptions = {}): Promise<NestFastifyApplication> {
  const { config, module } = AppModule.register(environment, logs, redisTimeoutMs);
  const routes = new Routes();
  const adapter = httpServer((error, request, reply) => {
    reply.raw.once('finish', () => {
      observe(request, reply);
    });
    void filter.answer(error, request, reply);
  }, config);
  adapter.getInstance().addHook('onRoute', ({ url, method }) => {
    routes.add(url, method);
  });
  const app = await NestFactory.create<NestFastifyApplication>(module, adapter, {
    bodyParser: false,
    bufferLogs: true,
    abortOnError: false,
  });
  const logger = app.get(Logger);
  app.useLogger(logger);
  const addressLimits = app.get(AddressLimits);
  const filter = new ProblemFilter(routes, logger, (error, request) =>
    addressLimits.countRefused(error, request),
  );
  for (const warning of config.warnings) logger.warn(warning);

  refuseExpectations(adapter);
  acceptBodies(adapter);
  await app.register(cookie);
  addAnswerHooks(adapter, () => app.get(Lifecycle).ending);
  if (config.managementPort !== undefined) separateManagement(adapter, config.managementPort, config.host);
  const observe = observeRequests(adapter, logger, app.get(Metrics));
  app.useGlobalPipes(validation(config));
  app.useGlobalFilters(filter);
  allowCrossOrigin(app, config, logger);
  addSecurityHeaders(adapter, config);
  // Behind the hooks of CORS and of these headers: a page must be able to read that we are busy.
  await shedLoad(app, app.get(Metrics));
  if (config.swagger) serveOpenApi(app);
  return app;
}
