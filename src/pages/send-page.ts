import type { FastifyReply } from 'fastify';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { encodingFor, type Encoding } from './page-files';

/**
 * Nothing but the page's own scripts, styles and calls: an injected script does not run, and no page can frame it to steal
 * clicks. Trusted Types stop text from becoming markup even by a mistake of ours.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "form-action 'none'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/** Answers a page, with the headers that keep other pages from it. */
export function sendPage(reply: FastifyReply, html: string, accepted: string | undefined): void {
  const encoding = encodingFor(accepted);
  if (encoding !== 'identity') void reply.header('Content-Encoding', encoding);
  void reply
    .header('Content-Type', 'text/html; charset=utf-8')
    .header('Content-Security-Policy', POLICY)
    .header('Referrer-Policy', 'no-referrer')
    .header('Cross-Origin-Opener-Policy', 'same-origin')
    .header('Cache-Control', 'no-store')
    .header('Vary', 'Accept-Encoding, Accept-Language')
    .send(compress(html, encoding));
}

/** A page is made for each request, so it is compressed with little effort: in less than a millisecond. */
function compress(html: string, encoding: Encoding): string | Buffer {
  if (encoding === 'gzip') return gzipSync(html);
  if (encoding === 'identity') return html;
  return brotliCompressSync(html, { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } });
}
