import { createRemoteJWKSet, jwtVerify } from 'jose';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

describe.each(['caller', 'provider'] as const)('a login under the %s contract', (contract) => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: contract, OTP_MAX_ATTEMPTS: '3' },
      count: 2,
    });
    world.upstream.settings.contract = contract;
  });
  afterAll(() => world.close());

  it('goes from a phone number to a JWT that any backend can verify', async () => {
    const phoneNumber = freshNumber();
    const sent = await sendOtp(world.url, phoneNumber);
    expect(sent.status).toBe(200);
    expect(Object.keys(sent.body).sort()).toEqual([
      'attemptsLeft',
      'delivery',
      'expiresAt',
      'requestId',
      'resendAt',
    ]);
    expect(sent.body.attemptsLeft).toBe(3);
    expect(Date.parse(sent.body.expiresAt) - Date.now()).toBeGreaterThan(290_000);
    expect(Date.parse(sent.body.expiresAt) - Date.now()).toBeLessThan(301_000);

    const verified = await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
    expect(verified.status).toBe(200);
    expect(verified.body).toMatchObject({
      verified: true,
      tokenType: 'Bearer',
      expiresIn: 600,
      user: { phoneNumber },
    });
    expect(verified.body.user.id).toMatch(/^[\w-]{22}$/);

    const jwks = createRemoteJWKSet(new URL(`${world.url}/.well-known/jwks.json`));
    const { payload, protectedHeader } = await jwtVerify(verified.body.accessToken as string, jwks, {
      issuer: 'http://localhost:3000',
      audience: 'otp-login',
      typ: 'at+jwt',
      algorithms: ['ES256'],
    });
    expect(protectedHeader.kid).toBeDefined();
    expect(payload).toMatchObject({
      sub: verified.body.user.id,
      amr: ['otp', 'sms'],
      client_id: 'otp-login',
    });
    expect(Object.keys(payload).sort()).toEqual([
      'amr',
      'aud',
      'auth_time',
      'client_id',
      'exp',
      'iat',
      'iss',
      'jti',
      'sid',
      'sub',
    ]);
  });

  it('says who is logged in, and when the code was verified', async () => {
    const phoneNumber = freshNumber();
    const verified = await login(world, phoneNumber);
    const me = await call('GET', `${world.url}/auth/me`, undefined, {
      authorization: `Bearer ${verified.body.accessToken}`,
    });
    expect(me.status).toBe(200);
    expect(me.body).toMatchObject({ id: verified.body.user.id, phoneNumber });
    expect(Math.abs(Date.parse(me.body.authenticatedAt) - Date.now())).toBeLessThan(60_000);
    const claims = JSON.parse(
      Buffer.from(String(verified.body.accessToken).split('.')[1] ?? '', 'base64url').toString(),
    );
    expect(me.body.sessionId).toBe(claims.sid);
  });

  it('is the same person again the next time, in another session', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    expect(second.body.user.id).toBe(first.body.user.id);
    const sid = (token: string): unknown =>
      JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).sid;
    expect(sid(second.body.accessToken)).not.toBe(sid(first.body.accessToken));
  });

  it('tells a wrong code with the attempts that are left, and then that none are', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    for (const attemptsLeft of [2, 1, 0]) {
      const wrong = await verifyOtp(world.url, body.requestId, wrongCode(code));
      expect([wrong.status, wrong.body.code, wrong.body.attemptsLeft]).toEqual([
        400,
        'otp_incorrect',
        attemptsLeft,
      ]);
    }
    const right = await verifyOtp(world.url, body.requestId, code);
    expect([right.status, right.body.code]).toEqual([410, 'otp_attempts_exhausted']);
  });

  it('takes no attempt for what is no code', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    for (const otpCode of [
      '',
      '123',
      '123456789',
      '12a456',
      '१२३४५६',
      ' 123456',
      123456,
      null,
      ['123456'],
      undefined,
    ]) {
      const refused = await verifyOtp(world.url, body.requestId, otpCode);
      expect([refused.status, refused.body.code]).toEqual([400, 'validation_failed']);
      expect(refused.body.errors).toEqual([{ field: 'otpCode', message: expect.any(String) }]);
    }
    const wrong = await verifyOtp(
      world.url,
      body.requestId,
      wrongCode(textedCode(world.upstream, phoneNumber)),
    );
    expect(wrong.body.attemptsLeft).toBe(2);
  });

  it('accepts a code once', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    const again = await verifyOtp(world.url, body.requestId, code);
    expect([again.status, again.body.code]).toEqual([410, 'otp_expired']);
  });

  it('never asks upstream about a request id that it did not issue', async () => {
    const calls = world.upstream.calls.length;
    const { body } = await sendOtp(world.url, freshNumber());
    const ids = [
      'x',
      'A'.repeat(44),
      `${String(body.requestId).slice(0, 22)}${'A'.repeat(22)}`,
      `${String(body.requestId)}A`,
      world.upstream.messages.at(-1)?.requestId,
    ];
    for (const id of ids) {
      const answer = await verifyOtp(world.url, id, '123456');
      expect([answer.status, answer.body.code]).toEqual([410, 'otp_expired']);
    }
    expect(world.upstream.calls).toHaveLength(calls + 1);
  });

  it('takes the phone number from the challenge, never from the caller', async () => {
    const [mine, victim] = [freshNumber(), freshNumber()];
    const { body } = await sendOtp(world.url, mine);
    const answer = await call('POST', `${world.url}/auth/verify-otp`, {
      requestId: body.requestId,
      otpCode: textedCode(world.upstream, mine),
      phoneNumber: victim,
      user: { phoneNumber: victim },
    });
    expect(answer.body.user.phoneNumber).toBe(mine);
  });

  it('may begin at one instance and end at another', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const other = world.instances[1]?.url ?? '';
    expect((await verifyOtp(other, body.requestId, textedCode(world.upstream, phoneNumber))).status).toBe(
      200,
    );
  });

  it('can be looked at while its code is awaited, by its own id only', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const look = (id: string) => call('GET', `${world.url}/auth/otp/${id}`);
    const { requestId, ...rest } = body as Record<string, string>;
    expect((await look(requestId!)).body).toEqual({ state: 'pending', ...rest });
    const code = textedCode(world.upstream, phoneNumber);
    await verifyOtp(world.url, requestId, wrongCode(code));
    expect((await look(requestId!)).body.attemptsLeft).toBe(2);
    await verifyOtp(world.url, requestId, code);
    expect((await look(requestId!)).body.state).toBe('verified');
    for (const id of ['x', 'A'.repeat(44), 'A'.repeat(4_000), '%00', `${requestId!}x`]) {
      const unknown = await look(id);
      expect([unknown.status, unknown.body.code]).toEqual([410, 'otp_expired']);
    }
  });

  it('is exhausted when its attempts are', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    for (let i = 0; i < 3; i++) await verifyOtp(world.url, body.requestId, wrong);
    const status = await call('GET', `${world.url}/auth/otp/${String(body.requestId)}`);
    expect(status.body).toMatchObject({ state: 'exhausted', attemptsLeft: 0 });
  });

  it('never shows an id of upstream', async () => {
    const sent = await sendOtp(world.url, freshNumber());
    const { id, requestId } = world.upstream.messages.at(-1) ?? { id: '', requestId: '' };
    const text = JSON.stringify(sent.body) + JSON.stringify([...sent.headers]);
    expect(text).not.toContain(id);
    expect(text).not.toContain(requestId);
  });
});

describe('a resend', () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' } });
  });
  afterAll(() => world.close());

  it('sends the same code under a new request id, and both stay valid with attempts of their own', async () => {
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    await verifyOtp(world.url, first.body.requestId, wrongCode(code));
    const second = await sendOtp(world.url, phoneNumber);
    expect(textedCode(world.upstream, phoneNumber)).toBe(code);
    expect(second.body.requestId).not.toBe(first.body.requestId);
    expect(second.body.attemptsLeft).toBe(3);
    expect((await verifyOtp(world.url, first.body.requestId, code)).status).toBe(200);
    // A code works once, whichever request id carried it.
    const reused = await verifyOtp(world.url, second.body.requestId, code);
    expect([reused.status, reused.body.code]).toEqual([410, 'otp_expired']);
  });

  it('after a login sends another code', async () => {
    const phoneNumber = freshNumber();
    await login(world, phoneNumber);
    const before = textedCode(world.upstream, phoneNumber);
    const codes = new Set([before]);
    for (let i = 0; i < 3; i++) {
      await login(world, phoneNumber);
      codes.add(textedCode(world.upstream, phoneNumber));
    }
    expect(codes.size).toBeGreaterThan(1);
  });

  it('tells upstream how long the code lives, in whole minutes', async () => {
    const phoneNumber = freshNumber();
    await sendOtp(world.url, phoneNumber);
    const body = world.upstream.calls.at(-1)?.body as { variables: Record<string, string> };
    expect(body.variables).toEqual({
      otp: textedCode(world.upstream, phoneNumber),
      appName: 'otp-login',
      expiry: '5',
    });
  });
});
