import {
  anotherInstance,
  call,
  freshNumber,
  startWorld,
  statusAndCode,
  textedCode,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

const APP = 'https://app.example';
let world: World;

beforeAll(async () => {
  world = await startWorld({ variables: { CORS_ORIGINS: APP, LIMIT_FAILED_CODES: '2/3600' } });
});
afterAll(() => world.close());

/** The device cookie of an answer, as the browser sends it back. */
const cookieOf = ({ headers }: Answer): string | undefined =>
  headers
    .getSetCookie()
    .find((line) => /^(__Host-)?device=/.test(line))
    ?.split(';')[0];

async function logIn(phoneNumber: string, cookie?: string, url = world.url): Promise<Answer> {
  const headers = { origin: APP, ...(cookie === undefined ? {} : { cookie }) };
  const sent = await call('POST', `${url}/auth/send-otp`, { phoneNumber }, headers);
  const otpCode = textedCode(world.upstream, phoneNumber);
  const body = { requestId: sent.body.requestId, otpCode, tokenDelivery: 'cookie' };
  return call('POST', `${url}/auth/verify-otp`, body, headers);
}

/** A stranger uses up the wrong codes of the number. */
async function lock(phoneNumber: string): Promise<void> {
  const { body } = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber });
  const otpCode = wrongCode(textedCode(world.upstream, phoneNumber));
  for (let i = 0; i < 2; i++) {
    await call('POST', `${world.url}/auth/verify-otp`, { requestId: body.requestId, otpCode });
  }
}

const send = (phoneNumber: string, cookie: string, origin?: string): Promise<Answer> =>
  call('POST', `${world.url}/auth/send-otp`, { phoneNumber }, { cookie, ...(origin ? { origin } : {}) });

it('a login in cookie mode sets a cookie that no script can read, and that keeps the number open for its owner', async () => {
  const phoneNumber = freshNumber();
  const answer = await logIn(phoneNumber);
  const line = answer.headers.getSetCookie().find((one) => one.startsWith('__Host-device='));
  expect(line).toMatch(/; Max-Age=7776000; Path=\/; HttpOnly; Secure; SameSite=Strict$/);
  await lock(phoneNumber);
  const cookie = cookieOf(answer)!;
  expect((await send(phoneNumber, cookie, APP)).status).toBe(200);
  expect(statusAndCode(await send(phoneNumber, '__Host-device=none', APP))).toEqual([429, 'phone_locked']);
  // Another page of the same site sends the cookie, too, and must not use up the allowance.
  expect(statusAndCode(await send(phoneNumber, cookie, 'https://other.example'))).toEqual([
    429,
    'phone_locked',
  ]);
  expect(statusAndCode(await send(phoneNumber, cookie))).toEqual([429, 'phone_locked']);
});

it('the cookie holds one token for each of the last three numbers of a browser, and none of the numbers', async () => {
  const numbers = [freshNumber(), freshNumber(), freshNumber(), freshNumber()];
  let cookie: string | undefined;
  for (const phoneNumber of numbers) cookie = cookieOf(await logIn(phoneNumber, cookie));
  cookie = cookieOf(await logIn(numbers[3]!, cookie));
  expect(cookie?.split('~')).toHaveLength(3);
  expect(numbers.filter((phoneNumber) => cookie?.includes(phoneNumber.slice(3)))).toEqual([]);
  await lock(numbers[0]!);
  await lock(numbers[1]!);
  expect(statusAndCode(await send(numbers[0]!, cookie!, APP))).toEqual([429, 'phone_locked']);
  expect((await send(numbers[1]!, cookie!, APP)).status).toBe(200);
});

it('a login in body mode sets no device cookie, and COOKIE_INSECURE names it without Secure', async () => {
  const phoneNumber = freshNumber();
  const { body } = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber });
  const otpCode = textedCode(world.upstream, phoneNumber);
  const verified = await call('POST', `${world.url}/auth/verify-otp`, { requestId: body.requestId, otpCode });
  expect(cookieOf(verified)).toBeUndefined();
  const local = await anotherInstance(world, {
    CORS_ORIGINS: APP,
    COOKIE_INSECURE: 'true',
    ISSUER: 'http://localhost:3000',
  });
  try {
    const answer = await logIn(freshNumber(), undefined, local.url);
    expect(cookieOf(answer)).toMatch(/^device=/);
    expect(answer.headers.getSetCookie().join()).not.toContain('Secure');
  } finally {
    await local.close();
  }
});
