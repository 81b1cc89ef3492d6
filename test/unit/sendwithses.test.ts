import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import { gzipSync } from 'node:zlib';
import { HttpService } from '@nestjs/axios';
import { meets } from '../../src/sendwithses/predicate';
import { SendWithSesClient, type SendWithSesOptions } from '../../src/sendwithses/sendwithses.client';
import type { UpstreamCall } from '../../src/upstream/upstream';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { HANG_MS, until } from '../support/hang';
import { holdTimers } from '../support/held-timers';

const TEMPLATE_KEY = 'tk_0123456789abcdef';
const MOBILE = '+919876543210';
const CODE = '739154';

interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}
type Answerer = (response: http.ServerResponse) => void;

const servers: http.Server[] = [];

/** A Send With SES that gives the answers in turn, and the last one for ever. */
async function upstream(...replies: (Reply | Answerer)[]) {
  const received: { path: string | undefined; headers: http.IncomingHttpHeaders; body: unknown }[] = [];
  const server = http.createServer((req, res) => {
    let text = '';
    req.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    req.on('end', () => {
      received.push({ path: req.url, headers: req.headers, body: JSON.parse(text) as unknown });
      const reply = replies[Math.min(received.length, replies.length) - 1]!;
      if (typeof reply === 'function') {
        reply(res);
        return;
      }
      res.writeHead(reply.status, { 'Content-Type': 'application/json', ...reply.headers });
      res.end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body));
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}

function clientOf(baseUrl: string, options: Partial<SendWithSesOptions> = {}) {
  const calls: UpstreamCall[] = [];
  const client = new SendWithSesClient(new HttpService(), {
    baseUrl,
    sentIf: [
      { path: ['success'], equals: true },
      { path: ['data', 'status'], equals: 'sent' },
    ],
    verifiedIf: [{ path: ['data', 'verified'], equals: true }],
    timeoutMs: HANG_MS,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 2,
    maxAttempts: 3,
    deadlineMs: HANG_MS,
    onCall: (call) => calls.push(call),
    ...options,
    // Spread, a getter would be asked but once.
    get templateKey() {
      return options.templateKey ?? TEMPLATE_KEY;
    },
  });
  return { client, calls };
}

const SENT = { success: true, data: { status: 'sent' } };
const VERIFIED = { success: true, data: { verified: true } };

type Verb = 'send' | 'verify';
const run = (client: SendWithSesClient, verb: Verb): Promise<unknown> =>
  verb === 'send' ? client.send(MOBILE) : client.verify(MOBILE, CODE);

async function failure(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    (value) => new Error(`expected a failure, got ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  if (error instanceof UpstreamError) return error;
  throw error as Error;
}

afterEach(async () => {
  jest.restoreAllMocks();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

describe('what is sent', () => {
  test('a Send With SES send carries the number and the template key, and nothing else', async () => {
    const { url, received } = await upstream({ status: 200, body: SENT });
    await clientOf(`${url}/`).client.send(MOBILE);
    expect(received).toHaveLength(1);
    expect(received[0]).toMatchObject({ path: '/send-otp', headers: { 'template-key': TEMPLATE_KEY } });
    expect(received[0]!.headers).not.toHaveProperty('x-api-key');
    expect(received[0]!.body).toEqual({ mobile: MOBILE });
  });

  test('a Send With SES key that is replaced while the service runs counts from the next call on', async () => {
    const { url, received } = await upstream({ status: 200, body: SENT });
    let templateKey = 'the-old-one';
    const { client } = clientOf(url, {
      get templateKey() {
        return templateKey;
      },
    });
    await client.send(MOBILE);
    templateKey = 'the-new-one';
    await client.send(MOBILE);
    expect(received.map(({ headers }) => headers['template-key'])).toEqual(['the-old-one', 'the-new-one']);
  });

  test('a Send With SES send names the sender and its number when they are configured', async () => {
    const { url, received } = await upstream({ status: 200, body: SENT });
    await clientOf(url, { senderId: 'OTPLGN', originationNumber: '+911140000000' }).client.send(MOBILE);
    expect(received[0]!.body).toEqual({
      mobile: MOBILE,
      sender_id: 'OTPLGN',
      origination_number: '+911140000000',
    });
  });

  test('a Send With SES verification carries the number and the code, and nothing else', async () => {
    const { url, received } = await upstream({ status: 200, body: VERIFIED });
    expect(await clientOf(url).client.verify(MOBILE, CODE)).toBe(true);
    expect(received[0]).toMatchObject({ path: '/verify-otp', headers: { 'template-key': TEMPLATE_KEY } });
    expect(received[0]!.body).toEqual({ mobile: MOBILE, otp: CODE });
  });
});

describe('a send is', () => {
  const JSON_BODY = { success: false, message: 'No.' };

  test.each<[string, Reply]>([
    ['200', { status: 200, body: SENT }],
    ['202, with more in it', { status: 202, body: { ...SENT, more: 1 } }],
  ])('a Send With SES send is accepted by %s that meets the conditions', async (_name, reply) => {
    const { url } = await upstream(reply);
    const { client, calls } = clientOf(url);
    await client.send(MOBILE);
    expect(calls).toMatchObject([{ operation: 'send', outcome: 'accepted' }]);
  });

  // What was sent may be on its way after these: 'unknown'.
  test.each<[string, Reply, string, 'no' | 'unknown', number]>([
    ['a 200 that does not', { status: 200, body: JSON_BODY }, 'unconfirmed', 'unknown', 1],
    ['a 200 that half does', { status: 200, body: { success: true, data: {} } }, 'unconfirmed', 'unknown', 1],
    ['an empty 200', { status: 200, body: '' }, 'failed', 'unknown', 1],
    ['a 204', { status: 204, body: '' }, 'failed', 'unknown', 1],
    ['a page with 200', { status: 200, body: '<html>success</html>' }, 'failed', 'unknown', 1],
    ['a list', { status: 200, body: [SENT] }, 'failed', 'unknown', 1],
    ['broken JSON', { status: 200, body: '{"success":true,"data":{"status":"sent"' }, 'failed', 'unknown', 1],
    ['a 400', { status: 400, body: JSON_BODY }, 'phone_rejected', 'no', 1],
    ['a 400 of a proxy', { status: 400, body: '<html></html>' }, 'contract_mismatch', 'no', 1],
    ['a 401', { status: 401, body: SENT }, 'credentials_refused', 'no', 1],
    ['a 402', { status: 402, body: SENT }, 'wallet_empty', 'no', 1],
    ['a 403', { status: 403, body: '' }, 'credentials_refused', 'no', 1],
    ['a 404', { status: 404, body: '' }, 'contract_mismatch', 'no', 1],
    ['a 429', { status: 429, body: '' }, 'throttled', 'no', 1],
    ['a 503', { status: 503, body: '' }, 'unreachable', 'no', 3],
    ['a 500', { status: 500, body: SENT }, 'failed', 'unknown', 1],
    ['a 502', { status: 502, body: '<html></html>' }, 'failed', 'unknown', 1],
    ['a 302', { status: 302, body: SENT, headers: { location: '/send-otp' } }, 'unconfirmed', 'unknown', 1],
    ['a 405', { status: 405, body: JSON_BODY }, 'unconfirmed', 'unknown', 1],
    ['a 409', { status: 409, body: JSON_BODY }, 'unconfirmed', 'unknown', 1],
    ['a 422', { status: 422, body: JSON_BODY }, 'unconfirmed', 'unknown', 1],
  ])(
    'a Send With SES send after %s fails, and is retried only when it was not sent',
    async (_name, reply, reason, accepted, made) => {
      const { url, received } = await upstream(reply);
      const error = await failure(clientOf(url).client.send(MOBILE));
      expect([error.reason, error.accepted, received.length]).toEqual([reason, accepted, made]);
    },
  );

  test('a Send With SES send is retried while upstream is busy, and accepted then', async () => {
    const { url, received } = await upstream({ status: 503 }, { status: 503 }, { status: 200, body: SENT });
    await clientOf(url).client.send(MOBILE);
    expect(received).toHaveLength(3);
  });
});

describe('a code is', () => {
  test.each<[string, Reply]>([
    ['a 200 that does not say so', { status: 200, body: { success: true, data: {} } }],
    ['a 200 with false', { status: 200, body: { data: { verified: false } } }],
    ['a 200 with "true"', { status: 200, body: { data: { verified: 'true' } } }],
    ['a 200 with 1', { status: 200, body: { data: { verified: 1 } } }],
    ['a 200 with [true]', { status: 200, body: { data: { verified: [true] } } }],
    ['a 200 that says so elsewhere', { status: 200, body: { verified: true } }],
    ['an empty object', { status: 200, body: {} }],
    ['a 400', { status: 400, body: VERIFIED }],
    ['a 422', { status: 422, body: { message: 'no' } }],
  ])('a Send With SES code is wrong after %s', async (_name, reply) => {
    const { url, received } = await upstream(reply);
    expect(await clientOf(url).client.verify(MOBILE, CODE)).toBe(false);
    expect(received).toHaveLength(1);
  });

  test.each<[string, Reply, string, 'no' | 'unknown']>([
    ['an empty 200', { status: 200, body: '' }, 'failed', 'unknown'],
    ['a page with 200', { status: 200, body: '<html>verified</html>' }, 'failed', 'unknown'],
    ['true', { status: 200, body: 'true' }, 'failed', 'unknown'],
    ['a list', { status: 200, body: [VERIFIED] }, 'failed', 'unknown'],
    ['a 400 of a proxy', { status: 400, body: '<html></html>' }, 'contract_mismatch', 'no'],
    ['a 401', { status: 401, body: VERIFIED }, 'credentials_refused', 'no'],
    ['a 402', { status: 402, body: VERIFIED }, 'wallet_empty', 'no'],
    ['a 403', { status: 403, body: VERIFIED }, 'credentials_refused', 'no'],
    ['a 404', { status: 404, body: VERIFIED }, 'contract_mismatch', 'no'],
    ['a 405', { status: 405, body: VERIFIED }, 'contract_mismatch', 'no'],
    ['a 409', { status: 409, body: VERIFIED }, 'contract_mismatch', 'no'],
    ['a 301', { status: 301, body: VERIFIED, headers: { location: '/' } }, 'contract_mismatch', 'no'],
    ['a 410', { status: 410, body: VERIFIED }, 'request_expired', 'unknown'],
    ['a 429', { status: 429, body: VERIFIED }, 'throttled', 'no'],
    ['a 500', { status: 500, body: VERIFIED }, 'failed', 'unknown'],
    ['a 503', { status: 503, body: VERIFIED }, 'failed', 'unknown'],
  ])('a Send With SES code is neither right nor wrong after %s', async (_name, reply, reason, accepted) => {
    const { url, received } = await upstream(reply);
    const error = await failure(clientOf(url).client.verify(MOBILE, CODE));
    // A repeat after it was looked at would find a right code used up, and call it wrong.
    expect([error.reason, error.accepted, received.length]).toEqual([reason, accepted, 1]);
  });
});

describe.each(['send', 'verify'] as const)('an upstream that is hostile to %s', (verb) => {
  const RIGHT = verb === 'send' ? SENT : VERIFIED;
  const BOMB = gzipSync(JSON.stringify({ ...RIGHT, padding: 'x'.repeat(1_000_000) }));

  test.each<[string, Answerer, string]>([
    ['resets', (res) => res.socket?.resetAndDestroy(), 'failed'],
    [
      'stops half way',
      (res) => {
        res.writeHead(200, { 'content-length': '1000' });
        res.write(JSON.stringify(RIGHT), () => res.socket?.end());
      },
      'failed',
    ],
    [
      'stops half way of a 422',
      (res) => {
        res.writeHead(422, { 'content-length': '1000' });
        res.write(JSON.stringify(RIGHT), () => res.socket?.end());
      },
      'failed',
    ],
    ['says too much', (res) => res.end(JSON.stringify({ ...RIGHT, padding: 'x'.repeat(70_000) })), 'failed'],
    [
      'unpacks to too much',
      (res) => {
        res.writeHead(200, { 'content-encoding': 'gzip' });
        res.end(BOMB);
      },
      'failed',
    ],
  ])('a Send With SES upstream that %s is asked once', async (_name, answer, reason) => {
    const { url, received } = await upstream(answer);
    const error = await failure(run(clientOf(url).client, verb));
    expect([error.reason, error.accepted, received.length]).toEqual([reason, 'unknown', 1]);
  });

  test.each<[string, Answerer]>([
    ['hangs', () => undefined],
    [
      'trickles',
      (res) => {
        res.writeHead(200);
        const timer = setInterval(() => res.write(' '), 5);
        res.on('close', () => {
          clearInterval(timer);
        });
      },
    ],
  ])('a Send With SES upstream that %s is given up at the timeout, and asked once', async (_name, answer) => {
    const timeouts = holdTimers((ms) => ms === 300);
    const { url, received } = await upstream((res) => {
      answer(res);
      // Some of it comes first.
      setTimeout(() => {
        timeouts.fire();
      }, 20);
    });
    const error = await failure(run(clientOf(url, { timeoutMs: 300 }).client, verb));
    expect([error.reason, error.accepted, received.length]).toEqual(['timed_out', 'unknown', 1]);
  });

  test('a Send With SES upstream that refuses connections is certainly not reached', async () => {
    const { url } = await upstream({ status: 200 });
    const server = servers.pop()!;
    await new Promise((resolve) => server.close(resolve));
    const { client, calls } = clientOf(url);
    const error = await failure(run(client, verb));
    expect([error.reason, error.accepted, calls.length]).toEqual(['unreachable', 'no', 3]);
  });

  test('a Send With SES error holds none of the secrets that upstream repeats', async () => {
    const echo = `bad ${TEMPLATE_KEY} ${MOBILE} 9876543210 ${CODE}`;
    const { url } = await upstream({ status: 403, body: { message: echo, requestId: TEMPLATE_KEY } });
    const error = await failure(run(clientOf(url).client, verb));
    const told = `${inspect(error, { depth: 9 })}${JSON.stringify(error)}`;
    for (const secret of [TEMPLATE_KEY, '9876543210', CODE]) expect(told).not.toContain(secret);
    expect(error.upstreamMessage).toMatch(/^bad /);
  });

  test('Send With SES is not called any more after twenty failures, and a refusal is no failure', async () => {
    const { url, received } = await upstream(...Array<Reply>(25).fill({ status: 401 }), { status: 500 });
    const changes: boolean[] = [];
    const { client } = clientOf(url, { onBreaker: (open) => changes.push(open) });
    for (let i = 0; i < 25; i += 1) await failure(run(client, verb));
    // The 401s are in the window of ten seconds: the failures in a row open it.
    for (let i = 0; i < 20; i += 1) expect((await failure(run(client, verb))).reason).toBe('failed');
    expect(changes).toEqual([true]);
    for (let i = 0; i < 5; i += 1) {
      const error = await failure(run(client, verb));
      expect([error.reason, error.accepted]).toEqual(['breaker_open', 'no']);
    }
    expect(received).toHaveLength(45);
  });

  test('a Send With SES call that fails after its retries is one failure to the breaker', async () => {
    const changes: boolean[] = [];
    const { client, calls } = clientOf('http://127.0.0.1:1', { onBreaker: (open) => changes.push(open) });
    for (let i = 0; i < 19; i += 1) expect((await failure(run(client, verb))).reason).toBe('unreachable');
    expect([changes, calls.length]).toEqual([[], 57]);
    expect((await failure(run(client, verb))).reason).toBe('unreachable');
    expect([changes, calls.length]).toEqual([[true], 60]);
  });

  test('a Send With SES call stops its retries when the breaker opens in between', async () => {
    const nineteen = Array<Reply>(19).fill({ status: 500 });
    const { url, received } = await upstream(...nineteen, { status: 503 }, { status: 500 });
    const { client } = clientOf(url, { maxAttempts: 10, retryDelayMs: 20_000 });
    for (let i = 0; i < 19; i += 1) expect((await failure(client.send(MOBILE))).reason).toBe('failed');
    jest.spyOn(Math, 'random').mockReturnValue(0.5);
    const pauses = holdTimers((ms) => ms === 10_000);
    // The 503 is in its pause when the 500 of another send is the twentieth failure.
    const paused = failure(client.send(MOBILE));
    await until(() => pauses.delays.length === 1, 'the pause before the retry');
    expect((await failure(client.send(MOBILE))).reason).toBe('failed');
    pauses.fire();
    expect((await paused).reason).toBe('breaker_open');
    expect(received).toHaveLength(21);
  });
});

describe('a condition', () => {
  const is = (path: string, equals: string | number | boolean | null) => ({ path: path.split('.'), equals });

  test('a condition compares its value by value and type', () => {
    const body = { a: { b: true, c: 'x', d: 1, e: null, f: [{ g: 0 }] } };
    for (const condition of [
      is('a.b', true),
      is('a.c', 'x'),
      is('a.d', 1),
      is('a.e', null),
      is('a.f.0.g', 0),
    ])
      expect(meets(body, [condition])).toBe(true);
    for (const condition of [
      is('a.b', 'true'),
      is('a.d', '1'),
      is('a.d', true),
      is('a.e', false),
      is('a.c', 'X'),
    ])
      expect(meets(body, [condition])).toBe(false);
  });

  test('a condition on a missing field does not hold, not even as null', () => {
    expect(meets({}, [is('a', null)])).toBe(false);
    expect(meets({ a: null }, [is('a.b', null)])).toBe(false);
  });

  test.each([
    '__proto__',
    '__proto__.__proto__',
    'constructor',
    'constructor.name',
    'toString',
    'a.length',
    'a.constructor.name',
    'hasOwnProperty.length',
  ])('a condition does not hold by an inherited property: %s', (path) => {
    for (const equals of ['Object', 'String', 1, 0, true, null]) {
      expect(meets({ a: 'x' }, [is(path, equals)])).toBe(false);
    }
  });

  test('a condition must hold beside all others, and an empty list is no condition', () => {
    expect(meets({ a: 1, b: 2 }, [is('a', 1), is('b', 2)])).toBe(true);
    expect(meets({ a: 1, b: 3 }, [is('a', 1), is('b', 2)])).toBe(false);
    expect(meets({ a: 1 }, [])).toBe(false);
  });

  test.each([undefined, null, 'success', 7, true, []])(
    'a condition does not hold for the body %p',
    (body) => {
      expect(meets(body, [is('success', true)])).toBe(false);
    },
  );
});
