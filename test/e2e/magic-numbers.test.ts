import { solve } from '../support/town';
import { holdTimersOfService } from '../support/service-clock';
import {
  call,
  sendOtp,
  startInstance,
  startWorld,
  statusAndCode,
  until,
  verifyOtp,
  type World,
} from '../support/world';

const [LATE, ENDS, EXPIRED, CHALLENGE, LOCKED, UNAVAILABLE] = ['002', '401', '410', '428', '429', '503'].map(
  (digits) => `+910000000${digits}`,
) as [string, string, string, string, string, string];

let world: World;
beforeAll(async () => {
  world = await startWorld({ variables: { MAGIC_NUMBERS: 'true', TEST_NUMBERS: '+910000000999:123456' } });
});
afterAll(() => world.close());
afterEach(() => jest.restoreAllMocks());

it.each([
  [LOCKED, 429, 'phone_locked', '3600'],
  [UNAVAILABLE, 503, 'sms_unavailable', '300'],
])('send-otp answers the magic number %s with %d %s', async (phoneNumber, status, code, retryAfter) => {
  const answer = await sendOtp(world.url, phoneNumber);
  expect(statusAndCode(answer)).toEqual([status, code]);
  expect(answer.headers.get('retry-after')).toBe(retryAfter);
});

it('verify-otp answers 410 to the code of the magic number that gets an expired code', async () => {
  const sent = await sendOtp(world.url, EXPIRED);
  expect(sent.status).toBe(200);
  expect(sent.body.expiresInSeconds).toBeLessThanOrEqual(1);
  expect(statusAndCode(await verifyOtp(world.url, sent.body.requestId, '000000'))).toEqual([
    410,
    'otp_expired',
  ]);
});

it('the magic number of the proof of work gets a challenge, and a code after its solution', async () => {
  const refused = await sendOtp(world.url, CHALLENGE);
  expect(statusAndCode(refused)).toEqual([428, 'challenge_required']);
  const altcha = await solve(refused.body.challenge);
  const sent = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber: CHALLENGE, altcha });
  expect(sent.status).toBe(200);
  const verified = await verifyOtp(world.url, sent.body.requestId, '000000');
  expect(verified.status).toBe(200);
  const [, payload = ''] = String(verified.body.accessToken).split('.');
  expect(JSON.parse(Buffer.from(payload, 'base64url').toString())).toMatchObject({ test: true });
});

it('the SMS of the late magic number is accepted first, and delivered later', async () => {
  const timers = holdTimersOfService((ms) => ms === 20_000);
  const sent = await sendOtp(world.url, LATE);
  const status = async (): Promise<unknown> =>
    (await call('GET', `${world.url}/auth/otp/${String(sent.body.requestId)}`)).body.delivery;
  expect([sent.body.delivery, await status()]).toEqual(['accepted', 'accepted']);
  timers.fire();
  await until(async () => (await status()) === 'delivered', 'the late SMS');
  expect((await verifyOtp(world.url, sent.body.requestId, '000000')).status).toBe(200);
});

it('the service ends the session of a magic number after a minute', async () => {
  const timers = holdTimersOfService((ms) => ms === 60_000);
  const sent = await sendOtp(world.url, ENDS);
  const { body } = await verifyOtp(world.url, sent.body.requestId, '000000');
  const me = () =>
    call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${String(body.accessToken)}` });
  expect((await me()).status).toBe(200);
  timers.fire();
  await until(async () => (await me()).status === 401, 'the end of the session');
  const { refreshToken } = body as { refreshToken: string };
  expect(statusAndCode(await call('POST', `${world.url}/auth/refresh`, { refreshToken }))).toEqual([
    401,
    'session_revoked',
  ]);
});

it('an entry of TEST_NUMBERS wins over the magic number, and no magic number exists without the setting', async () => {
  const other = await startInstance({
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
    MAGIC_NUMBERS: 'true',
    TEST_NUMBERS: `${LOCKED}:123456`,
  });
  const without = await startInstance({
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
    TEST_NUMBERS: '+910000000999:123456',
  });
  try {
    const sent = await sendOtp(other.url, LOCKED);
    expect(statusAndCode(await verifyOtp(other.url, sent.body.requestId, '000000'))[1]).toBe('otp_incorrect');
    expect((await verifyOtp(other.url, sent.body.requestId, '123456')).status).toBe(200);
    expect(statusAndCode(await sendOtp(without.url, CHALLENGE))).toEqual([400, 'validation_failed']);
    expect(world.upstream.calls).toEqual([]);
  } finally {
    await Promise.all([other.close(), without.close()]);
  }
});
