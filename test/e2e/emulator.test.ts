import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Emulator } from '../../src/emulator/emulator';
import { compiledService } from '../support/compile';
import { until, withoutHang } from '../support/hang';
import { service } from '../support/service';

const { startEmulator } = service();

const KEY = `sm_live_${'0123456789'.repeat(4)}`;
const PHONE = '+919876543210';
const OTHER = '+918765432109';
const TEMPLATE = '7d444840-9dc0-41d1-b245-5ffdce74fad2';

let emulator: Emulator;

beforeAll(async () => {
  emulator = await startEmulator();
});
beforeEach(() => {
  emulator.reset();
});
afterAll(() => emulator.close());

async function post(path: string, body: unknown, headers: Record<string, string> = { 'X-API-Key': KEY }) {
  const response = await fetch(emulator.url + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
    redirect: 'manual',
  });
  return answerOf(response);
}

async function get(path: string, headers: Record<string, string> = { 'X-API-Key': KEY }) {
  return answerOf(await fetch(emulator.url + path, { headers }));
}

/** The status of a GET under another host name. */
const statusFor = (host: string, url: string): Promise<number | undefined> =>
  new Promise((resolve) => {
    httpRequest(url, { headers: { Host: host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).end();
  });

async function answerOf(response: Response) {
  const text = await response.text();
  const json = response.headers.get('content-type')?.includes('json') === true;
  return { status: response.status, headers: response.headers, text, body: json ? tryJson(text) : undefined };
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- answers of any shape, read freely below
function tryJson(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const variables = { otp: '123456', appName: 'Shop', expiry: '5' };
const sendTheirs = (more: object = {}) => post('/otp/send', { phoneNumber: PHONE, variables, ...more });
const sendOurs = (more: object = {}) => post('/otp/send', { phoneNumber: PHONE, ...more });
const verify = (requestId: string, otpCode: string) => post('/otp/verify', { requestId, otpCode });
const wrong = (code: string) => (code === '000000' ? '000001' : '000000');

describe('the caller contract', () => {
  test('under the caller contract the emulator texts the code of the customer', async () => {
    const { status, body } = await sendTheirs({ templateId: TEMPLATE });
    expect(status).toBe(201);
    expect(body).toMatchObject({ success: true, statusCode: 201 });
    expect(body.requestId).toMatch(/^req_[0-9a-f]{16}$/);
    const [message] = emulator.messages;
    expect(body.data).toEqual({
      otpRequestId: message!.requestId,
      messageId: message!.id,
      status: 'initiated',
      phoneNumber: PHONE,
      createdAt: message!.createdAt,
    });
    expect(message).toMatchObject({ phoneNumber: PHONE, code: '123456', contract: 'caller' });
    expect(message!.text).toContain('123456 is your code for Shop. Valid for 5 minutes');
  });

  test('under the caller contract the emulator sends and charges a second SMS for a repeated idempotency key', async () => {
    await sendTheirs({ idempotencyKey: 'key' });
    await sendTheirs({ idempotencyKey: 'key' });
    expect(emulator.messages.map((message) => message.idempotencyKey)).toEqual(['key', 'key']);
    expect(emulator.settings.balance).toBe(99.5);
  });

  test('under the caller contract the emulator texts a missing expiry as undefined, as StartMessaging does', async () => {
    await sendTheirs({ variables: { otp: '1234', appName: 'Shop' } });
    expect(emulator.lastMessageTo(PHONE)!.text).toContain('Valid for undefined minutes');
  });

  test.each([
    ['a code of eight digits', { variables: { otp: '12345678' } }, 'variables.otp'],
    ['a code of three digits', { variables: { otp: '123' } }, 'variables.otp'],
    ['a number as the code', { variables: { otp: 123456 } }, 'variables.otp'],
    ['variables without a code', { variables: {} }, 'variables.otp'],
    ['a number as the expiry', { variables: { ...variables, expiry: 5 } }, 'variables.expiry'],
    ['variables that are a list', { variables: [] }, 'variables'],
    ['a template id that is no UUID', { templateId: 'default' }, 'templateId'],
    ['a landline', { phoneNumber: '+911123456789' }, 'phoneNumber'],
    ['a number with a line break behind it', { phoneNumber: `${PHONE}\n` }, 'phoneNumber'],
  ])('under the caller contract the emulator refuses %s', async (_, more, name) => {
    const { status, body } = await sendTheirs(more);
    expect(status).toBe(400);
    expect(body).toMatchObject({ success: false, statusCode: 400, error: { code: 'VALIDATION_ERROR' } });
    expect(body.error.details[0].message).toContain(name);
    expect(emulator.messages).toHaveLength(0);
  });

  test('an emulator with the caller contract only has no verify route and requires variables', async () => {
    emulator.settings.contract = 'caller';
    const missing = await sendOurs();
    expect(missing.status).toBe(400);
    expect(missing.body.error).toMatchObject({ code: 'VALIDATION_ERROR' });
    expect(missing.body.error.details[0].message).toContain('variables');
    const { status, body } = await verify('any', '123456');
    expect(status).toBe(404);
    expect(body.error).toEqual({ code: 'NOT_FOUND', message: 'Cannot POST /otp/verify' });
  });

  test('under the caller contract the emulator verifies no code', async () => {
    const { body } = await sendTheirs();
    expect((await verify(body.data.otpRequestId, '123456')).status).toBe(404);
  });
});

describe('the provider contract', () => {
  test('under the provider contract the emulator makes a code and verifies it once', async () => {
    const before = Date.now();
    const { status, body } = await sendOurs();
    expect(status).toBe(200);
    const { requestId, expiresAt, attemptsLeft } = body.data;
    expect(attemptsLeft).toBe(3);
    expect(Date.parse(expiresAt)).toBeGreaterThanOrEqual(before + 300_000);
    expect(Date.parse(expiresAt)).toBeLessThanOrEqual(Date.now() + 300_000);
    const { code } = emulator.lastMessageTo(PHONE)!;
    expect(code).toMatch(/^\d{6}$/);
    const right = await verify(requestId, code);
    expect(right.status).toBe(200);
    expect(right.body.data).toEqual({ verified: true });
    expect((await verify(requestId, code)).status).toBe(410);
  });

  test('under the provider contract the code of an older request stays valid after a newer request', async () => {
    const older = await sendOurs();
    await sendOurs();
    const { code } = emulator.messages[0]!;
    expect((await verify(older.body.data.requestId, code)).body.data.verified).toBe(true);
  });

  test('under the provider contract three wrong codes void the right code', async () => {
    const { requestId } = (await sendOurs()).body.data;
    const { code } = emulator.messages[0]!;
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const { status, body } = await verify(requestId, wrong(code));
      expect([status, body.error.code]).toEqual([400, 'OTP_INVALID']);
    }
    const { status, body } = await verify(requestId, code);
    expect([status, body.error.code]).toEqual([400, 'OTP_ATTEMPTS_EXCEEDED']);
  });

  test('under the provider contract the emulator refuses an expired code and an unknown request', async () => {
    emulator.settings.otpTtlSeconds = 0;
    const { requestId } = (await sendOurs()).body.data;
    expect((await verify(requestId, emulator.messages[0]!.code)).status).toBe(410);
    const { status, body } = await verify('unknown', '123456');
    expect(status).toBe(404);
    expect(body.error.message).not.toMatch(/^Cannot/);
    expect((await post('/otp/verify', { requestId })).body.error.code).toBe('VALIDATION_ERROR');
  });

  test('under the provider contract one idempotency key sends one SMS, and is refused for another number', async () => {
    const first = await sendOurs({ idempotencyKey: 'key' });
    const again = await sendOurs({ idempotencyKey: 'key' });
    expect(again.body.data).toEqual(first.body.data);
    expect(emulator.messages).toHaveLength(1);
    expect(emulator.settings.balance).toBe(99.75);
    const other = await post('/otp/send', { phoneNumber: OTHER, idempotencyKey: 'key' });
    expect(other.status).toBe(409);
  });

  test('an emulator with the provider contract only ignores variables', async () => {
    emulator.settings.contract = 'provider';
    expect((await sendTheirs()).status).toBe(200);
    expect(emulator.messages[0]).toMatchObject({ contract: 'provider' });
  });
});

describe('Send With SES, on the same port', () => {
  const sesKey = { 'template-key': 'tk_0123456789' };
  const sendBySes = (mobile: unknown, headers: Record<string, string> = sesKey) =>
    post('/send-otp', { mobile }, headers);
  const verifyBySes = (mobile: unknown, otp: unknown) => post('/verify-otp', { mobile, otp }, sesKey);

  test('Send With SES has one valid code per number, and verifies it once', async () => {
    expect(await sendBySes(PHONE)).toMatchObject({
      status: 200,
      body: { success: true, data: { status: 'sent' } },
    });
    const old = emulator.lastMessageTo(PHONE)!.code;
    await sendBySes(PHONE);
    const message = emulator.lastMessageTo(PHONE)!;
    expect(message).toMatchObject({ contract: 'sendwithses', phoneNumber: PHONE });
    if (old !== message.code) expect((await verifyBySes(PHONE, old)).status).toBe(400);
    expect(await verifyBySes(OTHER, message.code)).toMatchObject({ status: 400, body: { success: false } });
    const right = await verifyBySes(PHONE, message.code);
    expect(right).toMatchObject({ status: 200, body: { success: true, data: { verified: true } } });
    expect((await verifyBySes(PHONE, message.code)).status).toBe(400);
  });

  test('Send With SES refuses an expired code, a code after three wrong ones, and numbers that are not Indian', async () => {
    await sendBySes(PHONE);
    const { code } = emulator.lastMessageTo(PHONE)!;
    for (let i = 0; i < 3; i += 1) expect((await verifyBySes(PHONE, wrong(code))).status).toBe(400);
    expect((await verifyBySes(PHONE, code)).status).toBe(400);
    emulator.settings.otpTtlSeconds = 0;
    await sendBySes(OTHER);
    expect((await verifyBySes(OTHER, emulator.lastMessageTo(OTHER)!.code)).status).toBe(410);
    for (const mobile of ['9876543210', '+14155550123', 7, undefined]) {
      expect((await sendBySes(mobile)).status).toBe(400);
    }
  });

  test('Send With SES charges another wallet, requires its own key, and the key is masked in the calls', async () => {
    emulator.settings.balance = 0;
    expect((await sendBySes(PHONE)).status).toBe(200);
    expect(emulator.settings.balance).toBe(0);
    expect((await sendBySes(PHONE, { 'X-API-Key': KEY })).status).toBe(401);
    expect(emulator.calls.map(({ apiKeyValid, accepted }) => [apiKeyValid, accepted])).toEqual([
      [true, true],
      [false, false],
    ]);
    expect(JSON.stringify(emulator.calls)).not.toContain('tk_0123456789');
    expect(emulator.calls[0]!.headers['template-key']).toBe('***');
  });

  test('a fault hits one provider, or both when it names none', async () => {
    emulator.fault({ on: 'send', provider: 'startmessaging', fault: 'server-error' });
    expect((await sendBySes(PHONE)).status).toBe(200);
    expect((await sendOurs()).status).toBe(500);
    emulator.fault({ on: 'send', provider: 'sendwithses', phoneNumber: PHONE, fault: 'server-error' });
    expect((await sendOurs()).status).toBe(200);
    expect((await sendBySes(OTHER)).status).toBe(200);
    expect((await sendBySes(PHONE)).status).toBe(500);
    emulator.fault({ on: 'verify', fault: 'bad-gateway', times: 2 });
    expect((await verifyBySes(PHONE, '123456')).status).toBe(502);
    expect((await verify('x', '123456')).status).toBe(502);
    const nobody = { on: 'send', provider: 'nobody', fault: 'server-error' } as unknown;
    expect(() => {
      emulator.fault(nobody as Parameters<Emulator['fault']>[0]);
    }).toThrow('provider must be one of startmessaging, sendwithses');
  });
});

describe('the account', () => {
  test.each([
    ['without a key', {}],
    ['with a key of another form', { 'X-API-Key': 'secret' }],
  ])('the emulator refuses a call %s', async (_, headers) => {
    const { status, body } = await post('/otp/send', { phoneNumber: PHONE }, headers);
    expect([status, body.error.code]).toEqual([401, 'UNAUTHORIZED']);
    expect(emulator.calls[0]).toMatchObject({ apiKeyValid: false, accepted: false, status: 401 });
  });

  test('the emulator accepts only the keys that it was given, and every well-formed key again after a reset', async () => {
    const other = `sm_live_${'1'.repeat(40)}`;
    const walletBy = async (key: string) => (await get('/wallet', { 'X-API-Key': key })).status;
    expect([await walletBy(KEY), await walletBy(other)]).toEqual([200, 200]);
    emulator.acceptKeys(other);
    expect([await walletBy(KEY), await walletBy(other)]).toEqual([401, 200]);
    emulator.acceptKeys(KEY, other);
    expect([await walletBy(KEY), await walletBy(other)]).toEqual([200, 200]);
    emulator.reset();
    expect([await walletBy(KEY), await walletBy('secret')]).toEqual([200, 401]);
  });

  test('the emulator sends no SMS when the wallet is empty', async () => {
    emulator.settings.balance = 0.25;
    expect((await sendTheirs()).status).toBe(201);
    const { status, body } = await sendTheirs();
    expect([status, body.error.code]).toEqual([400, 'INSUFFICIENT_BALANCE']);
    expect(emulator.settings.balance).toBe(0);
  });

  test('with its limit on, the emulator sends three SMS to one number in five minutes', async () => {
    emulator.settings.perNumberLimit = true;
    for (let count = 0; count < 3; count += 1) expect((await sendTheirs()).status).toBe(201);
    const { status, body, headers } = await sendTheirs();
    expect([status, body.error.code]).toEqual([400, 'RATE_LIMIT_EXCEEDED']);
    expect(headers.has('retry-after')).toBe(false);
    expect((await sendTheirs({ phoneNumber: OTHER })).status).toBe(201);
  });

  test('the wallet shows its balance in rupees or in millionths', async () => {
    expect((await get('/wallet')).body.data).toEqual({ balance: 100, currency: 'INR' });
    emulator.settings.walletUnit = 'millionths';
    expect((await get('/wallet')).body.data.balance).toBe(100_000_000);
  });

  test('the status of an SMS goes from sent to delivered', async () => {
    Object.assign(emulator.settings, { sentAfterMs: 0, deliveredAfterMs: 3_600_000 });
    const { messageId, status } = (await sendTheirs()).body.data;
    expect(status).toBe('sent');
    const { data } = (await get(`/messages/${messageId}`)).body;
    expect(data).toMatchObject({ id: messageId, status: 'sent', costAmount: '0.2500', deliveredAt: null });
    emulator.settings.deliveredAfterMs = 0;
    const later = (await get(`/messages/${messageId}`)).body.data;
    expect(later.status).toBe('delivered');
    expect(Date.parse(later.deliveredAt)).toBeGreaterThanOrEqual(Date.parse(later.createdAt));
    expect((await get('/messages/unknown')).status).toBe(404);
  });

  test('the emulator records every call without the API key', async () => {
    await sendTheirs();
    await get('/nowhere');
    expect(emulator.calls).toMatchObject([
      {
        method: 'POST',
        path: '/otp/send',
        apiKeyValid: true,
        accepted: true,
        status: 201,
        body: { phoneNumber: PHONE },
      },
      { method: 'GET', path: '/nowhere', accepted: false, status: 404 },
    ]);
    expect(JSON.stringify(emulator.calls)).not.toContain(KEY);
  });

  test('the emulator refuses a body that is not a JSON object', async () => {
    const headers = { 'X-API-Key': KEY, 'Content-Type': 'application/json' };
    for (const body of ['{', '[]', '"text"', 'null{']) {
      const response = await fetch(`${emulator.url}/otp/send`, { method: 'POST', headers, body });
      expect(response.status).toBe(400);
    }
  });

  test('the emulator refuses a body of more than 64 KiB', async () => {
    const { status, body } = await sendTheirs({ padding: 'x'.repeat(100_000) });
    expect([status, body.error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE']);
    expect(emulator.messages).toHaveLength(0);
  });
});

describe('a scripted fault', () => {
  test('a scripted fault hits one call, and the next call succeeds', async () => {
    emulator.fault({ on: 'send', fault: 'wallet-empty' });
    expect((await sendTheirs()).body.error.code).toBe('INSUFFICIENT_BALANCE');
    expect((await sendTheirs()).status).toBe(201);
    expect(emulator.calls.map((call) => call.accepted)).toEqual([false, true]);
  });

  test('a scripted fault hits as many calls as it says, or all calls until the reset', async () => {
    emulator.fault({ on: 'send', times: 2, fault: 'unavailable' });
    emulator.fault({ on: 'any', times: 0, fault: 'server-error' });
    const statuses = [];
    for (let count = 0; count < 5; count += 1) statuses.push((await sendTheirs()).status);
    expect(statuses).toEqual([503, 503, 500, 500, 500]);
    emulator.reset();
    expect((await sendTheirs()).status).toBe(201);
  });

  test('a scripted fault waits for its operation and its number', async () => {
    const { requestId } = (await sendOurs()).body.data;
    emulator.fault({ on: 'verify', phoneNumber: OTHER, fault: 'code-expired' });
    emulator.fault({ on: 'verify', phoneNumber: PHONE, fault: 'unverified' });
    expect((await sendOurs()).status).toBe(200);
    const { status, body } = await verify(requestId, emulator.messages[0]!.code);
    expect([status, body.data]).toEqual([200, { verified: false }]);
  });

  test.each([
    ['phone-refused', 400, 'VALIDATION_ERROR', 'phoneNumber'],
    ['variables-missing', 400, 'VALIDATION_ERROR', 'variables'],
    ['template-refused', 400, 'VALIDATION_ERROR', 'templateId'],
    ['payment-required', 402, 'INSUFFICIENT_BALANCE', 'balance'],
    ['number-limit', 400, 'RATE_LIMIT_EXCEEDED', 'Too many'],
    ['sms-refused', 400, 'OTP_SEND_FAILED', 'send'],
    ['bad-key', 401, 'UNAUTHORIZED', 'Invalid'],
    ['suspended-key', 401, 'UNAUTHORIZED', 'suspended'],
    ['not-onboarded', 403, 'FORBIDDEN', 'onboarded'],
    ['route-missing', 404, 'NOT_FOUND', 'Cannot POST /otp/send'],
    ['duplicate-key', 409, 'CONFLICT', 'processed'],
    ['code-expired', 410, 'OTP_EXPIRED', 'expired'],
    ['throttled', 429, 'INTERNAL_ERROR', 'Too Many'],
    ['server-error', 500, 'INTERNAL_ERROR', 'server'],
    ['unavailable', 503, 'INTERNAL_ERROR', 'unavailable'],
  ] as const)('the fault %s is answered with %i %s', async (preset, expected, code, words) => {
    emulator.fault({ on: 'send', fault: preset });
    const { status, body } = await sendTheirs();
    expect([status, body.error.code]).toEqual([expected, code]);
    expect(JSON.stringify(body.error)).toContain(words);
    expect(emulator.messages).toHaveLength(0);
  });

  test('a 429 of the emulator names the wait in seconds, as a date, or not at all', async () => {
    for (const preset of ['throttled', 'throttled-until', 'throttled-no-hint'] as const) {
      emulator.fault({ on: 'send', fault: preset });
    }
    expect((await sendTheirs()).headers.get('retry-after')).toBe('30');
    const before = Date.now();
    const date = Date.parse((await sendTheirs()).headers.get('retry-after') ?? '');
    // An HTTP date has whole seconds.
    expect(date).toBeGreaterThan(before + 29_000);
    expect(date).toBeLessThan(Date.now() + 31_000);
    expect((await sendTheirs()).headers.has('retry-after')).toBe(false);
  });

  test('a fault can answer with any status and any body', async () => {
    emulator.fault({ on: 'send', fault: 'redirect' });
    emulator.fault({ on: 'send', fault: 'tutorial-error' });
    emulator.fault({ on: 'send', fault: { kind: 'raw', status: 200, body: [], when: 'after' } });
    emulator.fault({ on: 'verify', fault: { kind: 'verified', value: 1 } });
    const redirect = await sendTheirs();
    expect([redirect.status, redirect.headers.get('location')]).toEqual([302, 'https://example.com/']);
    expect((await sendTheirs()).body).toEqual({ statusCode: 400, message: 'Invalid phone number' });
    expect((await sendTheirs()).body).toEqual([]);
    expect(emulator.messages).toHaveLength(1);
    expect((await verify('any', '1234')).body.data.verified).toBe(1);
  });

  test.each(['timeout', 'reset'] as const)(
    'the fault %s comes before or after the SMS was sent',
    async (kind) => {
      for (const when of ['before', 'after'] as const) {
        emulator.fault({ on: 'send', fault: { kind, when } });
        const calls = emulator.calls.length;
        const hangUp = new AbortController();
        const call = fetch(`${emulator.url}/otp/send`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json', 'X-API-Key': KEY },
          body: JSON.stringify({ phoneNumber: PHONE, variables }),
          signal: hangUp.signal,
        });
        const outcome = call.catch((error: unknown) => String(error));
        await until(() => emulator.calls.length > calls, 'the call of the emulator');
        if (kind === 'timeout') hangUp.abort();
        expect(await outcome).toMatch(kind === 'timeout' ? /AbortError/ : /fetch failed/);
        expect(emulator.messages).toHaveLength(when === 'after' ? 1 : 0);
      }
      expect(emulator.calls.map((call) => call.status)).toEqual([undefined, undefined]);
    },
  );

  test('the fault reset-after closes the connection with a TCP reset', async () => {
    emulator.fault({ on: 'wallet', fault: 'reset-after' });
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => {
      httpRequest(`${emulator.url}/wallet`, { headers: { 'X-API-Key': KEY } })
        .on('error', resolve)
        .end();
    });
    expect(error.code).toBe('ECONNRESET');
  });

  test('the fault cut sends half of a response', async () => {
    emulator.fault({ on: 'send', fault: 'cut' });
    await expect(sendTheirs()).rejects.toThrow(/terminated/);
    expect(emulator.messages).toHaveLength(1);
  });

  test('a fault can answer with HTML or with incomplete JSON', async () => {
    emulator.fault({ on: 'send', fault: { kind: 'html', status: 200, when: 'after' } });
    emulator.fault({ on: 'send', fault: 'bad-gateway' });
    emulator.fault({ on: 'send', fault: 'malformed' });
    const page = await sendTheirs();
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html']);
    const gateway = await sendTheirs();
    expect([gateway.status, gateway.text]).toEqual([502, expect.stringContaining('<html>')]);
    expect(emulator.messages).toHaveLength(1);
    const broken = await sendTheirs();
    expect([broken.status, broken.body]).toEqual([201, undefined]);
    expect(emulator.messages).toHaveLength(2);
  });

  test('the fault slow delays a response, or sends it byte by byte', async () => {
    emulator.fault({ on: 'send', fault: { kind: 'slow', delayMs: 50 } });
    emulator.fault({ on: 'send', fault: { kind: 'slow', delayMs: 100, trickle: true } });
    // The waits are what is tested: only their lower bounds.
    for (const least of [49, 99]) {
      const started = performance.now();
      expect((await sendTheirs()).body.success).toBe(true);
      expect(performance.now() - started).toBeGreaterThan(least);
    }
  });

  test('the emulator sends a slow response at once when its faults are cleared', async () => {
    emulator.fault({ on: 'send', fault: { kind: 'slow', delayMs: 600_000 } });
    const sending = sendTheirs();
    while (emulator.calls.length === 0) await new Promise(setImmediate);
    expect((await fetch(`${emulator.url}/_emulator/faults`, { method: 'DELETE' })).status).toBe(204);
    expect((await sending).body.success).toBe(true);
  });

  test('the fault huge answers with a body of megabytes, also compressed', async () => {
    emulator.fault({ on: 'send', fault: { kind: 'huge', bytes: 100_000 } });
    emulator.fault({ on: 'wallet', fault: { kind: 'huge', bytes: 1_000_000, gzip: true } });
    expect((await sendTheirs()).text.length).toBeGreaterThan(100_000);
    const packed = await new Promise<Buffer>((resolve, reject) => {
      httpRequest(`${emulator.url}/wallet`, { headers: { 'X-API-Key': KEY } }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          resolve(Buffer.concat(chunks));
        });
      })
        .on('error', reject)
        .end();
    });
    expect(packed.length).toBeLessThan(10_000);
    expect(gunzipSync(packed).length).toBeGreaterThan(1_000_000);
  });

  test('the fault not-delivered makes an SMS fail', async () => {
    emulator.fault({ on: 'send', fault: 'not-delivered' });
    const { messageId } = (await sendTheirs()).body.data;
    const { data } = (await get(`/messages/${messageId}`)).body;
    expect(data).toMatchObject({ status: 'failed', failureReason: 'Absent subscriber', deliveredAt: null });
    emulator.fault({ on: 'message', fault: { kind: 'delivery', status: 'something_new' } });
    expect((await get(`/messages/${messageId}`)).body.data.status).toBe('something_new');
  });

  test('the emulator refuses an invalid fault at once', () => {
    const script = { on: 'send', fault: { kind: 'raw', status: 99 } } as const;
    expect(() => {
      emulator.fault(script);
    }).toThrow('fault.status must be a whole number from 200 to 599');
  });
});

describe('the control routes', () => {
  const change = async (method: string, path: string, body?: unknown, type = 'application/json') =>
    answerOf(
      await fetch(`${emulator.url}/_emulator${path}`, {
        method,
        ...(body !== undefined && { headers: { 'Content-Type': type }, body: JSON.stringify(body) }),
      }),
    );

  test('the control routes show SMS and calls, and delete them', async () => {
    await sendTheirs();
    await sendTheirs({ phoneNumber: OTHER });
    const all = await get('/_emulator/messages');
    expect(all.body.messages).toHaveLength(2);
    expect(all.headers.get('cache-control')).toBe('no-store');
    const theirs = (await get(`/_emulator/messages?phoneNumber=${PHONE}`)).body.messages;
    expect(theirs).toMatchObject([{ phoneNumber: PHONE, code: '123456', status: 'initiated' }]);
    expect((await get('/_emulator/calls')).body.calls).toHaveLength(2);
    expect((await change('DELETE', '')).status).toBe(204);
    expect((await get('/_emulator/messages')).body.messages).toEqual([]);
  });

  test('the control routes script faults and change settings', async () => {
    const { presets } = (await get('/_emulator/presets')).body;
    expect(presets).toContainEqual(
      expect.objectContaining({ name: 'wallet-empty', title: 'Wallet is empty', on: ['send'] }),
    );
    for (const { name } of presets) {
      expect((await change('POST', '/faults', { on: 'send', fault: name })).status).toBe(201);
    }
    expect((await get('/_emulator/faults')).body.faults).toHaveLength(presets.length);
    expect((await change('DELETE', '/faults')).status).toBe(204);
    const fault = { kind: 'error', status: 418, code: 'TEAPOT', headers: { 'X-Tea': 'Assam' } };
    await change('POST', '/faults', { on: 'any', fault });
    const { status, headers } = await sendTheirs();
    expect([status, headers.get('x-tea')]).toEqual([418, 'Assam']);
    const settings = await change('PATCH', '/settings', { balance: 0, contract: 'caller' });
    expect(settings.body).toMatchObject({ balance: 0, contract: 'caller', perNumberLimit: false });
    expect((await sendTheirs()).body.error.code).toBe('INSUFFICIENT_BALANCE');
  });

  test.each([
    ['POST', '/faults', [], 'the script must be an object'],
    ['POST', '/faults', { on: 'sned', fault: 'huge' }, 'on must be one of'],
    ['POST', '/faults', { on: 'send', fault: 'toString' }, 'names no preset'],
    ['POST', '/faults', { on: 'send', times: -1, fault: 'huge' }, 'times must be'],
    ['POST', '/faults', { on: 'send', fault: { kind: 'fire' } }, 'fault.kind must be one of'],
    ['POST', '/faults', { on: 'send', fault: { kind: 'error', status: 400 } }, 'fault.code must be'],
    ['POST', '/faults', { on: 'send', fault: { kind: 'raw', status: 200, headers: { 'a b': '' } } }, 'a b'],
    ['POST', '/faults', { on: 'send', fault: { kind: 'slow', delayMs: 1, when: 'before' } }, 'fault.when'],
    ['PATCH', '/settings', { balance: '5' }, 'balance must be'],
    ['PATCH', '/settings', { colour: 'blue' }, 'there is no setting colour'],
    ['PATCH', '/settings', { otpAttempts: 1.5 }, 'otpAttempts must be a whole number'],
  ])('the control routes refuse %s %s %j', async (method, path, body, words) => {
    const answer = await change(method, path, body);
    expect([answer.status, answer.body.error]).toEqual([400, expect.stringContaining(words)]);
  });

  test('the control routes refuse a content type that a form on another site can send', async () => {
    const { status, body } = await change('POST', '/faults', { on: 'send', fault: 'huge' }, 'text/plain');
    expect([status, body.error]).toEqual([400, expect.stringContaining('application/json')]);
  });

  test('an unknown control route is answered with the list of routes', async () => {
    const { status, body } = await get('/_emulator/nowhere');
    expect([status, body.error]).toEqual([404, expect.stringContaining('POST /_emulator/faults')]);
  });
});

describe('the inbox', () => {
  test('the content security policy of the inbox allows only its own script and style', async () => {
    const { status, headers, text } = await get('/');
    expect(status).toBe(200);
    const policy = headers.get('content-security-policy');
    expect(policy).toMatch(/^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'/);
    expect(text).not.toMatch(/innerHTML|insertAdjacentHTML|document\.write/);
    expect(text).not.toMatch(/(src|href)="(?!data:|http:\/\/localhost:3000\/)/);
    expect(headers.has('access-control-allow-origin')).toBe(false);
  });

  test('the inbox gets an event for every SMS', async () => {
    const ended = new AbortController();
    const response = await fetch(`${emulator.url}/_emulator/events`, { signal: ended.signal });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const next = async (): Promise<unknown> => tryJson((await reader.read()).value!.replace(/^data: /, ''));
    expect(await next()).toMatchObject({ messages: [], settings: { balance: 100 }, faults: [] });
    await sendTheirs();
    expect(await next()).toMatchObject({ messages: [{ code: '123456' }], settings: { balance: 99.75 } });
    ended.abort();
  });

  test.each(['evil.example', 'localhost.evil.example:3001', '127.0.0.1.nip.io'])(
    'the emulator refuses requests for the host %s, whose name may have been pointed at it',
    async (host) => {
      await sendTheirs();
      for (const path of ['/', '/_emulator/messages', '/wallet']) {
        expect(await statusFor(host, emulator.url + path)).toBe(403);
      }
    },
  );

  test.each(['localhost:3001', '127.0.0.1', '[::1]:3001'])('the inbox opens at %s', async (host) => {
    expect(await statusFor(host, emulator.url)).toBe(200);
  });
});

describe('a second emulator', () => {
  test('a second emulator on the same port is refused with EADDRINUSE', async () => {
    await expect(startEmulator({ port: emulator.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });

  test('an emulator closes although calls hang and an inbox is open', async () => {
    const second = await startEmulator({ contract: 'provider', perNumberLimit: true });
    expect(second.settings).toMatchObject({ contract: 'provider', perNumberLimit: true });
    second.fault({ on: 'any', fault: 'timeout-after' });
    second.fault({ on: 'any', fault: { kind: 'slow', delayMs: 600_000 } });
    const lost = [1, 2].map(() => fetch(`${second.url}/wallet`).catch(() => 'lost'));
    const page = await fetch(`${second.url}/_emulator/events`);
    const idle = connect(second.port, '127.0.0.1').on('error', () => undefined);
    await until(() => second.calls.length === 2, 'the calls of the second emulator');
    await withoutHang(second.close(), 'the second emulator');
    expect(await Promise.all(lost)).toEqual(['lost', 'lost']);
    await page.body!.cancel().catch(() => undefined);
    idle.destroy();
  });

  test('an emulator that is bound to every address answers to any host name', async () => {
    const open = await startEmulator({ host: '0.0.0.0' });
    expect(await statusFor('emulator:3001', open.url)).toBe(200);
    await open.close();
  });
});

describe('the command', () => {
  // A folder without packages: the emulator needs none.
  const built = mkdtempSync(join(tmpdir(), 'emulator-'));

  beforeAll(() => {
    cpSync(join(compiledService(), 'emulator'), built, { recursive: true });
  });
  afterAll(() => {
    rmSync(built, { recursive: true });
  });

  function run(env: Record<string, string>) {
    const child = spawn(process.execPath, [join(built, 'main.js')], {
      env: { PATH: process.env.PATH, ...env },
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].on('data', (text) => (output[name] += String(text)));
    const ended = once(child, 'close').then(([code]) => ({ code: code as number, ...output }));
    return { child, ended };
  }

  test('the emulator command prints the address of the inbox, and exits with 0 on SIGTERM', async () => {
    const service = { SERVICE_URL: 'http://127.0.0.1:4321/' };
    const { child, ended } = run({ EMULATOR_PORT: '0', EMULATOR_HOST: '', ...service });
    const [line] = await once(child.stdout, 'data');
    const url = /http:\/\/127\.0\.0\.1:\d+\//.exec(String(line))![0];
    const page = await fetch(url);
    const text = await page.text();
    expect([page.status, text]).toEqual([200, expect.stringContaining('Phone inbox')]);
    // The links and the command follow the port of the service.
    expect(text.match(/[\w.]+:\d{4}\b/g)).toEqual(Array(4).fill('127.0.0.1:4321'));
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });

  test.each([
    ['in production', { NODE_ENV: 'production' }, 'NODE_ENV=production'],
    ['with an invalid port', { EMULATOR_PORT: 'http' }, 'EMULATOR_PORT'],
    ['on an address of others', { EMULATOR_PORT: '0', EMULATOR_HOST: '192.0.2.1' }, 'EMULATOR_HOST'],
    ['on a name that does not exist', { EMULATOR_PORT: '0', EMULATOR_HOST: 'x.invalid' }, 'EMULATOR_HOST'],
    ['with an invalid service', { SERVICE_URL: 'javascript:alert(1)' }, 'SERVICE_URL'],
  ])('the emulator command does not start %s', async (_, env, words) => {
    const { code, stdout, stderr } = await run(env).ended;
    expect([code, stdout, stderr]).toEqual([1, '', expect.stringContaining(words)]);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('the emulator command names a port that is taken', async () => {
    const { code, stderr } = await run({ EMULATOR_PORT: String(emulator.port) }).ended;
    const words = `Port ${emulator.port} is taken; set EMULATOR_PORT to another one.\n`;
    expect([code, stderr]).toEqual([1, words]);
  });
});
