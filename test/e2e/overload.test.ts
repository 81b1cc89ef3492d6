import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { Build, type Run } from '../support/processes';
import { startRedis, type RedisServer } from '../support/redis-server';
import { TcpLink } from '../support/tcp-link';
import {
  API_KEY,
  call,
  freshNumber,
  sendOtp,
  textedCode,
  until,
  verifyOtp,
  type Variables,
} from '../support/world';

// A process of its own: what it holds is measured, and its event loop stands still while the test's goes on.

const ORIGIN = 'https://app.example.com';
const IN_FLIGHT = 'otp_login_http_requests_in_flight';

let build: Build;
let redis: RedisServer;
let upstream: Emulator;

beforeAll(async () => {
  build = Build.make();
  [redis, upstream] = await Promise.all([startRedis(), startEmulator()]);
}, 180_000);
afterEach(async () => {
  await build.killAll();
  upstream.reset();
});
afterAll(async () => {
  await Promise.all([upstream.close(), redis.stop()]);
  await build.remove();
});

const serve = (more: Variables = {}): Promise<{ service: Run; url: string }> =>
  build.serve({
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: redis.url,
    STARTMESSAGING_API_KEY: API_KEY,
    STARTMESSAGING_BASE_URL: upstream.url,
    // They hang until the test lets them go.
    UPSTREAM_TIMEOUT_MS: '45000',
    UPSTREAM_DEADLINE_MS: '45000',
    UPSTREAM_MAX_ATTEMPTS: '1',
    SHUTDOWN_DELAY_SECONDS: '0',
    LIMIT_PHONE: '1000/60',
    LIMIT_IP: '1000000/60',
    LIMIT_VERIFY_IP: '1000000/60',
    LIMIT_GLOBAL: '1000000/1',
    CORS_ORIGINS: ORIGIN,
    INTROSPECTION_CLIENTS: 'orders:0123456789-introspection',
    ...more,
  });

/** A figure of /metrics; 0 before it was counted. */
async function metric(url: string, name: string): Promise<number> {
  const { status, body } = await call('GET', `${url}/metrics`);
  expect(status).toBe(200);
  const line = (body as string).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1] ?? 0);
}
const shed = (url: string, limit: string): Promise<number> =>
  metric(url, `otp_login_limits_hit_total{limit="${limit}"}`);

async function logIn(url: string): Promise<void> {
  const phoneNumber = freshNumber();
  const sent = await sendOtp(url, phoneNumber);
  expect(sent.status).toBe(200);
  const verified = await verifyOtp(url, sent.body.requestId, textedCode(upstream, phoneNumber));
  expect(verified.status).toBe(200);
}

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

describe('more requests than a process can hold', () => {
  it('are told 503 at once, while those in flight go on, probes are answered, and all of it is given back', async () => {
    const wire = await TcpLink.to({ port: Number(new URL(upstream.url).port) });
    const { url } = await serve({ STARTMESSAGING_BASE_URL: `http://127.0.0.1:${wire.port}` });
    await logIn(url);
    const heapBefore = await metric(url, 'otp_login_nodejs_heap_size_used_bytes');
    wire.dropping = true;

    const send = (): ReturnType<typeof open> =>
      open(url, post('/auth/send-otp', { phoneNumber: freshNumber() }));
    // By and by: a thousand at once would make a slow machine miss the deadline of Redis. Whoever missed it all the same, or
    // came too much, has an answer; all others hang at the provider before we go on.
    const clients: Awaited<ReturnType<typeof send>>[] = [];
    await until(async () => {
      const free = 1_000 - (await metric(url, IN_FLIGHT));
      clients.push(...(await Promise.all(Array.from({ length: Math.min(free, 50) }, send))));
      if (free > 0) return false;
      await sleep(2_000);
      const waiting = clients.filter(({ read }) => read() === '').length;
      return waiting === 1_000 && (await metric(url, IN_FLIGHT)) === 1_000;
    }, 40_000);
    const before = await shed(url, 'in_flight');
    const tooMany = await Promise.all(Array.from({ length: 400 }, send));
    await until(() => tooMany.every(({ read }) => read() !== ''), 20_000);
    expect(await shed(url, 'in_flight')).toBe(before + 400);
    expect(await metric(url, IN_FLIGHT)).toBe(1_000);
    for (const path of ['live', 'ready', 'startup'])
      expect((await call('GET', `${url}/health/${path}`)).status).toBe(200);

    const refused = await call('GET', `${url}/auth/me`);
    expect([refused.status, refused.body.code, refused.headers.get('retry-after')]).toEqual([
      503,
      'overloaded',
      '1',
    ]);
    expect(refused.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    // A page can read that we are busy, and so wait.
    const page = await fetch(`${url}/auth/me`, { headers: { origin: ORIGIN } });
    expect([page.status, page.headers.get('access-control-allow-origin')]).toEqual([503, ORIGIN]);
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
    await page.arrayBuffer();
    const oauth = await fetch(`${url}/oauth/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: 'grant_type=refresh_token&refresh_token=x',
    });
    expect([oauth.status, oauth.headers.get('retry-after'), await oauth.json()]).toEqual([
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
    for (const { socket } of [...clients, ...tooMany]) socket.destroy();
    await sleep(300);
    expect(await metric(url, IN_FLIGHT)).toBe(1_000);
    expect((await call('GET', `${url}/auth/me`)).status).toBe(503);

    wire.dropping = false;
    wire.cut();
    await until(async () => (await metric(url, IN_FLIGHT)) === 0);
    // A thousand failures have opened the breaker, which tries again after some seconds.
    await until(() => logIn(url).then(() => true), 30_000);
    // A process that holds a thousand sends does not double; the collector is asked for nothing here.
    const heapAfter = await metric(url, 'otp_login_nodejs_heap_size_used_bytes');
    expect(heapAfter - heapBefore).toBeLessThan(150 * 1024 * 1024);
    await wire.close();
  }, 120_000);

  it('that hang up in the middle of their bodies, or are never written to their ends, give their places back', async () => {
    const { url } = await serve();
    const half = post('/auth/send-otp', { phoneNumber: freshNumber() }).slice(0, -5);
    const clients = await Promise.all(Array.from({ length: 300 }, () => open(url, half)));
    await until(async () => (await metric(url, IN_FLIGHT)) === 300);
    for (const { socket } of clients.slice(100)) socket.destroy();
    await until(async () => (await metric(url, IN_FLIGHT)) === 100, 5_000);
    // The rest is not waited for longer than for any body.
    await until(async () => (await metric(url, IN_FLIGHT)) === 0, 20_000);
    for (const { read } of clients.slice(0, 100)) expect(read()).toMatch(/^HTTP\/1\.1 400 /);
    await logIn(url);
  }, 60_000);

  it('on one connection cut it off: who pipelines by the thousand takes no place of the others', async () => {
    const { url } = await serve();
    const many = 'GET /auth/me HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(5_000);
    const { socket } = await open(url, many);
    await new Promise((resolve) => socket.once('close', resolve));
    expect(await shed(url, 'pipelined')).toBe(1);
    await until(async () => (await metric(url, IN_FLIGHT)) === 0);
    // A modest pipeline is answered to its end, in order.
    const { read } = await open(url, 'GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20));
    await until(() => read().split('HTTP/1.1 200 ').length === 21);
  });
});

/** From a signal until the next one, every turn of the event loop takes longer than two seconds. */
const STALL = `
const word = new Int32Array(new SharedArrayBuffer(4));
let stalls = false;
const turn = () => {
  if (!stalls) return;
  Atomics.wait(word, 0, 0, 2300);
  setImmediate(turn);
};
process.on('SIGUSR2', () => {
  stalls = !stalls;
  turn();
});
`;

// As a machine does that is too busy to start a service: nothing turns for longer than a sample.
const SLOW_START = `
const { Server } = require('node:net');
const { listen } = Server.prototype;
Server.prototype.listen = function (...args) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4500);
  return listen.apply(this, args);
};
`;

describe('an event loop that stands still', () => {
  it('sheds load by 503 with Retry-After, answers probes, and recovers by itself', async () => {
    const stall = join(build.folder, 'stall.cjs');
    writeFileSync(stall, STALL);
    const { service, url } = await serve({ NODE_OPTIONS: `--require ${stall}` });
    await logIn(url);
    service.signal('SIGUSR2');
    try {
      let refused: Awaited<ReturnType<typeof call>> | undefined;
      await until(async () => {
        refused = await call('GET', `${url}/auth/me`);
        return refused.status === 503;
      }, 40_000);
      expect([refused?.body.code, refused?.headers.get('retry-after')]).toEqual(['overloaded', '4']);
      expect((await call('GET', `${url}/health/live`)).status).toBe(200);
      expect(await shed(url, 'event_loop')).toBeGreaterThan(0);
    } finally {
      service.signal('SIGUSR2');
    }
    await until(async () => (await call('GET', `${url}/auth/me`)).status === 401);
    await logIn(url);
  }, 120_000);

  it('while the service starts refuses nobody who comes when it is ready', async () => {
    const stall = join(build.folder, 'slow-start.cjs');
    writeFileSync(stall, SLOW_START);
    const { url } = await serve({ NODE_OPTIONS: `--require ${stall}` });
    const statuses = new Set<number>();
    for (const end = Date.now() + 8_500; Date.now() < end;) {
      statuses.add((await call('GET', `${url}/auth/me`)).status);
      await sleep(50);
    }
    expect([...statuses]).toEqual([401]);
  });

  it('once, for longer than a sample, refuses nobody for longer than a sample', async () => {
    const { service, url } = await serve();
    service.signal('SIGSTOP');
    await sleep(5_000);
    service.signal('SIGCONT');
    await until(async () => (await call('GET', `${url}/auth/me`)).status === 401, 8_000);
  });
});

describe('a log that nobody reads', () => {
  it('stops nothing: lines are dropped, which is told when somebody reads again', async () => {
    const { service, url } = await serve();
    service.stopReading();
    const long = 'x'.repeat(60);
    let asked = 0;
    // What the pipe and the memory take, and more: some 300 bytes a line.
    for (; asked < 12_000; asked += 250) {
      const answers = await Promise.all(
        Array.from({ length: 250 }, () =>
          fetch(`${url}/auth/me`, { headers: { 'x-request-id': long } }).then(async (answer) => {
            await answer.arrayBuffer();
            return answer.status;
          }),
        ),
      );
      expect(new Set(answers)).toEqual(new Set([401]));
    }
    service.readOn();
    await until(async () => {
      await call('GET', `${url}/auth/me`);
      return service.stdout.includes('"msg":"Nobody read the log"');
    });
    const told = service.log.find(({ msg }) => msg === 'Nobody read the log');
    expect(told).toMatchObject({ level: 'warn', dropped: expect.any(Number) as number });
    expect(service.log.filter(({ msg }) => msg === 'request').length).toBeLessThan(asked);
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(service.log.at(-1)).toMatchObject({ msg: 'Ended' });
  }, 120_000);

  it('because its reader is gone stops nothing either', async () => {
    const { service, url } = await serve();
    service.closeOutput();
    for (let i = 0; i < 5; i++) expect((await call('GET', `${url}/auth/me`)).status).toBe(401);
    await logIn(url);
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
  });
});
