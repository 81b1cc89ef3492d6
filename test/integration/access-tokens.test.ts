import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify, type JWTPayload } from 'jose';
import { OtpService } from '../../src/otp/otp.service';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { SessionsService, type Session } from '../../src/sessions/sessions.service';
import { AccessTokens } from '../../src/tokens/access-tokens';
import { SigningKeys } from '../../src/tokens/signing-keys';
import {
  freshNumber,
  startInstance,
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
  telling = await startInstance({
    ...variables,
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
    TOKEN_PHONE_NUMBER: 'true',
    ACCESS_TOKEN_TTL_SECONDS: '60',
  });
});
afterAll(async () => {
  await telling.close();
  await world.close();
  rmSync(folder, { recursive: true });
});

function phone(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error(`${text} is no phone number`);
  return text;
}

/** A session by the only way there is: a code that was sent and came back. */
async function openSession(number: string, { app } = world.instances[0]!): Promise<Session> {
  const otp = app.get(OtpService);
  const { requestId } = await otp.request(phone(number), { address: '192.0.2.1' });
  return app
    .get(SessionsService)
    .open(await otp.verify(requestId, textedCode(world.upstream, number), { address: '192.0.2.1' }), {
      device: 'Test',
      address: '127.0.0.0/24',
    });
}

/** Verifies as a resource server does: with another library, the published keys, and nothing else. */
async function verified(token: string, { app } = world.instances[0]!): Promise<JWTPayload> {
  const { payload } = await jwtVerify(token, createLocalJWKSet(await app.get(SigningKeys).jwks()), {
    issuer: ISSUER,
    audience: AUDIENCE,
    algorithms: ['ES256'],
    typ: 'at+jwt',
    requiredClaims: ['exp', 'iat', 'sub', 'sid', 'jti', 'client_id', 'auth_time'],
  });
  return payload;
}

describe('an issued access token', () => {
  const tokens = (instance = world.instances[0]!): AccessTokens => instance.app.get(AccessTokens);

  test('says in its header what it is, and which key signed it: of those whose time has come', async () => {
    const { accessToken } = await tokens().issue(await openSession(freshNumber()));
    expect(decodeProtectedHeader(accessToken)).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: KID });
  });

  test('holds exactly these claims', async () => {
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

  test('tells the phone number only where TOKEN_PHONE_NUMBER lets it', async () => {
    const number = freshNumber();
    const session = await openSession(number);
    const silent = await verified((await tokens().issue(session)).accessToken);
    expect(JSON.stringify(silent)).not.toContain(number.slice(-10));
    const told = await verified((await tokens(telling).issue(session)).accessToken, telling);
    expect(told.phone_number).toBe(number);
    expect(Object.keys(told).sort()).toEqual([...Object.keys(silent), 'phone_number'].sort());
  });

  test('lives as many seconds as ACCESS_TOKEN_TTL_SECONDS says', async () => {
    const { accessToken, expiresIn } = await tokens(telling).issue(await openSession(freshNumber()));
    const { iat, exp } = await verified(accessToken);
    expect([expiresIn, exp! - iat!]).toEqual([60, 60]);
  });

  test('is another one each time, of the same person and session', async () => {
    const session = await openSession(freshNumber());
    const issued = await Promise.all(Array.from({ length: 20 }, () => tokens().issue(session)));
    const claims = await Promise.all(issued.map(({ accessToken }) => verified(accessToken)));
    expect(new Set(claims.map(({ jti }) => jti)).size).toBe(20);
    expect(new Set(claims.map(({ sub, sid }) => `${sub!} ${String(sid)}`)).size).toBe(1);
  });

  test('is verified by every replica that reads the same folder', async () => {
    const session = await openSession(freshNumber());
    const { accessToken } = await tokens().issue(session);
    const claims = { subject: session.subject, sessionId: session.id };
    expect(await tokens().verify(accessToken)).toMatchObject(claims);
    expect(await tokens(telling).verify(accessToken)).toMatchObject(claims);
  });

  test('names a person the same after the whole store was lost, and others otherwise', async () => {
    const number = freshNumber();
    const [first, other] = [await openSession(number), await openSession(freshNumber())];
    await world.redis.restart();
    await untilAnswered(async () => openSession(freshNumber()));
    const again = await openSession(number);
    expect(again.subject).toBe(first.subject);
    expect(again.id).not.toBe(first.id);
    expect(other.subject).not.toBe(first.subject);
  });
});

/** Waits until the instance has found its store again. */
async function untilAnswered(step: () => Promise<unknown>): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await step();
      return;
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
