import { Redis } from 'ioredis';
import { type RedisServer, startRedis } from '../support/redis-server';

describe('the Redis of the tests', () => {
  let server: RedisServer;
  let client: Redis;

  beforeAll(async () => {
    server = await startRedis();
    client = new Redis(server.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    client.on('error', () => undefined); // Redis goes away on purpose here.
  });

  afterAll(async () => {
    client.disconnect();
    await server.stop();
  });

  it('a test server takes commands and stores nothing on disk', async () => {
    expect(await client.set('key', 'value')).toBe('OK');
    expect(await client.config('GET', 'save')).toEqual(['save', '']);
    expect(await client.config('GET', 'appendonly')).toEqual(['appendonly', 'no']);
    expect(await client.info('server')).toContain(`process_id:${server.pid!}`);
  });

  it('a test server has a port and data of its own, and a paused one answers only after it was resumed', async () => {
    await client.set('key', 'value');
    server.pause();
    const order: string[] = [];
    const answer = client.incr('counter').then((count) => order.push(`answer ${count}`));
    // In this time the paused one could have answered.
    const others = await Promise.all([startRedis(), startRedis()]);
    expect(new Set([server, ...others].map(({ port }) => port)).size).toBe(3);
    const other = new Redis(others[0].url);
    expect(await other.get('key')).toBeNull();
    other.disconnect();
    // It can be stopped while it is paused, and twice.
    others[1].pause();
    await others[1].stop();
    await Promise.all(others.map((each) => each.stop()));
    expect(others.map(({ pid }) => pid)).toEqual([undefined, undefined]);

    order.push('resumed');
    server.resume();
    await answer;
    expect(order).toEqual(['resumed', 'answer 1']);
  });

  it('a killed test server refuses connections and comes back empty on the same port', async () => {
    await client.set('key', 'value');
    const { pid, url } = server;
    await server.kill();
    expect(server.pid).toBeUndefined();
    const refused = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
    refused.on('error', () => undefined);
    await expect(refused.connect()).rejects.toThrow();
    await server.restart();
    expect(server.url).toBe(url);
    expect(server.pid).not.toBe(pid);
    expect(await client.get('key')).toBeNull();
  });

  it('a restarted test server is empty, even if it had written a file', async () => {
    const lasting = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
    const first = new Redis(lasting.url);
    await first.set('key', 'value');
    first.disconnect();
    await lasting.restart();
    const second = new Redis(lasting.url);
    expect(await second.get('key')).toBeNull();
    second.disconnect();
    await lasting.stop();
  });

  it('a test server that does not start throws the reason', async () => {
    await expect(startRedis({ args: ['--no-such-setting', '1'] })).rejects.toThrow(/no-such-setting/);
    await expect(startRedis({ port: server.port })).rejects.toThrow(/address already in use/i);
  });
});
