import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import { inspect } from 'node:util';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { HttpService } from '@nestjs/axios';
import {
  StartMessagingClient,
  type StartMessagingOptions,
} from '../../src/startmessaging/startmessaging.client';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { HANG_MS, until } from '../support/hang';
import { holdTimers } from '../support/held-timers';

const API_KEY = `sm_live_${'c0ffee'.repeat(7).slice(0, 40)}`;
const PHONE_NUMBER = '+919876543210';
const CODE = '739154';
const GOOD = JSON.stringify({ success: true, data: { otpRequestId: 'a', requestId: 'a', verified: true } });

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  jest.restoreAllMocks();
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

type Server = http.Server | net.Server;

async function listen(server: Server): Promise<number> {
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

/** A server whose every answer is `respond`; counts the requests that arrived with their body. */
async function httpServer(respond: http.RequestListener) {
  const seen = { requests: 0, connections: 0 };
  const server = http.createServer((req, res) => {
    req.resume().on('end', () => {
      seen.requests += 1;
      respond(req, res);
    });
  });
  server.on('connection', () => (seen.connections += 1));
  return { url: `http://127.0.0.1:${await listen(server)}`, seen, server };
}

function clientOf(baseUrl: string, options: Partial<StartMessagingOptions> = {}) {
  const outcomes: string[] = [];
  const client = new StartMessagingClient(new HttpService(), {
    baseUrl,
    apiKey: API_KEY,
    appName: 'otp-login',
    timeoutMs: HANG_MS,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 2,
    maxAttempts: 3,
    deadlineMs: HANG_MS,
    onCall: (call) => outcomes.push(call.outcome),
    ...options,
  });
  return { client, outcomes };
}

const sendCode = (client: StartMessagingClient) =>
  client.sendCode({ phoneNumber: PHONE_NUMBER, code: CODE, expiryMinutes: 5, idempotencyKey: 'key-1' });
const sendOtp = (client: StartMessagingClient) =>
  client.sendOtp({ phoneNumber: PHONE_NUMBER, idempotencyKey: 'key-1' });

async function failure(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    (value) => new Error(`expected a failure, got ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof UpstreamError)) throw error as Error;
  // Whatever went wrong, the error is clean.
  const seen = JSON.stringify(error) + inspect(error, { depth: Infinity, showHidden: true });
  for (const secret of [API_KEY, '9876543210', CODE, 'key-1']) expect(seen).not.toContain(secret);
  return error;
}

describe('what provably never left is unreachable, and even a paid send repeats it', () => {
  const expectUnreachable = async (baseUrl: string, options: Partial<StartMessagingOptions> = {}) => {
    const { client, outcomes } = clientOf(baseUrl, options);
    expect(await failure(sendCode(client))).toMatchObject({ reason: 'unreachable', accepted: 'no' });
    expect(outcomes).toEqual(['unreachable', 'unreachable', 'unreachable']);
  };

  test('a send is unreachable and retried after a refused connection', async () => {
    const server = net.createServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    await expectUnreachable(`http://127.0.0.1:${port}`);
  });

  test('a send is unreachable and retried when the host name does not exist', async () => {
    const notFound = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' });
    const lookup = jest.spyOn(jest.requireActual<typeof import('node:dns')>('node:dns'), 'lookup');
    lookup.mockImplementation(((_name: string, _options: unknown, callback: (error: Error) => void) => {
      process.nextTick(callback, notFound);
    }) as never);
    cleanUps.push(() => {
      lookup.mockRestore();
    });
    await expectUnreachable('http://upstream.invalid:1');
    expect(lookup).toHaveBeenCalledTimes(3);
  });

  test('a send is unreachable and retried when TLS meets a port that speaks plain HTTP', async () => {
    const { url, seen } = await httpServer((_req, res) => res.end(GOOD));
    await expectUnreachable(url.replace('http:', 'https:'));
    expect(seen.requests).toBe(0);
  });

  test('a send is unreachable and retried when the TLS handshake is refused', async () => {
    const port = await listen(tls.createServer({}).on('tlsClientError', () => undefined));
    await expectUnreachable(`https://127.0.0.1:${port}`);
  });

  test('a send is unreachable and retried when the TLS handshake is reset', async () => {
    const port = await listen(
      net.createServer((socket) => socket.once('data', () => socket.resetAndDestroy())),
    );
    await expectUnreachable(`https://127.0.0.1:${port}`);
  });

  test('a send is unreachable and retried when the TLS handshake exceeds the connect timeout', async () => {
    const port = await listen(net.createServer((socket) => socket.resume()));
    // Had the timeout of the whole call ended the first one, none would have followed.
    await expectUnreachable(`https://127.0.0.1:${port}`, { connectTimeoutMs: 20 });
  });

  test('a send is unreachable and retried when the timeout of the whole call ends while it connects', async () => {
    const port = await listen(net.createServer((socket) => socket.resume()));
    await expectUnreachable(`https://127.0.0.1:${port}`, { timeoutMs: 20 });
  });

  test('a send is unreachable and retried when the backlog of the server stays full', async () => {
    await expectUnreachable(await fullBacklog(), { connectTimeoutMs: 20 });
  });
});

describe('what may have arrived is unknown, and a paid send never repeats it', () => {
  const BROTLI_BOMB = brotliCompressSync(Buffer.alloc(1_000_000, 0x20));
  const endless = (res: http.ServerResponse) => {
    const chunk = 'x'.repeat(16_384);
    const more = () => {
      while (res.write(chunk)) if (res.destroyed) return;
    };
    res.on('drain', more);
    more();
  };

  test.each<[string, http.RequestListener]>([
    ['a reset after the request', (req) => req.socket.resetAndDestroy()],
    ['a close after the request', (req) => req.socket.destroy()],
    [
      'a reset in the middle of the body',
      (req, res) => {
        res.writeHead(201, { 'Content-Length': 1000 });
        res.write(GOOD, () => req.socket.resetAndDestroy());
      },
    ],
    [
      'a body shorter than announced',
      (req, res) => {
        res.writeHead(201, { 'Content-Length': 1000 });
        res.write(GOOD, () => req.socket.end());
      },
    ],
    [
      'a reset in the middle of a 400, which says nothing yet',
      (req, res) => {
        res.writeHead(400, { 'Content-Length': 1000 });
        res.write('{"error":', () => req.socket.resetAndDestroy());
      },
    ],
    ['an answer that is not HTTP', (req) => req.socket.end('SSH-2.0-OpenSSH_9.2\r\n')],
    ['HTML', (_req, res) => res.end('<html>Welcome</html>')],
    ['an empty answer', (_req, res) => res.writeHead(204).end()],
    ['an answer over 64 KB', (_req, res) => res.end(`{"data":{},"pad":"${'x'.repeat(70_000)}"}`)],
    [
      'an answer without an end',
      (_req, res) => {
        endless(res);
      },
    ],
    [
      'a gzip bomb',
      (_req, res) => {
        res.writeHead(201, { 'Content-Encoding': 'gzip' }).end(gzipSync(Buffer.alloc(1_000_000, 0x20)));
      },
    ],
    [
      'a brotli bomb',
      (_req, res) => {
        res.writeHead(201, { 'Content-Encoding': 'br' }).end(BROTLI_BOMB);
      },
    ],
    [
      'broken gzip',
      (_req, res) => {
        res.writeHead(201, { 'Content-Encoding': 'gzip' }).end(GOOD);
      },
    ],
    ['a flood of headers', (_req, res) => res.writeHead(201, { 'X-Flood': 'x'.repeat(40_000) }).end(GOOD)],
    ['a 500', (_req, res) => res.writeHead(500).end('oops')],
    [
      'a 502 without an end',
      (_req, res) => {
        endless(res.writeHead(502));
      },
    ],
  ])(
    'a send that meets %s has failed and is not repeated, because it may have arrived',
    async (_name, respond) => {
      const { url, seen } = await httpServer(respond);
      const { client, outcomes } = clientOf(url);
      expect(await failure(sendCode(client))).toMatchObject({ reason: 'failed', accepted: 'unknown' });
      expect(seen.requests).toBe(1);
      expect(outcomes).toEqual(['failed']);
      expect(await failure(sendOtp(client))).toMatchObject({ reason: 'failed', accepted: 'unknown' });
      expect(seen.requests).toBe(4);
    },
  );

  test.each<[string, http.RequestListener]>([
    ['silence', () => undefined],
    [
      'headers and then silence',
      (_req, res) => {
        res.writeHead(201).flushHeaders();
      },
    ],
    [
      'a body that trickles in',
      (_req, res) => {
        res.writeHead(201);
        const timer = setInterval(() => res.write(' '), 5);
        res.on('close', () => {
          clearInterval(timer);
        });
      },
    ],
  ])(
    'a send that meets %s times out at the timeout of the whole call, and is not repeated',
    async (_name, respond) => {
      const timeouts = holdTimers((ms) => ms === 250);
      const { url, seen } = await httpServer((req, res) => {
        respond(req, res);
        // Some of it comes first.
        setTimeout(() => {
          timeouts.fire();
        }, 20);
      });
      const { client } = clientOf(url, { timeoutMs: 250, maxAttempts: 2 });
      expect(await failure(sendCode(client))).toMatchObject({ reason: 'timed_out', accepted: 'unknown' });
      expect(timeouts.delays).toEqual([250]);
      expect(seen.requests).toBe(1);
      expect((await failure(sendOtp(client))).reason).toBe('timed_out');
      expect(seen.requests).toBe(3);
    },
  );

  test('a connection that dies under a later request is not counted as one that never connected', async () => {
    const { url, seen } = await httpServer((req, res) => {
      if (seen.requests === 1) res.end(GOOD);
      else req.socket.resetAndDestroy();
    });
    const { client } = clientOf(url);
    await sendCode(client);
    expect(await failure(sendCode(client))).toMatchObject({ reason: 'failed', accepted: 'unknown' });
    expect(seen).toEqual({ requests: 2, connections: 1 });
  });

  test('a timeout of a later request is not counted as one that never connected', async () => {
    const timeouts = holdTimers((ms) => ms === 250);
    const { url, seen } = await httpServer((_req, res) => {
      if (seen.requests === 1) res.end(GOOD);
      else timeouts.fire();
    });
    const { client } = clientOf(url, { timeoutMs: 250 });
    await sendCode(client);
    expect(await failure(sendCode(client))).toMatchObject({ reason: 'timed_out', accepted: 'unknown' });
    expect(seen).toEqual({ requests: 2, connections: 1 });
  });

  test('a send that timed out stays unknown when its retry is refused at the door', async () => {
    const timeouts = holdTimers((ms) => ms === 250);
    const { url, server } = await httpServer(() => {
      server.close();
      timeouts.fire();
    });
    const { client, outcomes } = clientOf(url, { timeoutMs: 250 });
    expect(await failure(sendOtp(client))).toMatchObject({ reason: 'unreachable', accepted: 'unknown' });
    expect(outcomes).toEqual(['timed_out', 'unreachable', 'unreachable']);
  });
});

describe('bounds', () => {
  test('a slow response within the call timeout is awaited beyond the connect timeout', async () => {
    const connectTimeouts = holdTimers((ms) => ms === 300);
    const { url } = await httpServer((_req, res) => {
      connectTimeouts.fire();
      res.end(GOOD);
    });
    await expect(sendCode(clientOf(url, { connectTimeoutMs: 300 }).client)).resolves.toEqual({
      id: 'a',
    });
  });

  test('all calls of a send end at the deadline, the last one cut to the remaining time', async () => {
    // A clock that goes on by as much as each call takes; the pauses between them take no time.
    let now = 0;
    jest.spyOn(performance, 'now').mockImplementation(() => now);
    jest.spyOn(Math, 'random').mockReturnValue(0);
    const timeouts = holdTimers((ms) => ms >= 100 && ms <= 250);
    const { url, seen } = await httpServer(() => {
      now += timeouts.delays.at(-1) ?? 0;
      timeouts.fire();
    });
    const { client } = clientOf(url, { timeoutMs: 250, maxAttempts: 50, deadlineMs: 600 });
    expect((await failure(sendOtp(client))).reason).toBe('timed_out');
    expect(timeouts.delays).toEqual([250, 250, 100]);
    expect(seen.requests).toBe(3);
  });

  test('a send never follows a redirect', async () => {
    const { url, seen } = await httpServer((_req, res) => {
      res.writeHead(307, { Location: `${url}/otp/send` }).end();
    });
    expect((await failure(sendOtp(clientOf(url).client))).reason).toBe('contract_mismatch');
    expect(seen.requests).toBe(1);
  });

  test('a status that decides alone counts even when its body is broken', async () => {
    const { url } = await httpServer((req, res) => {
      res.writeHead(429, { 'Retry-After': '9', 'Content-Length': 1000 });
      res.write('{', () => req.socket.resetAndDestroy());
    });
    expect(await failure(sendOtp(clientOf(url).client))).toMatchObject({
      reason: 'throttled',
      retryAfterSeconds: 9,
    });
  });

  test('a call goes through no proxy of the environment', async () => {
    const proxy = await httpServer((_req, res) => res.writeHead(500).end());
    const { url } = await httpServer((_req, res) => res.end(GOOD));
    const { HTTP_PROXY, NO_PROXY } = process.env;
    process.env.HTTP_PROXY = proxy.url;
    process.env.NO_PROXY = '';
    cleanUps.push(() => {
      Object.assign(process.env, { HTTP_PROXY, NO_PROXY });
      if (HTTP_PROXY === undefined) delete process.env.HTTP_PROXY;
      if (NO_PROXY === undefined) delete process.env.NO_PROXY;
    });
    await sendCode(clientOf(url).client);
    expect(proxy.seen.requests).toBe(0);
  });

  test('the client leaves no connection open, however many calls were in flight', async () => {
    let answer: () => void = () => undefined;
    const arrived = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const { url, seen, server } = await httpServer((_req, res) => {
      if (seen.requests === 1) return res.end(GOOD);
      answer();
      return setTimeout(() => res.end(GOOD), 5);
    });
    const { client } = clientOf(url);
    await sendCode(client);
    const inFlight = Promise.all([sendCode(client), sendCode(client)]);
    await arrived;
    await expect(inFlight).resolves.toHaveLength(2);
    const open = (): Promise<number> =>
      new Promise((resolve) => {
        server.getConnections((_error, count) => {
          resolve(count);
        });
      });
    await until(async () => (await open()) === 0, 'the end of every connection');
  });
});

/** A socket that listens and accepts no connection, in a process that sleeps. Its queue is full, so SYNs are dropped. */
async function fullBacklog(): Promise<string> {
  const script = `const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    require('fs').writeSync(1, String(s.address().port));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20000);
  });`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  cleanUps.push(() => child.kill('SIGKILL'));
  const [port] = (await once(child.stdout, 'data')) as [Buffer];
  // Far more than a backlog of one takes: the kernel has seen to all of them when the first two are connected.
  let connected = 0;
  for (let i = 0; i < 20; i++) {
    const socket = net.connect(Number(port), '127.0.0.1').on('error', () => undefined);
    socket.on('connect', () => (connected += 1));
    cleanUps.push(() => socket.destroy());
  }
  await until(() => connected >= 2, 'the full backlog');
  return `http://127.0.0.1:${Number(port)}`;
}
