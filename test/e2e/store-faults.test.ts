import { randomUUID } from 'node:crypto';
import { unknownRequestId } from '../support/keys';
import { freePort } from '../support/free-port';
import type { RedisServer } from '../support/redis-server';
import { bearer } from '../support/tokens';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type World,
} from '../support/world';

// Redis is killed, paused and filled here: it is the world's own.
let world: World<RedisServer>;

beforeAll(async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' }, ownRedis: true });
});
afterAll(() => world.close());

/** Every call that needs Redis gets a 503 while Redis is still away. Returns the number that no SMS may go to. */
async function expectAway(token: string): Promise<string> {
  const phoneNumber = freshNumber();
  const answers = await Promise.all([
    sendOtp(world.url, phoneNumber),
    verifyOtp(world.url, unknownRequestId(), '123456'),
    call('GET', `${world.url}/auth/me`, undefined, bearer(token)),
  ]);
  for (const answer of answers) {
    expect(statusAndCode(answer)).toEqual([503, 'store_unavailable']);
    expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  }
  return phoneNumber;
}

/** Sends work again. A refused send that went on by itself would have made its SMS by now: its steps ran before these. */
async function expectBack(refused?: string): Promise<void> {
  await until(async () => (await sendOtp(world.url, freshNumber())).status === 200, 'a send');
  expect((await login(world)).status).toBe(200);
  expect(world.upstream.lastMessageTo(refused ?? '')).toBeUndefined();
}

const me = (token: string) => call('GET', `${world.url}/auth/me`, undefined, bearer(token));

async function fillRedis(): Promise<void> {
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '1');
}
const makeRoom = () => redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '0');

it('the service answers 503 while Redis is stopped, and works again by itself when Redis is back', async () => {
  const token = (await login(world)).body.accessToken as string;
  await world.redis.kill();
  const ready = () => call('GET', `${world.url}/health/ready`);
  await until(async () => (await ready()).body.status === 'degraded', 'the loss of Redis');
  const refused = await expectAway(token);
  const { status, body } = await ready();
  expect([status, body.status]).toEqual([200, 'degraded']);
  expect((await call('GET', `${world.url}/.well-known/jwks.json`)).status).toBe(200);
  expect((await call('GET', `${world.url}/health/live`)).status).toBe(200);
  await world.redis.restart();
  await expectBack(refused);
  // An emptied store logs people out, and never changes who they are.
  expect(statusAndCode(await me(token))).toEqual([401, 'session_expired']);
});

it('the service answers 503 while Redis is paused, and sends no refused SMS later', async () => {
  const token = (await login(world)).body.accessToken as string;
  world.redis.pause();
  const refused = await expectAway(token);
  world.redis.resume();
  await expectBack(refused);
  expect((await me(token)).status).toBe(200);
});

it('the service sends no SMS while Redis is full, and open sessions stay open', async () => {
  const token = (await login(world)).body.accessToken as string;
  await fillRedis();
  const before = world.upstream.calls.length;
  expect(statusAndCode(await sendOtp(world.url, freshNumber()))).toEqual([503, 'store_unavailable']);
  expect(world.upstream.calls).toHaveLength(before);
  expect((await me(token)).status).toBe(200);
  await makeRoom();
  await expectBack();
});

it('a session is refreshed while Redis is full, and the successor works afterwards', async () => {
  const { refreshToken } = (await login(world)).body as Record<string, string>;
  await fillRedis();
  const refreshed = await call('POST', `${world.url}/auth/refresh`, { refreshToken });
  expect([refreshed.status, typeof refreshed.body.refreshToken]).toEqual([200, 'string']);
  const next = await call(
    'POST',
    `${world.url}/auth/refresh`,
    { refreshToken: refreshed.body.refreshToken as string },
    { 'Idempotency-Key': randomUUID() },
  );
  expect(next.status).toBe(200);
  await makeRoom();
  expect((await me(next.body.accessToken as string)).status).toBe(200);
});

it('a person can log out while Redis is full', async () => {
  const { accessToken, refreshToken } = (await login(world)).body as Record<string, string>;
  await fillRedis();
  expect((await call('POST', `${world.url}/auth/logout`, { refreshToken })).status).toBe(204);
  await makeRoom();
  expect((await me(accessToken ?? '')).status).toBe(401);
});

it('the service teaches Redis a forgotten script (SCRIPT FLUSH) without a failed call', async () => {
  await redisCommand(world, 'SCRIPT', 'FLUSH');
  const statuses = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const phoneNumber = freshNumber();
      const { status, body } = await sendOtp(world.url, phoneNumber);
      if (status !== 200) return body as unknown;
      const code = textedCode(world.upstream, phoneNumber);
      return (await verifyOtp(world.url, body.requestId, code)).status;
    }),
  );
  expect(statuses).toEqual(Array(10).fill(200));
});

it('the readiness of an instance is 503 until the instance reaches Redis for the first time', async () => {
  await world.redis.kill();
  const port = await freePort();
  const variables = { REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: world.upstream.url };
  const starting = startInstance(variables, port);
  const ready = () => call('GET', `http://127.0.0.1:${port}/health/ready`);
  await until(async () => (await ready()).status === 503, 'an instance that is not ready');
  await world.redis.restart();
  const instance = await starting;
  expect((await ready()).status).toBe(200);
  await instance.close();
});
