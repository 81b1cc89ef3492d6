import { parseRedisUrl } from '../../src/config/redis-url';

const plain = { tls: false, username: '', password: '', db: 0, masterName: undefined };

test.each([
  ['redis://cache', { ...plain, kind: 'standalone', nodes: [{ host: 'cache', port: 6379 }] }],
  ['redis://[fd00::7]:7000/', { ...plain, kind: 'standalone', nodes: [{ host: 'fd00::7', port: 7000 }] }],
  [
    'rediss://app:p%40ss%2Fword@cache.example:6380/2',
    {
      kind: 'standalone',
      tls: true,
      username: 'app',
      password: 'p@ss/word',
      nodes: [{ host: 'cache.example', port: 6380 }],
      db: 2,
      masterName: undefined,
    },
  ],
  ['redis+cluster://entry:6379', { ...plain, kind: 'cluster', nodes: [{ host: 'entry', port: 6379 }] }],
  [
    'rediss+cluster://:secret@h1:7001,h2:7002,[::1]/0',
    {
      ...plain,
      kind: 'cluster',
      tls: true,
      password: 'secret',
      nodes: [
        { host: 'h1', port: 7001 },
        { host: 'h2', port: 7002 },
        { host: '::1', port: 6379 },
      ],
    },
  ],
  [
    'redis+sentinel://app:se:cret@s1,s2:26380/my-primary',
    {
      ...plain,
      kind: 'sentinel',
      username: 'app',
      password: 'se:cret',
      nodes: [
        { host: 's1', port: 26_379 },
        { host: 's2', port: 26_380 },
      ],
      masterName: 'my-primary',
    },
  ],
  [
    'rediss+sentinel://s1:26379/primary',
    { ...plain, kind: 'sentinel', tls: true, nodes: [{ host: 's1', port: 26_379 }], masterName: 'primary' },
  ],
])('REDIS_URL is read as an address of Redis: %s', (url, target) => {
  expect(parseRedisUrl(url)).toEqual(target);
});

test.each([
  ...[
    'cache:6379',
    'http://cache',
    'redis+tls://cache',
    'REDIS://cache',
    'redis:///0',
    'redis://',
    'redis:// cache',
  ],
  ...[
    'redis://cache:0',
    'redis://cache:65536',
    'redis://cache:',
    'redis://cache/x',
    'redis://cache/-1',
    'redis://cache/0/1',
  ],
  ...['redis://a,b', 'redis://cache?db=1', 'redis://cache#1', 'redis://[cache]', 'redis://[::1'],
  ...['redis://user@cache', 'redis://user:@cache', 'redis://user:p@ss@cache', 'redis://user:%zz@cache'],
  ...[
    'redis+cluster://a,',
    'redis+cluster://a/1',
    'redis+sentinel://a:26379',
    'redis+sentinel://a/',
    'redis+sentinel://a/m%20n',
  ],
])('REDIS_URL is refused at startup: %s', (url) => {
  expect(parseRedisUrl(url)).toBeUndefined();
});
