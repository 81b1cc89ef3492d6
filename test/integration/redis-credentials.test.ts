import { Cluster, Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import { redisClient } from '../../src/redis/connection';
import { changeCredentials } from '../../src/redis/credentials';
import { Store } from '../../src/redis/store';
import { RedisCluster } from '../support/redis-cluster';
import { RedisSentinels } from '../support/redis-sentinels';
import { type RedisServer, startRedis } from '../support/redis-server';
import { until } from '../support/world';

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
  const everywhere = (...command: [string, ...string[]]): Promise<unknown> =>
    Promise.all(owners.map((owner) => owner.call(...command)));

  beforeAll(async () => {
    at = await stage(kind);
    owners = at.nodes.map(({ url }) => new Redis(url));
  }, 60_000);
  afterAll(async () => {
    for (const owner of owners) owner.disconnect();
    await at.stop();
  });

  it('change under commands without one that fails, and are those of every connection to come', async () => {
    for (const user of ['one', 'two'])
      await everywhere('ACL', 'SETUSER', user, 'on', `>p@ss:${user}`, '~*', '+@all');
    const client = redisClient(as(at.url, 'one:p%40ss%3Aone'));
    const store = new Store(client, new Logger('silent', { write: () => undefined }));
    const who = (): Promise<unknown[]> =>
      Promise.all(
        (client instanceof Cluster ? client.nodes('all') : [client]).map((node) =>
          node.call('ACL', 'WHOAMI'),
        ),
      );
    const count = (tag: number): Promise<number> =>
      store.command('count', (sent) => sent.incr(`{${tag}}counted`));
    const failures: unknown[] = [];
    let running = true;
    store.connect();
    await until(() => store.available);
    expect(new Set(await who())).toEqual(new Set(['one']));
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
    });
    store.close();
  }, 60_000);

  it('that Redis refuses are an error without them, and connections go on as who they were', async () => {
    await everywhere('ACL', 'SETUSER', 'three', 'on', '>three', '~*', '+@all');
    const client = redisClient(as(at.url, 'three:three'));
    const store = new Store(client, new Logger('silent', { write: () => undefined }));
    store.connect();
    await until(() => store.available);
    const refused = await changeCredentials(client, as(at.url, 'three:canary')).catch(String);
    expect(refused).toContain('WRONGPASS');
    expect(refused).not.toContain('canary');
    expect(await store.command('count', (sent) => sent.incr('after'))).toBe(1);
    // It counts from the time that Redis takes it.
    await everywhere('ACL', 'SETUSER', 'three', 'resetpass', '>canary');
    await everywhere('CLIENT', 'KILL', 'USER', 'three');
    await until(async () => (await store.command('count', (sent) => sent.incr('after'))) > 1);
    store.close();
  }, 60_000);
});
