import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import { gzipSync } from 'node:zlib';
import { HttpService } from '@nestjs/axios';
import fc from 'fast-check';
import { startEmulator } from '../../src/emulator/emulator';
import {
  StartMessagingClient,
  type StartMessagingOptions,
} from '../../src/startmessaging/startmessaging.client';
import type { UpstreamCall } from '../../src/upstream/upstream';
import { UpstreamError, type UpstreamReason } from '../../src/upstream/upstream.error';
import { anyText } from '../support/any-text';
import { HANG_MS } from '../support/hang';
import { holdTimers } from '../support/held-timers';

const API_KEY = `sm_live_${'0123456789abcdef'.repeat(3).slice(0, 40)}`;
const PHONE_NUMBER = '+919876543210';
const ID = 'msg-1';

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  jest.restoreAllMocks();
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function listen(server: net.Server): Promise<number> {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket: net.Socket) => {
    sockets.add(socket.on('error', () => undefined));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUps.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

interface Received {
  method: string | undefined;
  path: string | undefined;
  headers: http.IncomingHttpHeaders;
  text: string;
  /** Of the client. */
  port: number | undefined;
}

/** A StartMessaging whose every answer is `respond`. */
async function upstream(respond: http.RequestListener) {
  const received: Received[] = [];
  const server = http.createServer((req, res) => {
    let text = '';
    req.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    req.on('end', () => {
      const { method, url: path, headers, socket } = req;
      received.push({ method, path, headers, text, port: socket.remotePort });
      respond(req, res);
    });
  });
  return { url: `http://127.0.0.1:${await listen(server)}`, received };
}

interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

/** A StartMessaging that gives one answer, which may be changed. */
async function answering(reply: Reply) {
  const current = { reply };
  const server = await upstream((_req, res) => {
    const { status, body, headers } = current.reply;
    res.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    res.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  return { ...server, current };
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

async function failure(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    (value) => new Error(`expected a failure, got ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof UpstreamError)) throw error as Error;
  // Whatever went wrong, the error is clean.
  const seen = JSON.stringify(error) + inspect(error, { depth: Infinity, showHidden: true });
  for (const secret of [API_KEY, '9876543210', '98765 43210']) expect(seen).not.toContain(secret);
  return error;
}

function envelope(data: unknown, more: object = {}) {
  return { success: true, statusCode: 200, requestId: 'req_0011223344556677', data, ...more };
}

function refusal(code: string, message: unknown = 'No.') {
  return { success: false, statusCode: 400, requestId: 'req_8899aabbccddeeff', error: { code, message } };
}

describe('looking up an SMS', () => {
  test('the look-up of an SMS returns its status and its price', async () => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    Object.assign(emulator.settings, { sentAfterMs: 60_000, deliveredAfterMs: 60_000 });
    const { client, calls } = clientOf(emulator.url);
    const request = { phoneNumber: PHONE_NUMBER, code: '739154', expiryMinutes: 5, idempotencyKey: 'key-1' };
    const { messageId } = await client.sendCode(request);
    await expect(client.readMessage(messageId!)).resolves.toEqual({ status: 'initiated', cost: 2500 });
    Object.assign(emulator.settings, { sentAfterMs: 0, deliveredAfterMs: 0 });
    await expect(client.readMessage(messageId!)).resolves.toEqual({ status: 'delivered', cost: 2500 });
    emulator.fault({ on: 'message', fault: 'not-delivered' });
    await expect(client.readMessage(messageId!)).resolves.toEqual({ status: 'failed', cost: 2500 });
    expect(emulator.messages).toHaveLength(1);
    expect(calls.slice(1)).toEqual(
      Array(3).fill({
        operation: 'message',
        outcome: 'accepted',
        seconds: expect.any(Number),
        correlationId: expect.stringMatching(/^req_/),
      }),
    );
  });

  test('the look-up of an SMS that upstream does not know means expired, and raises no alarm', async () => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    const { client, calls } = clientOf(emulator.url);
    const error = await failure(client.readMessage('never-sent'));
    expect(error).toMatchObject({ reason: 'request_expired', status: 404 });
    expect(calls).toMatchObject([{ operation: 'message', outcome: 'request_expired' }]);
  });

  test('the look-up over a route that is gone is a contract mismatch', async () => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    emulator.fault({ on: 'message', fault: 'route-missing' });
    expect((await failure(clientOf(emulator.url).client.readMessage(ID))).reason).toBe('contract_mismatch');
  });

  test('the look-up of an SMS is one GET with the API key and no body', async () => {
    const { url, received } = await answering({ status: 200, body: envelope({ id: ID }) });
    await clientOf(`${url}/sandbox/`).client.readMessage(ID);
    expect(received).toHaveLength(1);
    expect(received[0]).toMatchObject({ method: 'GET', path: '/sandbox/messages/msg-1', text: '' });
    expect(received[0]!.headers).toMatchObject({
      'x-api-key': API_KEY,
      accept: 'application/json',
      'user-agent': 'otp-login',
    });
    for (const absent of ['content-type', 'content-length', 'transfer-encoding']) {
      expect(received[0]!.headers).not.toHaveProperty(absent);
    }
  });

  test('each look-up of an SMS has a connection of its own', async () => {
    const { url, received } = await answering({ status: 200, body: envelope({ id: ID }) });
    const { client } = clientOf(url);
    await client.sendCode({ phoneNumber: PHONE_NUMBER, code: '1234', expiryMinutes: 5, idempotencyKey: 'k' });
    await client.readMessage(ID);
    expect(received.map(({ method }) => method)).toEqual(['POST', 'GET']);
    expect(received[1]!.port).not.toBe(received[0]!.port);
  });
});

describe('the id', () => {
  test.each(['', '.', '..', '\ud800', 'a\udc00b'])(
    'the message id %j names no message, and is never sent',
    async (id) => {
      const { url, received } = await answering({ status: 200, body: envelope({}) });
      const { client, calls } = clientOf(url);
      expect(await failure(client.readMessage(id))).toMatchObject({ reason: 'failed', status: undefined });
      expect(received).toEqual([]);
      expect(calls).toEqual([]);
    },
  );

  test.each([
    ['../wallet', '/messages/..%2Fwallet'],
    ['..\\wallet', '/messages/..%5Cwallet'],
    ['%2e%2e', '/messages/%252e%252e'],
    ['...', '/messages/...'],
    ['a?b=c#d', '/messages/a%3Fb%3Dc%23d'],
    ['//evil.example/', '/messages/%2F%2Fevil.example%2F'],
    ['a\r\nX-Evil: 1', '/messages/a%0D%0AX-Evil%3A%201'],
    ['.\t.', '/messages/.%09.'],
    [' .. ', '/messages/%20..%20'],
    ['संदेश', `/messages/${encodeURIComponent('संदेश')}`],
  ])('the message id %j stays one segment of the path', async (id, path) => {
    const { url, received } = await answering({ status: 200, body: envelope({ id }) });
    await expect(clientOf(url).client.readMessage(id)).resolves.toEqual({});
    expect(received.map((call) => call.path)).toEqual([path]);
  });

  test('no message id changes the path, the query or the headers', async () => {
    const { url, received } = await answering({ status: 200, body: envelope({}) });
    const { client } = clientOf(url);
    const hostile = fc.string({
      unit: fc.constantFrom('.', '/', '\\', '%', '2e', '?', '#', '\r', '\n', 'a'),
    });
    const text = fc.oneof(hostile, anyText(40));
    await fc.assert(
      fc.asyncProperty(text, async (id) => {
        received.length = 0;
        const sent = await client.readMessage(id).then(
          () => true,
          () => false,
        );
        if (!sent) {
          expect(['', '.', '..']).toContain(id);
          expect(received).toEqual([]);
          return;
        }
        const [, messages, segment, ...more] = received[0]!.path!.split('/');
        expect([messages, more]).toEqual(['messages', []]);
        expect(segment).toMatch(/^[^?#\\]+$/);
        expect(decodeURIComponent(segment!)).toBe(id);
      }),
      { numRuns: 60 },
    );
  });
});

describe('reading what became of it', () => {
  test.each<[string, unknown, object]>([
    [
      'the whole answer',
      envelope({ id: ID, status: 'sent', costAmount: '0.2500' }),
      { status: 'sent', cost: 2500 },
    ],
    ['the id by its other name', envelope({ messageId: ID, status: 'sent' }), { status: 'sent' }],
    ['the id by both names', envelope({ id: ID, messageId: ID, status: 'sent' }), { status: 'sent' }],
    ['no id', envelope({ status: 'sent' }), { status: 'sent' }],
    [
      'its own id beside that of the message',
      envelope({ id: 'record-7', messageId: ID, status: 'sent' }),
      { status: 'sent' },
    ],
    ['an id that is no text', envelope({ id: 7, messageId: null, status: 'sent' }), { status: 'sent' }],
    ['bare data', { data: { status: 'failed' } }, { status: 'failed' }],
    ['a status that is not known yet', envelope({ status: 'in_orbit' }), { status: 'in_orbit' }],
    ['empty data', envelope({}), {}],
    ['a status that is no text', envelope({ status: ['sent'], costAmount: '1' }), { cost: 10_000 }],
    ['an empty status', envelope({ status: '' }), {}],
    ['an absurdly long status', envelope({ status: 'x'.repeat(257) }), {}],
    ['fields beside data', envelope({}, { status: 'sent', costAmount: '0.25' }), {}],
    [
      'an SMS that failed, with its reasons',
      envelope({ id: ID, status: 'failed', error: 'Absent', failureReason: 'Absent' }),
      { status: 'failed' },
    ],
  ])('the look-up of an SMS reads %s', async (_name, body, state) => {
    const { url } = await answering({ status: 200, body });
    await expect(clientOf(url).client.readMessage(ID)).resolves.toEqual(state);
  });

  test.each<[string, unknown]>([
    ['another id', envelope({ id: 'msg-2', status: 'delivered' })],
    ['another message id', envelope({ messageId: 'msg-2', status: 'delivered' })],
    ['the id in another case', envelope({ id: 'MSG-1' })],
    ['an empty id', envelope({ id: '' })],
    ['no data', { success: true }],
    ['data that is a list', envelope([{ id: ID, status: 'sent' }])],
    ['data that is null', envelope(null)],
    ['data that is a text', envelope('sent')],
    ['a list of envelopes', [envelope({ id: ID })]],
    ['success false', { success: false, data: { id: ID } }],
    ['an error beside its data', { data: { id: ID }, error: 'odd' }],
    ['nothing', ''],
    ['HTML', '<html>Welcome</html>'],
    ['half of the JSON', '{"data":{"id":"msg-1"}'],
    ['null', 'null'],
  ])('a look-up response 200 with %s has failed, and is not retried', async (_name, body) => {
    const { url, received } = await answering({ status: 200, body });
    const { client, calls } = clientOf(url);
    expect(await failure(client.readMessage(ID))).toMatchObject({ reason: 'failed', status: 200 });
    expect(received).toHaveLength(1);
    expect(calls).toMatchObject([{ operation: 'message', outcome: 'failed' }]);
  });
});

describe('the price', () => {
  /** What is read of a price, given as the JSON that stands in the answer. */
  async function reader() {
    const { url, current } = await answering({ status: 200 });
    const { client } = clientOf(url);
    return async (json: string) => {
      current.reply = { status: 200, body: `{"data":{"costAmount":${json}}}` };
      const state = await client.readMessage(ID);
      expect(Object.keys(state)).toEqual(state.cost === undefined ? [] : ['cost']);
      return state.cost;
    };
  }

  test.each([
    ['"0.2500"', 2500],
    ['"0.25"', 2500],
    ['"0.2"', 2000],
    ['"1"', 10_000],
    ['"0"', 0],
    ['"0.0000"', 0],
    ['"0.0001"', 1],
    ['"0.0003"', 3],
    ['"1.1501"', 11_501],
    ['"100"', 1_000_000],
    ['"100.0000"', 1_000_000],
    ['"99.9999"', 999_999],
    ['0.25', 2500],
    ['0.2500', 2500],
    ['0.0001', 1],
    ['1.005', 10_050],
    ['4.35', 43_500],
    ['0', 0],
    ['100.0', 1_000_000],
    ['25e-2', 2500],
  ])('the price %s is read as %i ten-thousandths of a rupee', async (json, cost) => {
    await expect((await reader())(json)).resolves.toBe(cost);
  });

  test.each([
    '""',
    '"free"',
    '"-0.25"',
    '"-0"',
    '"+0.25"',
    '" 0.25"',
    '"0.25 "',
    '"0.25\\n"',
    '"Rs 0.25"',
    '"0,25"',
    '"0.25000"',
    '"0.00001"',
    '".25"',
    '"0."',
    '"00.25"',
    '"1e1"',
    '"0x10"',
    '"٠.٢٥"',
    '"100.0001"',
    '"101"',
    '"1000"',
    `"${'9'.repeat(400)}"`,
    '"NaN"',
    '"Infinity"',
    '-0.25',
    '0.12345',
    '0.30000000000000004',
    '1e-5',
    '1e-7',
    '100.0001',
    '1e21',
    '1e999',
    'null',
    'true',
    '["0.25"]',
    '{"value":"0.25"}',
  ])('the price %s is treated as missing', async (json) => {
    await expect((await reader())(json)).resolves.toBeUndefined();
  });

  test('every price up to a hundred rupees is read exactly, however it is written', async () => {
    const read = await reader();
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 1_000_000 }), fc.boolean(), async (cost, quoted) => {
        const digits = String(cost).padStart(5, '0');
        const full = `${digits.slice(0, -4)}.${digits.slice(-4)}`;
        const short = full.replace(/\.?0+$/, '');
        for (const text of [full, short]) expect(await read(quoted ? `"${text}"` : text)).toBe(cost);
      }),
      { numRuns: 60 },
    );
  });

  test('a JSON value is a price only when it is a whole number of ten-thousandths within bounds', async () => {
    const read = await reader();
    const digits = fc.string({
      unit: fc.constantFrom('0', '1', '2', '5', '9', '.', '-', '+', 'e', ' '),
      maxLength: 9,
    });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.jsonValue(), fc.double(), digits), async (value) => {
        const cost = await read(JSON.stringify(value));
        if (cost === undefined) return;
        expect(Number.isInteger(cost) && cost >= 0 && cost <= 1_000_000).toBe(true);
        expect(cost / 10_000).toBe(Math.abs(Number(value)));
      }),
      { numRuns: 100 },
    );
  });
});

const NEST_404 = { message: 'Cannot GET /messages/msg-1', error: 'Not Found', statusCode: 404 };
const EXPRESS_404 = '<!DOCTYPE html>\n<body>\n<pre>Cannot GET /messages/msg-1</pre>\n</body>';

describe('refusals', () => {
  const rows: [name: string, reply: Reply, reason: UpstreamReason, retryAfterSeconds?: number][] = [
    ['a refused key', { status: 401, body: refusal('UNAUTHORIZED') }, 'credentials_refused'],
    ['a 401 in HTML', { status: 401, body: '<h1>No</h1>' }, 'credentials_refused'],
    ['an account not onboarded', { status: 403, body: refusal('FORBIDDEN') }, 'credentials_refused'],
    ['a 403 without a code', { status: 403, body: { message: 'no' } }, 'credentials_refused'],
    ['a 403 whose code says nothing here', { status: 403, body: refusal('ODD') }, 'credentials_refused'],
    ['a 400 about the key', { status: 400, body: refusal('UNAUTHORIZED') }, 'credentials_refused'],
    ['a 200 about the key', { status: 200, body: refusal('UNAUTHORIZED') }, 'credentials_refused'],
    ['a 429', { status: 429, body: refusal('INTERNAL_ERROR') }, 'throttled', 60],
    ['a 429 whatever its code', { status: 429, body: refusal('UNAUTHORIZED') }, 'throttled', 60],
    ['a 429 with seconds', { status: 429, headers: { 'Retry-After': '10' } }, 'throttled', 10],
    ['a limit told with a 400', { status: 400, body: refusal('RATE_LIMIT_EXCEEDED') }, 'throttled', 60],
    ['a missing route, told by Nest', { status: 404, body: NEST_404 }, 'contract_mismatch'],
    ['a missing route, told by Express', { status: 404, body: EXPRESS_404 }, 'contract_mismatch'],
    [
      'a missing route, told by the envelope',
      { status: 404, body: refusal('NOT_FOUND', 'Cannot GET /messages/msg-1') },
      'contract_mismatch',
    ],
    [
      'a missing route, told with a 400',
      { status: 400, body: refusal('NOT_FOUND', 'Cannot GET /messages/msg-1') },
      'contract_mismatch',
    ],
    ['an unknown message', { status: 404, body: refusal('NOT_FOUND', 'Not found') }, 'request_expired'],
    ['an unknown message, told with a 400', { status: 400, body: refusal('NOT_FOUND') }, 'request_expired'],
    ['an unknown message without a body', { status: 404, body: '' }, 'request_expired'],
    [
      'an unknown message in the words of a missing route',
      { status: 404, body: refusal('NOT_FOUND', 'Cannot get message') },
      'request_expired',
    ],
    [
      'an unknown message whose text only mentions a route',
      { status: 404, body: refusal('NOT_FOUND', 'We Cannot GET /that') },
      'request_expired',
    ],
    ['a message that is gone', { status: 410, body: refusal('GONE') }, 'request_expired'],
    ['an id refused', { status: 400, body: refusal('VALIDATION_ERROR') }, 'request_malformed'],
    ['an id refused with a 422', { status: 422, body: refusal('VALIDATION_ERROR') }, 'request_malformed'],
    ['a 400 without a code', { status: 400, body: { message: ['id must be a UUID'] } }, 'request_malformed'],
    ["a proxy's 400", { status: 400, body: '<h1>Bad Request</h1>' }, 'contract_mismatch'],
    ["a proxy's 400 that says null", { status: 400, body: 'null' }, 'contract_mismatch'],
    ['an empty wallet', { status: 400, body: refusal('INSUFFICIENT_BALANCE') }, 'wallet_empty'],
    ['a 402', { status: 402 }, 'wallet_empty'],
    ['a 405', { status: 405 }, 'contract_mismatch'],
    ['a 409', { status: 409, body: refusal('ODD') }, 'contract_mismatch'],
    ['a 422', { status: 422, body: refusal('ODD') }, 'contract_mismatch'],
    ['a 301', { status: 301, headers: { Location: '/elsewhere' } }, 'contract_mismatch'],
    ['a 307', { status: 307, headers: { Location: '/elsewhere' } }, 'contract_mismatch'],
    ['a 304', { status: 304 }, 'contract_mismatch'],
    ['a 500', { status: 500, body: refusal('INTERNAL_ERROR') }, 'failed'],
    ['a 500 with a code about a send', { status: 500, body: refusal('OTP_SEND_FAILED') }, 'failed'],
    ['a 500 with good data', { status: 500, body: envelope({ id: ID }) }, 'failed'],
    ['a 502 in HTML', { status: 502, body: '<h1>Bad Gateway</h1>' }, 'failed'],
    ['a 503', { status: 503 }, 'failed'],
  ];

  test.each(
    rows.map(([name, reply, reason, retryAfterSeconds]) => ({ name, reply, reason, retryAfterSeconds })),
  )(
    'a look-up refusal ($name) is $reason, and is not retried',
    async ({ reply, reason, retryAfterSeconds }) => {
      const { url, received } = await answering(reply);
      const { client, calls } = clientOf(url);
      const error = await failure(client.readMessage(ID));
      expect(error).toMatchObject({ reason, status: reply.status });
      expect(error.retryAfterSeconds).toBe(retryAfterSeconds);
      expect(received).toHaveLength(1);
      expect(calls).toMatchObject([{ operation: 'message', outcome: reason }]);
    },
  );

  test('a look-up refusal carries the correlation id and the text of upstream, without repeated secrets', async () => {
    const text = `key ${API_KEY} of ${PHONE_NUMBER} or 98765 43210\r\n is bad`;
    const { url } = await answering({ status: 401, body: refusal('UNAUTHORIZED', text) });
    const error = await failure(clientOf(url).client.readMessage(ID));
    expect(error.correlationId).toBe('req_8899aabbccddeeff');
    expect(error.upstreamMessage).toBe('key *** of +*** or *** is bad');
  });
});

describe('the network', () => {
  const GOOD = JSON.stringify(envelope({ id: ID, status: 'sent' }));

  test.each<[string, http.RequestListener]>([
    ['a reset', (req) => req.socket.resetAndDestroy()],
    [
      'a reset in the middle of the body',
      (req, res) => {
        res.writeHead(200, { 'Content-Length': 1000 });
        res.write(GOOD, () => req.socket.resetAndDestroy());
      },
    ],
    ['an answer that is not HTTP', (req) => req.socket.end('SSH-2.0-OpenSSH_9.2\r\n')],
    ['an answer over 64 KB', (_req, res) => res.end(`{"data":{},"pad":"${'x'.repeat(70_000)}"}`)],
    [
      'a gzip bomb',
      (_req, res) => {
        const bomb = gzipSync(`{"data":{},"pad":"${' '.repeat(1_000_000)}"}`);
        res.writeHead(200, { 'Content-Encoding': 'gzip' }).end(bomb);
      },
    ],
  ])('a look-up that meets %s has failed, and is not retried', async (_name, respond) => {
    const { url, received } = await upstream(respond);
    const { client, calls } = clientOf(url);
    expect((await failure(client.readMessage(ID))).reason).toBe('failed');
    expect(received).toHaveLength(1);
    expect(calls).toMatchObject([{ operation: 'message', outcome: 'failed' }]);
  });

  test('a compressed look-up response is not read', async () => {
    const { url } = await upstream((_req, res) => {
      res.writeHead(200, { 'Content-Encoding': 'gzip' }).end(gzipSync(GOOD));
    });
    expect((await failure(clientOf(url).client.readMessage(ID))).reason).toBe('failed');
  });

  test('a look-up does not follow a redirect, so that no other server sees the API key', async () => {
    const elsewhere = await answering({ status: 200, body: envelope({ id: ID }) });
    const { url } = await answering({ status: 302, headers: { Location: `${elsewhere.url}/` } });
    expect((await failure(clientOf(url).client.readMessage(ID))).reason).toBe('contract_mismatch');
    expect(elsewhere.received).toEqual([]);
  });

  test('a look-up whose connection is refused is unreachable, and is not retried', async () => {
    const server = net.createServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const { client, calls } = clientOf(`http://127.0.0.1:${port}`);
    expect((await failure(client.readMessage(ID))).reason).toBe('unreachable');
    expect(calls).toMatchObject([{ operation: 'message', outcome: 'unreachable' }]);
  });

  test.each<[string, Partial<StartMessagingOptions>]>([
    ['the timeout of a call', { timeoutMs: 200 }],
    ['the deadline, when that is sooner', { deadlineMs: 200 }],
  ])('a look-up without a response times out after %s', async (_name, options) => {
    const timeouts = holdTimers((ms) => ms === 200);
    const { url, received } = await upstream(() => {
      timeouts.fire();
    });
    const { client, calls } = clientOf(url, options);
    expect((await failure(client.readMessage(ID))).reason).toBe('timed_out');
    expect(timeouts.delays).toEqual([200]);
    expect(received).toHaveLength(1);
    expect(calls).toMatchObject([{ operation: 'message', outcome: 'timed_out' }]);
  });
});

describe('the breaker', () => {
  const send = (client: StartMessagingClient) =>
    client.sendCode({ phoneNumber: PHONE_NUMBER, code: '739154', expiryMinutes: 5, idempotencyKey: 'k' });

  test('failed look-ups do not open the breaker, and an open breaker stops look-ups', async () => {
    const { url, received } = await answering({ status: 500 });
    const changes: boolean[] = [];
    const { client } = clientOf(url, { onBreaker: (open) => changes.push(open) });
    for (let i = 0; i < 30; i += 1) expect((await failure(client.readMessage('m'))).reason).toBe('failed');
    expect(changes).toEqual([]);
    for (let i = 0; i < 20; i += 1) expect((await failure(send(client))).reason).toBe('failed');
    expect(changes).toEqual([true]);
    expect((await failure(client.readMessage('m'))).reason).toBe('breaker_open');
    expect(received).toHaveLength(50);
  });
});
