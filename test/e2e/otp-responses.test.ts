import { bearer } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

// What a page needs to show: relative times, the length of the code, the names of devices.

const TEST_NUMBER = '+910184467440';
const status = (world: World, requestId: unknown): Promise<Answer> =>
  call('GET', `${world.url}/auth/otp/${String(requestId)}`);

describe.each([
  ['provider with OTP_LENGTH=4', { STARTMESSAGING_CONTRACT: 'provider', OTP_LENGTH: '4' }, 4],
  ['provider with OTP_LENGTH=8', { STARTMESSAGING_CONTRACT: 'provider', OTP_LENGTH: '8' }, 8],
  ['provider', { STARTMESSAGING_CONTRACT: 'provider' }, 6],
  ['caller with OTP_LENGTH=4', { STARTMESSAGING_CONTRACT: 'caller', OTP_LENGTH: '4' }, 6],
] as const)('under the contract %s', (contract, variables, length) => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '1/30,100/3600' } });
  });
  afterAll(() => world.close());

  test(`under ${contract} send-otp and the status say that a code has ${length} digits, and a code of another length takes no attempt`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect(body.codeLength).toBe(length);
    for (const digits of [3, 4, 5, 6, 7, 8, 9].filter((each) => each !== length)) {
      const refused = await verifyOtp(world.url, body.requestId, '1'.repeat(digits));
      expect([digits, ...statusAndCode(refused)]).toEqual([digits, 400, 'validation_failed']);
      expect(refused.body.errors).toEqual([{ field: 'otpCode', message: expect.any(String) as string }]);
    }
    expect((await status(world, body.requestId)).body).toMatchObject({ attemptsLeft: 3, codeLength: length });
    // The emulator makes codes of 6 digits.
    if (length !== 6) return;
    expect(statusAndCode(await verifyOtp(world.url, body.requestId, wrongCode(code)))).toEqual([
      400,
      'otp_incorrect',
    ]);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
  });

  test(`under ${contract} send-otp and the status give the times in seconds from now, and the status says when to ask again`, async () => {
    const { body: sent } = await sendOtp(world.url, freshNumber());
    const { body } = await status(world, sent.requestId);
    for (const each of [sent, body]) {
      const left = (Date.parse(each.expiresAt as string) - Date.now()) / 1_000;
      expect(Number.isInteger(each.expiresInSeconds)).toBe(true);
      expect(each.expiresInSeconds).toBeGreaterThanOrEqual(Math.floor(left));
      expect(each.expiresInSeconds).toBeLessThanOrEqual(300);
      expect(Number.isInteger(each.resendInSeconds)).toBe(true);
      expect(each.resendInSeconds).toBeGreaterThanOrEqual(
        Math.ceil((Date.parse(each.resendAt as string) - Date.now()) / 1_000),
      );
      expect(each.resendInSeconds).toBeLessThanOrEqual(31);
    }
    expect(sent).not.toHaveProperty('pollAfterSeconds');
    expect(body.pollAfterSeconds).toBeGreaterThanOrEqual(2);
    expect(body.pollAfterSeconds).toBeLessThanOrEqual(30);
  });
});

describe('a device', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ variables: { TEST_NUMBERS: `${TEST_NUMBER}:482910` } });
  });
  afterAll(() => world.close());

  const loginAs = async (more: object, headers: Record<string, string> = {}): Promise<Answer> => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const otpCode = textedCode(world.upstream, phoneNumber);
    return call(
      'POST',
      `${world.url}/auth/verify-otp`,
      { requestId: body.requestId, otpCode, ...more },
      headers,
    );
  };
  const listed = async ({ body }: Answer): Promise<Record<string, unknown>> => {
    const { body: list } = await call(
      'GET',
      `${world.url}/auth/sessions`,
      undefined,
      bearer(body.accessToken),
    );
    return (list.sessions as Record<string, unknown>[])[0]!;
  };

  test.each([
    ['okhttp/4.12.0', 'Android app'],
    ['Example/1.2 okhttp/5.0.0-alpha.14', 'Android app'],
    ['Example/7 CFNetwork/1410.0.3 Darwin/22.6.0', 'iOS app'],
    ['Dart/3.5 (dart:io)', 'Dart app'],
    ['notokhttp/1', 'Unknown device'],
    ['my phone okhttp', 'Unknown device'],
    [`${'x'.repeat(600)} okhttp/4.12.0`, 'Unknown device'],
    [
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0',
      'Firefox on Windows',
    ],
  ])('GET /auth/sessions names the user agent %.60s %s', async (agent, device) => {
    const session = await listed(await loginAs({}, { 'user-agent': agent }));
    expect(session.device).toBe(device);
    expect(session).not.toHaveProperty('deviceName');
  });

  test.each([
    'Pixel 9',
    "Priya's iPhone_2.0",
    'प्रिया का फ़ोन',
    'x'.repeat(40),
    `${'é'.repeat(24)}${'x'.repeat(16)}`,
    '9',
  ])(
    'GET /auth/sessions shows the deviceName %s beside the device that the service found',
    async (deviceName) => {
      const session = await listed(await loginAs({ deviceName }, { 'user-agent': 'okhttp/4.12.0' }));
      expect(session).toMatchObject({ device: 'Android app', deviceName });
    },
  );

  test.each([
    '',
    ' ',
    'x'.repeat(41),
    `${'é'.repeat(25)}${'x'.repeat(15)}`,
    'अ'.repeat(22),
    'a\u0000b',
    'a\nb',
    'a\u202eb',
    'a\u2066b',
    'a\u200bb',
    'a\u3164b',
    'a\u00a0b',
    '<b>',
    'a/b',
    '😀',
    '\ud800',
    7,
    true,
    ['Pixel'],
    {},
  ])(
    'verify-otp refuses the deviceName %j with a 400 that names the field, and takes no attempt',
    async (deviceName) => {
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const otpCode = textedCode(world.upstream, phoneNumber);
      const refused = await call('POST', `${world.url}/auth/verify-otp`, {
        requestId: body.requestId,
        otpCode: wrongCode(otpCode),
        deviceName,
      });
      expect(statusAndCode(refused)).toEqual([400, 'validation_failed']);
      expect(refused.body.errors).toEqual([expect.objectContaining({ field: 'deviceName' })]);
      expect((await status(world, body.requestId)).body.attemptsLeft).toBe(3);
    },
  );

  test('verify-otp takes null as no deviceName', async () => {
    const session = await listed(await loginAs({ deviceName: null }));
    expect(session).not.toHaveProperty('deviceName');
  });

  test('the code of a test number has 6 digits, whatever OTP_LENGTH is', async () => {
    const other = await anotherInstance(world, { TEST_NUMBERS: `${TEST_NUMBER}:482910`, OTP_LENGTH: '8' });
    try {
      expect((await sendOtp(other.url, freshNumber())).body.codeLength).toBe(8);
      const { body } = await sendOtp(other.url, TEST_NUMBER);
      expect(body.codeLength).toBe(6);
      expect((await verifyOtp(other.url, body.requestId, '482910')).status).toBe(200);
    } finally {
      await other.close();
    }
  });
});
