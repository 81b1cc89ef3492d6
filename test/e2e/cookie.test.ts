import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { keysOf } from '../support/keys';
import { newSigningKey } from '../support/signing-keys';
import { sessionKeyOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const APP = 'https://app.example';
const ADMIN = 'https://admin.example:8443';
const OWN = 'https://login.example';
const APP_SHELL = 'capacitor://localhost';

let world: World;
let production: Instance;
let raw: Redis;
let keys: string;

beforeAll(async () => {
  keys = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  writeFileSync(join(keys, '20250101T0000Z-test.pem'), newSigningKey());
  const variables: Variables = {
    ISSUER: OWN,
    CORS_ORIGINS: `${APP},${ADMIN},${APP_SHELL}`,
    JWT_KEYS_DIR: keys,
    STARTMESSAGING_CONTRACT: 'provider',
  };
  world = await startWorld({ variables, count: 2 });
  production = await anotherInstance(world, {
    ...variables,
    NODE_ENV: 'production',
    BUDGET_PAISE_PER_DAY: '10000000',
  });
  raw = new Redis(world.redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await production.close();
  await world.close();
  rmSync(keys, { recursive: true });
});

/** The device cookie is in test/e2e/device-cookie.test.ts. */
const cookiesOf = ({ headers }: Answer): string[] =>
  headers.getSetCookie().filter((cookie) => !/^(__Host-)?device=/.test(cookie));
/** The value of the one cookie that was set. */
function cookieOf(answer: Answer): string {
  const [cookie = '', ...more] = cookiesOf(answer);
  expect(more).toEqual([]);
  return /^__Host-refresh=([^;]*)/.exec(cookie)?.[1] ?? '';
}
/** Name and value, then the attributes in one order. */
const parts = (cookie: string): string[] => {
  const [pair = '', ...attributes] = cookie.split('; ');
  return [pair, ...attributes.sort()];
};
function expectCleared(answer: Answer): void {
  expect(cookiesOf(answer)).toHaveLength(1);
  const [pair, ...attributes] = parts(cookiesOf(answer)[0] ?? '');
  expect(pair).toBe('__Host-refresh=');
  // Browsers drop a cookie by the name, path and flags that it was set with.
  expect(attributes.filter((attribute) => !attribute.startsWith('Expires='))).toEqual([
    'HttpOnly',
    'Max-Age=0',
    'Path=/',
    'SameSite=Strict',
    'Secure',
  ]);
  for (const attribute of attributes)
    if (attribute.startsWith('Expires=')) expect(Date.parse(attribute.slice(8))).toBeLessThan(Date.now());
}

/** A login whose refresh token goes into the cookie. */
async function cookieLogin(
  url = world.url,
  headers: Record<string, string> = { origin: APP },
  { upstream } = world,
): Promise<Answer> {
  const phoneNumber = freshNumber();
  const sent = await sendOtp(url, phoneNumber);
  const otpCode = textedCode(upstream, phoneNumber);
  const body = { requestId: sent.body.requestId, otpCode, tokenDelivery: 'cookie' };
  return call('POST', `${url}/auth/verify-otp`, body, headers);
}
interface CookieCall {
  /** Null leaves the header out. */
  origin?: string | null;
  url?: string | undefined;
  body?: unknown;
  contentType?: string;
}
/** What a browser sends from a page of this origin. */
function byCookie(
  path: 'refresh' | 'logout',
  cookie: string,
  { origin = APP, url = world.url, body = {}, contentType }: CookieCall = {},
): Promise<Answer> {
  return call('POST', `${url}/auth/${path}`, body, {
    cookie: `theme=dark; __Host-refresh=${cookie}; lang=en`,
    ...(origin === null ? {} : { origin }),
    ...(contentType === undefined ? {} : { 'content-type': contentType }),
  });
}

describe('the cookie', () => {
  it('the cookie __Host-refresh is HttpOnly, Secure and SameSite=Strict, and lives as long as its token', async () => {
    const first = await cookieLogin();
    expect(first.status).toBe(200);
    const next = await byCookie('refresh', cookieOf(first));
    expect(next.status).toBe(200);
    for (const answer of [first, next]) {
      expect(cookiesOf(answer)).toHaveLength(1);
      expect(parts(cookiesOf(answer)[0] ?? '')).toEqual([
        expect.stringMatching(/^__Host-refresh=[\w.-]{60,200}$/),
        'HttpOnly',
        `Max-Age=${answer.body.refreshExpiresIn}`,
        'Path=/',
        'SameSite=Strict',
        'Secure',
      ]);
      expect(answer.body.refreshExpiresIn).toBe(604_800);
      expect(answer.headers.get('cache-control')).toBe('no-store');
    }
    // Near the absolute limit no more than what is left.
    await raw.hincrby(sessionKeyOf(first), 'authenticated', -2_591_000_000);
    const last = await byCookie('refresh', cookieOf(next));
    expect(cookiesOf(last)[0]).toMatch(new RegExp(`; Max-Age=${last.body.refreshExpiresIn}(;|$)`));
    expect(last.body.refreshExpiresIn).toBeLessThanOrEqual(1_000);
  });

  it('the refresh token in the cookie is in no response body and in no log', async () => {
    const first = await cookieLogin();
    const second = await byCookie('refresh', cookieOf(first));
    const third = await byCookie('refresh', cookieOf(second), { url: world.instances[1]?.url });
    const ended = await byCookie('logout', cookieOf(third));
    const refused = await byCookie('refresh', cookieOf(third));
    expect([first, second, third, ended, refused].map(({ status }) => status)).toEqual([
      200, 200, 200, 204, 401,
    ]);
    const bodies = [first, second, third, ended, refused].map(({ body }) => JSON.stringify(body)).join('\n');
    const logs = world.instances.flatMap((instance) => instance.logs).join('');
    for (const answer of [first, second, third]) {
      expect(answer.body).not.toHaveProperty('refreshToken');
      const token = cookieOf(answer);
      for (const secret of [token, token.slice(-43)]) {
        expect(bodies).not.toContain(secret);
        expect(logs).not.toContain(secret);
      }
    }
  });

  it('verify-otp sets a cookie only for tokenDelivery=cookie, and refuses every other value', async () => {
    expect(cookiesOf(await login(world))).toEqual([]);
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const otpCode = textedCode(world.upstream, phoneNumber);
    for (const tokenDelivery of ['Cookie', '', {}, true, ['cookie'], 'cookie '])
      expect(
        statusAndCode(
          await call('POST', `${world.url}/auth/verify-otp`, {
            requestId: body.requestId,
            otpCode,
            tokenDelivery,
          }),
        ),
      ).toEqual([400, 'validation_failed']);
  });

  it('a login in cookie mode ends the session of the cookie that it replaces, and no other session', async () => {
    const [old, other] = [await cookieLogin(), await cookieLogin()];
    const headers = { origin: APP, cookie: `__Host-refresh=${cookieOf(old)}` };
    const next = await cookieLogin(world.url, headers);
    expect(statusAndCode(await byCookie('refresh', cookieOf(old)))).toEqual([401, 'session_revoked']);
    for (const alive of [other, next]) expect((await byCookie('refresh', cookieOf(alive))).status).toBe(200);
    const ending = world.instances
      .flatMap(({ logs }) => logs)
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .find(({ audit, reason }) => audit === 'session.ended' && reason === 'replaced');
    expect(ending).toMatchObject({ subject: old.body.user.id, outcome: 'ended' });
  });

  it('a login ends no session for a cookie without an origin, for an invalid cookie and for a repeat of itself', async () => {
    const old = await cookieLogin();
    // No browser sends a cookie without an Origin in a POST.
    await cookieLogin(world.url, { cookie: `__Host-refresh=${cookieOf(old)}` });
    expect((await cookieLogin(world.url, { origin: APP, cookie: '__Host-refresh=x' })).status).toBe(200);
    const refreshed = await byCookie('refresh', cookieOf(old));
    expect(refreshed.status).toBe(200);
    const phoneNumber = freshNumber();
    const sent = await sendOtp(world.url, phoneNumber);
    const otpCode = textedCode(world.upstream, phoneNumber);
    const verify = (cookie: string): Promise<Answer> =>
      call(
        'POST',
        `${world.url}/auth/verify-otp`,
        { requestId: sent.body.requestId, otpCode, tokenDelivery: 'cookie' },
        { origin: APP, cookie: `__Host-refresh=${cookie}`, 'idempotency-key': 'repeat-of-a-login-0001' },
      );
    const first = await verify('none');
    const again = await verify(cookieOf(first));
    expect([again.status, again.body.user]).toEqual([200, first.body.user]);
    expect((await byCookie('refresh', cookieOf(again))).status).toBe(200);
  });

  it('POST /oauth/token and GET /auth/me take no token from the cookie', async () => {
    const cookie = `__Host-refresh=${cookieOf(await cookieLogin())}`;
    const headers = { cookie, origin: APP, 'content-type': 'application/x-www-form-urlencoded' };
    const token = await call('POST', `${world.url}/oauth/token`, 'grant_type=refresh_token', headers);
    expect([token.status, token.body.error]).toEqual([400, 'invalid_request']);
    expect((await call('GET', `${world.url}/auth/me`, undefined, { cookie, origin: APP })).status).toBe(401);
  });
});

const FOREIGN = [
  null,
  'null',
  '',
  'https://app.example.evil.example',
  'https://evil-app.example',
  'https://sub.app.example',
  'https://app.exampl',
  'https://app.examplee',
  'https://app.example:443',
  'https://app.example:8443',
  'http://app.example',
  'HTTPS://APP.EXAMPLE',
  'https://App.example',
  'https://app.example/',
  'https://app.example.',
  'https://user@app.example',
  `${APP}, https://evil.example`,
  `${APP} ${ADMIN}`,
  'https://admin.example',
  'https://admin.example:8444',
  'https://admin.example:84433',
  'http://login.example',
  'https://login.example:3000',
  'https://login.example.evil.example',
  'https://localhost:3000',
  'http://127.0.0.2:3000',
  'http://127.0.0.1.evil.example',
  'http://[::2]:3000',
  'https://127.0.0.1:3000',
  'capacitor://localhost.evil.example',
  'ionic://localhost',
  'http://LOCALHOST:3000',
  'http://localhost:',
  'http://localhost:3000/',
  'http://localhost.evil.example',
  'http://localhost:3000.evil.example',
  'http://evil.example#http://localhost:3000',
  'file://',
  '*',
];
const LOCAL = [
  'http://localhost',
  'http://localhost:3000',
  'http://localhost:5173',
  'http://127.0.0.1',
  'http://127.0.0.1:5173',
  'http://[::1]:5173',
];

describe.each([
  ['in development', () => world.url, [APP, ADMIN, OWN, APP_SHELL, ...LOCAL], FOREIGN],
  ['in production', () => production.url, [APP, ADMIN, OWN, APP_SHELL], [...FOREIGN, ...LOCAL]],
])('a call by cookie %s', (where, at, allowed, foreign) => {
  it(`a refresh by cookie ${where} is served to each allowed origin`, async () => {
    let answer = await cookieLogin(at());
    for (const origin of allowed) {
      answer = await byCookie('refresh', cookieOf(answer), { origin, url: at() });
      expect([origin, answer.status]).toEqual([origin, 200]);
    }
    for (const origin of allowed) {
      const ended = await byCookie('logout', cookieOf(await cookieLogin(at(), { origin })), {
        origin,
        url: at(),
      });
      expect([origin, ended.status]).toEqual([origin, 204]);
    }
  });

  it(`a refresh or logout by cookie ${where} is refused to a foreign or missing origin, and changes nothing`, async () => {
    const answer = await cookieLogin(at());
    const cookie = cookieOf(answer);
    const before = await raw.hgetall(sessionKeyOf(answer));
    for (const origin of foreign)
      for (const path of ['refresh', 'logout'] as const) {
        const refused = await byCookie(path, cookie, { origin, url: at() });
        expect([path, origin, ...statusAndCode(refused)]).toEqual([path, origin, 403, 'origin_not_allowed']);
        expect(cookiesOf(refused)).toEqual([]);
      }
    expect(await raw.hgetall(sessionKeyOf(answer))).toEqual(before);
    expect((await byCookie('refresh', cookie, { url: at() })).status).toBe(200);
  });

  it(`verify-otp ${where} refuses a foreign origin the cookie and takes no attempt, and serves a caller without an origin`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(at(), phoneNumber);
    const requestId = body.requestId as string;
    const otpCode = textedCode(world.upstream, phoneNumber);
    const { challenge } = keysOf(requestId);
    const before = await raw.hgetall(challenge);
    const calls = world.upstream.calls.length;
    const verify = (code: string, headers: Record<string, string>): Promise<Answer> =>
      call(
        'POST',
        `${at()}/auth/verify-otp`,
        { requestId, otpCode: code, tokenDelivery: 'cookie' },
        { 'idempotency-key': 'one-and-the-same', ...headers },
      );
    for (const origin of foreign) {
      if (origin === null) continue;
      for (const code of [otpCode, wrongCode(otpCode)]) {
        const refused = await verify(code, { origin });
        expect([origin, ...statusAndCode(refused)]).toEqual([origin, 403, 'origin_not_allowed']);
        expect(cookiesOf(refused)).toEqual([]);
      }
    }
    expect(await raw.hgetall(challenge)).toEqual(before);
    expect(world.upstream.calls).toHaveLength(calls);
    const served = await verify(otpCode, {});
    expect(served.status).toBe(200);
    expect(cookieOf(served)).not.toBe('');
  });

  it(`a refresh by cookie ${where} needs a JSON content type, or nothing changes`, async () => {
    const answer = await cookieLogin(at());
    const cookie = cookieOf(answer);
    const before = await raw.hgetall(sessionKeyOf(answer));
    const others = [
      ['text/plain', '{}'],
      ['text/plain;application/json', '{}'],
      ['application/x-www-form-urlencoded', 'a=b'],
      ['multipart/form-data; boundary=x', '--x--'],
      ['application/json-seq', '{}'],
      ['application/jsonx', '{}'],
      ['text/json', '{}'],
      ['text/plain', ''],
      [undefined, undefined],
    ] as const;
    for (const [type, body] of others) {
      const refused = await call('POST', `${at()}/auth/refresh`, body, {
        cookie: `__Host-refresh=${cookie}`,
        origin: APP,
        ...(type === undefined ? {} : { 'content-type': type }),
      });
      expect([type, ...statusAndCode(refused)]).toEqual([type, 415, 'unsupported_media_type']);
      expect(cookiesOf(refused)).toEqual([]);
    }
    expect(await raw.hgetall(sessionKeyOf(answer))).toEqual(before);
    let next = answer;
    for (const type of ['application/json', 'application/json; charset=utf-8', 'Application/JSON']) {
      next = await byCookie('refresh', cookieOf(next), { url: at(), contentType: type });
      expect([type, next.status]).toEqual([type, 200]);
    }
    expect((await byCookie('refresh', cookieOf(next), { url: at(), body: '' })).status).toBe(200);
  });
});

describe('a token in the body', () => {
  it('POST /auth/refresh uses the token in the body from any origin, and leaves the cookie alone', async () => {
    const [mine, sentAlong] = [await login(world), await cookieLogin()];
    const before = await raw.hgetall(sessionKeyOf(sentAlong));
    let token = mine.body.refreshToken as string;
    for (const origin of [APP, 'https://evil.example', null]) {
      const answer = await byCookie('refresh', cookieOf(sentAlong), {
        origin,
        body: { refreshToken: token },
      });
      expect(answer.status).toBe(200);
      expect(sessionKeyOf(answer)).toBe(sessionKeyOf(mine));
      expect(cookiesOf(answer)).toEqual([]);
      token = answer.body.refreshToken as string;
    }
    const refused = await byCookie('refresh', cookieOf(sentAlong), { body: { refreshToken: 'x' } });
    expect(statusAndCode(refused)).toEqual([401, 'refresh_token_invalid']);
    expect(cookiesOf(refused)).toEqual([]);
    for (const refreshToken of [5, {}, [cookieOf(sentAlong)]]) {
      const malformed = await byCookie('refresh', cookieOf(sentAlong), { body: { refreshToken } });
      expect(statusAndCode(malformed)).toEqual([400, 'validation_failed']);
    }
    expect(await raw.hgetall(sessionKeyOf(sentAlong))).toEqual(before);
  });

  it('POST /auth/logout with a token in the body ends the session of that token and not the one of the cookie', async () => {
    for (const origin of ['https://evil.example', 'null', null]) {
      const [mine, sentAlong] = [await login(world), await cookieLogin()];
      const ended = await byCookie('logout', cookieOf(sentAlong), {
        origin,
        body: { refreshToken: mine.body.refreshToken },
      });
      expect([ended.status, cookiesOf(ended)]).toEqual([204, []]);
      expect(await raw.hget(sessionKeyOf(mine), 'revoked')).toBe('1');
      expect((await byCookie('refresh', cookieOf(sentAlong))).status).toBe(200);
    }
  });
});

describe('the cookie is cleared', () => {
  it('POST /auth/logout clears the cookie, also when its session has ended or its token is invalid', async () => {
    const answer = await cookieLogin();
    for (const cookie of [cookieOf(answer), cookieOf(answer), 'nonsense', '']) {
      const ended = await byCookie('logout', cookie);
      expect(ended.status).toBe(204);
      expectCleared(ended);
    }
    expect(await raw.hget(sessionKeyOf(answer), 'revoked')).toBe('1');
  });

  it('POST /auth/refresh clears the cookie with every 401 response', async () => {
    const reused = await cookieLogin();
    await byCookie('refresh', cookieOf(reused));
    await raw.hincrby(sessionKeyOf(reused), 'rotated', -61_000);
    const expired = await cookieLogin();
    await raw.del(sessionKeyOf(expired));
    const cases = [
      [cookieOf(reused), 'refresh_token_reused'],
      [cookieOf(reused), 'session_revoked'],
      [cookieOf(expired), 'session_expired'],
      [`${cookieOf(expired)}x`, 'refresh_token_invalid'],
      ['nonsense', 'refresh_token_invalid'],
    ] as const;
    for (const [cookie, code] of cases) {
      const answer = await byCookie('refresh', cookie);
      expect(statusAndCode(answer)).toEqual([401, code]);
      expectCleared(answer);
    }
  });

  it('a 503 response does not clear the cookie, and the session goes on when Redis is back', async () => {
    const own = await startWorld({
      ownRedis: true,
      variables: { ISSUER: OWN, CORS_ORIGINS: APP, JWT_KEYS_DIR: keys },
    });
    try {
      const cookie = cookieOf(await cookieLogin(own.url, { origin: APP }, own));
      const expectAway = async (path: 'refresh' | 'logout'): Promise<void> => {
        const away = await byCookie(path, cookie, { url: own.url });
        expect([path, ...statusAndCode(away)]).toEqual([path, 503, 'store_unavailable']);
        expect(away.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
        expect(cookiesOf(away)).toEqual([]);
      };
      own.redis.pause();
      await expectAway('refresh');
      own.redis.resume();
      // The rotation whose answer was lost was carried out: the parent is within its grace.
      let back!: Answer;
      await until(async () => {
        back = await byCookie('refresh', cookie, { url: own.url });
        return back.status !== 503;
      }, 'Redis');
      expect(back.status).toBe(200);
      await own.redis.kill();
      await expectAway('refresh');
      await expectAway('logout');
    } finally {
      own.redis.resume();
      await own.close();
    }
  });
});

describe('tabs that share the cookie', () => {
  it('tabs that share the cookie never log each other out, in any order of their requests and responses', async () => {
    const other = world.instances[1]?.url;
    let jar = cookieOf(await cookieLogin());
    const tab = (url: string | undefined, cookie: string): Promise<Answer> =>
      byCookie('refresh', cookie, { url: url ?? world.url });
    for (let round = 0; round < 12; round++) {
      const held = jar;
      // In every fourth round one tab is answered before the others have sent: they hold the parent then.
      const early = round % 4 === 0 ? [await tab(world.url, held)] : [];
      const racing = [tab(world.url, held), tab(other, held), ...(round % 3 ? [tab(other, held)] : [])];
      const answers = [...early, ...(await Promise.all(racing))];
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      const cookies = answers.map(cookieOf);
      expect(new Set(cookies).size).toBe(1);
      expect(cookies[0]).not.toBe(held);
      // Now and then no answer arrives, and the jar keeps the parent.
      if (round % 5 === 0) expect((await tab(world.url, held)).status).toBe(200);
      jar = cookies[round % cookies.length] ?? '';
    }
    expect((await byCookie('logout', jar)).status).toBe(204);
  });
});

describe('CORS', () => {
  const preflight = (origin: string, url = world.url, path = '/auth/refresh'): Promise<Answer> =>
    call('OPTIONS', url + path, undefined, {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type,idempotency-key,authorization',
    });
  const list = (header: string | null): string[] =>
    (header ?? '')
      .toLowerCase()
      .split(',')
      .map((entry) => entry.trim())
      .sort();

  it('the service answers a preflight request of an allowed origin with that origin and the allowed headers', async () => {
    for (const origin of [APP, ADMIN, OWN, APP_SHELL, ...LOCAL])
      for (const path of ['/auth/refresh', '/auth/verify-otp', '/auth/sessions/x', '/oauth/token']) {
        const { status, headers } = await preflight(origin, world.url, path);
        expect(status).toBe(204);
        expect(headers.get('access-control-allow-origin')).toBe(origin);
        expect(headers.get('access-control-allow-credentials')).toBe('true');
        expect(list(headers.get('access-control-allow-headers'))).toEqual([
          'authorization',
          'content-type',
          'idempotency-key',
          'traceparent',
          'tracestate',
          'x-request-id',
        ]);
        expect(list(headers.get('access-control-allow-methods'))).toEqual(
          expect.arrayContaining(['delete', 'get', 'post']),
        );
        expect(list(headers.get('vary'))).toContain('origin');
      }
  });

  it('a page of an allowed origin may read responses and errors', async () => {
    const headers = { origin: APP };
    const answers = [
      await call('GET', `${world.url}/.well-known/jwks.json`, undefined, headers),
      await call('GET', `${world.url}/auth/me`, undefined, headers),
      await call('GET', `${world.url}/nowhere`, undefined, headers),
      await call('PUT', `${world.url}/auth/me`, undefined, headers),
      await call('POST', `${world.url}/auth/send-otp`, '{', headers),
      await call('POST', `${world.url}/auth/send-otp`, 'x'.repeat(20_000), headers),
      await call('POST', `${world.url}/auth/send-otp`, 'x', { ...headers, 'content-type': 'text/plain' }),
      await cookieLogin(),
    ];
    expect(answers.map(({ status }) => status)).toEqual([200, 401, 404, 405, 400, 413, 415, 200]);
    for (const answer of answers) {
      expect(answer.headers.get('access-control-allow-origin')).toBe(APP);
      expect(answer.headers.get('access-control-allow-credentials')).toBe('true');
      expect(list(answer.headers.get('access-control-expose-headers'))).toEqual([
        'date',
        'retry-after',
        'www-authenticate',
        'x-request-id',
      ]);
      expect(list(answer.headers.get('vary'))).toContain('origin');
    }
  });

  it('a page of a foreign origin may read nothing, and in production localhost is a foreign origin', async () => {
    const cases: [string, string][] = [
      ...FOREIGN.filter((origin) => origin !== null).map((origin): [string, string] => [world.url, origin]),
      ...LOCAL.map((origin): [string, string] => [production.url, origin]),
    ];
    for (const [url, origin] of cases) {
      const answers = [
        await preflight(origin, url),
        await call('GET', `${url}/.well-known/jwks.json`, undefined, { origin }),
        await call('POST', `${url}/auth/refresh`, {}, { origin }),
      ];
      for (const { headers } of answers) {
        for (const name of ['origin', 'credentials', 'headers', 'methods'])
          expect([origin, name, headers.get(`access-control-allow-${name}`)]).toEqual([origin, name, null]);
        // A shared cache must not hand this answer to a page that is allowed.
        expect(list(headers.get('vary'))).toContain('origin');
      }
    }
  });

  describe('the log of refused origins', () => {
    let instance: Instance;
    beforeEach(async () => {
      instance = await anotherInstance(world, { CORS_ORIGINS: APP });
    });
    afterEach(() => instance.close());
    const ask = (origin: string) => call('GET', `${instance.url}/health/live`, undefined, { origin });
    const warned = () =>
      instance.logs
        .map((line) => JSON.parse(line) as { level: string; msg: string; origin?: string })
        .filter(({ level, msg }) => level === 'warn' && msg.includes('CORS_ORIGINS'));

    it('the log names each refused origin once, with the setting, and no allowed one', async () => {
      const refused = ['https://a.example', 'https://b.example:8443', 'ionic://localhost', 'null'];
      for (const origin of [...refused, APP, LOCAL[1]!, ...refused]) await ask(origin);
      await preflight(refused[0]!, instance.url);
      expect(warned().map(({ origin }) => origin)).toEqual(refused);
    });

    it('the log does not repeat the text of a header that is not an origin', async () => {
      for (const text of ['code 482910', `https://${'a'.repeat(300)}.example`, 'x']) await ask(text);
      expect(warned().map(({ origin }) => origin)).toEqual(['not an origin']);
    });

    it('the log ends after 100 refused origins, and says so', async () => {
      for (let i = 0; i < 105; i++) await ask(`https://a${i}.example`);
      expect(warned()).toHaveLength(101);
      expect(warned().at(-1)).toEqual(expect.objectContaining({ msg: expect.stringContaining('Too many') }));
    });
  });
});
