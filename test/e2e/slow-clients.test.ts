import { once } from 'node:events';
import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { ProblemFilter } from '../../src/errors/problem.filter';
import { Routes } from '../../src/errors/routes';
import { BOUNDS, shedLoad } from '../../src/http/overload';
import { addAnswerHooks, httpServer } from '../../src/http/server';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { startWorld, until } from '../support/world';

// The service's own server and its own bounds, shorter ones, before a route whose answer no kernel's buffers hold.

const HUGE_BYTES = 16 * 1024 * 1024;

@Controller()
class Answers {
  @Get('huge')
  huge(): string {
    return 'x'.repeat(HUGE_BYTES);
  }
  @Get('slow')
  async slow(): Promise<string> {
    await sleep(600);
    return 'slow';
  }
}
@Module({ controllers: [Answers] })
class AnswersModule {}

let app: NestFastifyApplication;
let server: Server;
let metrics: Metrics;
const clients: Socket[] = [];

async function serve(bounds: Partial<typeof BOUNDS>): Promise<void> {
  const logger = new Logger('fatal', { write: () => undefined });
  const filter = new ProblemFilter(new Routes(), logger);
  const adapter = httpServer(() => filter);
  app = await NestFactory.create<NestFastifyApplication>(AnswersModule, adapter, { logger: false });
  addAnswerHooks(adapter, () => false);
  metrics = new Metrics();
  await shedLoad(app, metrics, { ...BOUNDS, ...bounds });
  app.useGlobalFilters(filter);
  await app.listen(0, '127.0.0.1');
  server = app.getHttpServer();
}
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  server.closeAllConnections();
  await app.close();
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
  it('is cut off, and what was kept for it is given back', async () => {
    await serve({ answerWithinMs: 1_000 });
    await client(get('/huge'));
    await client(get('/huge').repeat(3));
    await until(async () => (await inFlight()) === 4);
    await until(async () => (await sockets()) === 0 && (await inFlight()) === 0);
  });

  it('but a little now and then is cut off all the same', async () => {
    await serve({ answerWithinMs: 1_000 });
    const socket = await client(get('/huge'));
    socket.pause();
    const sips = setInterval(() => socket.read(1_024), 20);
    try {
      await until(async () => (await inFlight()) === 1);
      await until(async () => (await sockets()) === 0);
      expect(socket.bytesRead).toBeLessThan(HUGE_BYTES);
    } finally {
      clearInterval(sips);
    }
  });

  it('and writes on is cut off, too, and no more of its requests wait than the bound', async () => {
    await serve({ answerWithinMs: 2_000 });
    // Each in a write of its own, so that no bound on one read's requests plays a part.
    const socket = await client(get('/huge'));
    socket.pause();
    const pipelined = get('/slow?' + 'x'.repeat(4_000));
    let written = 0;
    while (!socket.destroyed && socket.writableLength < 1_000_000 && written < 100_000_000) {
      socket.write(pipelined);
      written += pipelined.length;
      await sleep(1);
      if ((await inFlight()) > 0) expect(await inFlight()).toBeLessThanOrEqual(BOUNDS.onOneConnection);
    }
    await until(async () => (await sockets()) === 0);
    expect(written).toBeLessThan(50_000_000);
    await until(async () => (await inFlight()) === 0);
  });
});

it('an honest client on the same connection, request after request, is not cut off by an earlier deadline', async () => {
  await serve({ answerWithinMs: 1_000 });
  const socket = await client('');
  let answers = 0;
  socket.on('data', (chunk) => (answers += chunk.toString().split('HTTP/1.1 200 ').length - 1));
  for (let i = 1; i <= 4; i++) {
    socket.write(get('/slow'));
    await until(() => answers === i);
  }
  expect(socket.destroyed).toBe(false);
});

it('takes no more connections than it can hold, and says how many it turned away', async () => {
  await serve({ connections: 20 });
  await Promise.all(Array.from({ length: 50 }, () => client('').catch(() => undefined)));
  await until(() => clients.filter((socket) => socket.destroyed).length === 30);
  expect(await sockets()).toBe(20);
  const { values } = await metrics.limitsHit.get();
  expect(values.filter(({ value }) => value > 0)).toEqual([{ labels: { limit: 'connections' }, value: 30 }]);
  for (const socket of clients) socket.destroy();
  await until(async () => (await sockets()) === 0);
  const late = await client(get('/slow'));
  const [chunk] = (await once(late, 'data')) as [Buffer];
  expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
});

it('the service itself closes a connection on which nothing is ever said, and bounds all that is', async () => {
  await serve({});
  const world = await startWorld();
  try {
    const its: Server = world.instances[0]!.app.getHttpServer();
    // Longer than the longest send (two providers, 45 s each, and Redis) and than a load balancer's idle connection.
    expect([its.maxConnections, its.timeout, its.keepAliveTimeout]).toEqual([10_000, 120_000, 75_000]);
    expect(BOUNDS.answerWithinMs).toBeGreaterThan(100_000);
    const silent = await client('', Number(new URL(world.url).port));
    const half = await client('GET /auth/me HTTP/1.1\r\nHost:', Number(new URL(world.url).port));
    for (const socket of [silent, half]) socket.resume();
    await until(() => silent.destroyed && half.destroyed, 20_000);
  } finally {
    await world.close();
  }
}, 40_000);
