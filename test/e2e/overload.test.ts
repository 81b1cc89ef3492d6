import { once } from 'node:events';
import type { Server } from 'node:http';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Emulator } from '../../src/emulator/emulator';
import type * as overloadModule from '../../src/http/overload';
import { Build, type Run } from '../support/processes';
import { redisOfWorker } from '../support/redis-of-worker';
import { service, serviceModule } from '../support/service';
import {
  API_KEY,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type World,
} from '../support/world';

// test/reliability/overload.test.ts does the same to processes, with a thousand requests in flight.

const ORIGIN = 'https://app.example.com';
const IN_FLIGHT = 'otp_login_http_requests_in_flight';

describe('more requests than a process can hold', () => {
  const MOST = 50;
  const { BOUNDS } = serviceModule<typeof overloadModule>('http/overload');
  const { inFlight } = BOUNDS;
  let world: World;
  let server: Server;

  beforeAll(async () => {
    BOUNDS.inFlight = MOST;
    world = await startWorld({
      variables: {
        // They hang until the test lets them go.
        UPSTREAM_TIMEOUT_MS: '45000',
        UPSTREAM_DEADLINE_MS: '45000',
        CORS_ORIGINS: ORIGIN,
        INTROSPECTION_CLIENTS: 'orders:0123456789-introspection-secret-1',
      },
    });
    server = world.instances[0]!.app.getHttpServer();
  });
  afterAll(async () => {
    BOUNDS.inFlight = inFlight;
    await world.close();
  });

  /** A figure of /metrics; 0 before it was counted. */
  async function metric(name: string): Promise<number> {
    const { status, body } = await call('GET', `${world.url}/metrics`);
    expect(status).toBe(200);
    const line = (body as string).split('\n').find((text) => text.startsWith(`${name} `));
    return Number(line?.split(' ')[1] ?? 0);
  }
  const shed = (limit: string): Promise<number> => metric(`otp_login_limits_hit_total{limit="${limit}"}`);
  const inFlightBecomes = (count: number): Promise<void> =>
    until(async () => (await metric(IN_FLIGHT)) === count, `${count} requests in flight`);
  const unreadBecomes = (count: number): Promise<void> =>
    until(async () => (await metric('otp_login_http_requests_unread')) === count, `${count} unread requests`);
  const connections = (): Promise<number> =>
    new Promise((resolve, reject) => {
      server.getConnections((error, count) => {
        if (error) reject(error);
        else resolve(count);
      });
    });

  it('the service refuses requests above its limit with 503, finishes those in flight, and then serves again', async () => {
    const { url, upstream } = world;
    expect(inFlight).toBe(1_000);
    upstream.fault({ on: 'send', times: 0, fault: { kind: 'slow', delayMs: 600_000 } });
    const send = (): ReturnType<typeof open> =>
      open(url, post('/auth/send-otp', { phoneNumber: freshNumber() }));
    const clients: Awaited<ReturnType<typeof send>>[] = [];
    while (clients.length < MOST) {
      clients.push(...(await Promise.all(Array.from({ length: 10 }, send))));
      await until(() => upstream.calls.length === clients.length, 'the calls of upstream');
    }
    const tooMany = await Promise.all(Array.from({ length: 20 }, send));
    await until(() => tooMany.every(({ read }) => read().includes('"code"')), 'the refusals');
    expect(await shed('in_flight')).toBe(20);
    expect(await metric(IN_FLIGHT)).toBe(MOST);
    for (const path of ['live', 'ready', 'startup'])
      expect((await call('GET', `${url}/health/${path}`)).status).toBe(200);

    const refused = await call('GET', `${url}/auth/me`);
    expect(statusAndCode(refused)).toEqual([503, 'overloaded']);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(refused.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    // A page can read that the service is busy, and so wait.
    const page = await call('GET', `${url}/auth/me`, undefined, { origin: ORIGIN });
    expect([page.status, page.headers.get('access-control-allow-origin')]).toEqual([503, ORIGIN]);
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
    const oauth = await call('POST', `${url}/oauth/token`, 'grant_type=refresh_token&refresh_token=x', {
      'content-type': 'application/x-www-form-urlencoded',
    });
    expect([oauth.status, oauth.headers.get('retry-after'), oauth.body]).toEqual([
      503,
      '1',
      { error: 'temporarily_unavailable', error_description: 'The service is busy' },
    ]);

    for (const { read } of tooMany) {
      expect(read()).toMatch(/^HTTP\/1\.1 503 /);
      expect(read()).toMatch(/\r\nretry-after: 1\r\n/i);
      expect(read()).toContain('"code":"overloaded"');
    }
    // Those that hang up are not forgotten while what they started goes on: it holds memory and a call of upstream.
    const all = await connections();
    for (const { socket } of [...clients, ...tooMany]) socket.destroy();
    await until(async () => (await connections()) <= all - MOST, 'the end of their connections');
    expect(await metric(IN_FLIGHT)).toBe(MOST);
    expect((await call('GET', `${url}/auth/me`)).status).toBe(503);

    await call('DELETE', `${upstream.url}/_emulator/faults`);
    await inFlightBecomes(0);
    expect((await login(world)).status).toBe(200);
  });

  it('a client that hangs up within a body, or never finishes it, gives its place back', async () => {
    // Bodies have ten seconds. Node.js looks at it every second.
    server.requestTimeout = server.headersTimeout = 600_000;
    try {
      const half = post('/auth/send-otp', { phoneNumber: freshNumber() }).slice(0, -5);
      const clients = await Promise.all(Array.from({ length: 30 }, () => open(world.url, half)));
      await unreadBecomes(30);
      // They are still being read, and take no place of a request that does work.
      expect(await metric(IN_FLIGHT)).toBe(0);
      for (const { socket } of clients.slice(10)) socket.destroy();
      await unreadBecomes(10);
      server.requestTimeout = server.headersTimeout = 1;
      await unreadBecomes(0);
      for (const { read } of clients.slice(0, 10)) expect(read()).toMatch(/^HTTP\/1\.1 400 /);
    } finally {
      server.requestTimeout = server.headersTimeout = 10_000;
    }
  });

  it('a client with thousands of pipelined requests is cut off, and a client with twenty gets all responses', async () => {
    const many = 'GET /auth/me HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(5_000);
    const { socket } = await open(world.url, many);
    await until(() => socket.closed, 'the end of the connection');
    expect(await shed('pipelined')).toBe(1);
    await inFlightBecomes(0);
    const { read } = await open(world.url, 'GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20));
    await until(() => read().split('HTTP/1.1 200 ').length === 21, 'the responses');
  });
});

/** On a signal it writes more than the pipe and the memory take, in lines of a log. */
const FILLER = `
  const line = JSON.stringify({ level: 'info', time: '', msg: 'filler', filler: 'x'.repeat(1_000) }) + '\\n';
  process.on('SIGUSR2', () => {
    for (let bytes = 0; bytes < 2_500_000; bytes += line.length) process.stdout.write(line);
    process.stderr.write('filled');
  });`;

describe('a log that is not read', () => {
  let build: Build;
  let upstream: Emulator;
  let started: { service: Run; url: string }[];
  const start = async (): ReturnType<Build['serve']> => {
    const filler = join(build.folder, 'filler.cjs');
    writeFileSync(filler, FILLER);
    return build.serve({
      NODE_ENV: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      REDIS_URL: (await redisOfWorker()).url,
      STARTMESSAGING_API_KEY: API_KEY,
      WALLET_ALERT_PAISE: '0',
      STARTMESSAGING_BASE_URL: upstream.url,
      SHUTDOWN_DELAY_SECONDS: '0',
      NODE_OPTIONS: `--require=${filler}`,
    });
  };
  // The first try of each test finds a service that was started beside the other.
  const nextService = async (): ReturnType<typeof start> => started.pop() ?? (await start());

  beforeAll(async () => {
    build = Build.make();
    upstream = await service().startEmulator();
    started = await Promise.all([start(), start()]);
  });
  afterAll(async () => {
    await build.remove();
    await upstream.close();
  });

  async function expectToServe(url: string): Promise<void> {
    for (let i = 0; i < 20; i++) expect((await call('GET', `${url}/auth/me`)).status).toBe(401);
    const phoneNumber = freshNumber();
    const sent = await sendOtp(url, phoneNumber);
    const verified = await verifyOtp(url, sent.body.requestId, textedCode(upstream, phoneNumber));
    expect(verified.status).toBe(200);
  }

  it('a service whose log is not read drops lines, goes on serving, and reports it when the log is read again', async () => {
    const { service, url } = await nextService();
    service.stopReading();
    service.signal('SIGUSR2');
    await until(() => service.stderr === 'filled', 'the full pipe');
    await expectToServe(url);
    service.readOn();
    await until(async () => {
      await call('GET', `${url}/auth/me`);
      return service.stdout.includes('"msg":"Log lines dropped: stdout was blocked"');
    }, 'the line that tells of dropped lines');
    const told = service.log.find(({ msg }) => msg === 'Log lines dropped: stdout was blocked');
    expect(told).toMatchObject({ level: 'warn', dropped: expect.any(Number) as number });
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(service.log.at(-1)).toMatchObject({ msg: 'Ended' });
  });

  it('a service goes on when the reader of its log is gone', async () => {
    const { service, url } = await nextService();
    service.closeOutput();
    await expectToServe(url);
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
  });
});

/** A connection that writes this and keeps what comes back. */
async function open(url: string, bytes: string): Promise<{ socket: Socket; read: () => string }> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  let text = '';
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(bytes);
  return { socket, read: () => text };
}
function post(path: string, body: object): string {
  const text = JSON.stringify(body);
  return `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
}
