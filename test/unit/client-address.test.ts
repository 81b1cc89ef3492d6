import type { FastifyRequest } from 'fastify';
import { readConfig } from '../../src/config/read-config';
import { Logger } from '../../src/logging/logger';
import { ClientAddress } from '../../src/http/client-address';
import { addressScopes } from '../../src/net/addresses';

let lines: string[];
beforeEach(() => {
  lines = [];
});

function clientAddress(trusted = ''): ClientAddress {
  const config = readConfig({
    NODE_ENV: 'test',
    STARTMESSAGING_API_KEY: 'sm_live_x',
    TRUSTED_PROXIES: trusted,
  });
  return new ClientAddress(config, new Logger('trace', { write: (line) => lines.push(line) }));
}

/** A request as Node hands it over: several headers of this name arrive joined by a comma. */
function request(
  peer: string | undefined,
  forwarded?: string,
  more: Record<string, string> = {},
): FastifyRequest {
  const headers = forwarded === undefined ? more : { ...more, 'x-forwarded-for': forwarded };
  return { socket: { remoteAddress: peer }, headers } as unknown as FastifyRequest;
}

describe('without a trusted proxy', () => {
  test('without a trusted proxy the client address is the peer, whatever the request claims', () => {
    const client = clientAddress();
    expect(client.of(request('203.0.113.9'))).toBe('203.0.113.9');
    expect(client.of(request('203.0.113.9', '198.51.100.1'))).toBe('203.0.113.9');
    expect(client.of(request('127.0.0.1', '198.51.100.1'))).toBe('127.0.0.1');
  });

  test('without a trusted proxy no other forwarding header counts', () => {
    const others = {
      forwarded: 'for=198.51.100.1',
      'x-real-ip': '198.51.100.1',
      'x-client-ip': '198.51.100.1',
      'cf-connecting-ip': '198.51.100.1',
      'true-client-ip': '198.51.100.1',
      'x-forwarded': '198.51.100.1',
    };
    expect(clientAddress().of(request('203.0.113.9', undefined, others))).toBe('203.0.113.9');
    expect(clientAddress('10.0.0.0/8').of(request('10.0.0.1', undefined, others))).toBe('10.0.0.1');
  });

  test('a socket that is already closed still has a client address', () => {
    expect(clientAddress().of(request(undefined))).toBe('0.0.0.0');
  });
});

describe('behind trusted proxies', () => {
  const trusted = '10.0.0.0/8, 192.0.2.7, 2001:db8:aaaa::/48';

  test.each([
    ['one hop', '10.0.0.1', '203.0.113.9', '203.0.113.9'],
    ['two hops', '10.0.0.1', '203.0.113.9, 10.0.0.2', '203.0.113.9'],
    ['hops of several networks', '10.0.0.1', '203.0.113.9, 2001:db8:aaaa::5, 192.0.2.7', '203.0.113.9'],
    ['hops without spaces', '10.0.0.1', '203.0.113.9,10.0.0.2,10.0.0.3', '203.0.113.9'],
    ['hops with more white space', '10.0.0.1', ' 203.0.113.9 \t,\t10.0.0.2 ', '203.0.113.9'],
    ['a client on IPv6', '10.0.0.1', '2001:db8:1::9', '2001:0db8:0001:0000:0000:0000:0000:0009'],
    ['an IPv4 peer that came mapped into IPv6', '::ffff:10.0.0.1', '203.0.113.9', '203.0.113.9'],
    ['a client that came mapped into IPv6', '10.0.0.1', '::ffff:203.0.113.9', '203.0.113.9'],
    ['the same in hexadecimal', '10.0.0.1', '0:0:0:0:0:FFFF:cb00:7109', '203.0.113.9'],
    ['a proxy on IPv6', '2001:db8:aaaa::1', '203.0.113.9', '203.0.113.9'],
    ['a proxy with a zone', '2001:db8:aaaa::1%eth0', '203.0.113.9', '203.0.113.9'],
  ])('behind trusted proxies the client address is read from %s', (_, peer, forwarded, client) => {
    expect(clientAddress(trusted).of(request(peer, forwarded))).toBe(client);
  });

  const V6 = '2001:0db8:0001:0000:0000:0000:0000:0009';
  test.each([
    ['an IPv4 address with a port (ALB, Azure Application Gateway)', '203.0.113.9:41234', '203.0.113.9'],
    ['an IPv6 address in brackets with a port (ALB)', '[2001:db8:1::9]:443', V6],
    ['an IPv6 address in brackets', '[2001:db8:1::9]', V6],
    ['an IPv4 address in brackets', '[203.0.113.9]', '203.0.113.9'],
    ['an IPv6 address of eight groups with a port', '2001:db8:1:0:0:0:0:9:41234', V6],
    ['an IPv6 address in capitals', '2001:DB8:1::9', V6],
    ['a mapped IPv4 address with a port', '::ffff:203.0.113.9:41234', '203.0.113.9'],
    ['a mapped IPv4 address in brackets with a port', '[::ffff:203.0.113.9]:443', '203.0.113.9'],
    ['an IPv6 address with a zone, in brackets with a port', '[2001:db8:1::9%eth0]:443', V6],
    ['a quoted IPv4 address', '"203.0.113.9"', '203.0.113.9'],
    ['a quoted IPv4 address with a port', '"203.0.113.9:41234"', '203.0.113.9'],
    ['a quoted IPv6 address in brackets with a port', '"[2001:db8:1::9]:443"', V6],
    ['an obfuscated port', '203.0.113.9:_hidden', '203.0.113.9'],
    ['an element of RFC 7239', 'for=203.0.113.9', '203.0.113.9'],
    ['an element of RFC 7239 with parameters', 'For="[2001:db8:1::9]:4711";proto=https;by=10.0.0.1', V6],
    ['an element of RFC 7239 with its parameters first', 'proto=https; for=203.0.113.9:80', '203.0.113.9'],
  ])('behind trusted proxies the address counts that is written as %s', (_, written, client) => {
    const address = clientAddress(trusted);
    expect(address.of(request('10.0.0.1', written))).toBe(client);
    expect(address.of(request('10.0.0.1', `1.1.1.1, ${written} , 10.0.0.2:8080`))).toBe(client);
    expect(lines).toEqual([]);
  });

  test.each([
    ['a port', (n: number) => `203.0.113.9:${1024 + n}`],
    ['an obfuscated port', (n: number) => `203.0.113.9:_p${n}`],
    ['a zone', (n: number) => `::ffff:203.0.113.9%z${n}`],
    ['a parameter', (n: number) => `for=203.0.113.9;by=_${n}`],
  ])('one client stays one address, although its proxy writes %s that changes', (_, written) => {
    const client = clientAddress(trusted);
    const found = Array.from({ length: 50 }, (_, n) => client.of(request('10.0.0.1', written(n))));
    expect(new Set(found)).toEqual(new Set(['203.0.113.9']));
  });

  test.each([
    ['of one hop', '1.1.1.1, 203.0.113.9'],
    ['that names a trusted proxy', '1.1.1.1, 10.0.0.9, 203.0.113.9'],
    ['before two of our hops', '1.1.1.1, 2.2.2.2, 203.0.113.9, 10.0.0.2'],
    ['in a header of its own', ['1.1.1.1, 10.0.0.9', '203.0.113.9'].join(', ')],
    ['that is garbage', 'unknown, <script>, , 203.0.113.9'],
    ['of a thousand hops', `${'1.1.1.1, '.repeat(1_000)}203.0.113.9`],
  ])('behind trusted proxies a forged entry is ignored: %s', (_, forwarded) => {
    expect(clientAddress(trusted).of(request('10.0.0.1', forwarded))).toBe('203.0.113.9');
  });

  test('a client that invents many forwarded addresses is still counted as one', () => {
    const client = clientAddress(trusted);
    const found = Array.from({ length: 500 }, (_, i) =>
      client.of(request('10.0.0.1', `1.1.${i >> 8}.${i & 255}, 203.0.113.9`)),
    );
    expect(new Set(found)).toEqual(new Set(['203.0.113.9']));
  });

  test.each([
    ['a word', 'unknown'],
    ['nothing', ''],
    ['an obfuscated name', '_hidden'],
    ['a host name', 'client.example.com'],
    ['a quoted word', '"unknown"'],
    ['an element of RFC 7239 without an address', 'for=unknown'],
    ['an element of RFC 7239 with an obfuscated name', 'for="_hidden"'],
    ['an element of RFC 7239 of another kind', 'by=203.0.113.9;proto=https'],
    ['a host name with a port', 'client.example.com:443'],
    ['a port alone', ':443'],
    ['empty brackets', '[]:443'],
    ['brackets that do not end', '[2001:db8::1'],
    ['a quote that does not end', '"203.0.113.9'],
    ['a port of six digits', '203.0.113.9:123456'],
    ['two ports', '203.0.113.9:443:443'],
    ['an address with a path', '203.0.113.9/x'],
    ['a URL', 'http://203.0.113.9'],
    ['a number out of range', '203.0.113.256'],
    ['leading zeros', '203.0.113.009'],
    ['octal', '0313.0.0161.011'],
    ['one number', '3405803785'],
    ['hexadecimal', '0xcb007109'],
    ['a network', '203.0.113.0/24'],
    ['two addresses without a comma', '203.0.113.9 203.0.113.8'],
    ['a semicolon', '203.0.113.9;10.0.0.1'],
    ['full-width digits', '\uff12\uff10\uff13.0.113.9'],
    ['five groups of dots', '203.0.113.9.1'],
    ['an IPv4 address with a zone, which none has', '203.0.113.9%eth0'],
    ['an empty zone', 'fe80::1%'],
    ['a triple colon', '2001:::1'],
    ['__proto__', '__proto__'],
  ])('the walk along X-Forwarded-For ends at %s, and the last good hop is the client', (_, garbage) => {
    const client = clientAddress(trusted);
    expect(client.of(request('10.0.0.1', `203.0.113.9, ${garbage}`))).toBe('10.0.0.1');
    expect(client.of(request('10.0.0.1', `203.0.113.9, ${garbage}, 10.0.0.2`))).toBe('10.0.0.2');
    expect(client.of(request('10.0.0.1', garbage))).toBe('10.0.0.1');
  });

  test('the leftmost hop is the client when every hop is trusted', () => {
    expect(clientAddress(trusted).of(request('10.0.0.1', '10.0.0.3, 10.0.0.2'))).toBe('10.0.0.3');
  });

  test('the peer is the client when X-Forwarded-For is empty or missing', () => {
    const client = clientAddress(trusted);
    expect(client.of(request('10.0.0.1', ''))).toBe('10.0.0.1');
    expect(client.of(request('10.0.0.1', ' , ,'))).toBe('10.0.0.1');
    expect(client.of(request('10.0.0.1'))).toBe('10.0.0.1');
  });

  test('a neighbour of a trusted address is not trusted', () => {
    const client = clientAddress(trusted);
    expect(client.of(request('11.0.0.1', '203.0.113.9'))).toBe('11.0.0.1');
    expect(client.of(request('192.0.2.8', '203.0.113.9'))).toBe('192.0.2.8');
    expect(client.of(request('2001:db8:aaab::1', '203.0.113.9'))).toBe(
      '2001:0db8:aaab:0000:0000:0000:0000:0001',
    );
    // The low 32 bits are those of 10.0.0.1, but this is no mapped address.
    expect(client.of(request('2001:db8::a00:1', '203.0.113.9'))).toBe(
      '2001:0db8:0000:0000:0000:0000:0a00:0001',
    );
  });

  test('the zone of an IPv6 address is dropped, reason one client could write many zones', () => {
    const client = clientAddress(trusted);
    const plain = client.of(request('10.0.0.1', 'fe80::1'));
    expect(client.of(request('10.0.0.1', 'fe80::1%eth0'))).toBe(plain);
    expect(client.of(request('10.0.0.1', 'fe80::1%1'))).toBe(plain);
    expect(client.of(request('10.0.0.1', '::ffff:203.0.113.9%eth0'))).toBe('203.0.113.9');
  });

  test('a trusted network that was configured as mapped IPv6 matches IPv4 peers', () => {
    expect(clientAddress('::ffff:10.0.0.0/104').of(request('10.1.2.3', '203.0.113.9'))).toBe('203.0.113.9');
  });
});

describe('the warning', () => {
  test.each([
    '127.0.0.1',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '169.254.1.1',
    '::1',
    'fd00::1',
    'fe80::1%eth0',
    '::ffff:10.1.2.3',
  ])(
    'the log warns once, naming the setting, when the private peer %s sends X-Forwarded-For and is not trusted',
    (peer) => {
      const client = clientAddress('198.51.100.7');
      for (let i = 0; i < 3; i++) client.of(request(peer, '203.0.113.9'));
      client.of(request('192.168.77.7', '203.0.113.10'));
      expect(lines).toHaveLength(1);
      const line = JSON.parse(lines[0]!) as { level: string; msg: string };
      expect(line.level).toBe('warn');
      expect(line.msg).toContain('TRUSTED_PROXIES');
      expect(lines[0]).not.toContain('203.0.113.9');
    },
  );

  test.each([
    ['a public stranger', '', '203.0.113.1', '198.51.100.1'],
    ['172.32.0.1, which is public', '', '172.32.0.1', '198.51.100.1'],
    ['a trusted peer', '10.0.0.0/8', '10.0.0.1', '198.51.100.1'],
    ['a private peer that sends none', '', '10.0.0.1', undefined],
  ])('the log does not warn about an untrusted proxy for %s', (_, trusted, peer, forwarded) => {
    clientAddress(trusted).of(request(peer, forwarded));
    expect(lines).toEqual([]);
  });

  test.each(['unknown', '_hidden', 'for=unknown', 'client.example.com', '203.0.113.9;203.0.113.8'])(
    'the log warns once, naming the setting, when a trusted proxy sends %s in X-Forwarded-For',
    (entry) => {
      const client = clientAddress('10.0.0.0/8');
      for (let i = 0; i < 3; i++) client.of(request('10.0.0.1', `203.0.113.9, ${entry}`));
      expect(lines).toHaveLength(1);
      const line = JSON.parse(lines[0]!) as { level: string; msg: string };
      expect([line.level, line.msg]).toEqual(['warn', expect.stringContaining('TRUSTED_PROXIES')]);
      // The entry is a stranger's text.
      expect(lines[0]).not.toContain(entry);
    },
  );

  test('the log warns once, naming the setting, when a private hop with another address before it is not trusted', () => {
    const client = clientAddress('10.0.0.1');
    expect(client.of(request('10.0.0.1', '192.168.5.5'))).toBe('192.168.5.5');
    expect(lines).toEqual([]);
    for (let i = 0; i < 3; i++)
      expect(client.of(request('10.0.0.1', '203.0.113.9, 10.0.0.2'))).toBe('10.0.0.2');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('TRUSTED_PROXIES');
    expect(lines[0]).not.toContain('203.0.113.9');
  });

  test('a garbage entry to the left of the client is not logged, because it is the client that wrote it', () => {
    clientAddress('10.0.0.0/8').of(request('10.0.0.1', 'unknown, 203.0.113.9'));
    expect(lines).toEqual([]);
  });

  test('the warning about an untrusted proxy is not used up by a public peer before it', () => {
    const client = clientAddress();
    client.of(request('203.0.113.1', '198.51.100.1'));
    client.of(request('10.0.0.1', '198.51.100.1'));
    expect(lines).toHaveLength(1);
  });
});

describe('addressScopes', () => {
  const scopesOf = (text: string) => addressScopes(clientAddress().of(request(text)));

  test('an IPv4 address is limited by itself', () => {
    expect(scopesOf('203.0.113.9')).toEqual([{ scope: '203.0.113.9', factor: 1 }]);
    expect(scopesOf('::ffff:203.0.113.9')).toEqual(scopesOf('203.0.113.9'));
    expect(scopesOf('::FFFF:CB00:7109')).toEqual(scopesOf('203.0.113.9'));
  });

  test('an IPv6 address is limited by its /64, and by its /48 at ten times the limit', () => {
    const [subnet, site, ...rest] = scopesOf('2001:db8:1:2:3:4:5:6');
    expect(rest).toEqual([]);
    expect([subnet?.factor, site?.factor]).toEqual([1, 10]);
    expect(subnet?.scope).not.toBe(site?.scope);
  });

  test.each([
    '2001:db8:1:2:3:4:5:6',
    '2001:0DB8:0001:0002:0003:0004:0005:0006',
    '2001:db8:1:2::',
    '2001:db8:1:2:ffff:ffff:ffff:ffff',
    '2001:db8:1:2::1%eth0',
    '2001:db8:1:2:3:4:5.6.7.8',
    '2001:DB8:1:2::5.6.7.8',
  ])('the same IPv6 scopes are found however the address is written: %s', (text) => {
    expect(scopesOf(text)).toEqual(scopesOf('2001:db8:1:2::1'));
  });

  test.each(['::', '::1', '1::', '0:0:0:0:0:0:0:1', '::2.3.4.5', '0000:0000:0000::ffff:ffff:ffff:ffff'])(
    'the shortened zeros of the IPv6 address %s are filled up at the right place',
    (text) => {
      const [subnet, site] = scopesOf(text);
      const first = text.startsWith('1') ? '0001' : '0000';
      expect(subnet?.scope.startsWith(`${first}:0000:0000:0000`)).toBe(true);
      expect(site?.scope.startsWith(`${first}:0000:0000`)).toBe(true);
    },
  );

  test('neighbouring IPv6 networks have different scopes', () => {
    const [subnet, site] = scopesOf('2001:db8:1:2::1');
    const [nextSubnet, sameSite] = scopesOf('2001:db8:1:3::1');
    expect(nextSubnet).not.toEqual(subnet);
    expect(sameSite).toEqual(site);
    expect(scopesOf('2001:db8:2:2::1')[1]).not.toEqual(site);
    // Written without their zeros these two would look alike.
    expect(scopesOf('2001:db8:12::')[1]).not.toEqual(scopesOf('2001:db8:1:2::')[1]);
    expect(scopesOf('2001:0:db8:1::')[0]).not.toEqual(scopesOf('2001:db8:0:1::')[0]);
  });

  test('one /64 has no more than two scopes, however many addresses it uses', () => {
    const scopes = Array.from({ length: 500 }, (_, i) =>
      scopesOf(`2001:db8:1:2:${i.toString(16)}::${i.toString(16)}`),
    );
    expect(new Set(scopes.flat().map(({ scope }) => scope)).size).toBe(2);
  });
});
