import { Catch, HttpException, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Logger } from '../logging/logger';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { OAuthError } from './oauth-error';
import { writeProblem } from './problem';
import type { Routes } from './routes';

// Errors of Fastify before Nest gets the request.
const FASTIFY: Record<string, ErrorCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'validation_failed',
  FST_ERR_CTP_INVALID_JSON_BODY: 'validation_failed',
  FST_ERR_BAD_URL: 'validation_failed',
  FST_ERR_MAX_PARAM_LENGTH: 'not_found',
};
const BY_STATUS: Record<number, ErrorCode> = {
  400: 'validation_failed',
  // The server of Swagger UI's files answers it for a path that leads out of its folder, such as /docs/..%5c.
  403: 'not_found',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'payload_too_large',
  414: 'validation_failed',
  415: 'unsupported_media_type',
};

const METHOD = /^[A-Z]{1,10}$/;

/**
 * Counts a refused request at its client address, and answers the error that the caller gets: its own, or `rate_limited`.
 */
export type CountRefused = (
  error: ApiError | OAuthError,
  request: FastifyRequest,
) => Promise<ApiError | OAuthError>;

/** Turns every exception into the one error body. No other code writes error bodies, so none can leak. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  constructor(
    private readonly routes: Routes,
    private readonly logger: Logger,
    private readonly countRefused: CountRefused = (error) => Promise.resolve(error),
  ) {}

  async catch(thrown: unknown, host: ArgumentsHost): Promise<void> {
    const http = host.switchToHttp();
    await this.answer(thrown, http.getRequest<FastifyRequest>(), http.getResponse<FastifyReply>());
  }

  /** For what Fastify reports outside of Nest, too. */
  async answer(thrown: unknown, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    // The caller is gone, or the answer has begun: no error body can be sent.
    if (reply.sent) return;
    const hungUp = request.raw.destroyed && !request.raw.complete;
    const own = hungUp ? new ApiError('validation_failed') : toApiError(thrown);
    const error = await this.countRefused(own, request);
    // The service's own 404 is the last word: on the main port there is no /health beside MANAGEMENT_PORT, for any method.
    if (error.code === 'not_found' && !(thrown instanceof ApiError)) {
      const { method } = request;
      const allowed = this.routes.methodsOf(request.url);
      // RFC 9110 section 15.5.6: a 405 says what is allowed.
      if (allowed.length > 0 && !allowed.includes(method)) {
        void reply.header('Allow', allowed.join(', '));
        const detail = `Use ${allowed.join(' or ')} for this path, not ${METHOD.test(method) ? method : 'this method'}.`;
        this.write(reply, new ApiError('method_not_allowed', { detail }));
        return;
      }
      if (allowed.length === 0) {
        this.write(reply, new ApiError('not_found', { detail: noRoute(method, request.url) }));
        return;
      }
    }
    this.write(reply, error);
  }

  private write(reply: FastifyReply, error: ApiError | OAuthError): void {
    if (error.code === 'internal_error') {
      this.logger.error('A request failed by our fault', { error: error.cause });
    }
    reply.outcome = error.code;
    writeProblem(reply, error);
  }
}

/** Names the route that was asked for, if its path cannot be anything else: a path may hold a token or a phone number. */
function noRoute(method: string, url: string): string {
  const path = url.replace(/[?#].*$/s, '');
  // Errors of /admin repeat nothing: when it is switched off, each of its routes answers like an unknown one.
  const plain = /^(?!\/admin)(\/[a-z_.-]{1,24}|\/v\d)+\/?$/i.test(path) && METHOD.test(method);
  return `${plain ? `No route ${method} ${path}` : 'No such route'}: check the path in docs/api.md.`;
}

function toApiError(thrown: unknown): ApiError | OAuthError {
  if (thrown instanceof ApiError || thrown instanceof OAuthError) return thrown;
  if (thrown instanceof HttpException) {
    return new ApiError(BY_STATUS[thrown.getStatus()] ?? 'internal_error', { cause: thrown });
  }
  const { code, statusCode } = (thrown ?? {}) as { code?: unknown; statusCode?: unknown };
  if (typeof code === 'string' && code.startsWith('FST_')) {
    const known = FASTIFY[code] ?? (typeof statusCode === 'number' ? BY_STATUS[statusCode] : undefined);
    return new ApiError(known ?? 'internal_error', { cause: thrown });
  }
  return new ApiError('internal_error', { cause: thrown });
}
