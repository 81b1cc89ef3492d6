import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { ApiError } from '../errors/api-error';
import { isOAuth } from './problem';
import { pathOf } from './routes';

const DEPTH_LIMIT = 16;

const LOGOUT = { path: '/auth/logout', type: 'application/x-logout' };

/** The body of a logout, as far as it says anything. */
export interface LogoutBody {
  refreshToken?: string;
}

/**
 * JSON objects, except at /oauth/*, where the RFCs require forms and nothing else. A logout takes every body: a page that
 * is being closed can send text/plain only (sendBeacon), and a logout that is refused leaves its user logged in.
 */
export function acceptBodies(adapter: FastifyAdapter): void {
  const fastify = adapter.getInstance();
  // `__proto__` and its like are unknown fields: they go nowhere.
  const parseJson = fastify.getDefaultJsonParser('remove', 'remove');
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
    if (isOAuth(request)) {
      done(
        new ApiError('unsupported_media_type', {
          detail: 'Send a form, with the header Content-Type: application/x-www-form-urlencoded.',
        }),
      );
    } else if (body === '') {
      done(null, {});
    } else {
      void parseJson(request, String(body), (error, value) => {
        const fault = error ? 'the body is not JSON, as JSON.stringify writes it' : faultOf(value);
        if (fault === undefined) done(null, withoutNulls(value as object));
        else done(new ApiError('validation_failed', { errors: [{ field: 'body', message: fault }] }));
      });
    }
  });
  fastify.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string' },
    (request, body, done) => {
      if (!isOAuth(request)) {
        done(new ApiError('unsupported_media_type'));
        return;
      }
      const form = new URLSearchParams(String(body));
      const names = [...form.keys()];
      // RFC 6749 section 3.2: parameters must not be included more than once.
      if (new Set(names).size === names.length) done(null, Object.fromEntries(form));
      else done(new ApiError('validation_failed', { detail: 'Send each parameter of the form once.' }));
    },
  );
}

/** Reads JSON and forms; other texts have no fields. */
function readLogout(body: string): LogoutBody {
  let refreshToken: unknown;
  try {
    refreshToken = (JSON.parse(body) as { refreshToken?: unknown } | null)?.refreshToken;
  } catch {
    refreshToken = new URLSearchParams(body).get('refreshToken');
  }
  return typeof refreshToken === 'string' ? { refreshToken } : {};
}

/** Clients write null for what they do not have (`localStorage.getItem`, generated clients): it counts as absent. */
function withoutNulls(body: object): object {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

function faultOf(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return 'the body must be a JSON object';
  return isDeeperThan(DEPTH_LIMIT, value) ? 'the body is nested too deep' : undefined;
}

/** 16 KB hold eight thousand levels, and a recursive function over them runs out of stack. */
function isDeeperThan(levels: number, value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return true;
    level = level.flatMap((item): unknown[] =>
      typeof item === 'object' && item !== null ? Object.values(item) : [],
    );
  }
  return false;
}
