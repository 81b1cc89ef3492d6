import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import { HttpService } from '@nestjs/axios';
import fc from 'fast-check';
import {
  StartMessagingClient,
  type StartMessagingOptions,
} from '../../src/startmessaging/startmessaging.client';
import type { UpstreamCall } from '../../src/upstream/upstream';
import { UpstreamError, type UpstreamReason } from '../../src/upstream/upstream.error';
import { HANG_MS, until } from '../support/hang';
import { holdTimers } from '../support/held-timers';

const API_KEY = `sm_live_${'0123456789abcdef'.repeat(3).slice(0, 40)}`;
const PHONE_NUMBER = '+919876543210';
const CODE = '739154';

interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

interface Received {
  method: string | undefined;
  path: string | undefined;
  headers: http.IncomingHttpHeaders;
  body: Record<string, unknown>;
}

const servers: http.Server[] = [];

/** A StartMessaging that gives the replies in turn, and the last one for ever. */
async function upstream(...replies: Reply[]) {
  const received: Received[] = [];
  const server = http.createServer((req, res) => {
    let text = '';
    req.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    req.on('end', () => {
      const { method, url, headers } = req;
      received.push({ method, path: url, headers, body: JSON.parse(text) as Record<string, unknown> });
      const reply = replies[Math.min(received.length, replies.length) - 1]!;
      res.writeHead(reply.status, { 'Content-Type': 'application/json', ...reply.headers });
      res.end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body));
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received, replies };
}

function clientOf(baseUrl: string, options: Partial<StartMessagingOptions> = {}) {
  const calls: UpstreamCall[] = [];
  const client = new StartMessagingClient(new HttpService(), {
    baseUrl,
    apiKey: API_KEY,
    appName: 'Chai & Co',
    timeoutMs: HANG_MS,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 2,
    maxAttempts: 3,
    deadlineMs: HANG_MS,
    onCall: (call) => calls.push(call),
    ...options,
  });
  return { client, calls };
}

type Verb = 'sendCode' | 'sendOtp' | 'verifyOtp';

function run(client: StartMessagingClient, verb: Verb): Promise<unknown> {
  switch (verb) {
    case 'sendCode':
      return client.sendCode({
        phoneNumber: PHONE_NUMBER,
        code: CODE,
        expiryMinutes: 5,
        idempotencyKey: 'key-1',
      });
    case 'sendOtp':
      return client.sendOtp({ phoneNumber: PHONE_NUMBER, idempotencyKey: 'key-1' });
    case 'verifyOtp':
      return client.verifyOtp({ requestId: 'otp-req-1', code: CODE });
  }
}

async function failure(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    (value) => new Error(`expected a failure, got ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  if (error instanceof UpstreamError) return error;
  throw error as Error;
}

function envelope(data: unknown, more: object = {}) {
  return { success: true, statusCode: 200, requestId: 'req_0011223344556677', data, ...more };
}

function refusal(code: string, message: unknown = 'No.', details?: unknown) {
  return {
    success: false,
    statusCode: 400,
    requestId: 'req_8899aabbccddeeff',
    error: { code, message, details },
  };
}

afterEach(async () => {
  jest.restoreAllMocks();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

describe('what is sent', () => {
  test('a StartMessaging send of our own code carries its template variables as strings', async () => {
    const { url, received } = await upstream({ status: 201, body: envelope({ otpRequestId: 'a' }) });
    await run(clientOf(url).client, 'sendCode');
    expect(received).toHaveLength(1);
    expect(received[0]).toMatchObject({ method: 'POST', path: '/otp/send' });
    expect(received[0]!.body).toEqual({
      phoneNumber: PHONE_NUMBER,
      variables: { otp: CODE, appName: 'Chai & Co', expiry: '5' },
      idempotencyKey: 'key-1',
    });
  });

  test('a StartMessaging send names the configured template', async () => {
    const { url, received } = await upstream({ status: 201, body: envelope({ otpRequestId: 'a' }) });
    const templateId = '7f1f4d1e-3c0a-4b57-9d1c-0d5f2a6b7c8d';
    await run(clientOf(url, { templateId }).client, 'sendCode');
    expect(received[0]!.body).toMatchObject({ templateId });
  });

  test('a StartMessaging send under the provider contract carries the phone number and the key, and nothing else', async () => {
    const { url, received } = await upstream({ status: 200, body: envelope({ requestId: 'a' }) });
    await run(clientOf(url, { templateId: 'ignored-here' }).client, 'sendOtp');
    expect(received[0]!.path).toBe('/otp/send');
    expect(received[0]!.body).toEqual({ phoneNumber: PHONE_NUMBER, idempotencyKey: 'key-1' });
  });

  test('a StartMessaging verification carries the request id and the code, and nothing else', async () => {
    const { url, received } = await upstream({ status: 200, body: envelope({ verified: true }) });
    await run(clientOf(`${url}/`).client, 'verifyOtp');
    expect(received[0]!.path).toBe('/otp/verify');
    expect(received[0]!.body).toEqual({ requestId: 'otp-req-1', otpCode: CODE });
  });

  test('every StartMessaging call carries the API key and the name of this service', async () => {
    const { url, received } = await upstream({ status: 200, body: envelope({ verified: true }) });
    await run(clientOf(url).client, 'verifyOtp');
    expect(received[0]!.headers).toMatchObject({
      'x-api-key': API_KEY,
      accept: 'application/json',
      'content-type': 'application/json',
      'user-agent': 'otp-login',
    });
  });

  test('a StartMessaging base URL with a path keeps that path', async () => {
    const { url, received } = await upstream({ status: 200, body: envelope({ requestId: 'a' }) });
    await run(clientOf(`${url}/sandbox/`).client, 'sendOtp');
    expect(received[0]!.path).toBe('/sandbox/otp/send');
  });
});

describe('reading a send', () => {
  test('a send response of the live API is read', async () => {
    const data = { otpRequestId: 'otp-1', messageId: 'msg-1', status: 'queued', phoneNumber: PHONE_NUMBER };
    const { url } = await upstream({ status: 201, body: envelope(data) });
    await expect(run(clientOf(url).client, 'sendCode')).resolves.toEqual({
      id: 'otp-1',
      messageId: 'msg-1',
      status: 'queued',
      correlationId: 'req_0011223344556677',
    });
  });

  test('a send response as in the tutorials is read', async () => {
    const data = { requestId: 'otp-2', expiresAt: '2026-11-20T10:05:00.000Z', attemptsLeft: 3 };
    const { url } = await upstream({ status: 200, body: { data } });
    await expect(run(clientOf(url).client, 'sendOtp')).resolves.toEqual({
      id: 'otp-2',
      expiresAt: new Date('2026-11-20T10:05:00.000Z'),
      attemptsLeft: 3,
    });
  });

  test('the id of an OTP is never taken from the envelope of a response', async () => {
    const { url } = await upstream({ status: 200, body: envelope({ status: 'sent' }) });
    expect((await failure(run(clientOf(url).client, 'sendOtp'))).reason).toBe('failed');
  });

  test.each([
    ['numbers for texts', { otpRequestId: 7, messageId: {}, status: ['sent'] }],
    ['absurdly long texts', { otpRequestId: 'x'.repeat(257), messageId: 'x'.repeat(257), status: '' }],
    ['an expiry that is no date', { expiresAt: 'soon' }],
    ['an expiry as a number', { expiresAt: 1_790_000_000 }],
    ['an expiry that no calendar has', { expiresAt: '2026-99-99T00:00:00Z' }],
    ['attempts as a text', { attemptsLeft: '3' }],
    ['negative attempts', { attemptsLeft: -1 }],
    ['half an attempt', { attemptsLeft: 2.5 }],
    ['nulls', { otpRequestId: null, messageId: null, status: null, expiresAt: null, attemptsLeft: null }],
  ])('a send response with %s is read without those fields', async (_name, data) => {
    const { url } = await upstream({ status: 201, body: { data } });
    await expect(run(clientOf(url).client, 'sendCode')).resolves.toEqual({});
  });

  test('an id of the wrong type does not hide the other id', async () => {
    const { url } = await upstream({ status: 201, body: { data: { otpRequestId: 7, requestId: 'right' } } });
    await expect(run(clientOf(url).client, 'sendOtp')).resolves.toEqual({ id: 'right' });
  });

  test.each([['x'.repeat(65)], ['req 1'], ['<b>'], [API_KEY], ['n9876543210'], [`r${CODE}`], [5]])(
    'the correlation id %p is dropped',
    async (requestId) => {
      const { url } = await upstream({ status: 201, body: { requestId, data: {} } });
      await expect(run(clientOf(url).client, 'sendCode')).resolves.toEqual({});
    },
  );
});

describe('reading a verification', () => {
  test.each([
    ['200 with data.verified true is a right code', 200, envelope({ verified: true }), true],
    ['201 with data.verified true is a right code', 201, envelope({ verified: true }), true],
    ["the tutorials' bare data is enough", 200, { data: { verified: true } }, true],
    ['200 with data.verified false is a wrong code', 200, envelope({ verified: false }), false],
    [
      'success false and data.verified false is a wrong code',
      200,
      { success: false, data: { verified: false } },
      false,
    ],
    ['400 with a code that is not in the table is a wrong code', 400, refusal('INVALID_OTP'), false],
    ['400 with an unknown code is a wrong code whatever its text', 400, refusal('X', 'bad variables'), false],
    [
      '400 VALIDATION_ERROR about the code is a wrong code',
      400,
      refusal('VALIDATION_ERROR', 'Bad otp'),
      false,
    ],
    ['400 without a code is a wrong code', 400, { message: 'Invalid OTP', error: 'Bad Request' }, false],
  ])('a verification response is read: %s', async (_name, status, body, verified) => {
    const { url, received } = await upstream({ status, body });
    const { client, calls } = clientOf(url);
    await expect(run(client, 'verifyOtp')).resolves.toEqual({ verified });
    expect(received).toHaveLength(1);
    expect(calls.map((call) => call.outcome)).toEqual([verified ? 'verified' : 'not_verified']);
  });

  test.each([
    ['verified at the top', { success: true, verified: true }],
    ['a text', envelope({ verified: 'true' })],
    ['a one', envelope({ verified: 1 })],
    ['a list', envelope([{ verified: true }])],
    ['no data', { success: true }],
    ['a list of envelopes', [envelope({ verified: true })]],
    ['success false beside verified true', { success: false, data: { verified: true } }],
    ['an error beside verified true', { data: { verified: true }, error: { code: 'ODD' } }],
    ['an error text beside verified true', { data: { verified: true }, error: 'odd' }],
    ['nothing', ''],
    ['HTML', '<html>verified: true</html>'],
    ['half of the JSON', '{"data":{"verified":true}'],
    ['null', 'null'],
  ])('a verification response 200 with %s is never a right code', async (_name, body) => {
    const { url } = await upstream({ status: 200, body });
    expect((await failure(run(clientOf(url).client, 'verifyOtp'))).reason).toBe('failed');
  });

  test.each([300, 302, 304, 400, 401, 403, 404, 409, 410, 418, 429, 500, 503])(
    'a verification response %i is never a right code, even when its body says so',
    async (status) => {
      const { url } = await upstream({ status, body: envelope({ verified: true }) });
      const outcome = run(clientOf(url, { maxAttempts: 1 }).client, 'verifyOtp');
      await expect(outcome.catch(() => ({ verified: false }))).resolves.toEqual({ verified: false });
    },
  );

  test('a JSON body is a right code only when its data.verified is true', async () => {
    const { url, replies } = await upstream({ status: 200 });
    const { client } = clientOf(url, { maxAttempts: 1 });
    const odd = fc.oneof(fc.constantFrom<unknown>(true, false, 'true', 1, null), fc.jsonValue());
    const lookalike = fc.record(
      { success: odd, verified: odd, error: odd, data: fc.oneof(odd, fc.record({ verified: odd })) },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(lookalike, fc.jsonValue()), async (body) => {
        replies[0] = { status: 200, body: JSON.stringify(body) };
        const answer = await run(client, 'verifyOtp').catch((error: unknown) => {
          expect(error).toBeInstanceOf(UpstreamError);
          return { verified: false };
        });
        const saysSo = (body as { data?: { verified?: unknown } } | null)?.data?.verified === true;
        if (!saysSo) expect(answer).toEqual({ verified: false });
      }),
      { numRuns: 80 },
    );
  });
});

const NEST_404 = { message: 'Cannot POST /otp/verify', error: 'Not Found', statusCode: 404 };
const EXPRESS_404 = '<!DOCTYPE html>\n<body>\n<pre>Cannot POST /otp/verify</pre>\n</body>';
const VARIABLES = 'variables.otp must be a string';

type Row = [
  says: string,
  verb: Verb,
  reply: Reply,
  reason: UpstreamReason,
  accepted: 'no' | 'unknown',
  retryAfterSeconds?: number,
];

const SEND_ROWS = (verb: 'sendCode' | 'sendOtp'): Row[] => [
  ['a refused phone', verb, { status: 400, body: refusal('VALIDATION_ERROR') }, 'phone_rejected', 'no'],
  ['a 400 with an unknown code', verb, { status: 400, body: refusal('ODD') }, 'phone_rejected', 'no'],
  ['a 400 without a code', verb, { status: 400, body: { message: ['bad phone'] } }, 'phone_rejected', 'no'],
  ['a 400 in HTML', verb, { status: 400, body: '<h1>Bad Request</h1>' }, 'contract_mismatch', 'no'],
  [
    'a 400 about the template',
    verb,
    { status: 400, body: refusal('VALIDATION_ERROR', 'templateId must be a UUID') },
    'request_malformed',
    'no',
  ],
  [
    'a template named in the details',
    verb,
    { status: 400, body: refusal('VALIDATION_ERROR', 'No.', [{ message: 'templateId is unknown' }]) },
    'request_malformed',
    'no',
  ],
  [
    "the tutorials' 400 about the template",
    verb,
    { status: 400, body: { message: ['templateId must be a UUID'], error: 'Bad Request' } },
    'request_malformed',
    'no',
  ],
  ['an empty wallet', verb, { status: 400, body: refusal('INSUFFICIENT_BALANCE') }, 'wallet_empty', 'no'],
  [
    'an empty wallet told by 402',
    verb,
    { status: 402, body: { message: 'Payment Required' } },
    'wallet_empty',
    'no',
  ],
  [
    'the limit of a number',
    verb,
    { status: 400, body: refusal('RATE_LIMIT_EXCEEDED') },
    'number_limited',
    'no',
    300,
  ],
  [
    'the limit of a number with a Retry-After',
    verb,
    { status: 400, body: refusal('RATE_LIMIT_EXCEEDED'), headers: { 'Retry-After': '17' } },
    'number_limited',
    'no',
    17,
  ],
  ['a refusing SMS route', verb, { status: 400, body: refusal('OTP_SEND_FAILED') }, 'send_refused', 'no'],
  ['a 409', verb, { status: 409, body: refusal('ODD') }, 'duplicate', 'unknown'],
  [
    'a 409 whatever its code',
    verb,
    { status: 409, body: refusal('VALIDATION_ERROR') },
    'duplicate',
    'unknown',
  ],
  [
    'a missing route',
    verb,
    { status: 404, body: refusal('NOT_FOUND', 'Cannot POST /otp/send') },
    'contract_mismatch',
    'no',
  ],
  ['any 404', verb, { status: 404, body: 'nothing here' }, 'contract_mismatch', 'no'],
  ['a 410', verb, { status: 410, body: refusal('ODD') }, 'contract_mismatch', 'no'],
  ['a 405', verb, { status: 405 }, 'contract_mismatch', 'no'],
  ['a 422', verb, { status: 422, body: refusal('ODD') }, 'contract_mismatch', 'no'],
];

const ANY_ROWS = (verb: Verb): Row[] => [
  ['a refused key', verb, { status: 401, body: refusal('UNAUTHORIZED') }, 'credentials_refused', 'no'],
  ['a 401 without a code', verb, { status: 401 }, 'credentials_refused', 'no'],
  ['a 401 in HTML', verb, { status: 401, body: '<h1>No</h1>' }, 'credentials_refused', 'no'],
  [
    'an account not onboarded',
    verb,
    { status: 403, body: refusal('FORBIDDEN') },
    'credentials_refused',
    'no',
  ],
  ['a 403 without a code', verb, { status: 403, body: { message: 'no' } }, 'credentials_refused', 'no'],
  [
    'a 403 whose code says more',
    verb,
    { status: 403, body: refusal('INSUFFICIENT_BALANCE') },
    'wallet_empty',
    'no',
  ],
  [
    'a 200 that carries a code of the table',
    verb,
    { status: 200, body: refusal('INSUFFICIENT_BALANCE') },
    'wallet_empty',
    'no',
  ],
  [
    'a 500 that carries a code of the table',
    verb,
    { status: 500, body: refusal('OTP_SEND_FAILED') },
    'send_refused',
    'no',
  ],
  ['a 429', verb, { status: 429, body: refusal('INTERNAL_ERROR') }, 'throttled', 'no', 60],
  ['a 429 whatever its code', verb, { status: 429, body: refusal('UNAUTHORIZED') }, 'throttled', 'no', 60],
  ['a 429 with seconds', verb, { status: 429, headers: { 'Retry-After': '10' } }, 'throttled', 'no', 10],
  [
    'a 429 with a date that has passed',
    verb,
    { status: 429, headers: { 'Retry-After': 'Wed, 21 Oct 2015 07:28:00 GMT' } },
    'throttled',
    'no',
    1,
  ],
  ['a 301', verb, { status: 301, headers: { Location: '/elsewhere' } }, 'contract_mismatch', 'no'],
  ['a 307', verb, { status: 307, headers: { Location: '/elsewhere' } }, 'contract_mismatch', 'no'],
  ['a 418', verb, { status: 418 }, 'contract_mismatch', 'no'],
];

const ROWS: Row[] = [
  ...SEND_ROWS('sendCode'),
  ...ANY_ROWS('sendCode'),
  ...SEND_ROWS('sendOtp'),
  ...ANY_ROWS('sendOtp'),
  ...ANY_ROWS('verifyOtp'),
  [
    'a 400 about our variables',
    'sendCode',
    { status: 400, body: refusal('VALIDATION_ERROR', VARIABLES) },
    'request_malformed',
    'no',
  ],
  [
    "the other contract's 400 about variables",
    'sendOtp',
    { status: 400, body: refusal('VALIDATION_ERROR', 'No.', [{ message: VARIABLES }]) },
    'contract_mismatch',
    'no',
  ],
  [
    "the other contract's 400 about variables, without a code",
    'sendOtp',
    { status: 400, body: { message: [VARIABLES], error: 'Bad Request' } },
    'contract_mismatch',
    'no',
  ],
  [
    'a detail that names variables by path',
    'sendOtp',
    {
      status: 400,
      body: refusal('VALIDATION_ERROR', 'No.', [{ path: 'variables.otp', message: 'Required' }]),
    },
    'contract_mismatch',
    'no',
  ],
  [
    'a 400 about variables',
    'verifyOtp',
    { status: 400, body: refusal('VALIDATION_ERROR', VARIABLES) },
    'contract_mismatch',
    'no',
  ],
  [
    'a 400 about variables, without a code',
    'verifyOtp',
    { status: 400, body: { message: VARIABLES } },
    'contract_mismatch',
    'no',
  ],
  [
    'a 400 about the request id',
    'verifyOtp',
    { status: 400, body: refusal('VALIDATION_ERROR', 'requestId must be a UUID') },
    'request_malformed',
    'no',
  ],
  [
    'a 400 about a template',
    'verifyOtp',
    { status: 400, body: refusal('VALIDATION_ERROR', 'templateId should not be empty') },
    'request_malformed',
    'no',
  ],
  ['a missing route, told by Nest', 'verifyOtp', { status: 404, body: NEST_404 }, 'contract_mismatch', 'no'],
  [
    'a missing route, told by the envelope',
    'verifyOtp',
    { status: 404, body: refusal('NOT_FOUND', 'Cannot POST /otp/verify') },
    'contract_mismatch',
    'no',
  ],
  [
    'a missing route, told by Express',
    'verifyOtp',
    { status: 404, body: EXPRESS_404, headers: { 'Content-Type': 'text/html' } },
    'contract_mismatch',
    'no',
  ],
  [
    'an unknown request',
    'verifyOtp',
    { status: 404, body: refusal('NOT_FOUND', 'OTP request not found') },
    'request_expired',
    'unknown',
  ],
  [
    'an unknown request whose text only mentions a route',
    'verifyOtp',
    { status: 404, body: refusal('NOT_FOUND', 'We Cannot POST that') },
    'request_expired',
    'unknown',
  ],
  ['an expired request', 'verifyOtp', { status: 410, body: refusal('ODD') }, 'request_expired', 'unknown'],
  ['a used request', 'verifyOtp', { status: 409, body: refusal('ODD') }, 'request_expired', 'unknown'],
  [
    'the limit of a number',
    'verifyOtp',
    { status: 400, body: refusal('RATE_LIMIT_EXCEEDED') },
    'number_limited',
    'no',
    300,
  ],
  ['a 402', 'verifyOtp', { status: 402 }, 'wallet_empty', 'no'],
  ['a 422', 'verifyOtp', { status: 422, body: refusal('ODD') }, 'contract_mismatch', 'no'],
];

describe('refusals', () => {
  test.each(
    ROWS.map(([says, verb, reply, reason, accepted, retryAfterSeconds]) => ({
      name: `${verb}: ${says} is ${reason}`,
      verb,
      reply,
      reason,
      accepted,
      retryAfterSeconds,
    })),
  )(
    'a StartMessaging response is a refusal and is not retried: $name',
    async ({ verb, reply, reason, accepted, retryAfterSeconds }) => {
      const { url, received } = await upstream(reply);
      const { client, calls } = clientOf(url);
      const error = await failure(run(client, verb));
      expect(error).toMatchObject({ reason, accepted, status: reply.status });
      expect(error.retryAfterSeconds).toBe(retryAfterSeconds);
      expect(received).toHaveLength(1);
      expect(calls).toEqual([
        expect.objectContaining({ operation: verb === 'verifyOtp' ? 'verify' : 'send', outcome: reason }),
      ]);
    },
  );

  test('a refusal carries the correlation id and the text of upstream for the log', async () => {
    const { url } = await upstream({ status: 400, body: refusal('OTP_SEND_FAILED', 'route\r\n down\u0000') });
    const { client, calls } = clientOf(url);
    const error = await failure(run(client, 'sendCode'));
    expect(error).toMatchObject({ correlationId: 'req_8899aabbccddeeff', upstreamMessage: 'route down' });
    expect(calls[0]).toMatchObject({ correlationId: 'req_8899aabbccddeeff' });
    expect(calls[0]!.seconds).toBeGreaterThan(0);
  });
});

describe('repeats', () => {
  const unreadable: Reply = { status: 200, body: '<html>' };
  const broken: Reply = { status: 500, body: refusal('INTERNAL_ERROR') };
  const unavailable: Reply = { status: 503, body: '<h1>Service Unavailable</h1>' };

  test.each<[string, Verb, Reply, number, UpstreamReason, 'no' | 'unknown']>([
    ['sendCode repeats a 503', 'sendCode', unavailable, 3, 'unreachable', 'no'],
    ['sendCode never repeats a 500', 'sendCode', broken, 1, 'failed', 'unknown'],
    ['sendCode never repeats a 502', 'sendCode', { status: 502 }, 1, 'failed', 'unknown'],
    ['sendCode never repeats a 504', 'sendCode', { status: 504 }, 1, 'failed', 'unknown'],
    ['sendCode never repeats an unreadable 2xx', 'sendCode', unreadable, 1, 'failed', 'unknown'],
    [
      'sendCode never repeats a 2xx without data',
      'sendCode',
      { status: 201, body: {} },
      1,
      'failed',
      'unknown',
    ],
    [
      'sendCode never repeats a 2xx that says failure',
      'sendCode',
      { status: 201, body: { success: false, data: {} } },
      1,
      'failed',
      'unknown',
    ],
    ['sendOtp repeats a 503', 'sendOtp', unavailable, 3, 'unreachable', 'no'],
    ['sendOtp repeats a 500', 'sendOtp', broken, 3, 'failed', 'unknown'],
    ['sendOtp repeats an unreadable 2xx', 'sendOtp', unreadable, 3, 'failed', 'unknown'],
    [
      'sendOtp repeats a 2xx without an id',
      'sendOtp',
      { status: 200, body: { data: {} } },
      3,
      'failed',
      'unknown',
    ],
    [
      'verifyOtp repeats a 503, and cannot know whether the code was looked at',
      'verifyOtp',
      unavailable,
      3,
      'failed',
      'unknown',
    ],
    ['verifyOtp repeats a 500', 'verifyOtp', broken, 3, 'failed', 'unknown'],
    ['verifyOtp repeats an unreadable 2xx', 'verifyOtp', unreadable, 3, 'failed', 'unknown'],
  ])(
    'the StartMessaging client follows its retry rule: %s',
    async (_name, verb, reply, count, reason, accepted) => {
      const { url, received } = await upstream(reply);
      const { client, calls } = clientOf(url);
      expect(await failure(run(client, verb))).toMatchObject({ reason, accepted });
      expect(received).toHaveLength(count);
      expect(calls.map((call) => call.outcome)).toEqual(Array(count).fill(reason));
    },
  );

  test('retries carry the same key and the same body always', async () => {
    const { url, received } = await upstream(broken, unavailable, {
      status: 200,
      body: envelope({ requestId: 'a' }),
    });
    const { client, calls } = clientOf(url);
    await expect(run(client, 'sendOtp')).resolves.toMatchObject({ id: 'a' });
    expect(received.map((call) => call.body)).toEqual(
      Array(3).fill({ phoneNumber: PHONE_NUMBER, idempotencyKey: 'key-1' }),
    );
    expect(calls.map((call) => call.outcome)).toEqual(['failed', 'unreachable', 'accepted']);
  });

  test.each<[string, Reply, UpstreamReason]>([
    ['unreachable', unavailable, 'unreachable'],
    ['throttled', { status: 429 }, 'throttled'],
    ['refused', { status: 401 }, 'credentials_refused'],
  ])(
    'an earlier send of unknown outcome stays unknown when the last one is %s',
    async (_name, last, reason) => {
      const { url } = await upstream(broken, last);
      expect(await failure(run(clientOf(url).client, 'sendOtp'))).toMatchObject({
        reason,
        accepted: 'unknown',
      });
    },
  );

  test('an unknown outcome is remembered over more than one retry', async () => {
    const { url, received } = await upstream(broken, unavailable, unavailable);
    const error = await failure(run(clientOf(url).client, 'sendOtp'));
    expect(error).toMatchObject({ reason: 'unreachable', accepted: 'unknown', status: 503 });
    expect(received).toHaveLength(3);
  });

  test.each<[string, Verb, Reply]>([
    ['a code', 'sendCode', { status: 201, body: envelope({ otpRequestId: 'a' }) }],
    ['an SMS', 'sendOtp', { status: 201, body: envelope({ requestId: 'a' }) }],
    ['a right code', 'verifyOtp', { status: 200, body: envelope({ verified: true }) }],
    ['a wrong code', 'verifyOtp', { status: 400, body: refusal('INVALID_OTP') }],
  ])('a call for %s is not retried once it was answered', async (_name, verb, reply) => {
    const { url, received } = await upstream({ status: 503 }, reply);
    await run(clientOf(url).client, verb);
    expect(received).toHaveLength(2);
  });

  test('a limit of one attempt means one call', async () => {
    const { url, received } = await upstream(broken);
    await failure(run(clientOf(url, { maxAttempts: 1 }).client, 'sendOtp'));
    expect(received).toHaveLength(1);
  });

  test('retries end when a pause would leave no time for a call', async () => {
    jest.spyOn(Math, 'random').mockReturnValue(0.999);
    const { url, received } = await upstream(unavailable);
    const { client } = clientOf(url, { retryDelayMs: 2 * HANG_MS });
    expect((await failure(run(client, 'sendCode'))).reason).toBe('unreachable');
    expect(received).toHaveLength(1);
  });

  test('pauses between retries double, and each is shortened by chance', async () => {
    jest.spyOn(Math, 'random').mockReturnValue(0.9);
    const pauses = holdTimers((ms) => ms >= 4_000 && ms < 10_000);
    const { url, received } = await upstream(unavailable);
    const failed = failure(run(clientOf(url, { retryDelayMs: 5_000 }).client, 'sendCode'));
    for (const made of [1, 2]) {
      await until(() => pauses.delays.length === made, 'the pause before the retry');
      expect(received).toHaveLength(made);
      pauses.fire();
    }
    await failed;
    expect(pauses.delays).toEqual([4_500, 9_000]);
  });
});

describe('secrets', () => {
  // Everything that upstream could echo, in every field that we read.
  const echo = `key ${API_KEY}, phone ${PHONE_NUMBER} or 98765 43210 or 987-654-3210, code ${CODE} or 7\u200b39154`;
  const canaries = [
    API_KEY,
    API_KEY.slice(8),
    '9876543210',
    '98765 43210',
    '987-654-3210',
    '43210',
    CODE,
    '39154',
  ];

  test.each<[string, Verb, Reply]>([
    [
      'a refused send',
      'sendCode',
      { status: 400, body: { ...refusal('OTP_SEND_FAILED', echo), requestId: API_KEY } },
    ],
    [
      "a refused send in the tutorials' shape",
      'sendOtp',
      { status: 400, body: { message: [echo], error: echo } },
    ],
    ['a refused verification', 'verifyOtp', { status: 401, body: { error: echo, requestId: `otp_${CODE}` } }],
    ['an HTML error', 'sendCode', { status: 500, body: `<p>${echo}</p>` }],
    ['an unreadable success', 'sendCode', { status: 200, body: echo }],
    ['a redirect', 'sendOtp', { status: 302, body: echo, headers: { Location: `/?k=${API_KEY}` } }],
  ])('the error after %s holds no secret', async (_name, verb, reply) => {
    const { url } = await upstream(reply);
    const { client, calls } = clientOf(url, { maxAttempts: 1 });
    const error = await failure(run(client, verb));
    const seen = [
      JSON.stringify(error),
      inspect(error, { depth: Infinity, showHidden: true }),
      String(error.stack),
      JSON.stringify(calls),
    ].join('\n');
    for (const canary of canaries) expect(seen).not.toContain(canary);
    expect(error.cause).toBeUndefined();
    expect(error.upstreamMessage!.length).toBeLessThanOrEqual(300);
  });

  test('an API key of another shape is removed from an error by its text', async () => {
    const apiKey = 'other-shape-of-a-key';
    const { url } = await upstream({ status: 401, body: refusal('UNAUTHORIZED', `bad key ${apiKey}`) });
    const error = await failure(run(clientOf(url, { apiKey }).client, 'sendOtp'));
    expect(error.upstreamMessage).toBe('bad key ***');
  });

  test('the text of upstream is cut, and never in the middle of a masked secret', async () => {
    const message = `${'é'.repeat(295)} ${API_KEY}`;
    const { url } = await upstream({ status: 401, body: refusal('UNAUTHORIZED', message) });
    const error = await failure(run(clientOf(url).client, 'sendOtp'));
    expect(error.upstreamMessage).toBe(`${'é'.repeat(295)} ***`);
  });
});
