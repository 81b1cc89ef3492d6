import { createHash } from 'node:crypto';
import type { FastifyReply } from 'fastify';

const ENTITY_TAGS = /(?:W\/)?("[\x21\x23-\x7e\x80-\xff]*")/g;

/**
 * Sets the `ETag` of this text, and the status 304 if the request's `If-None-Match` holds it. The comparison is the weak
 * one (RFC 9110 section 13.1.2), because a proxy that compresses a response makes its tag weak. A caller that gets true
 * answers without a body.
 *
 * @example if (isNotModified(reply, JSON.stringify(jwks))) return undefined;
 */
export function isNotModified(reply: FastifyReply, text: string): boolean {
  const etag = `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`;
  void reply.header('ETag', etag);
  const known = reply.request.headers['if-none-match']?.trim() ?? '';
  // A tag may hold a comma, so the list is searched for tags and not split.
  const matches = known === '*' || [...known.matchAll(ENTITY_TAGS)].some(([, tag]) => tag === etag);
  if (matches) void reply.status(304);
  return matches;
}
