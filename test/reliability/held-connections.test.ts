import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Emulator } from '../../src/emulator/emulator';
import { freePort } from '../support/free-port';
import { Build } from '../support/processes';
import { redisOfWorker } from '../support/redis-of-worker';
import { service as inProcess } from '../support/service';
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

let build: Build;
let upstream: Emulator;
let held: Socket[] = [];

beforeAll(async () => {
  build = Build.make();
  upstream = await inProcess().startEmulator();
});
afterEach(async () => {
  for (const socket of held) socket.destroy();
  held = [];
  await build.killAll();
  upstream.reset();
});
afterAll(async () => {
  await build.remove();
  await upstream.close();
});

const serve = async (more: Variables = {}): Promise<string> =>
  (
    await build.serve({
      NODE_ENV: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      REDIS_URL: (await redisOfWorker()).url,
      STARTMESSAGING_API_KEY: API_KEY,
      WALLET_ALERT_PAISE: '0',
      STARTMESSAGING_BASE_URL: upstream.url,
      SHUTDOWN_DELAY_SECONDS: '0',
      LIMIT_IP: '1000000/60',
      ...more,
    })
  ).url;

async function hold(url: string, count: number, bytes = ''): Promise<void> {
  const port = Number(new URL(url).port);
  for (let opened = 0; opened < count; opened += 200) {
    const batch = Array.from({ length: Math.min(200, count - opened) }, () => connect(port, '127.0.0.1'));
    held.push(...batch);
    for (const socket of batch) socket.resume().on('error', () => undefined);
    await Promise.all(batch.map(async (socket) => once(socket, 'connect')));
    for (const socket of batch) socket.write(bytes);
  }
}

async function expectLogin(url: string): Promise<void> {
  const phoneNumber = freshNumber();
  let sent = await sendOtp(url, phoneNumber);
  // The attackers share the event loop of the service here: on a busy machine they stall it for two seconds, and it sheds load.
  await until(async () => {
    if (sent.body.code === 'overloaded') sent = await sendOtp(url, phoneNumber);
    return sent.body.code !== 'overloaded';
  }, 'the event loop');
  expect(sent.status).toBe(200);
  const code = textedCode(upstream, phoneNumber);
  expect((await verifyOtp(url, sent.body.requestId, code)).status).toBe(200);
}
const status = async (url: string): Promise<number> => (await call('GET', url)).status;
const HALF = `POST /auth/send-otp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`;

async function metric(url: string, name: string): Promise<number> {
  const { body } = await call('GET', `${url}/metrics`);
  const line = (body as string).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1] ?? 0);
}
const unread = (url: string): Promise<number> => metric(url, 'otp_login_http_requests_unread');
const closed = (url: string, limit: string): Promise<number> =>
  metric(url, `otp_login_limits_hit_total{limit="${limit}"}`);

it('1,000 half-sent requests change no answer and no probe, and clients log in beside them', async () => {
  const url = await serve();
  for (let round = 1; round <= 3; round++) {
    await hold(url, 1_000, HALF);
    await until(async () => (await unread(url)) > 900, 'the half-sent requests');
    for (let i = 0; i < 10; i++) await expectLogin(url);
    expect(await status(`${url}/health/live`)).toBe(200);
    expect(await status(`${url}/health/ready`)).toBe(200);
    for (const socket of held.splice(0)) socket.destroy();
    await until(async () => (await unread(url)) === 0, 'the end of the half-sent requests');
  }
  expect(await closed(url, 'in_flight')).toBe(0);
});

it('clients log in beside 4,000 half-sent requests, of which the service keeps 2,000', async () => {
  const url = await serve();
  await hold(url, 4_000, HALF);
  await until(async () => (await closed(url, 'unread')) > 0, 'the bound');
  for (let i = 0; i < 20; i++) await expectLogin(url);
  expect(await unread(url)).toBeLessThanOrEqual(2_000);
  expect(await status(`${url}/health/live`)).toBe(200);
});

it('more than 10,000 idle connections stop neither the probes nor the logins, with and without MANAGEMENT_PORT', async () => {
  const management = await freePort();
  for (const port of [undefined, String(management)]) {
    const url = await serve(port === undefined ? {} : { MANAGEMENT_PORT: port });
    const probes = port === undefined ? url : `http://127.0.0.1:${port}`;
    // One request each, so that Node.js keeps them for 75 seconds and not for ten.
    await hold(url, 10_500, 'GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(async () => (await closed(probes, 'connections')) > 0, 'the bound');
    for (let i = 0; i < 10; i++) {
      expect(await status(`${probes}/health/live`)).toBe(200);
      await expectLogin(url);
    }
    for (const socket of held.splice(0)) socket.destroy();
  }
});
