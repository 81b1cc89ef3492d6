import { Redis } from 'ioredis';
import { type RedisServer, startRedis } from '../support/redis-server';

describe('the Redis of the tests', () => {
  let server: RedisServer;
  let client: Redis;

  beforeEach(async () => {
    server = await startRedis();
    client = new Redis(server.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    client.on('error', () => undefined); // Redis goes away on purpose here.
  });

  afterEach(async () => {
    client.disconnect();
    await server.stop();
  });

  it('takes commands and keeps nothing on disk', async () => {
    expect(await client.set('key', 'value')).toBe('OK');
    expect(await client.config('GET', 'save')).toEqual(['save', '']);
    expect(await client.config('GET', 'appendonly')).toEqual(['appendonly', 'no']);
    expect(await client.info('server')).toContain(`process_id:${server.pid!}`);
  });

  it('is one of many, each with its own port and data', async () => {
    const others = await Promise.all([startRedis(), startRedis()]);
    expect(new Set([server, ...others].map(({ port }) => port)).size).toBe(3);
    const other = new Redis(others[0].url);
    await client.set('key', 'value');
    expect(await other.get('key')).toBeNull();
    other.disconnect();
    await Promise.all(others.map((each) => each.stop()));
  });

  it('answers nothing while it is paused, and everything afterwards', async () => {
    server.pause();
    let answered = false;
    const answer = client.incr('counter').finally(() => {
      answered = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(answered).toBe(false);
    server.resume();
    expect(await answer).toBe(1);
  });

  it('refuses connections once it was killed, and comes back empty on the same port', async () => {
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

  it('loses what it held when it restarts, even with a file to read it back from', async () => {
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

  it('says why it does not start', async () => {
    await expect(startRedis({ args: ['--no-such-setting', '1'] })).rejects.toThrow(/no-such-setting/);
    await expect(startRedis({ port: server.port })).rejects.toThrow(/address already in use/i);
  });

  it('can be stopped twice, and while it is paused', async () => {
    const other = await startRedis();
    other.pause();
    await other.stop();
    await other.stop();
    expect(other.pid).toBeUndefined();
  });
});
