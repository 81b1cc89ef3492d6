import { bearer, claimsOf } from '../support/tokens';
import {
  call,
  freshNumber,
  login,
  startWorld,
  statusAndCode,
  type Answer,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const BASIC = { authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}` };

let world: World;

beforeAll(async () => {
  world = await startWorld({
    variables: {
      INTROSPECTION_CLIENTS: INTROSPECTOR,
      CORS_ORIGINS: 'https://app.example',
      TRUSTED_PROXIES: '127.0.0.1/32',
    },
    count: 2,
  });
});
afterAll(() => world.close());

const refresh = (refreshToken: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const me = (token: unknown, url = world.url): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(token));
async function form(
  path: string,
  fields: Record<string, string>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return call('POST', `${world.url}/oauth/${path}`, new URLSearchParams(fields).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    ...headers,
  });
}

describe('a refresh token', () => {
  it('POST /auth/refresh exchanges a refresh token for a new one and keeps sub, sid and auth_time', async () => {
    const { body } = await login(world);
    const next = await refresh(body.refreshToken);
    expect(next.status).toBe(200);
    expect(Object.keys(next.body).sort()).toEqual([
      'accessToken',
      'expiresIn',
      'refreshExpiresIn',
      'refreshToken',
      'tokenType',
    ]);
    expect(next.body.refreshToken).not.toBe(body.refreshToken);
    expect(next.body.refreshExpiresIn).toBe(604_800);
    const [before, after] = [claimsOf(body.accessToken), claimsOf(next.body.accessToken)];
    expect([after.sub, after.sid, after.auth_time]).toEqual([before.sub, before.sid, before.auth_time]);
    expect(after.jti).not.toBe(before.jti);
  });

  it('a refresh token that is used again within the grace interval gives the same successor at any instance', async () => {
    const { body } = await login(world);
    const [first, second] = [
      await refresh(body.refreshToken),
      await refresh(body.refreshToken, world.instances[1]?.url),
    ];
    expect(second.status).toBe(200);
    expect(second.body.refreshToken).toBe(first.body.refreshToken);
    expect((await refresh(first.body.refreshToken)).status).toBe(200);
  });

  it('a refresh token that is older than the parent of the current one ends the session at once', async () => {
    const { body } = await login(world);
    const second = await refresh(body.refreshToken);
    const third = await refresh(second.body.refreshToken);
    const reused = await refresh(body.refreshToken);
    expect(statusAndCode(reused)).toEqual([401, 'refresh_token_reused']);
    const after = await refresh(third.body.refreshToken);
    expect(statusAndCode(after)).toEqual([401, 'session_revoked']);
    const answer = await me(third.body.accessToken);
    expect(statusAndCode(answer)).toEqual([401, 'session_revoked']);
  });

  it('POST /auth/refresh refuses a forged refresh token and revokes nothing', async () => {
    const { body } = await login(world);
    const token = String(body.refreshToken);
    const parts = token.split('.');
    const forged = [
      'x',
      '',
      `${token}x`,
      ` ${token}`,
      token.toLowerCase(),
      [parts[0], parts[1], '1', parts[3], parts[4]].join('.'),
      [parts[0], parts[1], '00', parts[3], parts[4]].join('.'),
      token.slice(0, -1) + (token.endsWith('A') ? 'B' : 'A'),
    ];
    for (const text of forged) {
      const answer = await refresh(text);
      expect(statusAndCode(answer)).toEqual([401, 'refresh_token_invalid']);
    }
    expect((await refresh(token)).status).toBe(200);
    expect((await refresh(5)).status).toBe(400);
    const visitor = await call('POST', `${world.url}/auth/refresh`, {});
    expect(statusAndCode(visitor)).toEqual([401, 'not_logged_in']);
  });

  it('a refresh token that is used 40 times at once over two instances is rotated once', async () => {
    const { body } = await login(world);
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, i) => refresh(body.refreshToken, world.instances[i % 2]?.url)),
    );
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
    expect(new Set(answers.map((answer) => answer.body.refreshToken as string)).size).toBe(1);
  });
});

describe('sessions', () => {
  it('GET /auth/sessions lists the sessions of the user and only the network of each address', async () => {
    const phoneNumber = freshNumber();
    await login(world, phoneNumber);
    const { body } = await login(world, phoneNumber);
    const { body: list } = await call(
      'GET',
      `${world.url}/auth/sessions`,
      undefined,
      bearer(body.accessToken),
    );
    expect(list.sessions).toHaveLength(2);
    expect(list.sessions[0]).toMatchObject({
      id: claimsOf(body.accessToken).sid,
      current: true,
      address: '127.0.0.0/24',
    });
    expect(list.sessions[1].current).toBe(false);
  });

  it('DELETE /auth/sessions/{id} ends a session of the caller and never of another user', async () => {
    const [mine, other] = [await login(world), await login(world)];
    const { sid } = claimsOf(other.body.accessToken);
    const stranger = await call(
      'DELETE',
      `${world.url}/auth/sessions/${sid}`,
      undefined,
      bearer(mine.body.accessToken),
    );
    expect(statusAndCode(stranger)).toEqual([404, 'not_found']);
    expect((await me(other.body.accessToken)).status).toBe(200);
    const own = await call(
      'DELETE',
      `${world.url}/auth/sessions/${sid}`,
      undefined,
      bearer(other.body.accessToken),
    );
    expect(own.status).toBe(204);
    const ended = await me(other.body.accessToken);
    expect(statusAndCode(ended)).toEqual([401, 'session_revoked']);
  });

  it('DELETE /auth/sessions ends all sessions, or with others=true all but the current one', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    const path = `${world.url}/auth/sessions`;
    expect(
      (await call('DELETE', `${path}?others=maybe`, undefined, bearer(second.body.accessToken))).status,
    ).toBe(400);
    expect(
      (await call('DELETE', `${path}?others=true`, undefined, bearer(second.body.accessToken))).status,
    ).toBe(204);
    expect((await me(first.body.accessToken)).status).toBe(401);
    expect((await me(second.body.accessToken)).status).toBe(200);
    expect((await call('DELETE', path, undefined, bearer(second.body.accessToken))).status).toBe(204);
    expect((await refresh(second.body.refreshToken)).body.code).toBe('session_revoked');
  });

  it('DELETE /auth/sessions leaves no session alive when 20 refreshes run at the same time', async () => {
    const { body } = await login(world);
    const racing = Array.from({ length: 20 }, (_, i) =>
      refresh(body.refreshToken, world.instances[i % 2]?.url),
    );
    const ending = call('DELETE', `${world.url}/auth/sessions`, undefined, bearer(body.accessToken));
    const answers = await Promise.all(racing);
    expect((await ending).status).toBe(204);
    const tokens = [body, ...answers.filter(({ status }) => status === 200).map((answer) => answer.body)];
    for (const { refreshToken, accessToken } of tokens) {
      expect((await refresh(refreshToken)).status).toBe(401);
      expect((await me(accessToken)).status).toBe(401);
    }
  });

  it('POST /auth/logout ends a session by any of its tokens and always answers 204', async () => {
    const byRefresh = await login(world);
    const byAccess = await login(world);
    const logout = (body: unknown, headers?: Record<string, string>) =>
      call('POST', `${world.url}/auth/logout`, body, headers);
    for (let i = 0; i < 2; i++) {
      expect((await logout({ refreshToken: byRefresh.body.refreshToken })).status).toBe(204);
      expect((await logout({}, bearer(byAccess.body.accessToken))).status).toBe(204);
    }
    expect((await logout({})).status).toBe(204);
    expect((await logout({ refreshToken: 'x' })).status).toBe(204);
    expect((await me(byRefresh.body.accessToken)).body.code).toBe('session_revoked');
    expect((await me(byAccess.body.accessToken)).body.code).toBe('session_revoked');
  });
});

describe('OAuth', () => {
  it('POST /oauth/token exchanges a refresh token', async () => {
    const { body } = await login(world);
    const answer = await form('token', {
      grant_type: 'refresh_token',
      refresh_token: body.refreshToken as string,
    });
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({ token_type: 'Bearer', expires_in: 600 });
    expect((await me(answer.body.access_token)).status).toBe(200);
  });

  it('POST /oauth/token answers with the error codes of RFC 6749', async () => {
    const cases: [Record<string, string>, number, string][] = [
      [{}, 400, 'invalid_request'],
      [{ grant_type: 'password' }, 400, 'unsupported_grant_type'],
      [{ grant_type: 'refresh_token' }, 400, 'invalid_request'],
      [{ grant_type: 'refresh_token', refresh_token: 'x' }, 400, 'invalid_grant'],
      [{ grant_type: 'refresh_token', refresh_token: 'x', client_id: 'other' }, 401, 'invalid_client'],
      [{ grant_type: 'refresh_token', refresh_token: 'x', scope: 'all' }, 400, 'invalid_scope'],
    ];
    for (const [fields, status, error] of cases) {
      const answer = await form('token', fields);
      expect([answer.status, answer.body.error]).toEqual([status, error]);
      expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
      expect(answer.headers.get('cache-control')).toBe('no-store');
    }
    const json = await call('POST', `${world.url}/oauth/token`, { grant_type: 'refresh_token' });
    expect([json.status, json.body.error]).toEqual([400, 'invalid_request']);
  });

  it('POST /oauth/introspect answers only a configured client', async () => {
    const { body } = await login(world);
    const active = await form('introspect', { token: body.accessToken as string }, BASIC);
    expect(active.body).toMatchObject({
      active: true,
      sub: body.user.id,
      client_id: 'otp-login',
      token_type: 'Bearer',
    });
    const [client_id = '', client_secret = ''] = INTROSPECTOR.split(':');
    expect(
      (await form('introspect', { token: body.refreshToken as string, client_id, client_secret })).body
        .active,
    ).toBe(true);
    expect((await form('introspect', { token: 'x' }, BASIC)).body).toEqual({ active: false });
    const twice = await form('introspect', { token: 'x', client_id, client_secret }, BASIC);
    expect([twice.status, twice.body.error]).toEqual([400, 'invalid_request']);
    const refused = await form(
      'introspect',
      { token: body.accessToken as string },
      { authorization: 'Basic eDp5' },
    );
    expect([refused.status, refused.body.error]).toEqual([401, 'invalid_client']);
    expect(refused.headers.get('www-authenticate')).toMatch(/^Basic/);
    await form('revoke', { token: body.refreshToken as string });
    expect((await form('introspect', { token: body.accessToken as string }, BASIC)).body).toEqual({
      active: false,
    });
  });

  it('GET /auth/revocations tells a configured client the ids of ended sessions', async () => {
    const { body } = await login(world);
    const feed = (since = '', headers = {}) =>
      call('GET', `${world.url}/auth/revocations${since}`, undefined, { ...BASIC, ...headers });
    const before = await feed();
    const etag = before.headers.get('etag') ?? '';
    for (const known of [etag, `W/${etag}`, `"other", W/"a,b" ,${etag}`, `W/"x",W/${etag}`, '*'])
      expect([known, (await feed('', { 'if-none-match': known })).status]).toEqual([known, 304]);
    for (const known of ['"other"', 'W/"other"', etag.slice(1, -1), `"${etag.slice(1, 9)}"`, '"*"', '', ','])
      expect([known, (await feed('', { 'if-none-match': known })).status]).toEqual([known, 200]);
    await call('POST', `${world.url}/auth/logout`, { refreshToken: body.refreshToken });
    expect((await feed('', { 'if-none-match': `W/${etag}` })).status).toBe(200);
    const after = await feed(`?since=${before.body.next}`);
    expect(after.body.revoked.map(({ sid }: { sid: string }) => sid)).toContain(
      claimsOf(body.accessToken).sid,
    );
    // A repeat of the logout publishes nothing: resource servers would read the feed anew each time.
    const published = (await feed()).headers.get('etag');
    await call('POST', `${world.url}/auth/logout`, { refreshToken: body.refreshToken });
    await form('revoke', { token: body.accessToken as string });
    expect((await feed('', { 'if-none-match': published })).status).toBe(304);
    const refused = await call('GET', `${world.url}/auth/revocations`);
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([
      401,
      'Basic realm="otp-login"',
    ]);
    expect((await feed('?since=yesterday')).status).toBe(400);
  });
});

describe('failed authentication of clients', () => {
  const RIGHT = BASIC.authorization;
  const basic = (id: string, secret: string): string =>
    `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`;
  const introspect = (authorization: string, address: string, url = world.url): Promise<Answer> =>
    call('POST', `${url}/oauth/introspect`, 'token=x', {
      authorization,
      'content-type': 'application/x-www-form-urlencoded',
      'x-forwarded-for': address,
    });
  const feed = (authorization: string, address: string): Promise<Answer> =>
    call('GET', `${world.url}/auth/revocations`, undefined, { authorization, 'x-forwarded-for': address });

  it('an address is refused after 30 failures in five minutes, for each client and secret', async () => {
    const [guesser, server] = ['198.51.100.7', '198.51.100.8'];
    const statuses: number[] = [];
    for (let i = 0; i < 31; i++) {
      const guess = basic(i % 2 === 0 ? 'api' : `client-${i}`, `guess-${i}`);
      statuses.push((await (i % 3 === 0 ? feed(guess, guesser) : introspect(guess, guesser))).status);
    }
    expect(statuses).toEqual([...Array<number>(30).fill(401), 429]);
    // The right secret is refused too: a guesser must not learn that it is right.
    const refused = await introspect(RIGHT, guesser);
    expect([refused.status, refused.body.error]).toEqual([429, 'temporarily_unavailable']);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(statusAndCode(await feed(RIGHT, guesser))).toEqual([429, 'rate_limited']);
    // Other replicas count the same failures.
    expect((await introspect(basic('api', 'guess'), guesser, world.instances[1]!.url)).status).toBe(429);
    // And the client itself is not locked out at its own address.
    expect((await introspect(RIGHT, server)).status).toBe(200);
    expect((await feed(RIGHT, server)).status).toBe(200);
  });

  it('successes and calls without credentials do not count', async () => {
    const address = '198.51.100.9';
    for (let i = 0; i < 40; i++) {
      expect((await introspect(RIGHT, address)).status).toBe(200);
      expect(
        (await call('GET', `${world.url}/auth/revocations`, undefined, { 'x-forwarded-for': address }))
          .status,
      ).toBe(401);
    }
    expect((await introspect(basic('api', 'guess'), address)).status).toBe(401);
  });

  it('the audit tells of failures once a minute, with their number and the network', async () => {
    const told = (): unknown[] =>
      world.instances[0]!.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter(({ audit }) => audit === 'client.refused')
        .map(({ network, failures }) => [network, failures]);
    const fail = (): Promise<Answer> => introspect(basic('api', 'guess'), '198.51.100.10');
    const stopClockAt = (ms: number): unknown => jest.spyOn(performance, 'now').mockReturnValue(ms);
    const now = performance.now();
    try {
      stopClockAt(now + 60_000);
      await fail();
      const before = told().length;
      stopClockAt(now + 119_999);
      for (let i = 0; i < 5; i++) await fail();
      expect(told()).toHaveLength(before);
      stopClockAt(now + 120_000);
      await fail();
      expect(told().slice(before)).toEqual([['198.51.100.0/24', 6]]);
    } finally {
      jest.restoreAllMocks();
    }
  });
});
