import type { FastifyRequest } from 'fastify';
import { isSecretName, redact, redactWritten } from '../logging/redact';
import type { RequestContext } from '../logging/request-context';
import { traceIdOf } from '../logging/trace-id';

/** Not one that ends in twelve digits: that is a phone number behind dashes. */
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-(?!\d{12}$)[\da-f]{12}$/;
const contexts = new WeakMap<FastifyRequest, RequestContext>();

/** What the lines of this request say; the same for all of them, whatever the connection carries beside it. */
export function contextOf(request: FastifyRequest): RequestContext {
  const context = contexts.get(request) ?? {
    // The caller's may be a phone number or a key. A UUID is taken as it is: now and then one looks like a number.
    requestId: UUID.test(request.id) ? request.id : redactWritten(redact(request.id)),
    traceId: traceIdOf(request.headers.traceparent),
    secrets: new Set<string>(),
  };
  contexts.set(request, context);
  return context;
}

/** What a request brought as a secret: tokens and codes by the names of their fields, and its credentials. */
export function secretsOf({ body, headers }: FastifyRequest): string[] {
  const fields = typeof body === 'object' && body !== null ? Object.entries(body) : [];
  // A code may have been written as a number. To ask anything else for its text is to ask what the caller made of it.
  const named = fields.flatMap(([name, value]) =>
    isSecretName(name) && (typeof value === 'string' || typeof value === 'number') ? [String(value)] : [],
  );
  return [...named, ...`${headers.authorization ?? ''} ${headers.cookie ?? ''}`.split(/[\s=;,]+/)];
}
