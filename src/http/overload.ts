import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import underPressure from '@fastify/under-pressure';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { pathOf } from './routes';
import { type Metrics, startAtZero } from '../metrics/metrics';

/**
 * How much a process takes on at once. A busy one has some dozens of requests in flight; a thousand hold some ten
 * megabytes, and with them every call of upstream and every command to Redis is bounded.
 */
export const BOUNDS = {
  inFlight: 1_000,
  connections: 10_000,
  /** Unanswered requests of one connection. Clients that do not pipeline have one. */
  onOneConnection: 32,
  /** From a request's head to the end of its answer: a send takes 50 s at most; what remains is for reading. */
  answerWithinMs: 120_000,
};

/**
 * The event loop's mean delay. It is near 0 on a good day, and 100 ms on a bad one: above two seconds all answers have
 * become worthless. The mean over four seconds of short turns is not moved by one long stall (a paused machine, a collection
 * of garbage), nor by some hundreds that come at once to a machine that is busy with others, only by a loop that takes two
 * seconds for every turn.
 */
const EVENT_LOOP = { maxEventLoopDelay: 2_000, sampleInterval: 4_000 };

/** A request from its head until it is answered and its answer has left, or has nowhere to go. */
interface Flight {
  readonly answered: () => void;
  readonly gone: () => void;
}

/**
 * Refuses requests above the limits by 503 `overloaded`, before a body is read, and cuts off clients that never read an
 * answer. Probes and metrics are never refused: if a busy process looked dead, the others would get its load.
 */
export async function shedLoad(
  app: NestFastifyApplication,
  metrics: Metrics,
  bounds: typeof BOUNDS = BOUNDS,
): Promise<void> {
  const fastify = app.getHttpAdapter().getInstance();
  startAtZero(metrics.limitsHit, 'limit', ['in_flight', 'event_loop', 'connections', 'pipelined']);
  const refused = (limit: string, retryAfterSeconds: number): ApiError => {
    metrics.limitsHit.inc({ limit });
    return new ApiError('overloaded', { retryAfterSeconds });
  };

  // On a slow machine a start is a stall of seconds, and the sample that holds it would refuse people by a service that says
  // it is ready. The first that lies behind it is that of the second interval.
  let judgedFrom = Infinity;
  fastify.addHook('onListen', (done) => {
    judgedFrom = performance.now() + 2 * EVENT_LOOP.sampleInterval;
    done();
  });
  await app.register(underPressure, {
    ...EVENT_LOOP,
    pressureHandler: (request) =>
      isProbe(request) || performance.now() < judgedFrom
        ? undefined
        : Promise.reject(refused('event_loop', EVENT_LOOP.sampleInterval / 1_000)),
  });

  let inFlight = 0;
  const flights = new WeakMap<FastifyRequest, Flight>();
  /** The unanswered requests of each connection. */
  const connections = new WeakMap<Socket, Set<Flight>>();
  const onConnection = (socket: Socket): Set<Flight> => {
    const known = connections.get(socket);
    if (known) return known;
    const open = new Set<Flight>();
    connections.set(socket, open);
    // Answers that wait behind another are never closed themselves.
    socket.once('close', () => {
      for (const flight of open) flight.gone();
    });
    return open;
  };
  const start = (socket: Socket, open: Set<Flight>, weight: 0 | 1): Flight => {
    // A client that reads nothing, or a byte a minute, would hold the answer and the connection for ever.
    const deadline = setTimeout(() => socket.destroy(), bounds.answerWithinMs).unref();
    metrics.inFlight.set((inFlight += weight));
    let [answered, gone] = [false, false];
    // Both: what a client that hung up has started goes on, calls upstream and holds memory.
    const land = (): void => {
      if (answered && gone) metrics.inFlight.set((inFlight -= weight));
    };
    const flight: Flight = {
      answered: () => {
        if (answered) return;
        answered = true;
        land();
      },
      gone: () => {
        if (gone) return;
        gone = true;
        clearTimeout(deadline);
        open.delete(flight);
        land();
      },
    };
    open.add(flight);
    return flight;
  };

  fastify.addHook('onRequest', (request, reply, done) => {
    const { socket } = request.raw;
    const open = onConnection(socket);
    // Thousands of requests fit into one read of a connection. RFC 9112 section 9.3.2: a client that pipelines must
    // expect that the connection closes before all requests are answered. The rest of the read gets no answer either.
    if (open.size >= bounds.onOneConnection || socket.destroyed) {
      if (!socket.destroyed) metrics.limitsHit.inc({ limit: 'pipelined' });
      socket.destroy();
      void reply.hijack();
      return;
    }
    const weight = isProbe(request) ? 0 : 1;
    if (inFlight + weight > bounds.inFlight) {
      done(refused('in_flight', 1));
    } else {
      const flight = start(socket, open, weight);
      flights.set(request, flight);
      reply.raw.once('close', flight.gone);
      done();
    }
  });
  fastify.addHook('onSend', (request, _reply, _body, done) => {
    flights.get(request)?.answered();
    done();
  });

  const server: Server = app.getHttpServer();
  server.maxConnections = bounds.connections;
  server.on('drop', () => {
    metrics.limitsHit.inc({ limit: 'connections' });
  });
}

function isProbe(request: FastifyRequest): boolean {
  return /^\/(health\/|metrics$)/.test(pathOf(request));
}
