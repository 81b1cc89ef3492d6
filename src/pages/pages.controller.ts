import { Controller, Get, Header, Headers, Param, Query, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { ApiError } from '../errors/api-error';
import { encodingFor, type Encoding } from './page-files';
import { Pages, type PageName, type Return } from './pages';

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

/** The pages for people, and their files. */
@ApiExcludeController()
@Controller()
export class PagesController {
  constructor(private readonly pages: Pages) {}

  @Get()
  root(@Res() reply: FastifyReply): void {
    void reply.redirect('/login', 302);
  }

  @Get('login')
  login(
    @Query('return') given: unknown,
    @Headers('accept-encoding') encoding: string | undefined,
    @Headers('accept-language') language: string | undefined,
    @Res() reply: FastifyReply,
  ): void {
    this.send(reply, 'login', this.pages.returnOf(given), encoding, language);
  }

  @Get('account')
  account(
    @Headers('accept-encoding') encoding: string | undefined,
    @Headers('accept-language') language: string | undefined,
    @Res() reply: FastifyReply,
  ): void {
    this.send(reply, 'account', { kind: 'none' }, encoding, language);
  }

  @Get('pages/:name')
  @Header('Cache-Control', 'public, max-age=31536000, immutable')
  @Header('Vary', 'Accept-Encoding')
  async file(
    @Param('name') name: string,
    @Headers('accept-encoding') accepted: string | undefined,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Buffer> {
    const file = this.pages.files.find(name);
    if (file === undefined) {
      void reply.removeHeader('Cache-Control');
      throw new ApiError('not_found');
    }
    const encoding = encodingFor(accepted);
    if (encoding !== 'identity') void reply.header('Content-Encoding', encoding);
    void reply.header('Content-Type', file.type);
    return file.content(encoding);
  }

  private send(
    reply: FastifyReply,
    page: PageName,
    to: Return,
    accepted: string | undefined,
    language: string | undefined,
  ): void {
    const html = this.pages.render(page, to, language);
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
}

/** A page is made for each request, so it is compressed with little effort: in less than a millisecond. */
function compress(html: string, encoding: Encoding): string | Buffer {
  if (encoding === 'gzip') return gzipSync(html);
  if (encoding === 'identity') return html;
  return brotliCompressSync(html, { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } });
}
