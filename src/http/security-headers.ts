import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { Config } from '../config/config';

// `default-src` says nothing about base-uri and form-action.
const NOTHING =
  "default-src 'none';object-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'";
const SWAGGER_UI = `${NOTHING};connect-src 'self';img-src 'self' data:;script-src 'self';style-src 'self' 'unsafe-inline'`;

/**
 * Headers that keep browsers from making more of an answer than it is, the same for every answer: built once. A page sets its
 * own `Content-Security-Policy`.
 */
export function addSecurityHeaders(
  adapter: FastifyAdapter,
  { issuer, swagger }: Pick<Config, 'issuer' | 'swagger'>,
): void {
  const headers = {
    'content-security-policy': swagger ? SWAGGER_UI : NOTHING,
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'origin-agent-cluster': '?1',
    'referrer-policy': 'no-referrer',
    ...(issuer.startsWith('https:') && { 'strict-transport-security': 'max-age=31536000' }),
    'x-content-type-options': 'nosniff',
    'x-dns-prefetch-control': 'off',
    'x-download-options': 'noopen',
    'x-frame-options': 'SAMEORIGIN',
    'x-permitted-cross-domain-policies': 'none',
    'x-xss-protection': '0',
  };
  adapter.getInstance().addHook('onRequest', (_request, reply, done) => {
    void reply.headers(headers);
    done();
  });
}
