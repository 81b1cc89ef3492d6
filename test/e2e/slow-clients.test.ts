import { once } from 'node:events';
import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { ProblemFilter } from '../../src/http/problem.filter';
import { Routes } from '../../src/http/routes';
import { BOUNDS, shedLoad } from '../../src/http/overload';
import { addAnswerHooks, httpServer } from '../../src/http/server';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { startWorld, until } from '../support/world';

// The service's own server and bounds, before a route whose answer no kernel's buffers hold. Deadlines run out when a test says
// so, and a test says how long the event loop stood still. test/reliability/overload.test.ts has the loop stand still.

/** How long a turn of the event loop takes on average, in nanoseconds. */
let mockTurn = 0;
jest.mock('node:perf_hooks', () => ({
  ...jest.requireActual<object>('node:perf_hooks'),
  monitorEventLoopDelay: () => ({
    get mean() {
      return mockTurn;
    },
    enable: () => true,
    disable: () => true,
    reset: () => undefined,
  }),
}));

const HUGE_BYTES = 16 * 1024 * 1024;

@Controller()
class Answers {
  @Get('huge')
  huge(): string {
    return 'x'.repeat(HUGE_BYTES);
  }
  @Get('small')
  small(): string {
    return 'small';
  }
}
@Module({ controllers: [Answers] })
class AnswersModule {}

let app: NestFastifyApplication | undefined;
let server: Server;
let metrics: Metrics;
const clients: Socket[] = [];

const DEADLINE_MS = 123_457;
const SAMPLE_MS = 4_000;
/** The timers of these durations, which end only when a test says so. No other timer of this process has one of them. */
const timers = new Map<unknown, { ms: number; run: () => void }>();
const { setTimeout: setRealTimeout, clearTimeout: clearRealTimeout } = globalThis;
const LONGEST_MS = 2 ** 31 - 1;
let passedMs = 0;
beforeAll(() => {
  jest.spyOn(globalThis, 'setTimeout').mockImplementation((run: () => void, ms?: number) => {
    const ours = ms === DEADLINE_MS || ms === SAMPLE_MS;
    const timer = setRealTimeout(run, ours ? LONGEST_MS : ms);
    if (ours) timers.set(timer, { ms, run });
    return timer;
  });
  jest.spyOn(globalThis, 'clearTimeout').mockImplementation((timer) => {
    timers.delete(timer);
    clearRealTimeout(timer);
  });
  const now = performance.now.bind(performance);
  jest.spyOn(performance, 'now').mockImplementation(() => now() + passedMs);
});
afterAll(() => {
  jest.restoreAllMocks();
});
const pending = (duration: number): (() => void)[] =>
  [...timers.values()].flatMap(({ ms, run }) => (ms === duration ? [run] : []));
function passDeadlines(): void {
  for (const run of pending(DEADLINE_MS)) run();
}
/** Four seconds pass, in which a turn of the event loop takes so long on average. */
function passSample(turnMs: number): void {
  mockTurn = turnMs * 1e6;
  passedMs += SAMPLE_MS;
  for (const run of pending(SAMPLE_MS)) run();
}

async function serve(bounds: Partial<typeof BOUNDS> = {}): Promise<void> {
  const logger = new Logger('fatal', { write: () => undefined });
  const filter = new ProblemFilter(new Routes(), logger);
  const adapter = httpServer(() => filter, { issuer: 'http://localhost:3000', keepAliveSeconds: 75 });
  app = await NestFactory.create<NestFastifyApplication>(AnswersModule, adapter, { logger: false });
  addAnswerHooks(adapter, () => false);
  metrics = new Metrics();
  await shedLoad(app, metrics, { ...BOUNDS, answerWithinMs: DEADLINE_MS, ...bounds });
  app.useGlobalFilters(filter);
  await app.listen(0, '127.0.0.1');
  server = app.getHttpServer();
}
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  if (!app) return;
  server.closeAllConnections();
  await app.close();
  app = undefined;
  timers.clear();
});

async function client(bytes: string, port?: number): Promise<Socket> {
  const address = server.address();
  const socket = connect(port ?? (typeof address === 'object' ? (address?.port ?? 0) : 0), '127.0.0.1');
  clients.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(bytes);
  return socket;
}
const sockets = (): Promise<number> =>
  new Promise((resolve, reject) => {
    server.getConnections((error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
const inFlight = async (): Promise<number> => (await metrics.inFlight.get()).values[0]?.value ?? 0;
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;

describe('a client that does not read', () => {
  it('a client that reads nothing is cut off at the deadline, and its memory is freed', async () => {
    await serve();
    await client(get('/huge'));
    await client(get('/huge').repeat(3));
    await until(async () => (await inFlight()) === 4, 'the requests in flight');
    passDeadlines();
    await until(async () => (await sockets()) === 0 && (await inFlight()) === 0, 'the end of both');
  });

  it('a client that reads a little now and then is cut off at the deadline', async () => {
    await serve();
    const socket = await client(get('/huge'));
    socket.pause();
    let sips = 0;
    const sipping = setInterval(() => {
      if (socket.read(1_024) !== null) sips += 1;
    }, 5);
    try {
      await until(async () => sips > 10 && (await inFlight()) === 1, 'the first sips');
      passDeadlines();
      await until(async () => (await sockets()) === 0, 'the end of the connection');
      expect(socket.bytesRead).toBeLessThan(HUGE_BYTES);
    } finally {
      clearInterval(sipping);
    }
  });

  it('a client that writes requests and reads no responses is cut off, with a bounded number of requests in flight', async () => {
    await serve();
    // Each in a write of its own, so that no bound on one read's requests plays a part.
    const socket = await client(get('/huge'));
    socket.pause();
    const pipelined = get('/small?' + 'x'.repeat(4_000));
    let written = 0;
    while (!socket.destroyed && socket.writableLength < 1_000_000 && written < 100_000_000) {
      socket.write(pipelined);
      written += pipelined.length;
      await nextTurn();
      expect(await inFlight()).toBeLessThanOrEqual(BOUNDS.onOneConnection);
    }
    passDeadlines();
    await until(async () => (await sockets()) === 0, 'the end of the connection');
    expect(written).toBeLessThan(50_000_000);
    await until(async () => (await inFlight()) === 0, 'the end of its requests');
  });
});

it('a client that reads its responses is not cut off by the deadline of an earlier request', async () => {
  await serve();
  const socket = await client('');
  let answers = 0;
  socket.on('data', (chunk) => (answers += chunk.toString().split('HTTP/1.1 200 ').length - 1));
  for (let i = 1; i <= 4; i++) {
    socket.write(get('/small'));
    await until(() => answers === i, 'the response');
    await until(() => pending(DEADLINE_MS).length === 0, 'the end of the deadline');
  }
  expect(socket.destroyed).toBe(false);
});

describe('an event loop that stands still', () => {
  async function ask(path: string): Promise<[status: number, code?: string, retryAfter?: string | null]> {
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    const text = await response.text();
    if (response.status === 200) return [200];
    const { code } = JSON.parse(text) as { code: string };
    return [response.status, code, response.headers.get('retry-after')];
  }

  it('the server refuses requests while every turn of the event loop takes two seconds, and recovers', async () => {
    await serve();
    for (let i = 0; i < 3; i++) passSample(0);
    expect(await ask('/small')).toEqual([200]);
    passSample(2_100);
    expect(await ask('/small')).toEqual([503, 'overloaded', '4']);
    // The load balancer must not take a busy process for a dead one.
    expect((await ask('/health/live'))[0]).not.toBe(503);
    const { values } = await metrics.limitsHit.get();
    expect(values.filter(({ value }) => value > 0)).toEqual([{ labels: { limit: 'event_loop' }, value: 1 }]);
    passSample(1_900);
    expect(await ask('/small')).toEqual([200]);
  });

  it('the server refuses no request because its start took long', async () => {
    await serve();
    // The sample that holds the start.
    passSample(4_500);
    expect(await ask('/small')).toEqual([200]);
    passSample(0);
    expect(await ask('/small')).toEqual([200]);
    passSample(2_100);
    expect((await ask('/small'))[0]).toBe(503);
  });
});

it('the server refuses connections above its limit, and counts them', async () => {
  await serve({ connections: 20 });
  await Promise.all(Array.from({ length: 50 }, () => client('').catch(() => undefined)));
  await until(() => clients.filter((socket) => socket.destroyed).length === 30, 'the refusals');
  expect(await sockets()).toBe(20);
  const { values } = await metrics.limitsHit.get();
  expect(values.filter(({ value }) => value > 0)).toEqual([{ labels: { limit: 'connections' }, value: 30 }]);
  for (const socket of clients) socket.destroy();
  await until(async () => (await sockets()) === 0, 'the end of all connections');
  const late = await client(get('/small'));
  const [chunk] = (await once(late, 'data')) as [Buffer];
  expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
});

it('the service has a timeout for every state of a connection, and closes one on which nothing is said', async () => {
  const world = await startWorld();
  try {
    const its: Server = world.instances[0]!.app.getHttpServer();
    // Longer than the longest send (two providers, 45 s each, and Redis) and than a load balancer's idle connection.
    expect([its.maxConnections, its.timeout, its.keepAliveTimeout]).toEqual([10_100, 120_000, 75_000]);
    expect(BOUNDS.answerWithinMs).toBeGreaterThan(100_000);
    expect([its.headersTimeout, its.requestTimeout]).toEqual([10_000, 10_000]);
    const silent = await client('', Number(new URL(world.url).port));
    const half = await client('GET /auth/me HTTP/1.1\r\nHost:', Number(new URL(world.url).port));
    for (const socket of [silent, half]) socket.resume();
    // Node.js looks at it every second.
    its.headersTimeout = 1;
    await until(() => silent.destroyed && half.destroyed, 'the end of both connections');
  } finally {
    await world.close();
  }
});
