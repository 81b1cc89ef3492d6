import { parse } from 'node:querystring';
import type { FastifyRequest } from 'fastify';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { ApiError } from '../errors/api-error';
import { isOAuth } from './problem';
import { pathOf } from './routes';

const NO_JSON = 'the body is not JSON, as JSON.stringify writes it';
const MOST_PARAMETERS = 50;
const LOGOUT = { path: '/auth/logout', type: 'application/x-logout' };

/** The body of a logout, as far as it says anything. */
export interface LogoutBody {
  refreshToken?: string;
}

/**
 * JSON objects, except at /oauth/*, where the RFCs require forms and nothing else, and the two pages there send JSON. A logout takes every body: a page that
 * is being closed can send text/plain only (sendBeacon), and a logout that is refused leaves its user logged in.
 */
export function acceptBodies(adapter: FastifyAdapter): void {
  const fastify = adapter.getInstance();
  fastify.removeAllContentTypeParsers();
  fastify.addHook('onRequest', (request, _reply, done) => {
    // A body of any type goes to the one parser that refuses nothing, and no parser unpacks it.
    if (pathOf(request) === LOGOUT.path) {
      request.raw.headers['content-type'] = LOGOUT.type;
      delete request.raw.headers['content-encoding'];
    }
    done();
  });
  fastify.addContentTypeParser(LOGOUT.type, { parseAs: 'string' }, (request, body, done) => {
    if (pathOf(request) === LOGOUT.path) done(null, readLogout(String(body)));
    else done(new ApiError('unsupported_media_type'));
  });
  fastify.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (isOAuth(request) && !isOfPage(request)) {
      done(
        new ApiError('unsupported_media_type', {
          detail: 'Send a form, with the header Content-Type: application/x-www-form-urlencoded.',
        }),
      );
    } else {
      const value = body === '' ? {} : readJson(String(body));
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) done(null, value);
      else {
        const message = value === undefined ? NO_JSON : 'the body must be a JSON object';
        done(new ApiError('validation_failed', { errors: [{ field: 'body', message }] }));
      }
    }
  });
  fastify.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string' },
    (request, body, done) => {
      if (!isOAuth(request) || isOfPage(request)) {
        done(new ApiError('unsupported_media_type'));
        return;
      }
      const form = readQuery(String(body));
      // RFC 6749 section 3.2: parameters must not be included more than once.
      if (!Object.values(form).some(Array.isArray)) done(null, form);
      else done(new ApiError('validation_failed', { detail: 'Send each parameter of the form once.' }));
    },
  );
}

/**
 * The parameters of a form or of a query. An attacker fills 16 KB with thousands of them, which are costly to read: those after
 * the first fifty are ignored, as unknown ones are.
 */
export function readQuery(text: string): Record<string, unknown> {
  return { ...parse(text, '&', '=', { maxKeys: MOST_PARAMETERS }) };
}

/** The pages of the hosted login send JSON, which no page of another origin can send unasked (CSRF). */
const isOfPage = (request: FastifyRequest): boolean =>
  ['/oauth/authorize', '/oauth/logout'].includes(pathOf(request));

/** Reads JSON and forms; other texts have no fields. */
function readLogout(body: string): LogoutBody {
  let refreshToken: unknown;
  try {
    refreshToken = (JSON.parse(body) as { refreshToken?: unknown } | null)?.refreshToken;
  } catch {
    ({ refreshToken } = readQuery(body));
  }
  return typeof refreshToken === 'string' ? { refreshToken } : {};
}

/** The value of a text, of which {@link validation} takes the known fields only; undefined if it is not JSON. */
function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
