import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { AUDIT_KEY } from '../../src/audit/audit';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { as, signingKeys } from '../support/crowd';
import { claims, People, TOLD_WITHIN_MS } from '../support/invariants';
import { RedisCluster } from '../support/redis-cluster';
import type { RedisServer } from '../support/redis-server';
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

/** The one slot that every send goes through. */
const ADMISSION = 'otp-login:{admission}:service';
const FEED = 'otp-login:{revocations}';

let cluster: RedisCluster;
let upstream: Emulator;
let instances: Instance[];
let settings: Variables;
let url: string;

beforeAll(async () => {
  [cluster, upstream] = await Promise.all([RedisCluster.start(), startEmulator()]);
  settings = {
    REDIS_URL: cluster.url,
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
  await Promise.all([cluster.stop(), upstream.close()]);
});
afterEach(() => cluster.settled());

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

const me = (token: unknown): Promise<Answer> => call('GET', `${url}/auth/me`, undefined, as(token));
const logout = (refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/logout`, { refreshToken });

/** Somebody whose session lies on that primary. */
async function somebodyOn(primary: RedisServer): Promise<{ accessToken: string; refreshToken: string }> {
  for (;;) {
    const { body } = await logIn();
    const shard = await cluster.shardOf(`otp-login:{${claims(body.accessToken).sub}}:sessions`);
    if (shard.primary === primary) return body;
  }
}

async function allPrimaries(name: string, ...args: string[]): Promise<void> {
  for (const { primary } of await cluster.shards()) await cluster.command(primary, name, ...args);
}

it('nobody notices that slots move, with their keys and back', async () => {
  const people = everybody();
  await people.through(20);
  const slots = [await cluster.slotOf(ADMISSION), await cluster.slotOf(FEED)];
  const { body } = await logIn();
  slots.push(await cluster.slotOf(`otp-login:{${claims(body.accessToken).sub}}:sessions`));
  for (let times = 0; times < 3; times++) {
    for (const slot of slots) {
      const [first, ...others] = (await cluster.shards()).map(({ primary }) => primary);
      const { primary: owner } = await cluster.shardOf(ADMISSION);
      const to = others.find((one) => one !== owner) ?? first!;
      await cluster.moveSlot(slot, to, () => sleep(100));
      await people.through(3);
    }
  }
  expect((await me(body.accessToken)).status).toBe(200);
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('every command of many is answered while their slots are at two nodes, and those of others as well', async () => {
  const store = new Store(redisClient(cluster.url), new Logger('silent', { write: () => undefined }));
  store.connect();
  await until(() => store.reached && store.available);
  const count = (key: string): Promise<number> => store.command('count', (client) => client.incr(key));
  const moving = '{moving}';
  await count(`${moving}:there`);
  const [first, second] = (await cluster.shards()).map(({ primary }) => primary) as [
    RedisServer,
    RedisServer,
  ];
  const to = (await cluster.shardOf(moving)).primary === first ? second : first;
  await cluster.moveSlot(await cluster.slotOf(moving), to, async () => {
    for (let times = 0; times < 5; times++) {
      const asked = Array.from({ length: 60 }, (_, i) =>
        // Some are where the slot comes from, some where it goes to, some elsewhere.
        count([`${moving}:there`, `${moving}:new-${i}`, `elsewhere-${i}`][i % 3] ?? ''),
      );
      const told = await Promise.allSettled(asked);
      expect(told.filter(({ status }) => status === 'rejected')).toEqual([]);
    }
  });
  expect(await count(`${moving}:there`)).toBe(102);
  expect(await count(`${moving}:new-1`)).toBe(6);
  expect(await count('elsewhere-2')).toBe(6);
  for (const { key, node } of await cluster.keys())
    if (/moving|elsewhere/.test(key)) await cluster.command(node, 'DEL', key);
  store.close();
});

it('the audit of all replicas is one stream, and a webhook is claimed, each on a slot of its own', async () => {
  const { body } = await logIn();
  const audit = await cluster.shardOf(AUDIT_KEY);
  await until(async () => {
    const newest = await cluster.command(audit.primary, 'XREVRANGE', AUDIT_KEY, '+', '-', 'COUNT', '5');
    return JSON.stringify(newest).includes(claims(body.accessToken).sub);
  });
  const receiver = createServer((_, response) => response.writeHead(204).end()).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const alerting = await startInstance({
    ...settings,
    ALERT_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`,
    ALERT_WEBHOOK_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
  });
  try {
    alerting.app.get(Logger).alert('token_reused', 'A refresh token was used again');
    await once(receiver, 'request');
    const { primary } = await cluster.shardOf('otp-login:{alerts}');
    expect(await cluster.command(primary, 'EXISTS', 'otp-login:{alerts}:reuse:sent')).toBe(1);
  } finally {
    await alerting.close();
    receiver.close();
  }
});

it('a planned failover of every shard loses nothing', async () => {
  const people = everybody();
  const { body } = await logIn();
  await people.through(10);
  for (const shard of await cluster.shards()) {
    await cluster.failOver(shard);
    await people.through(5);
  }
  expect((await me(body.accessToken)).status).toBe(200);
  expect(await people.stop()).toEqual([]);
});

it('a primary that is killed is replaced, and everybody is served again without a hand', async () => {
  const people = everybody();
  await people.through(10);
  const { primary } = await cluster.shardOf(ADMISSION);
  people.lossNow();
  await primary.kill();
  await until(async () => (await call('GET', `${url}/health/ready`)).body.status === 'degraded');
  expect((await call('GET', `${url}/health/ready`)).status).toBe(200);
  await people.through(20);
  await until(async () => (await call('GET', `${url}/health/ready`)).body.status === 'ok');
  await primary.start();
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('while one shard stands still the people of the others are served', async () => {
  const shards = await cluster.shards();
  const admission = await cluster.shardOf(ADMISSION);
  const still = shards.find(({ primary }) => primary !== admission.primary)!;
  const served = await somebodyOn(admission.primary);
  const away = await somebodyOn(still.primary);
  still.primary.pause();
  for (const { pid } of still.replicas) process.kill(pid ?? 0, 'SIGSTOP');
  try {
    const asked = Date.now();
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => [me(served.accessToken), me(away.accessToken)]).flat(),
    );
    expect(Date.now() - asked).toBeLessThan(TOLD_WITHIN_MS);
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => [200, 503]).flat());
    expect(answers[1]?.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  } finally {
    still.primary.resume();
    for (const { pid } of still.replicas) process.kill(pid ?? 0, 'SIGCONT');
  }
  await until(async () => (await me(away.accessToken)).status === 200);
});

it('a primary that stands still is left for its replica', async () => {
  const people = everybody();
  await people.through(10);
  const { primary } = await cluster.shardOf(ADMISSION);
  people.lossNow();
  primary.pause();
  try {
    await people.through(20);
  } finally {
    primary.resume();
  }
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('scripts that one node has forgotten are no failed call', async () => {
  const people = everybody();
  await people.through(5);
  for (const { primary } of await cluster.shards()) {
    await cluster.command(primary, 'SCRIPT', 'FLUSH');
    await people.through(5);
  }
  expect(await people.stop()).toEqual([]);
  // A replica of a busy machine may confirm a log-out too late, which is said so.
  expect(people.seen.filter(({ status, what }) => status === 503 && what !== 'logout')).toEqual([]);
});

it('while memory is full nothing is spent, and people can log out', async () => {
  const { body } = await logIn();
  const [number, guessed] = [freshNumber(), freshNumber()];
  const { body: sent } = await sendOtp(url, guessed);
  const code = textedCode(upstream, guessed);
  await allPrimaries('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await allPrimaries('CONFIG', 'SET', 'maxmemory', '1');
  const before = upstream.calls.length;
  for (const answer of [await sendOtp(url, number), await verifyOtp(url, sent.requestId, code)]) {
    expect([answer.status, answer.body.code]).toEqual([503, 'store_unavailable']);
  }
  expect(upstream.calls).toHaveLength(before);
  expect((await logout(body.refreshToken)).status).toBe(204);
  await allPrimaries('CONFIG', 'SET', 'maxmemory', '0');
  expect((await me(body.accessToken)).body.code).toBe('session_revoked');
  expect((await verifyOtp(url, sent.requestId, code)).status).toBe(200);
});

it('the answers of a cluster in trouble are answers of ours: none is a 500, none a 401', async () => {
  const { body } = await logIn();
  const slot = String(await cluster.slotOf(`otp-login:{${claims(body.accessToken).sub}}:sessions`));
  const { primary } = await cluster.shardOf(`otp-login:{${claims(body.accessToken).sub}}:sessions`);
  // CLUSTERDOWN Hash slot not served.
  for (const node of cluster.nodes)
    await cluster.command(node, 'CONFIG', 'SET', 'cluster-require-full-coverage', 'no');
  const keys = (await cluster.command(primary, 'CLUSTER', 'GETKEYSINSLOT', slot, '10')) as string[];
  expect(keys.length).toBeGreaterThan(0);
  for (const node of cluster.nodes)
    await cluster.command(node, 'CLUSTER', 'DELSLOTS', slot).catch(() => undefined);
  const late = await startInstance(settings);
  for (const at of [url, late.url]) {
    const lost = await call('GET', `${at}/auth/me`, undefined, as(body.accessToken));
    expect([lost.status, lost.body.code]).toEqual([503, 'store_unavailable']);
  }
  await late.close();
  for (const node of cluster.nodes)
    await cluster.command(node, 'CONFIG', 'SET', 'cluster-require-full-coverage', 'yes');
  await cluster.command(primary, 'CLUSTER', 'ADDSLOTS', slot);
  await cluster.settled();
  await until(async () => (await me(body.accessToken)).status !== 503);
});

describe('a session that has ended', () => {
  it('is a 503 while the replica does not know, has ended all the same, and a repeat makes it sure', async () => {
    const { primary, replicas } = (await cluster.shards())[0]!;
    const { accessToken, refreshToken } = await somebodyOn(primary);
    const [replica] = replicas;
    replica?.pause();
    try {
      const answer = await logout(refreshToken);
      expect([answer.status, answer.body.code]).toEqual([503, 'store_unavailable']);
      expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect((await me(accessToken)).body.code).toBe('session_revoked');
      const asked = Date.now();
      const repeats = await Promise.all(Array.from({ length: 20 }, () => logout(refreshToken)));
      expect(repeats.map(({ status }) => status)).toEqual(Array(20).fill(503));
      expect(Date.now() - asked).toBeLessThan(TOLD_WITHIN_MS);
      const metrics = String((await call('GET', `${url}/metrics`)).body);
      expect(metrics).toMatch(/otp_login_unconfirmed_revocations_total ([2-9]\d+)/);
    } finally {
      replica?.resume();
    }
    await until(async () => (await logout(refreshToken)).status === 204);
  });

  it('stays ended when its primary dies right afterwards', async () => {
    const { primary, replicas } = (await cluster.shards())[0]!;
    const people = [];
    for (let i = 0; i < 10; i++) people.push(await somebodyOn(primary));
    const answers = await Promise.all(people.map(({ refreshToken }) => logout(refreshToken)));
    await primary.kill();
    expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(204));
    await cluster.command(replicas[0]!, 'CLUSTER', 'FAILOVER', 'TAKEOVER');
    for (const { accessToken } of people) {
      await until(async () => (await me(accessToken)).status !== 503);
      expect((await me(accessToken)).body.code).toBe('session_revoked');
    }
    await primary.start();
  });
});

it('a cluster is found by one of its addresses, and again when all of it came back elsewhere', async () => {
  const [seed] = cluster.nodes;
  const name = await TcpLink.to(seed!);
  const dead = await TcpLink.to(seed!);
  const deadPort = dead.port;
  await dead.close();
  const other = await RedisCluster.start();
  const instance = await startInstance({
    ...settings,
    REDIS_URL: `redis+cluster://127.0.0.1:${deadPort},127.0.0.1:${name.port}`,
  });
  const reach = (): Promise<boolean> =>
    sendOtp(instance.url, freshNumber()).then(({ status }) => status === 200);
  try {
    expect(await reach()).toBe(true);
    // The addresses of the configuration are gone, the nodes that were learnt are there.
    name.leadTo({ port: deadPort });
    for (const node of cluster.nodes)
      await cluster.command(node, 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(reach);
    // And the other way round.
    name.leadTo(other.nodes[0]!);
    for (const node of cluster.nodes) node.pause();
    await until(reach, 20_000);
  } finally {
    for (const node of cluster.nodes) node.resume();
    await instance.close();
    await Promise.all([name.close(), other.stop()]);
  }
});
