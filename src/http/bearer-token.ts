import type { FastifyRequest } from 'fastify';

/** The token of the Authorization header (RFC 6750 section 2.1), not verified yet. */
export function bearerToken(request: FastifyRequest): string | undefined {
  return /^Bearer +([^ ]+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}
