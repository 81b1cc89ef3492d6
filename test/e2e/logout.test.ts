import { Redis } from 'ioredis';
import { bearer, claimsOf, sessionKeyOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  login,
  startWorld,
  statusAndCode,
  type Answer,
  type World,
} from '../support/world';

const APP = 'https://app.example';
const FOREIGN = 'https://evil.example';

let world: World;
let raw: Redis;
beforeAll(async () => {
  world = await startWorld({ variables: { CORS_ORIGINS: APP } });
  raw = new Redis(world.redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await world.close();
});

const logout = (body?: unknown, headers: Record<string, string> = {}): Promise<Answer> =>
  call('POST', `${world.url}/auth/logout`, body, headers);
const cookie = (token: unknown, origin?: string): Record<string, string> => ({
  cookie: `__Host-refresh=${String(token)}`,
  ...(origin === undefined ? {} : { origin }),
});
const lives = async (session: Answer): Promise<boolean> =>
  (await raw.hexists(sessionKeyOf(session), 'authenticated')) === 1;
const cleared = ({ headers }: Answer): boolean =>
  headers.getSetCookie().some((each) => each.startsWith('__Host-refresh=;'));

/** Bodies that clients and proxies send, none of which names a session. */
const BODIES: [string | undefined, string | undefined][] = [
  [undefined, undefined],
  ['application/json', ''],
  ['application/json', '{}'],
  ['application/json', 'null'],
  ['application/json', '[]'],
  ['application/json', '"text"'],
  ['application/json', '7'],
  ['application/json', '{"refreshToken":'],
  ['application/json', '{"refreshToken":""}'],
  ['application/json', '{"refreshToken":null}'],
  ['application/json', '{"refreshToken":7}'],
  ['application/json', '{"refreshToken":["x"]}'],
  ['application/json', '{"refreshToken":"x"}'],
  ['application/json', '{"__proto__":{"refreshToken":"x"},"constructor":7}'],
  ['application/json', '['.repeat(8_000)],
  ['application/json; charset=utf-16', '{}'],
  ['application/x-www-form-urlencoded', 'refreshToken=x&refreshToken=y'],
  ['application/x-www-form-urlencoded', '%zz=%'],
  ['multipart/form-data; boundary=x', '--x\r\n\r\n--x--'],
  ['text/plain;charset=UTF-8', 'bye'],
  ['text/plain', '{}'],
  ['text/plain', ''],
  ['application/octet-stream', '\u0000\u0001'],
  ['application/x-logout', 'x'],
  ['nonsense', 'x'],
  ['', 'x'],
];

describe('a body that names no session', () => {
  test.each(BODIES)('POST /auth/logout answers 204 to a body of type %s: %.40j', async (type, body) => {
    const headers = type === undefined ? undefined : { 'content-type': type };
    expect((await logout(body, headers)).status).toBe(204);
    // A useless body outweighs no credential.
    const [byBearer, byCookie] = [await login(world), await login(world)];
    expect((await logout(body, { ...headers, ...bearer(byBearer.body.accessToken) })).status).toBe(204);
    const answer = await logout(body, { ...headers, ...cookie(byCookie.body.refreshToken, APP) });
    expect([answer.status, cleared(answer)]).toEqual([204, true]);
    expect([await lives(byBearer), await lives(byCookie)]).toEqual([false, false]);
  });

  test('POST /auth/logout answers 204 to a body that is compressed', async () => {
    const { body } = await login(world);
    const headers = { 'content-encoding': 'gzip', ...bearer(body.accessToken) };
    expect((await logout('{}', headers)).status).toBe(204);
  });

  test('POST /auth/logout answers 204 to a body of 16 KB and 413 to a longer one, whatever their type', async () => {
    for (const type of ['application/json', 'text/plain', 'application/x-www-form-urlencoded', 'nonsense']) {
      const session = await login(world);
      const headers = { 'content-type': type, ...bearer(session.body.accessToken) };
      const refused = await logout('x'.repeat(16 * 1024 + 1), headers);
      expect([type, ...statusAndCode(refused)]).toEqual([type, 413, 'payload_too_large']);
      expect(await lives(session)).toBe(true);
      expect((await logout('x'.repeat(16 * 1024), headers)).status).toBe(204);
      expect(await lives(session)).toBe(false);
    }
  });
});

describe('credentials', () => {
  test.each([
    ['application/json', (token: string) => JSON.stringify({ refreshToken: token })],
    ['text/plain;charset=UTF-8', (token: string) => JSON.stringify({ refreshToken: token })],
    ['application/x-www-form-urlencoded', (token: string) => `refreshToken=${token}`],
  ])('POST /auth/logout ends the session of a refresh token in a body of type %s', async (type, text) => {
    const session = await login(world);
    expect((await logout(text(String(session.body.refreshToken)), { 'content-type': type })).status).toBe(
      204,
    );
    expect(await lives(session)).toBe(false);
  });

  test('POST /auth/logout ends the session of every valid credential of the call, and clears the cookie', async () => {
    const [one, two, three] = [await login(world), await login(world), await login(world)];
    const answer = await logout(
      { refreshToken: one.body.refreshToken },
      { ...bearer(two.body.accessToken), ...cookie(three.body.refreshToken, APP) },
    );
    expect([answer.status, cleared(answer)]).toEqual([204, true]);
    expect(await Promise.all([one, two, three].map(lives))).toEqual([false, false, false]);
  });

  test('POST /auth/logout ends the session of a valid Bearer token beside the token of an ended session', async () => {
    const [ended, living] = [await login(world), await login(world)];
    await logout({ refreshToken: ended.body.refreshToken });
    const answer = await logout({ refreshToken: ended.body.refreshToken }, bearer(living.body.accessToken));
    expect([answer.status, await lives(living)]).toEqual([204, false]);
  });

  test('POST /auth/logout ends one session once when the cookie and the Bearer token are of the same session', async () => {
    const session = await login(world);
    const answer = await logout(
      {},
      {
        ...bearer(session.body.accessToken),
        ...cookie(session.body.refreshToken, APP),
      },
    );
    expect([answer.status, cleared(answer), await lives(session)]).toEqual([204, true, false]);
    const { sid } = claimsOf(session.body.accessToken);
    const endings = world.instances[0]!.logs.filter(
      (line) => line.includes('"session.ended"') && line.includes(sid),
    );
    expect(endings).toHaveLength(1);
  });

  test('POST /auth/logout answers 403 only where a cookie of a foreign origin is the only credential', async () => {
    for (const origin of [FOREIGN, 'null', undefined]) {
      const [mine, foreign] = [await login(world), await login(world)];
      const sent = cookie(foreign.body.refreshToken, origin);
      for (const [body, headers] of [
        [{}, {}],
        [{ refreshToken: 'x' }, bearer('x')],
      ] as const) {
        const refused = await logout(body, { ...sent, ...headers });
        expect([origin, ...statusAndCode(refused)]).toEqual([origin, 403, 'origin_not_allowed']);
        expect(refused.headers.getSetCookie()).toEqual([]);
      }
      const answer = await logout({}, { ...sent, ...bearer(mine.body.accessToken) });
      expect([answer.status, answer.headers.getSetCookie()]).toEqual([204, []]);
      expect([await lives(mine), await lives(foreign)]).toEqual([false, true]);
    }
  });
});

describe('COOKIE_INSECURE', () => {
  const insecure = (answer: Answer): string[] => answer.headers.getSetCookie();
  const loginByCookie = async (url: string, origin: string): Promise<Answer> => {
    const session = await login(world);
    return call(
      'POST',
      `${url}/auth/refresh`,
      {},
      { origin, cookie: `refresh=${String(session.body.refreshToken)}` },
    );
  };

  test('with COOKIE_INSECURE and an http ISSUER on loopback the cookie is named refresh and has no Secure', async () => {
    for (const ISSUER of ['http://localhost:3000', 'http://127.0.0.1:3000', 'http://[::1]:3000']) {
      const instance = await anotherInstance(world, { COOKIE_INSECURE: 'true', ISSUER });
      try {
        const refreshed = await loginByCookie(instance.url, ISSUER);
        expect(refreshed.status).toBe(200);
        expect(insecure(refreshed)).toEqual([
          expect.stringMatching(/^refresh=[\w.-]+; Max-Age=\d+; Path=\/; HttpOnly; SameSite=Strict$/),
        ]);
        // The other name is not read there.
        const session = await login(world);
        const other = await call(
          'POST',
          `${instance.url}/auth/refresh`,
          {},
          {
            ...cookie(session.body.refreshToken, ISSUER),
          },
        );
        expect(statusAndCode(other)).toEqual([401, 'not_logged_in']);
      } finally {
        await instance.close();
      }
    }
  });

  test.each([
    ['COOKIE_INSECURE unset', { ISSUER: 'http://localhost:3000' }],
    ['an ISSUER with TLS', { ISSUER: 'https://localhost:3000', COOKIE_INSECURE: 'true' }],
    ['an ISSUER on another host', { ISSUER: 'http://login.example', COOKIE_INSECURE: 'true' }],
    [
      'an ISSUER that only looks like loopback',
      { ISSUER: 'http://127.0.0.1.example', COOKIE_INSECURE: 'true' },
    ],
  ])('with %s a cookie named refresh is never read or set', async (_, variables) => {
    const instance = await anotherInstance(world, { ...variables, CORS_ORIGINS: APP });
    try {
      const refused = await loginByCookie(instance.url, APP);
      expect(statusAndCode(refused)).toEqual([401, 'not_logged_in']);
      expect(insecure(refused)).toEqual([]);
      const warned = instance.logs.some((line) => line.includes('COOKIE_INSECURE has no effect'));
      expect(warned).toBe('COOKIE_INSECURE' in variables);
      const session = await login(world);
      const ended = await call(
        'POST',
        `${instance.url}/auth/logout`,
        {},
        {
          origin: APP,
          cookie: `refresh=${String(session.body.refreshToken)}`,
        },
      );
      expect([ended.status, insecure(ended), await lives(session)]).toEqual([204, [], true]);
    } finally {
      await instance.close();
    }
  });
});
