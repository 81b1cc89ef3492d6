import type { Socket } from 'node:net';
import underPressure from '@fastify/under-pressure';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { Connections } from './connections';
import { isManagement } from './management';
import { type Metrics, startAtZero } from '../metrics/metrics';

/**
 * How much a process takes on at once. A busy one has some dozens of requests in flight; a thousand hold some ten
 * megabytes, and with them every call of upstream and every command to Redis is bounded. A request takes its place when its
 * body has arrived: half-sent requests have bounds of their own, so they stop no other request.
 */
export const BOUNDS = {
  inFlight: 1_000,
  connections: 10_000,
  connectionsOfAddress: 2_000,
  /** Bodies have 16 KB: these are 32 MB. */
  unread: 2_000,
  unreadOfAddress: 500,
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
  /** Its body has arrived. False when there is no place for it. */
  readonly arrived: () => boolean;
  readonly answered: () => void;
  readonly gone: () => void;
}

/**
 * Refuses what would be too much by 503 `overloaded`, and cuts off clients that never read an answer. Probes and metrics
 * are never refused: a busy process that was taken for a dead one would leave its load to the others.
 */
export async function shedLoad(
  app: NestFastifyApplication,
  metrics: Metrics,
  bounds: typeof BOUNDS = BOUNDS,
): Promise<void> {
  const fastify = app.getHttpAdapter().getInstance();
  startAtZero(metrics.limitsHit, 'limit', ['in_flight', 'event_loop', 'connections', 'unread', 'pipelined']);
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
      isManagement(request) || performance.now() < judgedFrom
        ? undefined
        : Promise.reject(refused('event_loop', EVENT_LOOP.sampleInterval / 1_000)),
  });

  const connections = new Connections(app.getHttpServer(), bounds, (limit) => {
    metrics.limitsHit.inc({ limit });
  });
  metrics.onScrape(() => {
    metrics.unread.set(connections.unread);
  });

  let inFlight = 0;
  const flights = new WeakMap<FastifyRequest, Flight>();
  /** What is unanswered on each connection. */
  const unanswered = new WeakMap<Socket, Set<Flight>>();
  const onConnection = (socket: Socket): Set<Flight> => {
    const known = unanswered.get(socket);
    if (known) return known;
    const open = new Set<Flight>();
    unanswered.set(socket, open);
    // Answers that wait behind another are never closed themselves.
    socket.once('close', () => {
      for (const flight of open) flight.gone();
    });
    return open;
  };
  const start = (socket: Socket, open: Set<Flight>, weight: 0 | 1, hasBody: boolean): Flight => {
    // A client that reads nothing, or a byte a minute, would hold the answer and the connection for ever.
    const deadline = setTimeout(() => socket.destroy(), bounds.answerWithinMs).unref();
    connections.busy(socket);
    const read = hasBody ? connections.read(socket) : () => undefined;
    let [taken, answered, gone]: [0 | 1, boolean, boolean] = [0, false, false];
    // Both: what a client that hung up has started goes on, calls upstream and holds memory.
    const land = (): void => {
      if (answered && gone) metrics.inFlight.set((inFlight -= taken));
    };
    const flight: Flight = {
      arrived: () => {
        read();
        if (inFlight + weight > bounds.inFlight) return false;
        metrics.inFlight.set((inFlight += taken = weight));
        return true;
      },
      answered: () => {
        if (answered) return;
        answered = true;
        land();
      },
      gone: () => {
        if (gone) return;
        gone = true;
        read();
        clearTimeout(deadline);
        open.delete(flight);
        if (open.size === 0) connections.idle(socket);
        land();
      },
    };
    open.add(flight);
    return flight;
  };

  fastify.addHook('onRequest', (request, reply, done) => {
    const { socket, complete } = request.raw;
    const open = onConnection(socket);
    // Thousands of requests fit into what is read of a connection at once. RFC 9112 section 9.3.2: a client that pipelines
    // must bear that the connection is closed before all are answered. What is left of the read gets no answer either.
    if (open.size >= bounds.onOneConnection || socket.destroyed) {
      if (!socket.destroyed) metrics.limitsHit.inc({ limit: 'pipelined' });
      socket.destroy();
      void reply.hijack();
      return;
    }
    const flight = start(socket, open, isManagement(request) ? 0 : 1, hasBody(request) && !complete);
    flights.set(request, flight);
    reply.raw.once('close', flight.gone);
    done();
  });
  // Behind the body: a request that is still being read does no work yet.
  fastify.addHook('preValidation', (request, _reply, done) => {
    const refusal = flights.get(request)?.arrived() === false ? refused('in_flight', 1) : undefined;
    done(refusal);
  });
  fastify.addHook('onSend', (request, _reply, _body, done) => {
    flights.get(request)?.answered();
    done();
  });
}

function hasBody({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
