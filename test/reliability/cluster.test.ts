import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { signingKeys } from '../support/crowd';
import { HANG_MS } from '../support/hang';
import { People } from '../support/invariants';
import { alertKey, KEYS, keysOfUser } from '../support/keys';
import { insist, isServed, logInAt, logout, me } from '../support/person';
import { NODE_TIMEOUT_MS, RedisCluster } from '../support/redis-cluster';
import type { RedisServer } from '../support/redis-server';
import { service, serviceModule } from '../support/service';
import { TcpLink } from '../support/tcp-link';
import { claimsOf } from '../support/tokens';
import { PATIENT_MS } from '../support/topologies';
import {
  call,
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

/** The one slot that every send goes through. */
const ADMISSION = KEYS.serviceLimit;

let cluster: RedisCluster;
let upstream: Emulator;
let instances: Instance[];
let settings: Variables;
let url: string;

beforeAll(async () => {
  [cluster, upstream] = await Promise.all([RedisCluster.start(), service().startEmulator()]);
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

const logIn = (): Promise<Answer> => logInAt(url, upstream);
const sessionsOf = (accessToken: unknown): string => keysOfUser(claimsOf(accessToken).sub).sessions;
const shardOf = (accessToken: unknown): ReturnType<RedisCluster['shardOf']> =>
  cluster.shardOf(sessionsOf(accessToken));

/** The tokens of a session that lies on that primary. */
async function sessionOn(primary: RedisServer): Promise<{ accessToken: string; refreshToken: string }> {
  for (;;) {
    const { body } = await logIn();
    if ((await shardOf(body.accessToken)).primary === primary) return body;
  }
}

async function allPrimaries(name: string, ...args: string[]): Promise<void> {
  for (const { primary } of await cluster.shards()) await cluster.command(primary, name, ...args);
}

it('slots of the cluster move with their keys and back, and no login fails', async () => {
  const people = everybody();
  await people.through(20);
  const slots = [await cluster.slotOf(ADMISSION), await cluster.slotOf(KEYS.revocations)];
  const { body } = await logIn();
  slots.push(await cluster.slotOf(sessionsOf(body.accessToken)));
  for (let times = 0; times < 3; times++) {
    for (const slot of slots) {
      const [first, ...others] = (await cluster.shards()).map(({ primary }) => primary);
      const { primary: owner } = await cluster.shardOf(ADMISSION);
      const to = others.find((one) => one !== owner) ?? first!;
      await cluster.moveSlot(slot, to, () => sleep(100));
      await people.through(3);
    }
  }
  expect((await me(url, body.accessToken)).status).toBe(200);
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('commands are answered while their slot is at two nodes, and so are commands of other slots', async () => {
  const store = new Store(
    redisClient(cluster.url),
    new Logger('silent', { write: () => undefined }),
    undefined,
    HANG_MS,
  );
  store.connect();
  await until(() => store.reached && store.available, 'the connection to the cluster');
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

it('the audit stream and the alert claim lie on a cluster slot of their own', async () => {
  const { body } = await logIn();
  const audit = await cluster.shardOf(KEYS.audit);
  await until(async () => {
    const newest = await cluster.command(audit.primary, 'XREVRANGE', KEYS.audit, '+', '-', 'COUNT', '5');
    return JSON.stringify(newest).includes(claimsOf(body.accessToken).sub);
  }, 'the login in the audit');
  const receiver = createServer((_, response) => response.writeHead(204).end()).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const alerting = await startInstance({
    ...settings,
    ALERT_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`,
    ALERT_WEBHOOK_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
  });
  try {
    const running = serviceModule<typeof import('../../src/alerts/alerts')>('alerts/alerts');
    alerting.app.get(running.Alerts).raise('token_reused', 'A refresh token was used again');
    await once(receiver, 'request');
    const { primary } = await cluster.shardOf(KEYS.alerts);
    expect(await cluster.command(primary, 'EXISTS', alertKey('reuse', 'sent'))).toBe(1);
  } finally {
    await alerting.close();
    receiver.close();
  }
});

it('a planned failover of every cluster shard loses nothing', async () => {
  const people = everybody();
  const { body } = await logIn();
  await people.through(10);
  for (const shard of await cluster.shards()) {
    await cluster.failOver(shard);
    await people.through(5);
  }
  expect((await me(url, body.accessToken)).status).toBe(200);
  expect(await people.stop()).toEqual([]);
});

it('a killed cluster primary is replaced, and logins work again without manual steps', async () => {
  const people = everybody();
  await people.through(10);
  const { primary } = await cluster.shardOf(ADMISSION);
  people.lossNow();
  await primary.kill();
  await until(async () => {
    const { status, body } = await call('GET', `${url}/health/ready`);
    return status === 200 && body.status === 'degraded';
  }, 'readiness that is degraded');
  await people.through(20);
  await until(async () => (await call('GET', `${url}/health/ready`)).body.status === 'ok', 'readiness');
  await primary.start();
  await people.through(10);
  expect(await people.stop()).toEqual([]);
});

it('users of other shards are served while one cluster shard stands still', async () => {
  const shards = await cluster.shards();
  const admission = await cluster.shardOf(ADMISSION);
  const still = shards.find(({ primary }) => primary !== admission.primary)!;
  const served = await sessionOn(admission.primary);
  const away = await sessionOn(still.primary);
  // Else the nodes would take all of the cluster for down.
  await cluster.bearWith(PATIENT_MS);
  const nodes = [still.primary, ...still.replicas];
  for (const node of nodes) node.pause();
  try {
    const refused = Array.from({ length: 10 }, () => me(url, away.accessToken));
    const answers = Array.from({ length: 10 }, () => insist(() => me(url, served.accessToken)));
    for (const answer of answers) expect((await answer).status).toBe(200);
    // Told while it still stands still.
    for (const answer of await Promise.all(refused)) {
      expect(statusAndCode(answer)).toEqual([503, 'store_unavailable']);
      expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
    }
  } finally {
    for (const node of nodes) node.resume();
    await cluster.bearWith(NODE_TIMEOUT_MS);
  }
  await until(async () => (await me(url, away.accessToken)).status === 200, 'the shard that stood still');
});

it('a cluster primary that stands still is replaced by its replica', async () => {
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

it('scripts that a cluster node has forgotten cause no failed request', async () => {
  const people = everybody();
  await people.through(5);
  for (const { primary } of await cluster.shards()) {
    await cluster.command(primary, 'SCRIPT', 'FLUSH');
    await people.through(5);
  }
  expect(await people.stop()).toEqual([]);
  // A busy machine may be too late for a step; none has failed because its script was not there.
  expect(instances.flatMap(({ logs }) => logs).filter((line) => line.includes('NOSCRIPT'))).toEqual([]);
});

it('while the memory of the cluster is full no SMS is sent, and logout works', async () => {
  const { body } = await logIn();
  const [number, guessed] = [freshNumber(), freshNumber()];
  const { body: sent } = await sendOtp(url, guessed);
  const code = textedCode(upstream, guessed);
  await allPrimaries('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await allPrimaries('CONFIG', 'SET', 'maxmemory', '1');
  const before = upstream.calls.length;
  for (const answer of [await sendOtp(url, number), await verifyOtp(url, sent.requestId, code)]) {
    expect(statusAndCode(answer)).toEqual([503, 'store_unavailable']);
  }
  expect(upstream.calls).toHaveLength(before);
  expect((await insist(() => logout(url, body.refreshToken))).status).toBe(204);
  await allPrimaries('CONFIG', 'SET', 'maxmemory', '0');
  expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
  expect((await verifyOtp(url, sent.requestId, code)).status).toBe(200);
});

it('a cluster that does not serve a slot causes a 503 with our code, and no 500 or 401', async () => {
  const { body } = await logIn();
  const slot = String(await cluster.slotOf(sessionsOf(body.accessToken)));
  const { primary } = await shardOf(body.accessToken);
  // CLUSTERDOWN Hash slot not served.
  for (const node of cluster.nodes)
    await cluster.command(node, 'CONFIG', 'SET', 'cluster-require-full-coverage', 'no');
  const keys = (await cluster.command(primary, 'CLUSTER', 'GETKEYSINSLOT', slot, '10')) as string[];
  expect(keys.length).toBeGreaterThan(0);
  for (const node of cluster.nodes)
    await cluster.command(node, 'CLUSTER', 'DELSLOTS', slot).catch(() => undefined);
  try {
    const late = await startInstance(settings);
    for (const at of [url, late.url]) {
      const lost = await me(at, body.accessToken);
      expect(statusAndCode(lost)).toEqual([503, 'store_unavailable']);
    }
    await late.close();
  } finally {
    for (const node of cluster.nodes)
      await cluster.command(node, 'CONFIG', 'SET', 'cluster-require-full-coverage', 'yes');
    await cluster.command(primary, 'CLUSTER', 'ADDSLOTS', slot);
  }
  await cluster.settled();
  await insist(() => me(url, body.accessToken));
});

describe('a session that has ended', () => {
  it('a logout that the cluster replica has not confirmed gets a 503, has ended the session, and is confirmed by a retry', async () => {
    const { primary, replicas } = (await cluster.shards())[0]!;
    const { accessToken, refreshToken } = await sessionOn(primary);
    const [replica] = replicas;
    replica?.pause();
    try {
      const answer = await logout(url, refreshToken);
      expect(statusAndCode(answer)).toEqual([503, 'store_unavailable']);
      expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect((await me(url, accessToken)).body.code).toBe('session_revoked');
      // Each is told while the replica still stands still.
      const repeats = await Promise.all(Array.from({ length: 20 }, () => logout(url, refreshToken)));
      expect(repeats.map(({ status }) => status)).toEqual(Array(20).fill(503));
      const metrics = String((await call('GET', `${url}/metrics`)).body);
      expect(metrics).toMatch(/otp_login_unconfirmed_revocations_total ([2-9]\d+)/);
    } finally {
      replica?.resume();
    }
    expect((await insist(() => logout(url, refreshToken))).status).toBe(204);
  });

  it('a session that was logged out stays ended when its cluster primary dies right afterwards', async () => {
    const { primary, replicas } = (await cluster.shards())[0]!;
    const people = [];
    for (let i = 0; i < 10; i++) people.push(await sessionOn(primary));
    const answers = await Promise.all(
      people.map(({ refreshToken }) => insist(() => logout(url, refreshToken))),
    );
    await primary.kill();
    try {
      expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(204));
      await cluster.command(replicas[0]!, 'CLUSTER', 'FAILOVER', 'TAKEOVER');
      for (const { accessToken } of people) {
        expect((await insist(() => me(url, accessToken))).body.code).toBe('session_revoked');
      }
    } finally {
      await primary.start();
    }
  });
});

it('the service finds a cluster by one of its addresses, and again after all nodes have moved', async () => {
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
  const reach = (): Promise<boolean> => isServed(instance.url);
  try {
    await until(reach, 'the first address that is there');
    // The addresses of the configuration are gone, the nodes that were learnt are there.
    name.leadTo({ port: deadPort });
    for (const node of cluster.nodes)
      await cluster.command(node, 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(reach, 'the nodes that were learnt');
    // And the other way round.
    name.leadTo(other.nodes[0]!);
    for (const node of cluster.nodes) node.pause();
    await until(reach, 'the other cluster');
  } finally {
    for (const node of cluster.nodes) node.resume();
    await instance.close();
    await Promise.all([name.close(), other.stop()]);
  }
});
