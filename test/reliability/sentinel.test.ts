import type { Emulator } from '../../src/emulator/emulator';
import { signingKeys } from '../support/crowd';
import { People } from '../support/invariants';
import { insist, isServed, logInAt, logout, me } from '../support/person';
import { RedisSentinels } from '../support/redis-sentinels';
import { service } from '../support/service';
import { StaleSentinel } from '../support/stale-sentinel';
import { TcpLink } from '../support/tcp-link';
import {
  freshNumber,
  sendOtp,
  startInstance,
  statusAndCode,
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
  [sentinels, upstream] = await Promise.all([
    RedisSentinels.start({ password: PASSWORD }),
    service().startEmulator(),
  ]);
  upstream.settings.balance = 100_000;
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
afterEach(async () => {
  await sentinels.settled();
  // And every instance has found its way: a replica that has just come is not waited for in vain.
  for (const instance of instances)
    await until(async () => {
      const { body } = await logIn(instance.url);
      return (await logout(instance.url, body.refreshToken)).status === 204;
    }, 'a log-out that the replica confirms');
});

const everybody = (): People =>
  new People(
    instances.map((instance) => instance.url),
    upstream,
    6,
    { number: freshNumber(), most: 5 },
  );

const logIn = (at = url): Promise<Answer> => logInAt(at, upstream);

it('a failover by command of Sentinel needs no manual steps', async () => {
  const people = everybody();
  await people.through(10);
  // Sentinel promotes first and tells the old primary afterwards: what that one still takes is lost.
  people.lossNow();
  await sentinels.failOver();
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('a primary that is killed under load is replaced by Sentinel without manual steps', async () => {
  const people = everybody();
  await people.through(10);
  const primary = await sentinels.primary();
  people.lossNow();
  await primary.kill();
  await people.through(20);
  await primary.start();
  await people.through(5);
  expect(await people.stop()).toEqual([]);
});

it('a primary that stands still is replaced by Sentinel', async () => {
  const people = everybody();
  await people.through(10);
  const primary = await sentinels.primary();
  people.lossNow();
  primary.pause();
  try {
    await until(async () => (await sentinels.primary()) !== primary, 'the failover');
    await people.through(20);
  } finally {
    primary.resume();
  }
  await people.through(5);
  expect(await people.stop()).toEqual([]);
});

it('scripts that the primary of Sentinel has forgotten cause no failed request', async () => {
  const people = everybody();
  await people.through(5);
  for (let times = 0; times < 3; times++) {
    await sentinels.command((await sentinels.primary()).port, 'SCRIPT', 'FLUSH');
    await people.through(5);
  }
  expect(await people.stop()).toEqual([]);
  // A busy machine may be too late for a step; none has failed because its script was not there.
  expect(instances.flatMap(({ logs }) => logs).filter((line) => line.includes('NOSCRIPT'))).toEqual([]);
});

it('while the memory behind Sentinel is full no SMS is sent and logout works, and later all is served again', async () => {
  const { body } = await logIn();
  const guessed = freshNumber();
  const { body: sent } = await sendOtp(url, guessed);
  const code = textedCode(upstream, guessed);
  const { port } = await sentinels.primary();
  await sentinels.command(port, 'CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await sentinels.command(port, 'CONFIG', 'SET', 'maxmemory', '1');
  try {
    const before = upstream.calls.length;
    for (const answer of [await sendOtp(url, freshNumber()), await verifyOtp(url, sent.requestId, code)])
      expect(statusAndCode(answer)).toEqual([503, 'store_unavailable']);
    expect(upstream.calls).toHaveLength(before);
    expect((await insist(() => logout(url, body.refreshToken))).status).toBe(204);
  } finally {
    await sentinels.command(port, 'CONFIG', 'SET', 'maxmemory', '0');
  }
  // It was told so because the replica has it.
  await sentinels.failOver();
  // The old primary goes on answering until it is told.
  await sentinels.settled();
  for (const instance of instances) await until(() => isServed(instance.url), 'the new primary');
  expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
  expect((await verifyOtp(url, sent.requestId, code)).status).toBe(200);
});

it('a logout that the replica of Sentinel has not confirmed gets a 503, and is confirmed by a retry', async () => {
  const { body } = await logIn();
  const out = (): Promise<Answer> => logout(url, body.refreshToken);
  const replica = await sentinels.replica();
  replica.pause();
  try {
    expect((await out()).status).toBe(503);
    expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
  } finally {
    replica.resume();
  }
  expect((await insist(out)).status).toBe(204);
});

it('the service skips dead, silent and stale sentinels, and shows none a password that it did not ask for', async () => {
  const warned = jest.spyOn(globalThis.globalOfService.console, 'warn').mockImplementation(() => undefined);
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

it('sentinels that ask for a password get the one of the nodes', async () => {
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
