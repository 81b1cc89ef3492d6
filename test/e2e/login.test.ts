import { createRemoteJWKSet, jwtVerify } from 'jose';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';
import { partsOf, requestIdOf, unknownRequestId } from '../support/keys';
import { bearer, claimsOf } from '../support/tokens';

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: contract, OTP_MAX_ATTEMPTS: '3' },
      count: 2,
    });
    world.upstream.settings.contract = contract;
  });
  afterAll(() => world.close());

  it(`a login under the ${contract} contract goes from a phone number to a JWT that any backend can verify`, async () => {
    const phoneNumber = freshNumber();
    const before = Date.now();
    const sent = await sendOtp(world.url, phoneNumber);
    const after = Date.now();
    expect(sent.status).toBe(200);
    expect(Object.keys(sent.body).sort()).toEqual([
      'attemptsLeft',
      'codeLength',
      'delivery',
      'expiresAt',
      'expiresInSeconds',
      'requestId',
      'resendAt',
      'resendInSeconds',
    ]);
    expect(sent.body.attemptsLeft).toBe(3);
    expect(Date.parse(sent.body.expiresAt)).toBeGreaterThanOrEqual(before + 300_000);
    expect(Date.parse(sent.body.expiresAt)).toBeLessThanOrEqual(after + 300_000);

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

  it(`/auth/me tells the user, the session and the time of the login under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const before = Date.now();
    const verified = await login(world, phoneNumber);
    const after = Date.now();
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(verified.body.accessToken));
    expect(me.status).toBe(200);
    const { sid: sessionId } = claimsOf(verified.body.accessToken);
    expect(me.body).toMatchObject({ id: verified.body.user.id, phoneNumber, sessionId });
    expect(Date.parse(me.body.authenticatedAt)).toBeGreaterThanOrEqual(before);
    expect(Date.parse(me.body.authenticatedAt)).toBeLessThanOrEqual(after);
  });

  it(`a second login with the same number has the same user id and a new session under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    expect(second.body.user.id).toBe(first.body.user.id);
    expect(claimsOf(second.body.accessToken).sid).not.toBe(claimsOf(first.body.accessToken).sid);
  });

  it(`verify-otp tells the attempts left after each wrong code under the ${contract} contract, and then refuses the right code`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    for (const attemptsLeft of [2, 1, 0]) {
      const wrong = await verifyOtp(world.url, body.requestId, wrongCode(code));
      expect([...statusAndCode(wrong), wrong.body.attemptsLeft]).toEqual([
        400,
        'otp_incorrect',
        attemptsLeft,
      ]);
    }
    const right = await verifyOtp(world.url, body.requestId, code);
    expect(statusAndCode(right)).toEqual([410, 'otp_attempts_exhausted']);
  });

  it(`verify-otp takes no attempt for text that is not a code under the ${contract} contract`, async () => {
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
      expect(statusAndCode(refused)).toEqual([400, 'validation_failed']);
      expect(refused.body.errors).toEqual([{ field: 'otpCode', message: expect.any(String) }]);
    }
    const wrong = await verifyOtp(
      world.url,
      body.requestId,
      wrongCode(textedCode(world.upstream, phoneNumber)),
    );
    expect(wrong.body.attemptsLeft).toBe(2);
  });

  it(`verify-otp accepts a code only once under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    const again = await verifyOtp(world.url, body.requestId, code);
    expect(statusAndCode(again)).toEqual([410, 'otp_expired']);
  });

  it(`the service never asks upstream about a request id that it did not issue under the ${contract} contract`, async () => {
    const { body } = await sendOtp(world.url, freshNumber());
    const calls = world.upstream.calls.length;
    const ids = [
      'x',
      'A'.repeat(64),
      unknownRequestId(),
      requestIdOf(partsOf(body.requestId as string).pseudonym),
      `${String(body.requestId)}A`,
      world.upstream.messages.at(-1)?.requestId,
    ];
    for (const id of ids) {
      const answer = await verifyOtp(world.url, id, '123456');
      expect(statusAndCode(answer)).toEqual([410, 'otp_expired']);
    }
    expect(world.upstream.calls).toHaveLength(calls);
  });

  it(`verify-otp takes the phone number from the challenge and never from the caller under the ${contract} contract`, async () => {
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

  it(`a login may begin at one instance and end at another under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const other = world.instances[1]?.url ?? '';
    expect((await verifyOtp(other, body.requestId, textedCode(world.upstream, phoneNumber))).status).toBe(
      200,
    );
  });

  it(`GET /auth/otp/{requestId} shows the state of a login by its own request id only under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const look = (id: string) => call('GET', `${world.url}/auth/otp/${id}`);
    const { requestId, expiresInSeconds, resendInSeconds, ...rest } = body as Record<string, string>;
    // The seconds of a status are those of its own moment.
    const seconds = { expiresInSeconds, resendInSeconds };
    expect({ ...(await look(requestId!)).body, ...seconds }).toEqual({
      state: 'pending',
      pollAfterSeconds: 2,
      ...rest,
      ...seconds,
    });
    const code = textedCode(world.upstream, phoneNumber);
    await verifyOtp(world.url, requestId, wrongCode(code));
    expect((await look(requestId!)).body.attemptsLeft).toBe(2);
    await verifyOtp(world.url, requestId, code);
    expect((await look(requestId!)).body.state).toBe('verified');
    for (const id of ['x', 'A'.repeat(64), unknownRequestId(), 'A'.repeat(4_000), '%00', `${requestId!}x`]) {
      const unknown = await look(id);
      expect(statusAndCode(unknown)).toEqual([410, 'otp_expired']);
    }
  });

  it(`GET /auth/otp/{requestId} shows the state exhausted after the last attempt under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    for (let i = 0; i < 3; i++) await verifyOtp(world.url, body.requestId, wrong);
    const status = await call('GET', `${world.url}/auth/otp/${String(body.requestId)}`);
    expect(status.body).toMatchObject({ state: 'exhausted', attemptsLeft: 0 });
  });

  it(`send-otp never shows an id of upstream under the ${contract} contract`, async () => {
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

  it('a resend texts the same code under a new request id, and each request id has its own attempts', async () => {
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    await verifyOtp(world.url, first.body.requestId, wrongCode(code));
    const second = await sendOtp(world.url, phoneNumber);
    expect(textedCode(world.upstream, phoneNumber)).toBe(code);
    expect(second.body.requestId).not.toBe(first.body.requestId);
    expect(second.body.attemptsLeft).toBe(3);
    expect((await verifyOtp(world.url, first.body.requestId, code)).status).toBe(200);
    const reused = await verifyOtp(world.url, second.body.requestId, code);
    expect(statusAndCode(reused)).toEqual([410, 'otp_expired']);
  });

  it('send-otp texts a new code after a login', async () => {
    const phoneNumber = freshNumber();
    const codes = new Set<string>();
    // Of four codes two may be the same by chance, but not all.
    for (let i = 0; i < 4; i++) {
      await login(world, phoneNumber);
      codes.add(textedCode(world.upstream, phoneNumber));
    }
    expect(codes.size).toBeGreaterThan(1);
  });

  it('send-otp tells upstream the lifetime of the code in whole minutes', async () => {
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
