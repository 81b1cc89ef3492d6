import 'reflect-metadata';
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { Logger as NestLogger } from '@nestjs/common';
import { createApp } from './app';
import { Config, ConfigError } from './config/config';
import { Lifecycle } from './health/lifecycle';
import { Logger } from './logging/logger';
import { redact } from './logging/redact';

/** The whole end stays within 30 seconds. */
const END_WITHIN_MS = 29_000;

async function main(): Promise<void> {
  // Until our logger is there. A start that fails would print Nest's coloured lines among the JSON ones; what went
  // wrong is told below, in one line.
  NestLogger.overrideLogger(false);
  const app = await createApp();
  const [config, logger, lifecycle] = [app.get(Config), app.get(Logger), app.get(Lifecycle)];
  // Node would print all that an error carries to stderr: of a library's, keys and codes.
  process.on('uncaughtException', (error: unknown) => {
    logger.fatal('The service fell over a fault of ours', { error });
    process.exit(1);
  });
  const server = app.getHttpServer();
  const sockets = openSockets(server);
  await app.listen(config.port, config.host);
  logger.info('otp-login listens', {
    url: await app.getUrl(),
    ...(config.managementPort === undefined ? {} : { managementPort: config.managementPort }),
    issuer: config.issuer,
    docs: config.swagger ? '/docs' : 'off',
  });

  /** Readiness says no first, and serving goes on until the load balancer has looked; then the server closes. */
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (lifecycle.ending) {
      // A second Ctrl-C ends the process at once. Supervisors may send SIGTERM to the process and once more to its group:
      // that must not cut the delay short.
      if (signal === 'SIGINT') process.exit(130);
      return;
    }
    lifecycle.end();
    logger.info('Ending', { signal });
    if (signal === 'SIGTERM') await setTimeout(config.shutdownDelaySeconds * 1_000);
    // A send that is under way may take as long as upstream may, and a little.
    const drainMs = Math.min(
      config.upstreamDeadlineMs + 4_000,
      END_WITHIN_MS - config.shutdownDelaySeconds * 1_000,
    );
    void setTimeout(drainMs, undefined, { ref: false }).then(() => process.exit(0));
    const closed = app.close();
    // A terminal has no load balancer in front of it.
    if (signal === 'SIGINT') server.closeAllConnections();
    // Browsers and load balancers open connections in advance. One on which nothing was said yet has no request to lose,
    // but to Node it is not idle: the server would wait for it.
    for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
    await closed;
    logger.info('Ended');
    // A reader that is slow gets the last lines, too; one that hangs is not waited for.
    await Promise.race([new Promise((read) => process.stdout.write('', read)), setTimeout(1_000)]);
    process.exit(0);
  };
  process.on('SIGTERM', (signal) => void end(signal));
  process.on('SIGINT', (signal) => void end(signal));
}

/** Every connection that is open now. */
function openSockets(server: Server): ReadonlySet<Socket> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return sockets;
}

/** What the operator must change, by the name of the setting. */
function startupFault(error: unknown): string {
  if (error instanceof ConfigError) return error.message;
  const fault = error as { code?: string; port?: number; syscall?: string; setting?: string };
  const { code, port, syscall, setting = 'PORT' } = fault;
  if (code === 'EADDRINUSE') return `Port ${port} is taken. Set ${setting} to another one.`;
  if (syscall === 'listen' && code === 'EACCES') {
    return `This user may not listen on port ${port}. Set ${setting} to a port from 1024 on.`;
  }
  if (syscall === 'listen' || syscall === 'getaddrinfo') {
    return `HOST is no address of this machine (${code}). Set HOST to one of its addresses, or to 0.0.0.0 or ::.`;
  }
  return error instanceof Error ? redact(error.message) : 'The service could not start';
}

main().catch((error: unknown) => {
  console.error(startupFault(error));
  process.exit(1);
});
