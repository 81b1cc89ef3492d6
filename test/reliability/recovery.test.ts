import type { Emulator } from '../../src/emulator/emulator';
import { until } from '../support/hang';
import { KEYS } from '../support/keys';
import { RedisCluster } from '../support/redis-cluster';
import { RedisSentinels } from '../support/redis-sentinels';
import { startRedis } from '../support/redis-server';
import { figures, full } from '../support/scale';
import { service } from '../support/service';
import { TcpLink } from '../support/tcp-link';
import { freshNumber, sendOtp, startInstance, textedCode, verifyOtp, type Instance } from '../support/world';

const ROUNDS = full ? 10 : 1;
/** So many times the service has tried to reach a Redis that is away; it waits longer each time. */
const TRIES_WHILE_AWAY = 5;

let upstream: Emulator;
let instance: Instance;
beforeAll(async () => {
  upstream = await service().startEmulator();
});
afterEach(() => instance.close());
afterAll(() => upstream.close());

const serve = async (redisUrl: string): Promise<void> => {
  const variables = { REDIS_URL: redisUrl, STARTMESSAGING_BASE_URL: upstream.url };
  instance = await startInstance({ ...variables, STARTMESSAGING_CONTRACT: 'caller' });
};

/** Seconds until a whole login works again; until then nothing but 503 is heard. */
async function secondsUntilOpen(): Promise<number> {
  const since = Date.now();
  const heard = new Set<number>();
  const logIn = async (): Promise<boolean> => {
    const phoneNumber = freshNumber();
    const sent = await sendOtp(instance.url, phoneNumber);
    heard.add(sent.status);
    if (sent.status !== 200) return false;
    const code = textedCode(upstream, phoneNumber);
    const verified = await verifyOtp(instance.url, sent.body.requestId, code);
    heard.add(verified.status);
    return verified.status === 200;
  };
  await until(logIn, 'a whole login');
  expect([...heard].filter((status) => status !== 200 && status !== 503)).toEqual([]);
  return (Date.now() - since) / 1_000;
}

function tell(what: string, seconds: number[]): void {
  const sorted = [...seconds].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const most = sorted.at(-1) ?? 0;
  figures(`${what}: rounds ${seconds.length}, median ${median.toFixed(1)} s, longest ${most.toFixed(1)} s`);
}

it('logins work again after Redis has returned', async () => {
  const redis = await startRedis();
  const link = await TcpLink.to(redis);
  await serve(`redis://127.0.0.1:${link.port}`);
  try {
    const seconds: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await redis.kill();
      const before = link.connections;
      await until(() => link.connections >= before + TRIES_WHILE_AWAY, 'another try to reach Redis');
      expect((await sendOtp(instance.url, freshNumber())).status).toBe(503);
      await redis.start();
      seconds.push(await secondsUntilOpen());
    }
    tell('open after Redis returns', seconds);
  } finally {
    await link.close();
    await redis.stop();
  }
}, 600_000);

it('logins work again without manual steps after a primary of the cluster died', async () => {
  const cluster = await RedisCluster.start();
  await serve(cluster.url);
  try {
    const seconds: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      // The shard that every send asks.
      const { primary } = await cluster.shardOf(KEYS.serviceLimit);
      await primary.kill();
      seconds.push(await secondsUntilOpen());
      await primary.start();
      await cluster.settled();
    }
    tell('open after a cluster primary died', seconds);
  } finally {
    await cluster.stop();
  }
}, 600_000);

it('logins work again without manual steps after the primary of Sentinel died', async () => {
  const sentinels = await RedisSentinels.start();
  await serve(sentinels.url);
  try {
    const seconds: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const primary = await sentinels.primary();
      await primary.kill();
      seconds.push(await secondsUntilOpen());
      await primary.start();
      await sentinels.settled();
    }
    tell('open after a Sentinel primary died', seconds);
  } finally {
    await sentinels.stop();
  }
}, 600_000);
