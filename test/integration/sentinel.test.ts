import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { as, signingKeys } from '../support/crowd';
import { People } from '../support/invariants';
import { RedisSentinels } from '../support/redis-sentinels';
import { StaleSentinel } from '../support/stale-sentinel';
import { TcpLink } from '../support/tcp-link';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Instance,
  type Variables,
} from '../support/world';

const PASSWORD = 'password-of-the-nodes-0123456789';

let sentinels: RedisSentinels;
let upstream: Emulator;
let instances: Instance[];
let url: string;

beforeAll(async () => {
  [sentinels, upstream] = await Promise.all([RedisSentinels.start({ password: PASSWORD }), startEmulator()]);
  const settings: Variables = {
    REDIS_URL: sentinels.url,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    JWT_KEYS_DIR: signingKeys(),
    LIMIT_PHONE: '5/600',
  };
  instances = [await startInstance(settings), await startInstance(settings)];
  url = instances[0]?.url ?? '';
});
afterAll(async () => {
  await Promise.all(instances.map((instance) => instance.close()));
  await Promise.all([sentinels.stop(), upstream.close()]);
});
afterEach(() => sentinels.settled());

const everybody = (): People =>
  new People(
    instances.map((instance) => instance.url),
    upstream,
    6,
    { number: freshNumber(), most: 5 },
  );

async function logIn(): Promise<Answer> {
  const number = freshNumber();
  const { body } = await sendOtp(url, number);
  return verifyOtp(url, body.requestId, textedCode(upstream, number));
}

it('a failover that somebody asked for needs no hand', async () => {
  const people = everybody();
  await people.through(10);
  // Sentinel promotes first and tells the old primary afterwards: what that one still takes is lost.
  people.lossNow();
  await sentinels.failOver();
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('a primary that is killed under load is replaced without a hand', async () => {
  const people = everybody();
  await people.through(10);
  const primary = await sentinels.primary();
  people.lossNow();
  await primary.kill();
  await people.through(20, 25_000);
  await primary.start();
  await people.through(5);
  expect(await people.stop()).toEqual([]);
});

it('a primary that stands still is left for its replica', async () => {
  const people = everybody();
  await people.through(10);
  const primary = await sentinels.primary();
  people.lossNow();
  primary.pause();
  try {
    await until(async () => (await sentinels.primary()) !== primary, 20_000);
    await people.through(20, 25_000);
  } finally {
    primary.resume();
  }
  await people.through(5);
  expect(await people.stop()).toEqual([]);
});

it('a session that has ended is a 503 while the replica does not know, and a repeat makes it sure', async () => {
  const { body } = await logIn();
  const out = (): Promise<Answer> =>
    call('POST', `${url}/auth/logout`, { refreshToken: body.refreshToken as string });
  const replica = await sentinels.replica();
  replica.pause();
  try {
    expect((await out()).status).toBe(503);
    const me = await call('GET', `${url}/auth/me`, undefined, as(body.accessToken));
    expect(me.body.code).toBe('session_revoked');
  } finally {
    replica.resume();
  }
  await until(async () => (await out()).status === 204);
});

it('sentinels that are dead, silent or stale are passed over, and none is shown a password that it did not ask for', async () => {
  const warned = jest.spyOn(console, 'warn').mockImplementation(() => undefined);
  const stale = await StaleSentinel.naming(await sentinels.replica());
  const silent = await TcpLink.to(stale);
  silent.dropping = true;
  const [userinfo, hosts] = sentinels.url.replace('redis+sentinel://', '').split('@') as [string, string];
  const bad = `127.0.0.1:1,127.0.0.1:${silent.port},127.0.0.1:${stale.port}`;
  const instance = await startInstance({
    REDIS_URL: `redis+sentinel://${userinfo}@${bad},${hosts}`,
    STARTMESSAGING_BASE_URL: upstream.url,
  });
  try {
    expect((await sendOtp(instance.url, freshNumber())).status).toBe(200);
    expect(stale.asked).toBeGreaterThan(0);
    expect(silent.connections).toBeGreaterThan(0);
    // ioredis says so on the console when a server got a password that it does not know.
    expect(warned).not.toHaveBeenCalled();
    expect(instance.logs.join('')).not.toContain(PASSWORD);
  } finally {
    warned.mockRestore();
    await instance.close();
    await Promise.all([stale.close(), silent.close()]);
  }
});

it('sentinels that ask for a password are given that of the nodes', async () => {
  const asking = await RedisSentinels.start({ password: PASSWORD, sentinelsAsk: true });
  try {
    const instance = await startInstance({
      REDIS_URL: asking.url,
      STARTMESSAGING_BASE_URL: upstream.url,
    });
    expect((await sendOtp(instance.url, freshNumber())).status).toBe(200);
    await instance.close();
  } finally {
    await asking.stop();
  }
});
