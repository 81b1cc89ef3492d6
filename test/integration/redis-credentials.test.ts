import { Cluster, Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import { redisClient, type RedisClient } from '../../src/redis/connection';
import { changeCredentials } from '../../src/redis/credentials';
import { Store } from '../../src/redis/store';
import { until } from '../support/hang';
import { RedisCluster } from '../support/redis-cluster';
import { RedisSentinels } from '../support/redis-sentinels';
import { type RedisServer, startRedis } from '../support/redis-server';

/** Longer than a step takes on a busy machine; only a command that ioredis lost waits for it. */
const PATIENT_MS = 20_000;

interface Stage {
  url: string;
  nodes: readonly RedisServer[];
  stop: () => Promise<void>;
}

async function stage(kind: 'one server' | 'sentinels' | 'a cluster'): Promise<Stage> {
  if (kind === 'one server') {
    const redis = await startRedis();
    return { url: redis.url, nodes: [redis], stop: () => redis.stop() };
  }
  const made = kind === 'sentinels' ? await RedisSentinels.start() : await RedisCluster.start();
  return { url: made.url, nodes: made.nodes, stop: () => made.stop() };
}

const as = (url: string, user: string): string => url.replace('://', `://${user}@`);

describe.each(['one server', 'sentinels', 'a cluster'] as const)('credentials of %s', (kind) => {
  let at: Stage;
  let owners: Redis[];
  let store: Store | undefined;
  let running: boolean;
  const everywhere = (...command: [string, ...string[]]): Promise<unknown> =>
    Promise.all(owners.map((owner) => owner.call(...command)));

  beforeAll(async () => {
    at = await stage(kind);
    owners = at.nodes.map(({ url }) => new Redis(url));
  });
  afterAll(async () => {
    for (const owner of owners) owner.disconnect();
    await at.stop();
  });

  beforeEach(() => {
    running = true;
  });
  afterEach(() => {
    running = false;
    store?.close();
  });

  async function connected(client: RedisClient): Promise<Store> {
    store = new Store(client, new Logger('silent', { write: () => undefined }), undefined, PATIENT_MS);
    store.connect();
    await until(() => store?.available === true, 'the connection to Redis');
    return store;
  }

  it(`new credentials of ${kind} make no command fail and are used by each later connection`, async () => {
    for (const user of ['one', 'two'])
      await everywhere('ACL', 'SETUSER', user, 'on', `>p@ss:${user}`, '~*', '+@all');
    const client = redisClient(as(at.url, 'one:p%40ss%3Aone'));
    const connection = await connected(client);
    const who = (): Promise<unknown[]> =>
      Promise.all(
        (client instanceof Cluster ? client.nodes('all') : [client]).map((node) =>
          node.call('ACL', 'WHOAMI'),
        ),
      );
    const count = (tag: number): Promise<number> =>
      connection.command('count', (sent) => sent.incr(`{${tag}}counted`));
    const failures: unknown[] = [];
    // Connections to replicas are made later than those that the store needs.
    await until(async () => String([...new Set(await who())]) === 'one', 'all connections');
    const load = Array.from({ length: 8 }, async (_, worker) => {
      for (let tag = worker; running; tag += 8)
        await count(tag % 100).catch((error: unknown) => failures.push(error));
    });

    await changeCredentials(client, as(at.url, 'two:p%40ss%3Atwo'));
    expect(new Set(await who())).toEqual(new Set(['two']));
    await everywhere('ACL', 'DELUSER', 'one');
    for (let tag = 0; tag < 100; tag++) await count(tag);
    running = false;
    await Promise.all(load);
    expect(failures).toEqual([]);

    await everywhere('CLIENT', 'KILL', 'USER', 'two');
    await until(async () => {
      await count(1);
      return new Set(await who()).has('two');
    }, 'connections with the new credentials');
  });

  it(`refused credentials of ${kind} are not repeated in the error, and connections keep the old ones`, async () => {
    await everywhere('ACL', 'SETUSER', 'three', 'on', '>three', '~*', '+@all');
    const client = redisClient(as(at.url, 'three:three'));
    const connection = await connected(client);
    const refused = await changeCredentials(client, as(at.url, 'three:canary')).catch(String);
    expect(refused).toContain('WRONGPASS');
    expect(refused).not.toContain('canary');
    expect(await connection.command('count', (sent) => sent.incr('after'))).toBe(1);
    // It counts from the time that Redis takes it.
    await everywhere('ACL', 'SETUSER', 'three', 'resetpass', '>canary');
    await everywhere('CLIENT', 'KILL', 'USER', 'three');
    await until(
      async () => (await connection.command('count', (sent) => sent.incr('after'))) > 1,
      'a connection with the new password',
    );
  });
});
