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
import {
  call,
  freshNumber,
  type Instance,
  login,
  startInstance,
  startWorld,
  type World,
} from '../support/world';

// Libraries that nobody here wrote, used as their own documentation says. None is told anything about this service but
// its address, its audience and a client's name: what they refuse is ours to mend.

const AUDIENCE = 'shop';
const CLIENT = 'api';
// Every character that form encoding changes and the configuration allows: libraries encode it, as RFC 6749 asks.
const SECRET = 'introspection+secret/%20:~&=';

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
  const changed = { ...(JSON.parse(Buffer.from(claims, 'base64url').toString()) as object), sub: 'somebody' };
  return [header, Buffer.from(JSON.stringify(changed)).toString('base64url'), signature].join('.');
}

const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
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

  it('verifies an access token by the remote key set', async () => {
    const tokens = await tokensOfALogin();
    const { payload, protectedHeader } = await verify(tokens.accessToken);
    expect(payload.sub).toBe(tokens.user.id);
    expect(protectedHeader).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: expect.any(String) });
  });

  it('refuses it for another audience, as another type, by another algorithm, and changed', async () => {
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

  it('verifies an access token', async () => {
    const tokens = await tokensOfALogin();
    expect((await verify(tokens.accessToken)).sub).toBe(tokens.user.id);
  });

  it('refuses it for another audience, changed, and under a kid that is not published', async () => {
    const tokens = await tokensOfALogin();
    await expect(verify(tokens.accessToken, 'warehouse')).rejects.toThrow('jwt audience invalid');
    await expect(verify(tampered(tokens))).rejects.toThrow('invalid signature');
    await expect(verify(signJwt({}, 'secret', { keyid: 'other' }))).rejects.toThrow(/Unable to find/);
  });
});

/** Who a middleware says is calling: the answer of a real server of Express 5 that it guards. */
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
  it('finds the keys by the issuer alone, and wants a token as RFC 9068 has it', async () => {
    const tokens = await tokensOfALogin();
    const { ask, close } = await guardedBy(auth({ issuerBaseURL: issuer, audience: AUDIENCE, strict: true }));
    expect(await ask(tokens.accessToken)).toEqual([200, tokens.user.id]);
    expect(await ask(tampered(tokens))).toEqual([401, undefined]);
    expect(await ask(tokens.refreshToken)).toEqual([401, undefined]);
    close();
  });

  it('refuses a token for another audience', async () => {
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

  it('verifies an access token', async () => {
    const tokens = await tokensOfALogin();
    const { ask, close } = await guardedBy(authenticate(AUDIENCE));
    expect(await ask(tokens.accessToken)).toEqual([200, tokens.user.id]);
    expect(await ask(tampered(tokens))).toEqual([401, undefined]);
    close();
  });

  it('refuses a token for another audience', async () => {
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

  it('discovers the endpoints', () => {
    expect(server.issuer).toBe(issuer);
    expect(server.token_endpoint).toBe(`${issuer}/oauth/token`);
  });

  it('refreshes, and is told invalid_grant for a token that was made up', async () => {
    const tokens = await tokensOfALogin();
    const next = await refresh(tokens.refreshToken);
    expect(next).toMatchObject({ token_type: 'bearer', expires_in: 600, refresh_token: expect.any(String) });
    expect(await callerOf(next.access_token)).toBe(tokens.user.id);
    await expect(refresh('made-up')).rejects.toMatchObject({ status: 400, error: 'invalid_grant' });
  });

  it('validates an access token as RFC 9068 asks, and refuses it for another audience', async () => {
    const tokens = await tokensOfALogin();
    expect(await callerOf(tokens.accessToken)).toBe(tokens.user.id);
    await expect(callerOf(tokens.accessToken, 'warehouse')).rejects.toThrow(/"aud"/);
    await expect(callerOf(tampered(tokens))).rejects.toThrow(/signature/);
  });

  it.each([
    ['client_secret_basic', oauth.ClientSecretBasic],
    ['client_secret_post', oauth.ClientSecretPost],
  ])('introspects by %s, and not with a wrong secret', async (_, by) => {
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

  it('finds a refresh token active, and nothing about it that an access token says of its use', async () => {
    const tokens = await tokensOfALogin();
    const answer = await introspect(tokens.refreshToken, oauth.ClientSecretBasic(SECRET));
    expect(answer).toMatchObject({ active: true, sub: tokens.user.id });
    expect(Object.keys(answer)).not.toEqual(expect.arrayContaining(['token_type', 'aud', 'iss']));
  });

  it('revokes a session by either token', async () => {
    for (const kind of ['accessToken', 'refreshToken'] as const) {
      const tokens = await tokensOfALogin();
      await revoke(tokens[kind]);
      expect(await isAlive(tokens.accessToken)).toBe(false);
      await expect(refresh(tokens.refreshToken)).rejects.toMatchObject({ error: 'invalid_grant' });
    }
  });

  it('takes a token that was made up for revoked (RFC 7009 section 2.2)', async () => {
    await expect(revoke('made-up')).resolves.toBeUndefined();
  });

  it('is told invalid_client when it is another client', async () => {
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

  it('refreshes with what it discovered, and is told when the session has ended', async () => {
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
  ])('introspects by %s, and not with a wrong secret', async (_, by) => {
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

describe('the answers', () => {
  it('name no more in the metadata than RFC 8414 asks and the service does', async () => {
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

  it('with tokens are stored by no cache (RFC 6749 section 5.1)', async () => {
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
