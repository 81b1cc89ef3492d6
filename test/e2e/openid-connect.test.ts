import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import { freePort } from '../support/free-port';
import { newSigningKey } from '../support/signing-keys';
import { bearer } from '../support/tokens';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

const SECRET = 'client-secret-of-an-app-0123456789-abcdef';
const BACK = 'https://shop.example/callback';
const AFTER = 'https://shop.example/bye';
const RESOURCE = 'https://orders.example.com';
const CLIENTS = [
  {
    id: 'spa',
    name: 'The shop',
    redirect_uris: [BACK, 'http://127.0.0.1/cb'],
    post_logout_redirect_uris: [AFTER],
  },
  {
    id: 'web',
    name: 'The back office',
    secret_sha256: createHash('sha256').update(SECRET).digest('hex'),
    redirect_uris: ['https://office.example/callback?tenant=1', 'https://office.example/oidc'],
  },
  {
    id: 'envoy',
    name: 'The proxy',
    secret_sha256: createHash('sha256').update(SECRET).digest('hex'),
    redirect_uris: ['https://envoy.example/callback'],
    pkce: 'optional',
  },
];

let world: World;
let instance: Instance;
let issuer: string;
let keys: string;

beforeAll(async () => {
  world = await startWorld({ count: 0 });
  keys = mkdtempSync(join(tmpdir(), 'otp-login-oidc-'));
  writeFileSync(join(keys, '20250101T0000Z-access.pem'), newSigningKey());
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  writeFileSync(join(keys, '20250101T0000Z-id.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const port = await freePort();
  instance = await startInstance(
    {
      ISSUER: `http://127.0.0.1:${port}`,
      OAUTH_CLIENTS: JSON.stringify(CLIENTS),
      RESOURCE_AUDIENCES: RESOURCE,
      JWT_KEYS_DIR: keys,
      LOGIN_PAGE: 'true',
      LIMIT_VERIFY_IP: '100000/60',
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
    },
    port,
  );
  issuer = instance.url;
});
afterAll(async () => {
  await instance.close();
  await world.close();
  rmSync(keys, { recursive: true });
});

interface Page {
  cookie: string;
  accessToken: string;
  userId: string;
  phoneNumber: string;
}

/** A user who has logged in on the login page. */
async function pageOfALogin(phoneNumber = freshNumber()): Promise<Page> {
  const { body } = await sendOtp(issuer, phoneNumber);
  const otpCode = textedCode(world.upstream, phoneNumber);
  const answer = await call(
    'POST',
    `${issuer}/auth/verify-otp`,
    { requestId: body.requestId, otpCode, tokenDelivery: 'cookie' },
    { origin: issuer },
  );
  const set = answer.headers.getSetCookie().find((each) => each.includes('refresh='))!;
  return {
    cookie: set.split(';')[0]!,
    accessToken: answer.body.accessToken as string,
    userId: answer.body.user.id as string,
    phoneNumber,
  };
}

const VERIFIER = randomBytes(32).toString('base64url');
const s256 = (verifier: string): string => createHash('sha256').update(verifier).digest('base64url');
const REQUEST = {
  client_id: 'spa',
  redirect_uri: BACK,
  response_type: 'code',
  scope: 'openid phone offline_access profile',
  state: 'the state',
  nonce: 'the nonce',
  code_challenge: s256(VERIFIER),
  code_challenge_method: 'S256',
};
type Fields = Record<string, string | undefined>;
const without = (fields: Fields): Record<string, string> =>
  Object.fromEntries(
    Object.entries(fields).filter((field): field is [string, string] => field[1] !== undefined),
  );

/** What the page of /oauth/authorize asks, in the browser of this user. */
const ask = (page: Page | undefined, changes: Record<string, unknown> = {}, headers = {}): Promise<Answer> =>
  call(
    'POST',
    `${issuer}/oauth/authorize`,
    { ...REQUEST, ...changes },
    {
      origin: issuer,
      ...(page ? { cookie: page.cookie } : {}),
      ...headers,
    },
  );
const answerOf = (location: unknown): Record<string, string> =>
  Object.fromEntries(new URL(String(location)).searchParams);

async function codeOf(page: Page, changes: Fields = {}): Promise<string> {
  const { status, body } = await ask(page, changes);
  expect([status, body.location]).toEqual([200, expect.stringContaining('code=')]);
  return answerOf(body.location).code!;
}

const token = (fields: Fields, headers: Record<string, string> = {}): Promise<Answer> =>
  call('POST', `${issuer}/oauth/token`, new URLSearchParams(without(fields)).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    ...headers,
  });
const exchange = (code: string, changes: Fields = {}, headers = {}): Promise<Answer> =>
  token(
    {
      grant_type: 'authorization_code',
      client_id: 'spa',
      code,
      redirect_uri: BACK,
      code_verifier: VERIFIER,
      ...changes,
    },
    headers,
  );
const tokensOf = async (page: Page, changes: Fields = {}): Promise<Answer['body']> => {
  const answer = await exchange(await codeOf(page, changes));
  expect(answer.status).toBe(200);
  return answer.body;
};
const refresh = (refreshToken: string, changes: Fields = {}): Promise<Answer> =>
  token({ grant_type: 'refresh_token', client_id: 'spa', refresh_token: refreshToken, ...changes });
const userinfo = (accessToken: unknown): Promise<Answer> =>
  call('GET', `${issuer}/oauth/userinfo`, undefined, bearer(accessToken));
const outcome = ({ status, body }: Answer): unknown[] => [status, body.error];
const sessionsOf = async ({ accessToken }: Page): Promise<Answer['body'][]> =>
  (await call('GET', `${issuer}/auth/sessions`, undefined, bearer(accessToken))).body.sessions;

describe('a login for an app', () => {
  it('an app gets an ID token in RS256, an access token in ES256 and a refresh token', async () => {
    const page = await pageOfALogin();
    const { body } = await ask(page);
    expect(answerOf(body.location)).toEqual({ code: expect.any(String), state: 'the state', iss: issuer });
    expect(body.location).toMatch(new RegExp(`^${BACK.replaceAll('.', '\\.')}\\?code=`));
    const answer = await exchange(answerOf(body.location).code!);
    expect(answer.body).toMatchObject({
      token_type: 'Bearer',
      expires_in: 600,
      scope: 'openid phone offline_access',
    });
    const set = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));
    const id = await jwtVerify(answer.body.id_token as string, set, {
      issuer,
      audience: 'spa',
      algorithms: ['RS256'],
    });
    expect(id.protectedHeader).toEqual({ alg: 'RS256', typ: 'JWT', kid: '20250101T0000Z-id' });
    const access = await jwtVerify(answer.body.access_token as string, set, {
      issuer,
      typ: 'at+jwt',
      algorithms: ['ES256'],
    });
    expect(access.payload).toMatchObject({
      sub: page.userId,
      aud: 'otp-login',
      client_id: 'spa',
      sid: id.payload.sid,
    });
    expect(id.payload).toMatchObject({
      sub: page.userId,
      nonce: 'the nonce',
      amr: ['otp', 'sms'],
      auth_time: access.payload.auth_time,
      phone_number: page.phoneNumber,
      phone_number_verified: true,
    });
    expect((await userinfo(answer.body.access_token)).body).toEqual({
      sub: page.userId,
      phone_number: page.phoneNumber,
      phone_number_verified: true,
    });
  });

  it('an app gets only what it asked for: no phone number, no ID token, no refresh token', async () => {
    const page = await pageOfALogin();
    const some = await tokensOf(page, { scope: 'openid' });
    expect([some.scope, some.refresh_token, decodeJwt(some.id_token as string).phone_number]).toEqual([
      'openid',
      undefined,
      undefined,
    ]);
    expect((await userinfo(some.access_token)).body).toEqual({ sub: page.userId });
    const none = await tokensOf(page, { scope: undefined });
    expect([none.scope, none.id_token]).toEqual(['', undefined]);
    expect(outcome(await userinfo(none.access_token))).toEqual([403, 'insufficient_scope']);
  });

  it('an app’s access token reads nothing and ends nothing at /auth', async () => {
    const page = await pageOfALogin();
    const { access_token: given, id_token: id } = await tokensOf(page);
    for (const each of [given, id]) {
      for (const [method, path] of [
        ['GET', 'me'],
        ['GET', 'sessions'],
        ['DELETE', 'sessions'],
      ] as const)
        expect((await call(method, `${issuer}/auth/${path}`, undefined, bearer(each))).status).toBe(401);
      await call('POST', `${issuer}/auth/logout`, undefined, bearer(each));
    }
    expect((await userinfo(given)).status).toBe(200);
    // An ID token is no access token, and the token of the page has no scopes.
    expect(outcome(await userinfo(id))).toEqual([401, 'invalid_token']);
    expect(outcome(await userinfo(page.accessToken))).toEqual([403, 'insufficient_scope']);
  });

  it('an app gets a token for a resource server, which is refused at userinfo; an unknown one is invalid_target', async () => {
    const page = await pageOfALogin();
    const code = await codeOf(page);
    expect(outcome(await exchange(code, { resource: 'https://evil.example' }))).toEqual([
      400,
      'invalid_target',
    ]);
    const { body } = await exchange(code, { resource: RESOURCE });
    expect(decodeJwt(body.access_token as string)).toMatchObject({ aud: RESOURCE, client_id: 'spa' });
    expect(outcome(await userinfo(body.access_token))).toEqual([401, 'invalid_token']);
    expect(answerOf((await ask(page, { resource: 'https://evil.example' })).body.location).error).toBe(
      'invalid_target',
    );
  });

  it('a public client on loopback may use any port, and keeps the rest of its redirect URI', async () => {
    const page = await pageOfALogin();
    const uri = 'http://127.0.0.1:51004/cb';
    const code = await codeOf(page, { redirect_uri: uri });
    expect((await exchange(code, { redirect_uri: uri })).status).toBe(200);
    for (const other of [
      'http://127.0.0.1:51004/other',
      'http://localhost:51004/cb',
      'https://127.0.0.1:1/cb',
    ])
      expect((await ask(page, { redirect_uri: other })).status).toBe(400);
  });
});

describe('an unsafe request', () => {
  it.each([
    ['an unknown client', { client_id: 'nobody-knows' }],
    ['no client', { client_id: undefined }],
    ['another redirect URI', { redirect_uri: 'https://evil.example/' }],
    ['a longer redirect URI', { redirect_uri: `${BACK}/../evil` }],
    ['a redirect URI with a query', { redirect_uri: `${BACK}?x=1` }],
    ['the redirect URI of another client', { redirect_uri: 'https://envoy.example/callback' }],
    ['no redirect URI', { redirect_uri: undefined }],
  ])('a request with %s leads to a plain page and nowhere else', async (_, changes: Fields) => {
    const page = await pageOfALogin();
    expect(outcome(await ask(page, { ...changes }))).toEqual([400, 'invalid_request']);
    const query = new URLSearchParams(without({ ...REQUEST, ...changes })).toString();
    const answer = await fetch(`${issuer}/oauth/authorize?${query}`, { redirect: 'manual' });
    expect([answer.status, answer.headers.get('location')]).toEqual([400, null]);
    expect(answer.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(await answer.text()).toContain('data-refused');
  });

  it.each<[string, Fields, string]>([
    ['no response type', { response_type: undefined }, 'invalid_request'],
    ['an implicit flow', { response_type: 'token' }, 'unsupported_response_type'],
    ['a fragment as its answer', { response_mode: 'fragment' }, 'invalid_request'],
    ['no PKCE', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
    ['plain PKCE', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['PKCE without a method', { code_challenge_method: undefined }, 'invalid_request'],
    ['a short challenge', { code_challenge: 'abc' }, 'invalid_request'],
    ['a request object', { request: 'eyJ' }, 'request_not_supported'],
    ['prompt=none beside login', { prompt: 'none login' }, 'invalid_request'],
    ['a max_age that is no number', { max_age: '-1' }, 'invalid_request'],
  ])('a request with %s goes back to the app as an error with state and iss', async (_, changes, error) => {
    const page = await pageOfALogin();
    const expected = { error, error_description: expect.any(String), state: 'the state', iss: issuer };
    expect(answerOf((await ask(page, changes)).body.location)).toEqual(expected);
    const query = new URLSearchParams(without({ ...REQUEST, ...changes })).toString();
    const answer = await fetch(`${issuer}/oauth/authorize?${query}`, { redirect: 'manual' });
    expect([answer.status, answerOf(answer.headers.get('location'))]).toEqual([303, expected]);
  });

  it('a parameter that is there twice goes back to the app as an error', async () => {
    const query = `${new URLSearchParams(REQUEST).toString()}&scope=openid`;
    const answer = await fetch(`${issuer}/oauth/authorize?${query}`, { redirect: 'manual' });
    expect(answerOf(answer.headers.get('location')).error).toBe('invalid_request');
  });

  it('a page of another origin, a form and a page of CORS_ORIGINS get no code by the cookie', async () => {
    const page = await pageOfALogin();
    expect(outcome(await ask(page, {}, { origin: 'https://evil.example' }))).toEqual([403, 'access_denied']);
    expect((await ask(page, {}, { 'content-type': 'text/plain' })).status).toBe(400);
    const form = await call('POST', `${issuer}/oauth/authorize`, new URLSearchParams(REQUEST).toString(), {
      origin: issuer,
      cookie: page.cookie,
      'content-type': 'application/x-www-form-urlencoded',
    });
    expect([form.status, form.body.location]).toEqual([400, undefined]);
  });

  it('a user without a login is asked to log in, and prompt=none goes back with login_required', async () => {
    expect(outcome(await ask(undefined))).toEqual([401, 'login_required']);
    const { body } = await ask(undefined, { prompt: 'none' });
    expect(answerOf(body.location)).toMatchObject({
      error: 'login_required',
      state: 'the state',
      iss: issuer,
    });
  });

  it('an app that asks for a new login gets a code only after one', async () => {
    const page = await pageOfALogin();
    for (const changes of [
      { prompt: 'login' },
      { prompt: 'login', requested_at: String(Date.now() + 1_000) },
    ])
      expect(outcome(await ask(page, changes))).toEqual([401, 'login_required']);
    expect((await ask(page, { prompt: 'login', requested_at: '1' })).body.location).toContain('code=');
    expect((await ask(page, { max_age: '600' })).body.location).toContain('code=');
  });

  it('the refresh token of an app in the cookie opens no other app', async () => {
    const page = await pageOfALogin();
    const { refresh_token: given } = await tokensOf(page);
    const [name] = page.cookie.split('=');
    expect(outcome(await ask({ ...page, cookie: `${name}=${given}` }))).toEqual([401, 'login_required']);
  });
});

describe('a code', () => {
  it.each<[string, Fields]>([
    ['another verifier', { code_verifier: randomBytes(32).toString('base64url') }],
    ['a malformed verifier', { code_verifier: 'short' }],
    ['another redirect URI', { redirect_uri: 'http://127.0.0.1/cb' }],
  ])('a code with %s is refused, and stays for its own client', async (_, changes) => {
    const code = await codeOf(await pageOfALogin());
    expect(outcome(await exchange(code, changes))).toEqual([400, 'invalid_grant']);
    expect((await exchange(code)).status).toBe(200);
  });

  it('a code without its verifier is refused', async () => {
    const code = await codeOf(await pageOfALogin());
    expect(outcome(await exchange(code, { code_verifier: undefined }))).toEqual([400, 'invalid_request']);
  });

  it('a code of another client is refused, also after its use, and ends nothing', async () => {
    const page = await pageOfALogin();
    const code = await codeOf(page);
    const foreign = { client_id: 'envoy', client_secret: SECRET };
    expect(outcome(await exchange(code, foreign))).toEqual([400, 'invalid_grant']);
    const { body } = await exchange(code);
    expect(outcome(await exchange(code, foreign))).toEqual([400, 'invalid_grant']);
    expect((await userinfo(body.access_token)).status).toBe(200);
  });

  it('a code that a client exchanges without PKCE does not take a verifier', async () => {
    const page = await pageOfALogin();
    const envoy = {
      client_id: 'envoy',
      redirect_uri: 'https://envoy.example/callback',
      code_challenge: undefined,
      code_challenge_method: undefined,
    };
    const code = await codeOf(page, envoy);
    const fields = { client_id: 'envoy', client_secret: SECRET, redirect_uri: envoy.redirect_uri };
    expect(outcome(await exchange(code, fields))).toEqual([400, 'invalid_grant']);
    expect((await exchange(code, { ...fields, code_verifier: undefined })).status).toBe(200);
  });

  it('a code that is used twice ends what its first use opened', async () => {
    const page = await pageOfALogin();
    const code = await codeOf(page);
    const { body } = await exchange(code);
    expect(outcome(await exchange(code))).toEqual([400, 'invalid_grant']);
    expect(outcome(await userinfo(body.access_token))).toEqual([401, 'invalid_token']);
    expect(outcome(await refresh(body.refresh_token as string))).toEqual([400, 'invalid_grant']);
    expect(await sessionsOf(page)).toHaveLength(1);
  });

  it('fifty exchanges of one code at once open one session at most, and it ends', async () => {
    const page = await pageOfALogin();
    const code = await codeOf(page);
    const answers = await Promise.all(Array.from({ length: 50 }, () => exchange(code)));
    const good = answers.filter(({ status }) => status === 200);
    expect(good.length).toBeLessThanOrEqual(1);
    expect(answers.filter((answer) => answer.body.error === 'invalid_grant')).toHaveLength(50 - good.length);
    for (const { body } of good) expect((await userinfo(body.access_token)).status).toBe(401);
    expect((await sessionsOf(page))[0].apps).toBeUndefined();
  });

  it('an invented code is refused', async () => {
    for (const code of [
      'made-up',
      (await codeOf(await pageOfALogin())).replace(/.$/, (end) => (end === 'A' ? 'B' : 'A')),
    ])
      expect(outcome(await exchange(code))).toEqual([400, 'invalid_grant']);
  });
});

describe('the session of an app', () => {
  it('an app’s session is listed under the login, does not count against SESSIONS_PER_USER, and is one for each app', async () => {
    const page = await pageOfALogin();
    const first = await tokensOf(page);
    const second = await tokensOf(page);
    const [session, ...others] = await sessionsOf(page);
    expect(others).toEqual([]);
    expect(session.apps).toEqual([
      expect.objectContaining({
        client: 'spa',
        name: 'The shop',
        id: decodeJwt(second.access_token as string).sid,
      }),
    ]);
    expect(outcome(await refresh(first.refresh_token as string))).toEqual([400, 'invalid_grant']);
    expect((await refresh(second.refresh_token as string)).status).toBe(200);
  });

  it('an app refreshes its tokens, and another client or the service’s own cannot', async () => {
    const { refresh_token: given } = await tokensOf(await pageOfALogin());
    const own = await call('POST', `${issuer}/auth/refresh`, { refreshToken: given });
    expect([own.status, own.body.code]).toEqual([401, 'refresh_token_invalid']);
    for (const changes of [
      { client_id: undefined },
      { client_id: 'otp-login' },
      { client_id: 'envoy', client_secret: SECRET },
    ])
      expect(outcome(await refresh(given as string, changes))).toEqual([400, 'invalid_grant']);
    expect(outcome(await refresh(given as string, { client_id: 'unknown' }))).toEqual([
      401,
      'invalid_client',
    ]);
    const next = await refresh(given as string);
    expect([next.status, decodeJwt(next.body.id_token as string).nonce]).toEqual([200, undefined]);
    expect(next.body.refresh_token).not.toBe(given);
    // A repeat within the grace interval gets the same successor.
    expect((await refresh(given as string)).body.refresh_token).toBe(next.body.refresh_token);
  });

  it.each<[string, (page: Page) => Promise<unknown>]>([
    ['a log-out', ({ accessToken }) => call('POST', `${issuer}/auth/logout`, undefined, bearer(accessToken))],
    [
      'a log-out everywhere',
      ({ accessToken }) => call('DELETE', `${issuer}/auth/sessions`, undefined, bearer(accessToken)),
    ],
    ['a log-out for the app', (page) => logOut(page, { confirmed: true })],
    [
      'the end of the app in the list of sessions',
      async (page) => {
        const [{ apps }] = await sessionsOf(page);
        await call('DELETE', `${issuer}/auth/sessions/${apps[0].id}`, undefined, bearer(page.accessToken));
      },
    ],
  ])('an app’s session ends with %s', async (_, end) => {
    const page = await pageOfALogin();
    const { access_token: given, refresh_token: kept } = await tokensOf(page);
    await end(page);
    expect(outcome(await userinfo(given))).toEqual([401, 'invalid_token']);
    expect(outcome(await refresh(kept as string))).toEqual([400, 'invalid_grant']);
  });

  it('a log-out of all other sessions keeps the apps of this one', async () => {
    const phoneNumber = freshNumber();
    const other = await pageOfALogin(phoneNumber);
    const page = await pageOfALogin(phoneNumber);
    const [theirs, own] = [await tokensOf(other), await tokensOf(page)];
    await call('DELETE', `${issuer}/auth/sessions?others=true`, undefined, bearer(page.accessToken));
    expect((await userinfo(own.access_token)).status).toBe(200);
    expect((await userinfo(theirs.access_token)).status).toBe(401);
  });

  it('an app revokes its own tokens, and no other client does', async () => {
    const { access_token: access, refresh_token: given } = await tokensOf(await pageOfALogin());
    const revoke = (fields: Fields): Promise<Answer> =>
      call('POST', `${issuer}/oauth/revoke`, new URLSearchParams(without(fields)).toString(), {
        'content-type': 'application/x-www-form-urlencoded',
      });
    for (const foreign of [{}, { client_id: 'envoy', client_secret: SECRET }]) {
      expect((await revoke({ token: given as string, ...foreign })).status).toBe(200);
      expect((await userinfo(access)).status).toBe(200);
    }
    expect((await revoke({ token: given as string, client_id: 'spa' })).status).toBe(200);
    expect((await userinfo(access)).status).toBe(401);
  });
});

const logOut = (page: Page | undefined, body: Record<string, unknown>, headers = {}): Promise<Answer> =>
  call('POST', `${issuer}/oauth/logout`, body, {
    origin: issuer,
    ...(page ? { cookie: page.cookie } : {}),
    ...headers,
  });

describe('a log-out for an app', () => {
  it('the user’s own ID token logs the user out without a question, and leads back with the state', async () => {
    const page = await pageOfALogin();
    const { id_token: hint, access_token: given } = await tokensOf(page);
    const { status, body, headers } = await logOut(page, {
      id_token_hint: hint,
      post_logout_redirect_uri: AFTER,
      state: 's',
    });
    expect([status, body]).toEqual([200, { location: `${AFTER}?state=s` }]);
    expect(headers.getSetCookie().join()).toMatch(/refresh=;/);
    expect((await userinfo(given)).status).toBe(401);
  });

  it('without a hint, or with that of another user, the user is asked first', async () => {
    const page = await pageOfALogin();
    const { id_token: foreign } = await tokensOf(await pageOfALogin());
    for (const hint of [{}, { id_token_hint: foreign }, { id_token_hint: 'garbage' }])
      expect((await logOut(page, hint)).body).toEqual({ confirm: true });
    expect((await ask(page)).status).toBe(200);
    expect((await logOut(page, { confirmed: true })).body).toEqual({});
    expect(outcome(await ask(page))).toEqual([401, 'login_required']);
  });

  it('an address that the client has not registered leads to a plain page', async () => {
    const page = await pageOfALogin();
    const { id_token: hint } = await tokensOf(page);
    for (const uri of ['https://evil.example/', `${AFTER}/`, BACK]) {
      const fields = { id_token_hint: hint, post_logout_redirect_uri: uri, confirmed: true };
      expect(outcome(await logOut(page, fields))).toEqual([400, 'invalid_request']);
      const query = new URLSearchParams({
        id_token_hint: String(hint),
        post_logout_redirect_uri: uri,
      }).toString();
      const answer = await fetch(`${issuer}/oauth/logout?${query}`);
      expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining('data-refused')]);
    }
    expect((await logOut(page, { post_logout_redirect_uri: AFTER })).status).toBe(400);
    expect((await ask(page)).status).toBe(200);
  });

  it('a page of another origin logs the user out neither by its own ID token nor by a confirmation', async () => {
    const page = await pageOfALogin();
    expect(outcome(await logOut(page, { confirmed: true }, { origin: 'https://evil.example' }))).toEqual([
      403,
      'access_denied',
    ]);
    expect((await ask(page)).status).toBe(200);
  });
});

describe('the authentication of a client', () => {
  const basic = (id: string, secret: string): Record<string, string> => ({
    authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
  });
  const WEB = { client_id: 'web', redirect_uri: 'https://office.example/callback?tenant=1' };

  it('a confidential client exchanges its code by Basic or by its form, and not without its secret', async () => {
    const page = await pageOfALogin();
    const { body } = await ask(page, WEB);
    expect(body.location).toMatch(/^https:\/\/office\.example\/callback\?tenant=1&code=/);
    const code = answerOf(body.location).code!;
    for (const wrong of [{}, { client_secret: 'wrong' }, { client_secret: '' }])
      expect(outcome(await exchange(code, { ...WEB, ...wrong }))).toEqual([401, 'invalid_client']);
    const refused = await exchange(code, WEB, basic('web', 'wrong'));
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([
      401,
      'Basic realm="otp-login"',
    ]);
    expect(outcome(await exchange(code, { ...WEB, client_secret: SECRET }, basic('web', SECRET)))).toEqual([
      400,
      'invalid_request',
    ]);
    expect(outcome(await exchange(code, WEB, basic('envoy', SECRET)))).toEqual([400, 'invalid_request']);
    expect((await exchange(code, { ...WEB, client_id: undefined }, basic('web', SECRET))).status).toBe(200);
    const again = answerOf((await ask(page, WEB)).body.location).code!;
    expect((await exchange(again, { ...WEB, client_secret: SECRET })).status).toBe(200);
  });
});

describe('libraries of others', () => {
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- loopback has no TLS
  const insecure = openid.allowInsecureRequests;

  it('openid-client 6 logs a user in, refreshes, reads the user and builds the log-out', async () => {
    const app = await openid.discovery(new URL(issuer), 'web', SECRET, undefined, { execute: [insecure] });
    const verifier = openid.randomPKCECodeVerifier();
    const [state, nonce] = [openid.randomState(), openid.randomNonce()];
    const url = openid.buildAuthorizationUrl(app, {
      redirect_uri: 'https://office.example/oidc',
      scope: 'openid phone offline_access',
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
    });
    expect((await fetch(url)).status).toBe(200);
    const page = await pageOfALogin();
    const { body } = await call('POST', `${issuer}/oauth/authorize`, Object.fromEntries(url.searchParams), {
      origin: issuer,
      cookie: page.cookie,
    });
    const tokens = await openid.authorizationCodeGrant(app, new URL(body.location as string), {
      pkceCodeVerifier: verifier,
      expectedState: state,
      expectedNonce: nonce,
      idTokenExpected: true,
      maxAge: 600,
    });
    expect(tokens.claims()).toMatchObject({ sub: page.userId, phone_number: page.phoneNumber });
    expect(await openid.fetchUserInfo(app, tokens.access_token, page.userId)).toMatchObject({
      phone_number_verified: true,
    });
    const next = await openid.refreshTokenGrant(app, tokens.refresh_token!, { resource: RESOURCE });
    expect(decodeJwt(next.access_token).aud).toBe(RESOURCE);
    const end = openid.buildEndSessionUrl(app, { id_token_hint: next.id_token! });
    expect(`${end.origin}${end.pathname}`).toBe(`${issuer}/oauth/logout`);
  });

  it('oauth4webapi discovers by OpenID Connect and validates the answer of the authorization', async () => {
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- loopback has no TLS
    const plain = { [oauth.allowInsecureRequests]: true };
    const found = await oauth.discoveryRequest(new URL(issuer), plain);
    const server = await oauth.processDiscoveryResponse(new URL(issuer), found);
    const client: oauth.Client = { client_id: 'spa' };
    const page = await pageOfALogin();
    const { body } = await ask(page);
    const parameters = oauth.validateAuthResponse(
      server,
      client,
      new URL(body.location as string),
      'the state',
    );
    const answer = await oauth.authorizationCodeGrantRequest(
      server,
      client,
      oauth.None(),
      parameters,
      BACK,
      VERIFIER,
      plain,
    );
    const tokens = await oauth.processAuthorizationCodeResponse(server, client, answer, {
      expectedNonce: 'the nonce',
      requireIdToken: true,
    });
    expect(oauth.getValidatedIdTokenClaims(tokens)?.sub).toBe(page.userId);
  });
});

describe('the metadata', () => {
  it('both documents say the same, with the algorithm of ID tokens', async () => {
    const [one, other] = await Promise.all(
      ['openid-configuration', 'oauth-authorization-server'].map(
        async (name) => (await call('GET', `${issuer}/.well-known/${name}`)).body,
      ),
    );
    expect(one).toEqual(other);
    expect(one).toMatchObject({
      issuer,
      authorization_endpoint: `${issuer}/oauth/authorize`,
      userinfo_endpoint: `${issuer}/oauth/userinfo`,
      end_session_endpoint: `${issuer}/oauth/logout`,
      id_token_signing_alg_values_supported: ['RS256'],
      code_challenge_methods_supported: ['S256'],
      token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
      authorization_response_iss_parameter_supported: true,
    });
    expect(decodeProtectedHeader((await tokensOf(await pageOfALogin())).id_token as string).alg).toBe(
      'RS256',
    );
  });

  it('pages of registered redirect URIs may call the token endpoint, without credentials, and nothing at /auth', async () => {
    const preflight = (path: string, origin: string): Promise<Response> =>
      fetch(issuer + path, {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'content-type',
        },
      });
    for (const path of [
      '/oauth/token',
      '/oauth/userinfo',
      '/.well-known/openid-configuration',
      '/.well-known/jwks.json',
    ]) {
      const { headers } = await preflight(path, 'https://shop.example');
      expect(headers.get('access-control-allow-origin')).toBe('https://shop.example');
      expect(headers.get('access-control-allow-credentials')).toBeNull();
      expect(
        (await preflight(path, 'https://evil.example')).headers.get('access-control-allow-origin'),
      ).toBeNull();
    }
    for (const path of ['/auth/refresh', '/oauth/authorize', '/oauth/logout'])
      expect(
        (await preflight(path, 'https://shop.example')).headers.get('access-control-allow-origin'),
      ).toBeNull();
  });
});
