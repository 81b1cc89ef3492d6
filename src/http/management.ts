import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { once } from 'node:events';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { Connections } from './connections';
import { pathOf } from './routes';

/** Prometheus and the kubelet have a few connections. */
const CONNECTIONS = 100;

/** The probes and the metrics. */
export function isManagement(request: FastifyRequest): boolean {
  return /^\/(health\/|metrics$)/.test(pathOf(request));
}

/**
 * Serves the probes and the metrics on a listener of their own, and 404 for them on the main one. Clients of the main port
 * can then neither read the metrics nor take the connections of the liveness probe, whose failure restarts the process.
 */
export function separateManagement(adapter: FastifyAdapter, port: number, host: string): void {
  const fastify = adapter.getInstance();
  const sockets = new WeakSet<Socket>();
  fastify.addHook('onRequest', (request, _reply, done) => {
    const here = isManagement(request) === sockets.has(request.raw.socket);
    done(here ? undefined : new ApiError('not_found'));
  });
  const server = createServer(
    { requestTimeout: 10_000, headersTimeout: 10_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      fastify.routing(request, response);
    },
  );
  server.on('connection', (socket: Socket) => sockets.add(socket));
  keepConnections(server);
  // Before the main port listens, so that a port that is taken ends the start.
  fastify.addHook('onReady', async () => {
    server.listen(port, host);
    await once(server, 'listening').catch((error: unknown) => {
      throw Object.assign(error as Error, { setting: 'MANAGEMENT_PORT' });
    });
  });
  // Last: while requests are still being answered, the process must not be taken for a dead one.
  fastify.addHook('onClose', async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  });
}

function keepConnections(server: Server): void {
  const bounds = { connections: CONNECTIONS, connectionsOfAddress: CONNECTIONS, unread: CONNECTIONS };
  const connections = new Connections(server, { ...bounds, unreadOfAddress: CONNECTIONS }, () => undefined);
  server.on('request', ({ socket }, response) => {
    connections.busy(socket);
    response.once('close', () => {
      connections.idle(socket);
    });
  });
}
