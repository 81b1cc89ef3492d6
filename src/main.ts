import 'reflect-metadata';
import { createApp } from './app';
import { Config, ConfigError } from './config/config';
import { Lifecycle } from './health/lifecycle';
import { Logger } from './logging/logger';

/** The server drains for at most this long after the delay, so that the whole end stays within 30 seconds. */
const DRAIN_MS = 9_000;

async function main(): Promise<void> {
  const app = await createApp();
  const [config, logger, lifecycle] = [app.get(Config), app.get(Logger), app.get(Lifecycle)];
  await app.listen(config.port, config.host);
  logger.info('otp-login listens', {
    url: await app.getUrl(),
    issuer: config.issuer,
    docs: config.swagger ? '/docs' : 'off',
  });

  /** Readiness says no first, and serving goes on until the load balancer has looked; then the server closes. */
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (lifecycle.ending) process.exit(130);
    lifecycle.end();
    logger.info('Ending', { signal });
    // Nobody balances load in front of a terminal.
    const delaySeconds = signal === 'SIGTERM' ? config.shutdownDelaySeconds : 0;
    await new Promise((resolve) => setTimeout(resolve, delaySeconds * 1_000));
    setTimeout(() => process.exit(0), DRAIN_MS).unref();
    await app.close();
    logger.info('Ended');
    process.exit(0);
  };
  process.on('SIGTERM', (signal) => void end(signal));
  process.on('SIGINT', (signal) => void end(signal));
}

main().catch((error: unknown) => {
  const { code, port } = error as { code?: string; port?: number };
  if (error instanceof ConfigError) console.error(error.message);
  else if (code === 'EADDRINUSE') console.error(`Port ${port} is taken. Set PORT to another one.`);
  else console.error(error instanceof Error ? error.message : 'The service could not start');
  process.exit(1);
});
