import { Controller, Get, Header, Headers, Param, Query, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { ApiError } from '../errors/api-error';
import { encodingFor } from './page-files';
import { Pages, type PageName, type Return } from './pages';
import { sendPage } from './send-page';

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
    sendPage(reply, html, accepted);
  }
}
