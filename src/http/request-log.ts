import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from '../logging/logger';
import { requestContext } from '../logging/request-context';
import type { Metrics } from '../metrics/metrics';
import { contextOf } from './request-context';

/** Tells of a request that was answered. */
export type Observe = (request: FastifyRequest, reply: FastifyReply) => void;

/** The caller chooses the method: all other methods that Node's parser knows share one label. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/**
 * One line and one observation for every answer. The route's pattern, never the URL: a caller may have put a phone
 * number or a token there, and every unknown path would be a new label. Returns what to call for an answer that no hook
 * sees.
 */
export function observeRequests(adapter: FastifyAdapter, logger: Logger, metrics: Metrics): Observe {
  const observe: Observe = (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown';
    const { method } = request;
    metrics.requests.observe(
      { method: METHODS.has(method) ? method : 'other', route, status: reply.statusCode },
      reply.elapsedTime / 1_000,
    );
    const line = {
      method,
      route,
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 10) / 10,
      ...(reply.outcome === null ? {} : { code: reply.outcome }),
    };
    // By its own: the hook may run in the context of another request of the same connection.
    requestContext.run(contextOf(request), () => {
      // Machines that look every few seconds would drown out people.
      const probe = route.startsWith('/health') || route === '/metrics';
      logger.request(probe ? 'debug' : 'info', line);
    });
  };
  adapter.getInstance().addHook('onResponse', (request, reply, done) => {
    observe(request, reply);
    done();
  });
  return observe;
}
