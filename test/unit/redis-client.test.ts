import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { redisClient } from '../../src/redis/connection';

describe('the address of Redis', () => {
  const standalone = (url: string): RedisOptions => {
    const client = redisClient(url);
    expect(client).toBeInstanceOf(Redis);
    expect(client.status).toBe('wait');
    return client.options;
  };

  const cluster = (url: string): { nodes: unknown; options: RedisOptions } => {
    const client = redisClient(url);
    expect(client).toBeInstanceOf(Cluster);
    expect(client.status).toBe('wait');
    const { startupNodes, options } = client as unknown as {
      startupNodes: unknown;
      options: { redisOptions: RedisOptions };
    };
    return { nodes: startupNodes, options: options.redisOptions };
  };

  const PASSWORD = 'p@ss:w/rd%?#é';
  const CREDENTIALS = `some%40one:${encodeURIComponent(PASSWORD)}`;
  const DECODED = { username: 'some@one', password: PASSWORD };

  it('redisClient reads host, port, database, user and password of a redis:// address', () => {
    const options = standalone(`redis://${CREDENTIALS}@store.example:7000/3`);
    expect(options).toMatchObject({ ...DECODED, host: 'store.example', port: 7000, db: 3 });
    expect(options.tls).toBeUndefined();
    expect(options.sentinels).toBeNull();
  });

  it('redisClient needs no more than a host and takes the standard port', () => {
    const options = standalone('redis://store.example');
    expect(options).toMatchObject({ host: 'store.example', port: 6379, db: 0 });
    expect(options.username ?? '').toBe('');
    expect(options.password ?? '').toBe('');
    expect(standalone('redis://[2001:db8::1]:7000')).toMatchObject({ host: '2001:db8::1', port: 7000 });
    expect(standalone('redis://Store_1.example:7000/')).toMatchObject({ host: 'Store_1.example', db: 0 });
  });

  it('redisClient accepts a password without a user', () => {
    const options = standalone('redis://:s%40cret@store.example');
    expect(options.password).toBe('s@cret');
    expect(options.username ?? '').toBe('');
  });

  it('redisClient uses TLS for a rediss:// address', () => {
    const options = standalone(`rediss://${CREDENTIALS}@store.example:7000/3`);
    expect(options).toMatchObject({ ...DECODED, host: 'store.example', port: 7000, db: 3 });
    expect(options.tls).toEqual({});
  });

  it('redisClient reads one or many nodes of a redis+cluster:// address', () => {
    const { nodes, options } = cluster(`redis+cluster://${CREDENTIALS}@n1:7001,[::1]:7002,n3`);
    expect(nodes).toEqual([
      { host: 'n1', port: 7001 },
      { host: '::1', port: 7002 },
      { host: 'n3', port: 6379 },
    ]);
    expect(options).toMatchObject(DECODED);
    expect(options.tls).toBeUndefined();
    expect(cluster('redis+cluster://configuration.example:6379').nodes).toEqual([
      { host: 'configuration.example', port: 6379 },
    ]);
  });

  it('redisClient connects to a cluster over TLS by the names that its nodes announce', () => {
    const { options } = cluster(`rediss+cluster://${CREDENTIALS}@n1:7001,n2:7002`);
    expect(options).toMatchObject({ ...DECODED, tls: {} });
    const client = redisClient('rediss+cluster://n1:7001') as Cluster;
    const lookup = jest.fn();
    client.options.dnsLookup!('name.example', lookup);
    expect(lookup).toHaveBeenCalledWith(null, 'name.example');
  });

  it('redisClient reads the sentinels and the name of the primary of a redis+sentinel:// address', () => {
    const options = standalone(`redis+sentinel://${CREDENTIALS}@s1:26001,s2/main-store`);
    expect(options).toMatchObject({
      ...DECODED,
      name: 'main-store',
      sentinels: [
        { host: 's1', port: 26001 },
        { host: 's2', port: 26379 },
      ],
    });
    expect(options.tls).toBeUndefined();
    expect(options.enableTLSForSentinelMode).toBeFalsy();
  });

  it('redisClient uses TLS for the sentinels and the primary of a rediss+sentinel:// address', () => {
    const options = standalone(`rediss+sentinel://${CREDENTIALS}@s1:26001/main-store`);
    expect(options).toMatchObject({ ...DECODED, tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true });
  });

  it.each([
    'redis://store.example',
    'rediss://store.example',
    'redis+sentinel://s1/main-store',
    'rediss+sentinel://s1/main-store',
  ])('a client of %s queues no command and repeats none', (url) => {
    expect(standalone(url)).toMatchObject({
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
    });
  });

  it.each(['redis+cluster://n1', 'rediss+cluster://n1'])(
    'a client of the cluster %s queues no command and repeats none',
    (url) => {
      expect((redisClient(url) as Cluster).options.enableOfflineQueue).toBe(false);
      expect(cluster(url).options).toMatchObject({
        autoResendUnfulfilledCommands: false,
        maxRetriesPerRequest: 0,
      });
    },
  );

  it.each(['', 'http://store.example', 'redis+other://store.example', 'store.example:6379'])(
    'redisClient refuses %p without repeating it',
    (url) => {
      expect(() => redisClient(url)).toThrow(/REDIS_URL/);
      if (url) expect(() => redisClient(url)).not.toThrow(url);
    },
  );
});
