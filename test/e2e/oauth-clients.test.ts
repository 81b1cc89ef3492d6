import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type RequestHandler } from 'express';
import { auth } from 'express-oauth2-jwt-bearer';
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';
import { sign as signJwt, verify as verifyJwt, type JwtPayload } from 'jsonwebtoken';
import { JwksClient, passportJwtSecret } from 'jwks-rsa';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import { Passport } from 'passport';
import { ExtractJwt, Strategy } from 'passport-jwt';
import { freePort } from '../support/free-port';
import { bearer } from '../support/tokens';
import {
  call,
  freshNumber,
  type Instance,
  login,
  startInstance,
  startWorld,
  type World,
} from '../support/world';

// Libraries of others, used as their own documentation says. They know nothing about this service but its address, its
// audience and a client's name: if one of them refuses something, the service is wrong.

const AUDIENCE = 'shop';
const CLIENT = 'api';
// Every character that form encoding changes and the configuration allows: libraries encode it, as RFC 6749 asks.
const SECRET = 'introspection+secret/%20:~&=0123456789';

let world: World;
let instance: Instance;
let issuer: string;
let jwksUri: string;

beforeAll(async () => {
  world = await startWorld({ count: 0 });
  const port = await freePort();
  const variables = {
    ISSUER: `http://127.0.0.1:${port}`,
    AUDIENCE,
    INTROSPECTION_CLIENTS: `${CLIENT}:${SECRET}`,
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
  };
  instance = await startInstance(variables, port);
  issuer = instance.url;
  jwksUri = `${issuer}/.well-known/jwks.json`;
});
afterAll(async () => {
  await instance.close();
  await world.close();
});

interface Tokens {
  accessToken: string;
  refreshToken: string;
  user: { id: string };
}

async function tokensOfALogin(): Promise<Tokens> {
  return (await login(world, freshNumber(), issuer)).body as Tokens;
}

/** The same token of another user: its signature does not fit. */
function tampered({ accessToken }: Tokens): string {
  const [header, claims = '', signature] = accessToken.split('.');
  const changed = {
    ...(JSON.parse(Buffer.from(claims, 'base64url').toString()) as object),
    sub: 'another user',
  };
  return [header, Buffer.from(JSON.stringify(changed)).toString('base64url'), signature].join('.');
}

const isAlive = async (token: string): Promise<boolean> =>
  (await call('GET', `${issuer}/auth/me`, undefined, bearer(token))).status === 200;

describe('jose', () => {
  const verify = async (token: string, rules = {}) =>
    jwtVerify(token, createRemoteJWKSet(new URL(jwksUri)), {
      issuer,
      audience: AUDIENCE,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      ...rules,
    });

  it('jose verifies an access token by the remote key set', async () => {
    const tokens = await tokensOfALogin();
    const { payload, protectedHeader } = await verify(tokens.accessToken);
    expect(payload.sub).toBe(tokens.user.id);
    expect(protectedHeader).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: expect.any(String) });
  });

  it('jose refuses a changed token, and a token for another audience, type or algorithm', async () => {
    const tokens = await tokensOfALogin();
    const { accessToken } = tokens;
    await expect(verify(accessToken, { audience: 'warehouse' })).rejects.toThrow(/"aud"/);
    await expect(verify(accessToken, { typ: 'JWT' })).rejects.toThrow(/"typ"/);
    await expect(verify(accessToken, { algorithms: ['RS256'] })).rejects.toThrow(/not allowed/);
    await expect(verify(tampered(tokens))).rejects.toThrow('signature verification failed');
  });
});

describe('jwks-rsa with jsonwebtoken', () => {
  async function verify(token: string, audience = AUDIENCE): Promise<JwtPayload> {
    const { kid } = decodeProtectedHeader(token);
    const key = await new JwksClient({ jwksUri }).getSigningKey(kid);
    const rules = { issuer, audience, algorithms: ['ES256' as const] };
    return verifyJwt(token, key.getPublicKey(), rules) as JwtPayload;
  }

  it('jwks-rsa with jsonwebtoken verifies an access token', async () => {
    const tokens = await tokensOfALogin();
    expect((await verify(tokens.accessToken)).sub).toBe(tokens.user.id);
  });

  it('jwks-rsa with jsonwebtoken refuses a changed token, and a token for another audience or of an unknown key', async () => {
    const tokens = await tokensOfALogin();
    await expect(verify(tokens.accessToken, 'warehouse')).rejects.toThrow('jwt audience invalid');
    await expect(verify(tampered(tokens))).rejects.toThrow('invalid signature');
    await expect(verify(signJwt({}, 'secret', { keyid: 'other' }))).rejects.toThrow(/Unable to find/);
  });
});

/** A real server of Express 5 that a middleware guards; it answers with the user that the middleware found. */
async function guardedBy(
  middleware: RequestHandler,
): Promise<{ ask: (token: string) => Promise<[number, unknown]>; close: () => void }> {
  const app = express();
  app.get('/', middleware, (request, response) => {
    const caller = (request.auth?.payload ?? request.user) as { sub?: string } | undefined;
    response.json({ sub: caller?.sub });
  });
  const server: Server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    async ask(token) {
      const { status, body } = await call('GET', url, undefined, bearer(token));
      return [status, status === 200 ? body.sub : undefined];
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

describe('express-oauth2-jwt-bearer', () => {
  it('express-oauth2-jwt-bearer finds the keys by the issuer alone and accepts an access token by RFC 9068', async () => {
    const tokens = await tokensOfALogin();
    const { ask, close } = await guardedBy(auth({ issuerBaseURL: issuer, audience: AUDIENCE, strict: true }));
    expect(await ask(tokens.accessToken)).toEqual([200, tokens.user.id]);
    expect(await ask(tampered(tokens))).toEqual([401, undefined]);
    expect(await ask(tokens.refreshToken)).toEqual([401, undefined]);
    close();
  });

  it('express-oauth2-jwt-bearer refuses a token for another audience', async () => {
    const { accessToken } = await tokensOfALogin();
    const { ask, close } = await guardedBy(auth({ issuerBaseURL: issuer, audience: 'warehouse' }));
    expect(await ask(accessToken)).toEqual([401, undefined]);
    close();
  });
});

describe('passport-jwt', () => {
  function authenticate(audience: string): RequestHandler {
    const passport = new Passport();
    const rules = {
      jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(),
      secretOrKeyProvider: passportJwtSecret({ jwksUri, cache: true, rateLimit: true }),
      issuer,
      audience,
      algorithms: ['ES256' as const],
    };
    passport.use(
      new Strategy(rules, (claims: Express.User, done) => {
        done(null, claims);
      }),
    );
    return passport.authenticate('jwt', { session: false }) as RequestHandler;
  }

  it('passport-jwt verifies an access token', async () => {
    const tokens = await tokensOfALogin();
    const { ask, close } = await guardedBy(authenticate(AUDIENCE));
    expect(await ask(tokens.accessToken)).toEqual([200, tokens.user.id]);
    expect(await ask(tampered(tokens))).toEqual([401, undefined]);
    close();
  });

  it('passport-jwt refuses a token for another audience', async () => {
    const { accessToken } = await tokensOfALogin();
    const { ask, close } = await guardedBy(authenticate('warehouse'));
    expect(await ask(accessToken)).toEqual([401, undefined]);
    close();
  });
});

describe('oauth4webapi', () => {
  // Loopback has no TLS; the library calls its switch deprecated only so that it stands out.
  // eslint-disable-next-line @typescript-eslint/no-deprecated
  const plain = { [oauth.allowInsecureRequests]: true };
  const app: oauth.Client = { client_id: AUDIENCE };
  const api: oauth.Client = { client_id: CLIENT };
  let server: oauth.AuthorizationServer;
  beforeAll(async () => {
    const found = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...plain });
    server = await oauth.processDiscoveryResponse(new URL(issuer), found);
  });

  async function refresh(token: string, client = app): Promise<oauth.TokenEndpointResponse> {
    const answer = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), token, plain);
    return oauth.processRefreshTokenResponse(server, client, answer);
  }

  async function introspect(token: string, by: oauth.ClientAuth): Promise<oauth.IntrospectionResponse> {
    const answer = await oauth.introspectionRequest(server, api, by, token, plain);
    return oauth.processIntrospectionResponse(server, api, answer);
  }

  async function revoke(token: string): Promise<undefined> {
    const answer = await oauth.revocationRequest(server, app, oauth.None(), token, plain);
    return oauth.processRevocationResponse(answer);
  }

  async function callerOf(token: string, audience = AUDIENCE): Promise<string> {
    const request = new Request('http://shop.example.com/', { headers: bearer(token) });
    return (await oauth.validateJwtAccessToken(server, request, audience, plain)).sub;
  }

  it('oauth4webapi discovers the endpoints', () => {
    expect(server.issuer).toBe(issuer);
    expect(server.token_endpoint).toBe(`${issuer}/oauth/token`);
  });

  it('oauth4webapi refreshes a session, and reads invalid_grant for an invented token', async () => {
    const tokens = await tokensOfALogin();
    const next = await refresh(tokens.refreshToken);
    expect(next).toMatchObject({ token_type: 'bearer', expires_in: 600, refresh_token: expect.any(String) });
    expect(await callerOf(next.access_token)).toBe(tokens.user.id);
    await expect(refresh('made-up')).rejects.toMatchObject({ status: 400, error: 'invalid_grant' });
  });

  it('oauth4webapi validates an access token by RFC 9068 and refuses it for another audience', async () => {
    const tokens = await tokensOfALogin();
    expect(await callerOf(tokens.accessToken)).toBe(tokens.user.id);
    await expect(callerOf(tokens.accessToken, 'warehouse')).rejects.toThrow(/"aud"/);
    await expect(callerOf(tampered(tokens))).rejects.toThrow(/signature/);
  });

  it.each([
    ['client_secret_basic', oauth.ClientSecretBasic],
    ['client_secret_post', oauth.ClientSecretPost],
  ])('oauth4webapi introspects by %s, and not with a wrong secret', async (_, by) => {
    const tokens = await tokensOfALogin();
    expect(await introspect(tokens.accessToken, by(SECRET))).toMatchObject({
      active: true,
      token_type: 'Bearer',
      iss: issuer,
      aud: AUDIENCE,
      client_id: AUDIENCE,
      sub: tokens.user.id,
    });
    expect(await introspect('made-up', by(SECRET))).toEqual({ active: false });
    await expect(introspect(tokens.accessToken, by('wrong'))).rejects.toMatchObject({ status: 401 });
  });

  it('oauth4webapi reads from the introspection of a refresh token that it is active, without a token type, audience or issuer', async () => {
    const tokens = await tokensOfALogin();
    const answer = await introspect(tokens.refreshToken, oauth.ClientSecretBasic(SECRET));
    expect(answer).toMatchObject({ active: true, sub: tokens.user.id });
    expect(Object.keys(answer)).not.toEqual(expect.arrayContaining(['token_type', 'aud', 'iss']));
  });

  it('oauth4webapi revokes a session by its access token and by its refresh token', async () => {
    for (const kind of ['accessToken', 'refreshToken'] as const) {
      const tokens = await tokensOfALogin();
      await revoke(tokens[kind]);
      expect(await isAlive(tokens.accessToken)).toBe(false);
      await expect(refresh(tokens.refreshToken)).rejects.toMatchObject({ error: 'invalid_grant' });
    }
  });

  it('oauth4webapi takes an invented token for revoked (RFC 7009 section 2.2)', async () => {
    await expect(revoke('made-up')).resolves.toBeUndefined();
  });

  it('oauth4webapi is refused when it names another client', async () => {
    const { refreshToken } = await tokensOfALogin();
    await expect(refresh(refreshToken, { client_id: 'other' })).rejects.toMatchObject({ status: 401 });
  });
});

describe('openid-client', () => {
  const discover = (id: string, by: openid.ClientAuth): Promise<openid.Configuration> =>
    openid.discovery(new URL(issuer), id, undefined, by, {
      algorithm: 'oauth2',
      // eslint-disable-next-line @typescript-eslint/no-deprecated -- as above
      execute: [openid.allowInsecureRequests],
    });

  it('openid-client refreshes a session by the discovered endpoints, and reads invalid_grant when the session has ended', async () => {
    const app = await discover(AUDIENCE, openid.None());
    const tokens = await tokensOfALogin();
    const next = await openid.refreshTokenGrant(app, tokens.refreshToken);
    expect(next.expires_in).toBe(600);
    expect(await isAlive(next.access_token)).toBe(true);

    await openid.tokenRevocation(app, next.refresh_token!);
    expect(await isAlive(next.access_token)).toBe(false);
    await expect(openid.refreshTokenGrant(app, next.refresh_token!)).rejects.toMatchObject({
      status: 400,
      error: 'invalid_grant',
    });
  });

  it.each([
    ['client_secret_basic', openid.ClientSecretBasic],
    ['client_secret_post', openid.ClientSecretPost],
  ])('openid-client introspects by %s, and not with a wrong secret', async (_, by) => {
    const tokens = await tokensOfALogin();
    const api = await discover(CLIENT, by(SECRET));
    expect(await openid.tokenIntrospection(api, tokens.accessToken)).toMatchObject({
      active: true,
      sub: tokens.user.id,
    });
    expect(await openid.tokenIntrospection(api, 'made-up')).toEqual({ active: false });
    const stranger = await discover(CLIENT, by('wrong'));
    await expect(openid.tokenIntrospection(stranger, tokens.accessToken)).rejects.toMatchObject({
      status: 401,
    });
  });
});

describe('the responses', () => {
  it('the metadata of RFC 8414 names only the features that the service has', async () => {
    const { status, headers, body } = await call('GET', `${issuer}/.well-known/oauth-authorization-server`);
    expect([status, headers.get('content-type')]).toEqual([200, expect.stringMatching(/^application\/json/)]);
    expect(body).toEqual({
      issuer,
      token_endpoint: `${issuer}/oauth/token`,
      jwks_uri: jwksUri,
      revocation_endpoint: `${issuer}/oauth/revoke`,
      introspection_endpoint: `${issuer}/oauth/introspect`,
      introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
      // Required by section 2; the service has no authorization endpoint.
      response_types_supported: [],
      grant_types_supported: ['refresh_token'],
      token_endpoint_auth_methods_supported: ['none'],
      revocation_endpoint_auth_methods_supported: ['none'],
    });
  });

  it('a response with tokens may not be cached (RFC 6749 section 5.1)', async () => {
    const { refreshToken } = await tokensOfALogin();
    const form = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refreshToken });
    const { status, headers } = await call('POST', `${issuer}/oauth/token`, form.toString(), {
      'content-type': 'application/x-www-form-urlencoded',
    });
    expect([status, headers.get('cache-control')]).toEqual([200, 'no-store']);
    expect(headers.get('pragma')).toBe('no-cache');
    expect(headers.get('content-type')).toMatch(/^application\/json/);
  });
});
