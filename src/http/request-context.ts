import type { FastifyRequest } from 'fastify';
import { isSecretName, redact, redactWritten } from '../logging/redact';
import type { RequestContext } from '../logging/request-context';
import { traceIdOf } from '../logging/trace-id';

/** Not one that ends in twelve digits: that is a phone number behind dashes. */
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-(?!\d{12}$)[\da-f]{12}$/;
/** The fields of a body that are searched; an honest caller sends five at most. */
const MOST_FIELDS = 20;
const contexts = new WeakMap<FastifyRequest, RequestContext>();

/** The fields of this request's log lines, the same for all of them. */
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

/**
 * The secrets of a request: its credential and Idempotency-Key, then the fields of its body with names of secrets. Those
 * of the body come last and are few, because a stranger's junk must not push out known secrets.
 */
export function secretsOf({ body, headers, cookies }: FastifyRequest): string[] {
  const fields = typeof body === 'object' && body !== null ? Object.entries(body).slice(0, MOST_FIELDS) : [];
  // A code may have been written as a number. To ask anything else for its text is to ask what the caller made of it.
  const named = fields.flatMap(([name, value]) =>
    isSecretName(name) && (typeof value === 'string' || typeof value === 'number') ? [String(value)] : [],
  );
  const credential = headers.authorization?.slice(0, 4_096).split(' ').at(-1) ?? '';
  const key = headers['idempotency-key'];
  // Null until the cookie's parser has run.
  const all = Object.entries((cookies as typeof cookies | null) ?? {});
  const refresh = all.find(([name]) => name.endsWith('refresh'))?.[1];
  return [credential, refresh ?? '', typeof key === 'string' ? key : '', ...named.flatMap(spellingsOf)];
}

/** A library may repeat a phone number in an error: as it was sent, without its plus, and without its 91. */
function spellingsOf(text: string): string[] {
  const [, national] = /^\+?91([6-9]\d{9})$/.exec(text) ?? [];
  return national === undefined ? [text] : [text, `91${national}`, national];
}

/** The token of the Authorization header (RFC 6750 section 2.1), not verified yet. */
export function bearerToken(request: FastifyRequest): string | undefined {
  return /^Bearer +([^ ]+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}
