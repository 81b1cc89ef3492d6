import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { Logger } from '../logging/logger';
import type { Metrics } from '../metrics/metrics';

/**
 * One line and one observation for every answer. The route's pattern, never the URL: a caller may have put a phone
 * number or a token there, and every unknown path would be a new label.
 */
export function observeRequests(adapter: FastifyAdapter, logger: Logger, metrics: Metrics): void {
  adapter.getInstance().addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? 'unknown';
    const seconds = reply.elapsedTime / 1_000;
    const { method } = request;
    metrics.requests.observe({ method, route, status: reply.statusCode }, seconds);
    if (!route.startsWith('/health') && route !== '/metrics') {
      logger.info('request', {
        // By itself: the hook may run in the context of another request of the same connection.
        requestId: request.id,
        method,
        route,
        status: reply.statusCode,
        durationMs: Math.round(reply.elapsedTime * 10) / 10,
        ...(reply.outcome === null ? {} : { code: reply.outcome }),
      });
    }
    done();
  });
}
