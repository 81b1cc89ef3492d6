import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { Build, type Run } from '../support/processes';
import { redisOfWorker } from '../support/redis-of-worker';
import { service as inProcess } from '../support/service';
import {
  API_KEY,
  call,
  freshNumber,
  sendOtp,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type Variables,
} from '../support/world';

// What test/e2e/overload.test.ts and slow-clients.test.ts show by small bounds and a controlled clock, with the real bounds in
// processes: what they hold is measured, and their event loops stand still while the test's goes on.

let build: Build;
let redis: { url: string };
let upstream: Emulator;

beforeAll(async () => {
  build = Build.make();
  [redis, upstream] = await Promise.all([redisOfWorker(), inProcess().startEmulator()]);
});
afterEach(async () => {
  await build.killAll();
  upstream.reset();
});
afterAll(async () => {
  await build.remove();
  await upstream.close();
});

const serve = (more: Variables = {}): Promise<{ service: Run; url: string }> =>
  build.serve({
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: redis.url,
    STARTMESSAGING_API_KEY: API_KEY,
    WALLET_ALERT_PAISE: '0',
    STARTMESSAGING_BASE_URL: upstream.url,
    // They hang until the test lets them go.
    UPSTREAM_TIMEOUT_MS: '45000',
    UPSTREAM_DEADLINE_MS: '45000',
    SHUTDOWN_DELAY_SECONDS: '0',
    LIMIT_IP: '1000000/60',
    LIMIT_GLOBAL: '1000000/1',
    ...more,
  });

/** A figure of /metrics; 0 before it was counted. */
async function metric(url: string, name: string): Promise<number> {
  const { body } = await call('GET', `${url}/metrics`);
  const line = (body as string).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1] ?? 0);
}
const inFlight = (url: string): Promise<number> => metric(url, 'otp_login_http_requests_in_flight');
const heap = (url: string): Promise<number> => metric(url, 'otp_login_nodejs_heap_size_used_bytes');

async function logIn(url: string): Promise<boolean> {
  const phoneNumber = freshNumber();
  const sent = await sendOtp(url, phoneNumber);
  if (sent.status !== 200) return false;
  const verified = await verifyOtp(url, sent.body.requestId, textedCode(upstream, phoneNumber));
  return verified.status === 200;
}

/** A send on a connection of its own, and what came back so far. */
async function openSend(url: string): Promise<{ socket: Socket; read: () => string }> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  let text = '';
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const body = JSON.stringify({ phoneNumber: freshNumber() });
  socket.write(
    `POST /auth/send-otp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  return { socket, read: () => text };
}

it('a process with a thousand requests in flight refuses 400 more, and its heap does not grow by 150 MB', async () => {
  const { url } = await serve();
  expect(await logIn(url)).toBe(true);
  const heapBefore = await heap(url);
  upstream.settings.balance = 1_000;
  upstream.fault({ on: 'send', times: 0, fault: { kind: 'slow', delayMs: 600_000 } });

  // By and by: a thousand at once make a slow machine miss the deadline of Redis. Sends that miss it, or come too much, have an
  // answer; all others hang at the provider before the test goes on.
  const clients: Awaited<ReturnType<typeof openSend>>[] = [];
  const hanging = (): number => clients.filter(({ read }) => read() === '').length;
  const calls = (): number => upstream.calls.filter(({ status }) => status === undefined).length;
  await until(async () => {
    const missing = Math.min(1_000 - hanging(), 50);
    clients.push(...(await Promise.all(Array.from({ length: missing }, () => openSend(url)))));
    return missing === 0 && calls() >= 1_000 && (await inFlight(url)) === 1_000;
  }, 'a thousand requests in flight');
  const tooMany = await Promise.all(Array.from({ length: 400 }, () => openSend(url)));
  await until(() => tooMany.every(({ read }) => read().includes('"code":"overloaded"')), 'the refusals');
  expect(await inFlight(url)).toBe(1_000);

  for (const { socket } of [...clients, ...tooMany]) socket.destroy();
  await call('DELETE', `${upstream.url}/_emulator/faults`);
  await until(async () => (await inFlight(url)) === 0, 'the end of all requests');
  await until(() => logIn(url), 'a login');
  // The garbage collector is asked for nothing here.
  expect((await heap(url)) - heapBefore).toBeLessThan(150 * 1024 * 1024);
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
  });`;

/** As on a machine that is too busy to start a service: the event loop stands still for longer than a sample. */
const SLOW_START = `
  const { Server } = require('node:net');
  const { listen } = Server.prototype;
  Server.prototype.listen = function (...args) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4500);
    return listen.apply(this, args);
  };`;

function preloaded(name: string, script: string): Variables {
  const file = join(build.folder, `${name}.cjs`);
  writeFileSync(file, script);
  return { NODE_OPTIONS: `--require ${file}` };
}

it('a process whose event loop stands still refuses requests with 503, answers probes, and recovers by itself', async () => {
  const { service, url } = await serve(preloaded('stall', STALL));
  expect(await logIn(url)).toBe(true);
  service.signal('SIGUSR2');
  try {
    let refused: Awaited<ReturnType<typeof call>> | undefined;
    await until(async () => {
      refused = await call('GET', `${url}/auth/me`);
      return refused.status === 503;
    }, 'a refusal');
    expect(statusAndCode(refused!)).toEqual([503, 'overloaded']);
    expect(refused?.headers.get('retry-after')).toBe('4');
    expect((await call('GET', `${url}/health/live`)).status).toBe(200);
    expect(await metric(url, 'otp_login_limits_hit_total{limit="event_loop"}')).toBeGreaterThan(0);
  } finally {
    service.signal('SIGUSR2');
  }
  const serves = async (): Promise<boolean> => (await call('GET', `${url}/auth/me`)).status === 401;
  await until(serves, 'recovery');
  expect(await logIn(url)).toBe(true);
  // Once, for longer than a sample of the event loop.
  service.signal('SIGSTOP');
  await sleep(5_000);
  service.signal('SIGCONT');
  await until(serves, 'recovery from one long stall');
});

it('a process whose start took long refuses no request when it is ready', async () => {
  const { url } = await serve(preloaded('slow-start', SLOW_START));
  const statuses = new Set<number>();
  // Two samples of the event loop: only time shows that none of them counts.
  for (const end = Date.now() + 8_500; Date.now() < end;) {
    statuses.add((await call('GET', `${url}/auth/me`)).status);
    await sleep(50);
  }
  expect([...statuses]).toEqual([401]);
});
