import { ERROR_CODES } from '../../src/errors/api-error';
import { newSigningKey } from '../support/signing-keys';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  until,
  type Answer,
  type World,
} from '../support/world';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// A developer reads only the answer: it must say what to change.

let world: World;
beforeAll(async () => {
  world = await startWorld({ variables: { ADMIN_TOKENS: `ops:${'t'.repeat(32)}` } });
});
afterAll(() => world.close());

const post = (path: string, body: unknown, headers?: Record<string, string>): Promise<Answer> =>
  call('POST', world.url + path, body, headers);
/** The messages of a 400, by field. */
const faults = ({ status, body }: Answer): Record<string, string> => {
  expect(status).toBe(400);
  const errors = body.errors as { field: string; message: string }[];
  for (const { message } of errors) expect(body.detail).toContain(message);
  return Object.fromEntries(errors.map(({ field, message }) => [field, message]));
};

test('the detail of every error code tells what to do in one sentence, and is not its title', () => {
  for (const { title, detail } of Object.values(ERROR_CODES)) {
    expect(detail).not.toBe(title);
    expect(detail).toMatch(/^[A-Z][^\n]{15,160}\.$/);
  }
});

const E164 = 'phoneNumber must be an Indian mobile number in E.164 form: +91 and ten digits';
test.each<[unknown, string]>([
  [undefined, 'phoneNumber is missing'],
  [null, 'phoneNumber is missing'],
  [9876543210, `phoneNumber must be a string; it ${E164.slice(12)}`],
  [['+919876543210'], `phoneNumber must be a string; it ${E164.slice(12)}`],
  ['9876543210', `${E164}; put +91 before the ten digits`],
  ['09876543210', `${E164}; put +91 before the ten digits`],
  ['919876543210', `${E164}; put +91 before the ten digits`],
  ['+91 98765 43210', `${E164}, without spaces, dots or hyphens`],
  ['+91-9876543210', `${E164}, without spaces, dots or hyphens`],
  ['+14155550123', `${E164}; numbers of other countries are not served`],
  ['+91९८७६५४३२१०', `${E164}, and each digit one of 0 to 9`],
  ['', E164],
  ['+91987654321', E164],
  ['+911123456789', 'phoneNumber is a landline number, which receives no SMS: ask for a mobile number'],
  ['+912261234567', 'phoneNumber is a landline number, which receives no SMS: ask for a mobile number'],
  ['+915123456789', 'phoneNumber is a landline number, which receives no SMS: ask for a mobile number'],
  ['+916122000000', 'phoneNumber is a landline number, which receives no SMS: ask for a mobile number'],
  ['+911800123456', 'phoneNumber is not a mobile number: no operator in India has assigned numbers like it'],
  ['\u202a+919876543210', 'phoneNumber contains a character that is not shown (U+202A)'],
  ['+919876543210\u202c', 'phoneNumber contains a character that is not shown (U+202C)'],
  ['+91\u200b9876543210', 'phoneNumber contains a character that is not shown (U+200B)'],
  ['+91\u00a09876543210', 'phoneNumber contains a character that is not shown (U+00A0)'],
  ['\ufeff+919876543210', 'phoneNumber contains a character that is not shown (U+FEFF)'],
  ['+919876543210\n', 'phoneNumber contains a character that is not shown (U+000A)'],
  ['+919876543210\u0000', 'phoneNumber contains a character that is not shown (U+0000)'],
  ['+91987654\u{e0041}3210', 'phoneNumber contains a character that is not shown (U+E0041)'],
  ['+91987654\u31643210', 'phoneNumber contains a character that is not shown (U+3164)'],
])('send-otp says of the phone number %j why it is refused', async (phoneNumber, message) => {
  expect(faults(await post('/auth/send-otp', { phoneNumber }))).toEqual({ phoneNumber: message });
});

test('verify-otp calls fields missing that are named otherwise, and says that a code is a string', async () => {
  const supabase = await post('/auth/verify-otp', { phoneNumber: freshNumber(), otp: '123456' });
  expect(faults(supabase)).toEqual({ requestId: 'requestId is missing', otpCode: 'otpCode is missing' });
  const { requestId } = (await sendOtp(world.url, freshNumber())).body as { requestId: string };
  expect(faults(await post('/auth/verify-otp', { requestId, otpCode: 123456 }))).toEqual({
    otpCode: 'otpCode must be a string, because a code may start with 0',
  });
  expect(faults(await post('/auth/verify-otp', { requestId, otpCode: '123\u200e456' }))).toEqual({
    otpCode: 'otpCode contains a character that is not shown (U+200E)',
  });
});

test('a body that is no JSON object is told what JSON to send', async () => {
  for (const [body, field] of [
    ['[object Object]', 'the body is not JSON, as JSON.stringify writes it'],
    ['[]', 'the body must be a JSON object'],
    ['null', 'the body must be a JSON object'],
  ])
    expect(faults(await post('/auth/send-otp', body))).toEqual({ body: field });
});

test('415, 404 and 405 name the content type, the route and the methods', async () => {
  const text = await post('/auth/send-otp', '{}', { 'content-type': 'text/plain' });
  expect(text.body.detail).toBe('Send the body as JSON, with the header Content-Type: application/json.');
  const details = [
    await post('/auth/send-otp/?phone=%2B919876543210', {}),
    await post('/api/v1/auth/send-otp', {}),
    await post('/auth/login', {}),
    await call('GET', `${world.url}/auth/send-otp`),
    await call('PUT', `${world.url}/auth/sessions`, {}),
  ].map(({ body }) => body.detail as string);
  expect(details).toEqual([
    'No route POST /auth/send-otp/: check the path in docs/api.md.',
    'No route POST /api/v1/auth/send-otp: check the path in docs/api.md.',
    'No route POST /auth/login: check the path in docs/api.md.',
    'Use POST for this path, not GET.',
    'Use DELETE or GET or HEAD for this path, not PUT.',
  ]);
});

test('404 repeats no path that may hold a secret', async () => {
  const { body } = await login(world);
  for (const path of [`/x/${freshNumber()}`, `/x/${body.accessToken}`, `/x/${body.user.id}`, '/x/482910'])
    expect((await call('GET', world.url + path)).body.detail).toBe(
      'No such route: check the path in docs/api.md.',
    );
});

describe('the kinds of 401 at /auth/me', () => {
  const me = (url: string, authorization?: string): Promise<Answer> =>
    call('GET', `${url}/auth/me`, undefined, authorization === undefined ? {} : { authorization });
  const detailsAt = async (url: string, expired: string): Promise<string[]> => {
    const answers = [
      await me(url),
      await me(url, expired),
      await me(url, `Basic ${Buffer.from('a:b').toString('base64')}`),
      await me(url, 'Bearer'),
      await me(url, `Bearer ${expired}`),
      await me(url, 'Bearer garbage'),
      await me(url, `Bearer ${'x'.repeat(5_000)}`),
    ];
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.code}`))).toEqual(
      new Set(['401 unauthenticated']),
    );
    return answers.map(({ body }) => body.detail as string);
  };

  test('outside production the detail tells the kinds of 401 apart', async () => {
    const hasty = await anotherInstance(world, { ACCESS_TOKEN_TTL_SECONDS: '1' });
    try {
      const { body } = await login(world, freshNumber(), hasty.url);
      await until(async () => (await me(hasty.url, `Bearer ${body.accessToken}`)).status === 401);
      const details = await detailsAt(hasty.url, body.accessToken as string);
      expect(details.map((detail) => /: (.*)/.exec(detail.replace('Authorization: ', ''))?.[1])).toEqual([
        'there is no Authorization header.',
        'this is not a Bearer token.',
        'this is not a Bearer token.',
        'this is not a Bearer token.',
        'this one has expired.',
        'this one is malformed, for another audience or client, or another key signed it.',
        'this one is malformed, for another audience or client, or another key signed it.',
      ]);
    } finally {
      await hasty.close();
    }
  });

  test('in production every kind of 401 has the same detail', async () => {
    const keys = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
    writeFileSync(join(keys, '20250101T0000Z-test.pem'), newSigningKey());
    const production = await anotherInstance(world, {
      NODE_ENV: 'production',
      ISSUER: 'https://login.example.com',
      JWT_KEYS_DIR: keys,
      STARTMESSAGING_CONTRACT: 'provider',
      BUDGET_PAISE_PER_DAY: '10000000',
    });
    try {
      expect(new Set(await detailsAt(production.url, 'x.y.z'))).toEqual(
        new Set([ERROR_CODES.unauthenticated.detail]),
      );
    } finally {
      await production.close();
      rmSync(keys, { recursive: true });
    }
  });
});

test('a null in an optional field counts as absent in every body, and in a required one as missing', async () => {
  const phoneNumber = freshNumber();
  const sent = await post('/auth/send-otp', { phoneNumber, deviceToken: null, altcha: null, unknown: null });
  expect(sent.status).toBe(200);
  expect((await post('/auth/refresh', { refreshToken: null })).body.code).toBe('not_logged_in');
  const headers = { authorization: `Bearer ${'t'.repeat(32)}` };
  const block = { phoneNumber: freshNumber(), days: null, reason: null };
  expect((await post('/admin/numbers/block', block, headers)).status).toBe(204);
  expect(faults(await post('/auth/verify-otp', { requestId: null, otpCode: '123456' }))).toEqual({
    requestId: 'requestId is missing',
  });
  const faultScript = {
    on: 'send',
    provider: null,
    phoneNumber: null,
    times: null,
    fault: { kind: 'timeout', when: null },
  };
  const control = await call('POST', `${world.upstream.url}/_emulator/faults`, faultScript);
  expect(control.status).toBeLessThan(300);
  await call('DELETE', `${world.upstream.url}/_emulator/faults`);
});
