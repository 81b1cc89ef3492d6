import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import { Subjects } from '../../src/sessions/subjects';
import {
  API_KEY,
  call,
  freshNumber,
  SECRET,
  sendOtp,
  statusAndCode,
  SUBJECT_SECRET,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
} from '../support/world';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import { EDITION_SETTINGS, startEdition, type RunningEdition, type Target } from '../support/edition';

// The same requests go to both targets under both contracts, as their clients send them.

const TARGETS: [Target, 'caller' | 'provider'][] = [
  ['worker', 'caller'],
  ['worker', 'provider'],
  ['lambda', 'caller'],
  ['lambda', 'provider'],
];
const APP = 'https://app.example.com';
/** An instance of Lambda serves one request at a time, and each thaw costs time. */
const CROWD = { worker: 200, lambda: 60 };

function tally(answers: Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) {
    const name = statusAndCode(answer).filter(Boolean).join(' ');
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

describe.each(TARGETS)('the %s under the %s contract', (target, contract) => {
  let edition: RunningEdition;
  const numbers: string[] = [];
  const codes: string[] = [];
  const number = (): string => {
    const fresh = freshNumber();
    numbers.push(fresh);
    return fresh;
  };
  const texted = (phone: string): string => {
    const code = textedCode(edition.upstream, phone);
    codes.push(code);
    return code;
  };
  const send = (phone: string, headers?: Record<string, string>) => sendOtp(edition.url, phone, headers);
  const verify = (requestId: unknown, code: string, headers?: Record<string, string>) =>
    verifyOtp(edition.url, requestId, code, headers);
  const get = (path: string, token: string) =>
    call('GET', `${edition.url}${path}`, undefined, { authorization: `Bearer ${token}` });
  const login = async (phone = number()): Promise<Answer> =>
    verify((await send(phone)).body.requestId, texted(phone));

  beforeAll(async () => {
    edition = await startEdition(target, {
      STARTMESSAGING_CONTRACT: contract,
      LIMIT_PHONE: '5/600',
      LIMIT_FAILED_CODES: '10/3600',
      CORS_ORIGINS: APP,
    });
  });
  afterAll(() => edition.close());

  it('a user logs in, stays logged in and logs out, as at the service', async () => {
    const phone = number();
    const sent = await send(phone);
    expect(sent.status).toBe(200);
    expect(sent.body).toMatchObject({ attemptsLeft: 3, delivery: expect.any(String), codeLength: 6 });
    expect(sent.headers.get('cache-control')).toBe('no-store');
    const code = texted(phone);
    expect((await verify(sent.body.requestId, wrongCode(code))).body).toMatchObject({
      ...{ status: 400, code: 'otp_incorrect', attemptsLeft: 2 },
    });
    const verified = await verify(sent.body.requestId, code);
    const { accessToken, refreshToken, user } = verified.body;
    expect(verified.body).toMatchObject({ verified: true, tokenType: 'Bearer', expiresIn: 600 });
    expect(statusAndCode(await verify(sent.body.requestId, code))).toEqual([410, 'otp_expired']);

    // The same user id as at the service: a team that moves there keeps its users.
    const subject = new Subjects({ subjectSecret: SUBJECT_SECRET }).of(phone as PhoneNumber);
    expect(user).toEqual({ id: subject, phoneNumber: phone });
    const jwks = (await call('GET', `${edition.url}/.well-known/jwks.json`)).body as JSONWebKeySet;
    const { payload } = await jwtVerify(accessToken as string, createLocalJWKSet(jwks), {
      ...{ issuer: EDITION_SETTINGS.ISSUER, audience: 'otp-login', typ: 'at+jwt', algorithms: ['ES256'] },
    });
    expect(Object.keys(payload).sort()).toEqual(
      ['amr', 'aud', 'auth_time', 'client_id', 'exp', 'iat', 'iss', 'jti', 'sid', 'sub'].sort(),
    );
    expect((await get('/auth/me', accessToken as string)).body).toMatchObject({
      id: subject,
      phoneNumber: phone,
    });
    const [listed] = (await get('/auth/sessions', accessToken as string)).body.sessions;
    expect(listed).toMatchObject({ id: payload.sid, current: true, device: expect.any(String) });

    const refresh = (token: string) => call('POST', `${edition.url}/auth/refresh`, { refreshToken: token });
    const refreshed = await refresh(refreshToken as string);
    // A lost response: the immediate parent gets the same successor.
    expect((await refresh(refreshToken as string)).body.refreshToken).toBe(refreshed.body.refreshToken);
    const second = await refresh(refreshed.body.refreshToken as string);
    expect(second.status).toBe(200);
    // The grandparent is a stolen token.
    expect(statusAndCode(await refresh(refreshToken as string))).toEqual([401, 'refresh_token_reused']);
    expect(statusAndCode(await get('/auth/me', accessToken as string))).toEqual([401, 'session_revoked']);

    const again = (await login(phone)).body;
    expect(
      (await call('POST', `${edition.url}/auth/logout`, { refreshToken: again.refreshToken })).status,
    ).toBe(204);
    expect(statusAndCode(await get('/auth/me', again.accessToken as string))).toEqual([
      401,
      'session_revoked',
    ]);
  });

  it('of concurrent sends to one number exactly as many pass as its limit allows', async () => {
    const phone = number();
    const answers = await Promise.all(Array.from({ length: CROWD[target] }, () => send(phone)));
    expect(tally(answers)).toEqual({ '200': 5, '429 rate_limited': CROWD[target] - 5 });
    const sms = edition.upstream.messages.filter(({ phoneNumber }) => phoneNumber === phone);
    expect(sms).toHaveLength(5);
    if (contract === 'caller') expect(new Set(sms.map(({ code }) => code)).size).toBe(1);
    texted(phone);
  });

  it('of concurrent right codes one opens a session', async () => {
    const phone = number();
    const { requestId } = (await send(phone)).body;
    const code = texted(phone);
    const answers = await Promise.all(Array.from({ length: CROWD[target] }, () => verify(requestId, code)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 410)).toHaveLength(CROWD[target] - 1);
    const { accessToken } = answers.find(({ status }) => status === 200)!.body;
    expect((await get('/auth/sessions', accessToken as string)).body.sessions).toHaveLength(1);
  });

  it('of concurrent wrong codes exactly three are checked, and the right code comes too late', async () => {
    const phone = number();
    const { requestId } = (await send(phone)).body;
    const code = texted(phone);
    const guesses = await Promise.all(Array.from({ length: 60 }, () => verify(requestId, wrongCode(code))));
    expect(tally(guesses)).toEqual({ '400 otp_incorrect': 3, '410 otp_attempts_exhausted': 57 });
    expect(statusAndCode(await verify(requestId, code))).toEqual([410, 'otp_attempts_exhausted']);
  });

  it('repeats under an Idempotency-Key send one SMS and open one session', async () => {
    const phone = number();
    const key = { 'idempotency-key': `key-of-${phone}-0123456789` };
    const sent = await Promise.all([send(phone, key), send(phone, key), send(phone, key)]);
    expect(new Set(sent.map(({ body }) => body.requestId as string)).size).toBe(1);
    expect(edition.upstream.messages.filter(({ phoneNumber }) => phoneNumber === phone)).toHaveLength(1);
    const { requestId } = sent[0].body;
    const [one, two] = await Promise.all([
      verify(requestId, texted(phone), key),
      verify(requestId, texted(phone), key),
    ]);
    expect(one.body.refreshToken).toBe(two.body.refreshToken);
    expect(statusAndCode(await verify(requestId, wrongCode(texted(phone)), key))).toEqual([
      422,
      'idempotency_key_reused',
    ]);
  });

  it('the cookie works for pages of allowed origins only', async () => {
    const phone = number();
    const { requestId } = (await send(phone)).body;
    const body = { requestId, otpCode: texted(phone), tokenDelivery: 'cookie' };
    const verifyFrom = (origin: string) => call('POST', `${edition.url}/auth/verify-otp`, body, { origin });
    expect(statusAndCode(await verifyFrom('https://evil.example'))).toEqual([403, 'origin_not_allowed']);
    const verified = await verifyFrom(APP);
    expect(verified.headers.get('access-control-allow-origin')).toBe(APP);
    expect(verified.body).not.toHaveProperty('refreshToken');
    const cookie = verified.headers.get('set-cookie')!;
    expect(cookie).toMatch(
      /^__Host-refresh=\S+; Max-Age=604800; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
    );
    const refreshFrom = (origin: string) =>
      call('POST', `${edition.url}/auth/refresh`, {}, { origin, cookie: cookie.split(';')[0]! });
    expect(statusAndCode(await refreshFrom('https://evil.example'))).toEqual([403, 'origin_not_allowed']);
    expect((await refreshFrom(APP)).status).toBe(200);
    expect(statusAndCode(await call('POST', `${edition.url}/auth/refresh`, {}))).toEqual([
      401,
      'not_logged_in',
    ]);
  });

  it('a test number logs in without an SMS', async () => {
    const sent = await send('+910123456789');
    expect(sent.body.delivery).toBe('delivered');
    expect((await verify(sent.body.requestId, '246810')).status).toBe(200);
    expect(statusAndCode(await send('+910123456780'))).toEqual([400, 'validation_failed']);
  });

  it('the edition refuses hostile requests with the errors of the service', async () => {
    const post = (body: unknown, headers?: Record<string, string>) =>
      call('POST', `${edition.url}/auth/send-otp`, body, headers);
    const sms = edition.upstream.calls.length;
    for (const body of [
      '{',
      '[]',
      '"x"',
      {},
      { phoneNumber: ['+919876543210'] },
      { phoneNumber: '9876543210' },
    ])
      expect(statusAndCode(await post(body))).toEqual([400, 'validation_failed']);
    expect(statusAndCode(await post('a=b', { 'content-type': 'application/x-www-form-urlencoded' }))).toEqual(
      [415, 'unsupported_media_type'],
    );
    expect(statusAndCode(await post({ phoneNumber: 'x'.repeat(20_000) }))).toEqual([
      413,
      'payload_too_large',
    ]);
    expect(statusAndCode(await verify('A'.repeat(64), '123456'))).toEqual([410, 'otp_expired']);
    expect(statusAndCode(await call('GET', `${edition.url}/admin/abuse`))).toEqual([404, 'not_found']);
    expect(statusAndCode(await call('GET', `${edition.url}/auth/send-otp`))).toEqual([
      405,
      'method_not_allowed',
    ]);
    expect(statusAndCode(await get('/auth/me', 'forged'))).toEqual([401, 'unauthenticated']);
    expect(edition.upstream.calls).toHaveLength(sms);
  });

  it('faults of the provider reach the client as at the service', async () => {
    const sendUnder = async (status: number, code: string): Promise<Answer> => {
      edition.upstream.fault({ on: 'send', fault: { kind: 'error', status, code } });
      return send(number());
    };
    expect(statusAndCode(await sendUnder(401, 'UNAUTHORIZED'))).toEqual([500, 'internal_error']);
    expect(statusAndCode(await sendUnder(400, 'INSUFFICIENT_BALANCE'))).toEqual([503, 'sms_unavailable']);
    expect(statusAndCode(await sendUnder(400, 'RATE_LIMIT_EXCEEDED'))).toEqual([429, 'rate_limited']);
    expect(statusAndCode(await sendUnder(429, 'INTERNAL_ERROR'))).toEqual([429, 'rate_limited']);
    expect(statusAndCode(await sendUnder(400, 'VALIDATION_ERROR'))).toEqual([400, 'phone_number_rejected']);
  });

  it('no secret, number, code or token is in the store or in the log', async () => {
    await login();
    const stored =
      target === 'lambda'
        ? JSON.stringify(await edition.desk('/items'))
        : readdirSync(join(edition.folder, 'documents'), { recursive: true, encoding: 'utf8' })
            .filter((path) => path.includes('.sqlite'))
            .map((path) => readFileSync(join(edition.folder, 'documents', path), 'latin1'))
            .join('');
    expect(stored).toContain('challenges');
    const logs = await edition.logs();
    const secrets = [
      API_KEY,
      SECRET,
      SUBJECT_SECRET,
      'PRIVATE KEY',
      'eyJ',
      ...numbers.map((each) => each.slice(3)),
    ];
    for (const secret of secrets) expect([secret, stored.includes(secret)]).toEqual([secret, false]);
    for (const secret of [...secrets, ...codes.map((code) => `"${code}"`)])
      expect([secret, logs.includes(secret)]).toEqual([secret, false]);
  });
});
