import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify, type JWTPayload } from 'jose';
import type { Session } from '../../src/sessions/sessions.service';
import type { AccessTokens } from '../../src/tokens/access-tokens';
import { phoneNumber } from '../support/phone-number';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  freshNumber,
  redisCommand,
  startWorld,
  textedCode,
  type Instance,
  type World,
} from '../support/world';

const ISSUER = 'https://login.example.com';
const AUDIENCE = 'api.example.com';
const KID = '20260101T0000Z-first';

let folder: string;
let world: World;
/** The same house with the phone number in its tokens, which live for a minute. */
let telling: Instance;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-issue-'));
  for (const kid of [KID, '20990101T0000Z-future']) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ format: 'pem', type: 'pkcs8' }));
  }
  const variables = { ISSUER, AUDIENCE, JWT_KEYS_DIR: folder };
  world = await startWorld({ variables });
  telling = await anotherInstance(world, {
    ...variables,
    TOKEN_PHONE_NUMBER: 'true',
    ACCESS_TOKEN_TTL_SECONDS: '60',
  });
});
afterAll(async () => {
  await telling.close();
  await world.close();
  rmSync(folder, { recursive: true });
});

const { OtpService } = serviceModule<typeof import('../../src/otp/otp.service')>('otp/otp.service');
const { SessionsService } =
  serviceModule<typeof import('../../src/sessions/sessions.service')>('sessions/sessions.service');
const { SigningKeys } = serviceModule<typeof import('../../src/tokens/signing-keys')>('tokens/signing-keys');
const tokensOf = serviceModule<typeof import('../../src/tokens/access-tokens')>('tokens/access-tokens');

const ASKER = { address: '192.0.2.1' };
const CLIENT = { device: 'Test', address: '127.0.0.0/24' };

/** A session by the only way there is: a code that was sent and came back. */
async function openSession(number: string): Promise<Session> {
  const { app } = world.instances[0]!;
  const otp = app.get(OtpService);
  const { requestId } = await otp.request(phoneNumber(number), ASKER);
  const verifiedPhone = await otp.verify(requestId, textedCode(world.upstream, number), ASKER);
  return app.get(SessionsService).open(verifiedPhone, CLIENT);
}

/** Verifies as a resource server does: with another library, the published keys, and nothing else. */
async function verified(token: string, { app } = world.instances[0]!): Promise<JWTPayload> {
  const { payload } = await jwtVerify(token, createLocalJWKSet(app.get(SigningKeys).jwks()), {
    issuer: ISSUER,
    audience: AUDIENCE,
    algorithms: ['ES256'],
    typ: 'at+jwt',
    requiredClaims: ['exp', 'iat', 'sub', 'sid', 'jti', 'client_id', 'auth_time'],
  });
  return payload;
}

describe('an issued access token', () => {
  const tokens = (instance = world.instances[0]!): AccessTokens => instance.app.get(tokensOf.AccessTokens);

  it('an access token names ES256, at+jwt and the newest signing key that has begun to sign', async () => {
    const { accessToken } = await tokens().issue(await openSession(freshNumber()));
    expect(decodeProtectedHeader(accessToken)).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: KID });
  });

  it('an access token holds exactly the documented claims', async () => {
    const before = Math.floor(Date.now() / 1_000);
    const session = await openSession(freshNumber());
    const { accessToken, expiresIn } = await tokens().issue(session);
    const claims = await verified(accessToken);
    expect(expiresIn).toBe(600);
    expect(claims).toEqual({
      iss: ISSUER,
      aud: AUDIENCE,
      client_id: AUDIENCE,
      sub: session.subject,
      sid: session.id,
      jti: expect.stringMatching(/^[\w-]{22}$/) as string,
      iat: expect.any(Number) as number,
      exp: claims.iat! + 600,
      auth_time: expect.any(Number) as number,
      amr: ['otp', 'sms'],
    });
    expect(session.subject).toMatch(/^[\w-]{22}$/);
    expect(claims.iat).toBeGreaterThanOrEqual(before);
    expect(claims.iat).toBeLessThanOrEqual(Date.now() / 1_000);
    expect(claims.auth_time).toBeGreaterThanOrEqual(before);
    expect(claims.auth_time).toBeLessThanOrEqual(claims.iat!);
  });

  it('an access token holds the phone number only if TOKEN_PHONE_NUMBER is set', async () => {
    const number = freshNumber();
    const session = await openSession(number);
    const silent = await verified((await tokens().issue(session)).accessToken);
    expect(JSON.stringify(silent)).not.toContain(number.slice(-10));
    const told = await verified((await tokens(telling).issue(session)).accessToken, telling);
    expect(told.phone_number).toBe(number);
    expect(Object.keys(told).sort()).toEqual([...Object.keys(silent), 'phone_number'].sort());
  });

  it('an access token lives for ACCESS_TOKEN_TTL_SECONDS', async () => {
    const { accessToken, expiresIn } = await tokens(telling).issue(await openSession(freshNumber()));
    const { iat, exp } = await verified(accessToken);
    expect([expiresIn, exp! - iat!]).toEqual([60, 60]);
  });

  it('each access token of a session has another jti and the same sub and sid', async () => {
    const session = await openSession(freshNumber());
    const issued = await Promise.all(Array.from({ length: 20 }, () => tokens().issue(session)));
    const claims = await Promise.all(issued.map(({ accessToken }) => verified(accessToken)));
    expect(new Set(claims.map(({ jti }) => jti)).size).toBe(20);
    expect(new Set(claims.map(({ sub, sid }) => `${sub!} ${String(sid)}`)).size).toBe(1);
  });

  it('an access token is accepted by each replica that reads the same signing keys', async () => {
    const session = await openSession(freshNumber());
    const { accessToken } = await tokens().issue(session);
    const claims = { subject: session.subject, sessionId: session.id };
    expect(await tokens().verify(accessToken)).toMatchObject(claims);
    expect(await tokens(telling).verify(accessToken)).toMatchObject(claims);
  });

  it('the sub of a user stays the same after Redis lost everything, and differs between users', async () => {
    const number = freshNumber();
    const [first, other] = [await openSession(number), await openSession(freshNumber())];
    await redisCommand(world, 'FLUSHDB');
    const again = await openSession(number);
    expect(again.subject).toBe(first.subject);
    expect(again.id).not.toBe(first.id);
    expect(other.subject).not.toBe(first.subject);
  });
});
