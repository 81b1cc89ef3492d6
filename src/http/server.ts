import { randomUUID } from 'node:crypto';
import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config/config';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { readQuery } from './bodies';
import { problemBody } from './problem';
import { pathOf } from './routes';
import type { OAuthErrorCode } from './oauth-error';
import { conceal, requestContext } from '../logging/request-context';
import { contextOf, secretsOf } from './request-context';

declare module 'fastify' {
  interface FastifyReply {
    /** The error code of the answer, for the log. */
    outcome: ErrorCode | OAuthErrorCode | null;
  }
}

const BODY_LIMIT_BYTES = 16 * 1024;
const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/**
 * The HTTP server. It reads 16 KB of a body and waits ten seconds for a request: a caller that sends more or slower
 * is answered and cut off. Requests that it refuses before there is a route go to `refuse`: no hook sees them.
 */
export function httpServer(
  refuse: (error: Error, request: FastifyRequest, reply: FastifyReply) => void,
  { issuer, keepAliveSeconds }: Pick<Config, 'issuer' | 'keepAliveSeconds'>,
): FastifyAdapter {
  return new FastifyAdapter({
    bodyLimit: BODY_LIMIT_BYTES,
    // A client that reads Retry-After is better off with our answers than with Fastify's own 503.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    // Longer than the load balancer keeps an idle connection. Otherwise the balancer sends a request into a connection
    // that closes, and its client gets a 502.
    keepAliveTimeout: keepAliveSeconds * 1_000,
    rewriteUrl: metadataRewriter(issuer),
    // Nothing moved for longer than an honest request may take: the client reads nothing.
    connectionTimeout: 120_000,
    // Fastify sets this one itself, to none unless it is told so here: a body that never ends would be waited for.
    requestTimeout: 10_000,
    http: { headersTimeout: 10_000, connectionsCheckingInterval: 1_000, requireHostHeader: false },
    // An id that is too long is an unknown id, and answered by its route.
    routerOptions: { maxParamLength: 8_192, querystringParser: readQuery },
    requestIdHeader: false,
    genReqId: requestId,
    frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) => {
      writeStandardHeaders(request, reply);
      refuse(error, request, reply);
    },
    clientErrorHandler: refuseConnection,
  });
}

const METADATA = '/.well-known/oauth-authorization-server';

/**
 * Where an ISSUER has a path, clients look for its metadata at two more places: RFC 8414 section 3 puts the path behind
 * the well-known name, and section 5 keeps the older form that puts it in front.
 */
function metadataRewriter(issuer: string): (request: { url?: string | undefined }) => string {
  const path = new URL(issuer).pathname.replace(/\/+$/, '');
  const places = [METADATA + path, path + METADATA];
  return ({ url = '/' }) => (places.includes(url.split('?', 1)[0] ?? '') ? METADATA : url);
}

/** The caller's id when it can do no harm in a log or a header, else a new one. */
function requestId(request: Pick<IncomingMessage, 'headers'>): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

function writeStandardHeaders(request: FastifyRequest, reply: FastifyReply): void {
  void reply.header('X-Request-Id', request.id);
  // Codes, numbers and tokens must not lie in a shared cache.
  const [, place] = /^\/(auth|oauth|admin)(?:\/|$)/.exec(pathOf(request)) ?? [];
  if (place !== undefined) void reply.header('Cache-Control', 'no-store');
  // RFC 6749 section 5.1 wants both.
  if (place === 'oauth') void reply.header('Pragma', 'no-cache');
}

/** The fault of a head that two servers may understand in two ways, so that one takes a part of a body for a request. */
function faultOfHead({ httpVersion, headers, rawHeaders }: IncomingMessage): string | undefined {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]?.toLowerCase() === 'host') hosts += 1;
  // RFC 9112 section 3.2. Node would answer a missing one by itself, without a body and without an id.
  if (hosts === 0 && httpVersion === '1.1') return 'The Host header is missing: send one.';
  // A proxy may route by one of them while the service reads the other.
  if (hosts > 1) return 'The Host header is there more than once: send one.';
  // RFC 9112 section 6.1: a server that does not know a coding cannot know where the body ends.
  if (!['chunked', undefined].includes(headers['transfer-encoding']?.trim().toLowerCase()))
    return 'The Transfer-Encoding is not supported: send a Content-Length, or chunked alone.';
  // RFC 9110 section 10.1.4.
  if (/\bchunked\b/i.test(String(headers.te ?? '')))
    return 'The TE header must not name chunked: leave it out.';
  return undefined;
}

/** Hooks that every answer passes. */
export function addAnswerHooks(adapter: FastifyAdapter, isEnding: () => boolean): void {
  const fastify = adapter.getInstance();
  fastify.decorateReply('outcome', null);
  fastify.addHook('onRequest', (request, reply, done) => {
    writeStandardHeaders(request, reply);
    const fault = faultOfHead(request.raw);
    if (fault !== undefined) {
      void reply.header('Connection', 'close');
      done(new ApiError('validation_failed', { detail: fault }));
    } else if (!['identity', ''].includes((request.headers['content-encoding'] ?? '').toLowerCase())) {
      // RFC 9110 section 8.4: nothing is unpacked here, so 16 KB are 16 KB.
      done(
        new ApiError('unsupported_media_type', {
          detail: 'The body must not be encoded: send it without Content-Encoding.',
        }),
      );
    } else {
      requestContext.run(contextOf(request), done);
    }
  });
  // Once more behind the body: it arrives in the context of the connection, which pipelined requests share.
  fastify.addHook('preValidation', (request, _reply, done) => {
    const context = contextOf(request);
    for (const secret of secretsOf(request)) conceal(secret, context);
    requestContext.run(context, done);
  });
  fastify.addHook('onSend', (request, reply, _body, done) => {
    // The preflight of CORS is answered before any hook of ours.
    if (!reply.hasHeader('X-Request-Id')) writeStandardHeaders(request, reply);
    // A body that was refused unread would otherwise be read to its end, however long it is.
    const { headers, complete } = request.raw;
    const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
    if ((hasBody && !complete) || isEnding()) void reply.header('Connection', 'close');
    done();
  });
}

/** Bytes that are no HTTP request never become one; they are answered on the bare socket. */
function refuseConnection(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW';
  const tooSlow = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const detail = tooLarge
    ? 'The headers are too large: send less than 16 KB.'
    : tooSlow
      ? 'The request took too long: send all of it within ten seconds.'
      : 'This is not an HTTP request: send one.';
  const problem = new ApiError(tooLarge ? 'payload_too_large' : 'validation_failed', { detail });
  const { status, headers, body } = bareProblem(problem);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('\r\n')}\r\n\r\n${body}`, () =>
    socket.destroy(),
  );
}

/**
 * An expectation that the service does not support (RFC 9110 section 10.1.1). Node would answer it by itself, without a
 * body.
 */
export function refuseExpectations(adapter: FastifyAdapter): void {
  adapter.getHttpServer().on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
    const { status, headers, body } = bareProblem(
      new ApiError('validation_failed', {
        detail: 'The Expect header asks for more than 100-continue: leave it out.',
      }),
    );
    response.writeHead(status, headers).end(body);
  });
}

/** An error where Fastify has no part in it. */
function bareProblem(problem: ApiError): { status: number; headers: Record<string, string>; body: string } {
  const body = JSON.stringify(problemBody(problem));
  const headers = {
    'Content-Type': 'application/problem+json; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    'X-Request-Id': randomUUID(),
    'Cache-Control': 'no-store',
    Connection: 'close',
  };
  return { status: problem.status, headers, body };
}
