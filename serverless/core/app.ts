import { randomUUID } from 'node:crypto';
import { Hono, type Context } from 'hono';
import { describeClient } from '../../src/auth/client';
import { ApiError } from '../../src/errors/api-error';
import { canonicalAddress } from '../../src/net/addresses';
import { toApiError, type Edition } from './edition';
import * as http from './http';
import { log } from './log';
import { Sends } from './send';
import { Sessions, type Session } from './sessions';
import { Verifications } from './verify';

const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;
const EXPOSED = 'retry-after, x-request-id, date, www-authenticate';
const ALLOWED_HEADERS = 'authorization, content-type, idempotency-key, x-request-id, traceparent, tracestate';

/** The paths and their methods, so that a wrong method is told apart from an unknown path. */
const ROUTES: [path: RegExp, methods: string][] = [
  [/^\/auth\/(send-otp|verify-otp|refresh|logout)$/, 'POST'],
  [/^\/auth\/otp\/[^/]+$/, 'GET'],
  [/^\/auth\/me$/, 'GET'],
  [/^\/auth\/sessions$/, 'DELETE, GET'],
  [/^\/auth\/sessions\/[^/]+$/, 'DELETE'],
  [/^\/\.well-known\/jwks\.json$/, 'GET'],
  [/^\/health\/live$/, 'GET'],
];

/** The HTTP interface: the routes of login and sessions of the service, with the same bodies and errors. */
export function createApp(edition: Edition, addressOf: (context: Context) => string | undefined): Hono {
  const app = new Hono();
  const sends = new Sends(edition);
  const verifications = new Verifications(edition);
  const sessions = new Sessions(edition);
  const address = (context: Context): string => canonicalAddress(addressOf(context) ?? '') ?? '0.0.0.0';
  const current = (context: Context): Promise<Session> => sessions.current(http.bearerToken(context));

  app.use(async (context, next) => {
    const given = context.req.header('x-request-id') ?? '';
    context.header('X-Request-Id', REQUEST_ID.test(given) ? given : randomUUID());
    context.header('X-Content-Type-Options', 'nosniff');
    // Codes, numbers and tokens must not lie in a shared cache.
    if (context.req.path.startsWith('/auth/')) context.header('Cache-Control', 'no-store');
    const origin = context.req.header('origin');
    context.header('Vary', 'Origin');
    if (origin !== undefined && edition.allowsOrigin(origin)) {
      context.header('Access-Control-Allow-Origin', origin);
      context.header('Access-Control-Allow-Credentials', 'true');
      context.header('Access-Control-Expose-Headers', EXPOSED);
    }
    if (context.req.method === 'OPTIONS' && origin !== undefined) {
      context.header('Access-Control-Allow-Methods', 'GET, POST, DELETE');
      context.header('Access-Control-Allow-Headers', ALLOWED_HEADERS);
      context.header('Access-Control-Max-Age', '600');
      return context.body(null, 204);
    }
    return next();
  });

  app.post('/auth/send-otp', async (context) => {
    const phone = http.readSend(await http.readJsonBody(context));
    const key = http.idempotencyKey(context);
    await edition.admitAddress('send', address(context));
    return context.json(edition.responses.ofSend(phone, await sends.send(phone, key)));
  });

  app.get('/auth/otp/:requestId', async (context) => {
    await edition.admitAddress('status', address(context));
    return context.json(
      edition.responses.ofStatus(await verifications.status(context.req.param('requestId'))),
    );
  });

  app.post('/auth/verify-otp', async (context) => {
    const body = http.readVerify(await http.readJsonBody(context));
    const { requestId, otpCode, tokenDelivery, deviceName } = body;
    edition.responses.checkLength(otpCode);
    const key = http.idempotencyKey(context);
    const from = address(context);
    const places = await edition.admitAddress('verify', from);
    const origin = context.req.header('origin');
    const byCookie = tokenDelivery === 'cookie';
    // A page of another origin must not get the cookie set (login CSRF).
    if (byCookie && origin !== undefined && !edition.allowsOrigin(origin)) {
      throw new ApiError('origin_not_allowed');
    }
    const verified = await verifications.verify(requestId, otpCode, key, tokenDelivery);
    const headers = { 'user-agent': context.req.header('user-agent') };
    const client = { ...describeClient({ headers }, from), deviceName };
    const [session] = await Promise.all([sessions.open(verified, client), edition.giveBack(places)]);
    const { refreshToken, ...tokens } = await sessions.issue(session);
    if (byCookie) http.setCookie(context, refreshToken, tokens.refreshExpiresIn);
    return context.json({
      verified: true,
      tokenType: 'Bearer',
      ...tokens,
      ...(byCookie ? {} : { refreshToken }),
      user: { id: session.subject, phoneNumber: session.phoneNumber },
    });
  });

  app.post('/auth/refresh', async (context) => {
    const given = http.readRefreshToken(await http.readJsonBody(context));
    const key = http.idempotencyKey(context);
    // A token in the body takes precedence: then the cookie was only sent along.
    const byCookie = given === undefined;
    const token = given ?? http.readCookie(context, edition);
    if (token === undefined) throw new ApiError('not_logged_in');
    try {
      const { refreshToken, ...tokens } = await sessions.refresh(token, key);
      if (byCookie) http.setCookie(context, refreshToken, tokens.refreshExpiresIn);
      return context.json({ tokenType: 'Bearer', ...tokens, ...(byCookie ? {} : { refreshToken }) });
    } catch (error) {
      // Only an error that ends the session: a 503 must not end it.
      if (byCookie && error instanceof ApiError && error.status === 401) http.clearCookie(context);
      throw error;
    }
  });

  app.post('/auth/logout', async (context) => {
    const text = await http.readText(context);
    const cookie = http.findCookie(context, edition);
    const byCookie = cookie.token !== undefined && cookie.allowed;
    const given = [refreshTokenIn(text), http.bearerToken(context), byCookie ? cookie.token : undefined];
    const owners = await sessions.sessionsOf(given.filter((token) => token !== undefined));
    // A page of another origin must not log users out (CSRF). Beside a valid token the cookie was only sent along.
    if (cookie.token !== undefined && !byCookie && owners.length === 0) {
      throw new ApiError('origin_not_allowed');
    }
    for (const { subject, sessionId } of owners) await sessions.end(subject, sessionId);
    if (byCookie) http.clearCookie(context);
    return context.body(null, 204);
  });

  app.get('/auth/me', async (context) => {
    const { subject, phoneNumber, id, authenticatedAt } = await current(context);
    const at = new Date(authenticatedAt).toISOString();
    return context.json({ id: subject, phoneNumber, sessionId: id, authenticatedAt: at });
  });

  app.get('/auth/sessions', async (context) => {
    const { id: own, subject } = await current(context);
    const time = (ms: number): string => new Date(ms).toISOString();
    const listed = await sessions.list(subject);
    return context.json({
      sessions: listed.map(
        ({ id, createdAt, lastUsedAt, expiresAt, device, deviceName, address: network }) => ({
          ...{ id, current: id === own, createdAt: time(createdAt), lastUsedAt: time(lastUsedAt) },
          ...{ expiresAt: time(expiresAt), device, deviceName, address: network },
        }),
      ),
    });
  });

  app.delete('/auth/sessions/:id', async (context) => {
    const { subject } = await current(context);
    // A session of another user is not found either: the answer must not reveal that it exists.
    if (!(await sessions.end(subject, context.req.param('id')))) throw new ApiError('not_found');
    return context.body(null, 204);
  });

  app.delete('/auth/sessions', async (context) => {
    const { subject, id } = await current(context);
    const others = context.req.query('others');
    if (others !== undefined && others !== 'true' && others !== 'false') {
      const errors = [{ field: 'others', message: 'others must be true or false' }];
      throw new ApiError('validation_failed', { errors });
    }
    await sessions.endAll(subject, others === 'true' ? id : undefined);
    return context.body(null, 204);
  });

  app.get('/.well-known/jwks.json', (context) => {
    context.header('Cache-Control', 'public, max-age=300');
    return context.json({ keys: [...edition.settings.keys.byKid.values()].map(({ jwk }) => jwk) });
  });

  app.get('/health/live', (context) => context.json({ status: 'ok' }));

  app.notFound((context) => {
    const allow = ROUTES.find(([path]) => path.test(context.req.path))?.[1];
    if (allow === undefined) {
      const detail = 'No such route: the serverless edition has the routes of login and sessions only.';
      return http.writeProblem(context, new ApiError('not_found', { detail }));
    }
    context.header('Allow', allow);
    const detail = `Use ${allow.replace(', ', ' or ')} for this path.`;
    return http.writeProblem(context, new ApiError('method_not_allowed', { detail }));
  });

  // Without this, Hono prints the error with its message to the log, and answers a text.
  app.onError((thrown, context) => {
    const error = toApiError(thrown);
    if (error.code === 'internal_error') log('error', 'A request failed', { error: error.cause });
    return http.writeProblem(context, error);
  });
  return app;
}

/** A page that is being closed can send text only, and a logout that is refused leaves its user logged in. */
function refreshTokenIn(body: string): string | undefined {
  let token: unknown;
  try {
    token = (JSON.parse(body) as { refreshToken?: unknown } | null)?.refreshToken;
  } catch {
    token = new URLSearchParams(body).get('refreshToken');
  }
  return typeof token === 'string' ? token : undefined;
}
