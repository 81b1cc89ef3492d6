import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type * as doctorModule from '../../src/doctor/doctor';
import type { Emulator } from '../../src/emulator/emulator';
import { ADMIN_TOKEN, WITH_ADMIN } from '../support/admin';
import { freePort } from '../support/free-port';
import { startRedis, type RedisServer } from '../support/redis-server';
import { service as inProcess, serviceModule } from '../support/service';
import { API_KEY, startInstance, type Instance, type Variables } from '../support/world';

const { doctor } = serviceModule<typeof doctorModule>('doctor/doctor');

/** Random, and of this test alone. */
const SECRET = 'Qm3vX8kTzR5wJ0hYbN2sLq7dGf4uC9aE';
const SUBJECT_SECRET = 'vT6yPz1oWnK8xB3jMd5hRc0gLs2fUq9i';

let redis: RedisServer;
let upstream: Emulator;
let folder: string;
const closing: (() => unknown)[] = [];
/** Where no Redis is, and the visit to it: it takes five seconds, in which the other tests run. */
let nowhere: string;
let inVain: ReturnType<typeof visit>;

beforeAll(async () => {
  redis = await startRedis({ args: ['--appendonly', 'yes', '--requirepass', 'a-password-of-redis'] });
  upstream = await inProcess().startEmulator({ contract: 'provider' });
  nowhere = `127.0.0.1:${await freePort()}`;
  inVain = visit({
    REDIS_URL: `redis://:a-password-of-redis@${nowhere}`,
    STARTMESSAGING_BASE_URL: `http://${nowhere}`,
    JWT_KEYS_DIR: undefined,
  });
  inVain.catch(() => undefined);
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-doctor-'));
  putKey(minutesFromNow(-60 * 24));
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  rmSync(folder, { recursive: true });
  upstream.reset();
});
afterAll(async () => {
  await inVain;
  await Promise.all([upstream.close(), redis.stop()]);
});

const minutesFromNow = (minutes: number): Date => new Date(Date.now() + minutes * 60_000);

/** Puts a key into the folder, and returns its id. */
function putKey(activeFrom: Date, name = 'key'): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const kid = `${activeFrom.toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${name}`;
  writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return kid;
}

const settings = (): Variables => ({
  NODE_ENV: 'test',
  REDIS_URL: `redis://:a-password-of-redis@127.0.0.1:${redis.port}`,
  SECRET,
  SUBJECT_SECRET,
  JWT_KEYS_DIR: folder,
  STARTMESSAGING_API_KEY: API_KEY,
  STARTMESSAGING_BASE_URL: upstream.url,
  STARTMESSAGING_CONTRACT: 'provider',
});

/** The exit code, and the lines that were printed. */
async function visit(
  variables: Variables = {},
  ...args: string[]
): Promise<{ code: number; lines: string[] }> {
  const lines: string[] = [];
  const code = await doctor({
    environment: { ...settings(), ...variables },
    arguments: args,
    print: (line) => lines.push(line),
  });
  const text = lines.join('\n');
  for (const secret of [SECRET, SUBJECT_SECRET, API_KEY, ADMIN_TOKEN, 'a-password-of-redis', 'PRIVATE KEY'])
    expect(text).not.toContain(secret);
  for (const line of lines) expect(line).toMatch(/^(ok {6}|warning {1}|FAULT {3}) \w+: \S/);
  // The exit code is what the lines say.
  expect(code).toBe(lines.some((line) => line.startsWith('FAULT')) ? 1 : 0);
  return { code, lines };
}

const toMend = (lines: string[]): string[] => lines.filter((line) => !line.startsWith('ok'));
const linesOf = (lines: string[], check: string): string[] =>
  lines.filter((line) => line.includes(` ${check}: `));

it('the doctor prints a line of ok for every check of a healthy service, and exits with 0', async () => {
  const { code, lines } = await visit();
  expect([code, toMend(lines)]).toEqual([0, []]);
  for (const check of [
    'configuration',
    'secret',
    'subject_secret',
    'signing_keys',
    'test_numbers',
    'trusted_proxies',
    'redis_eviction',
    'redis_persistence',
    'startmessaging_contract',
    'startmessaging_wallet',
  ])
    expect([check, linesOf(lines, check).length]).toEqual([check, 1]);
});

describe('the configuration', () => {
  it('the doctor prints every fault of the configuration by name, and checks nothing else', async () => {
    const { code, lines } = await visit({ PORT: 'canary', OTP_LENGTH: '99', NODE_ENV: 'production' });
    expect(code).toBe(1);
    expect(lines).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^FAULT {4}configuration: PORT must be /),
        expect.stringMatching(/^FAULT {4}configuration: OTP_LENGTH must be /),
        expect.stringMatching(/^FAULT {4}configuration: BUDGET_PAISE_PER_DAY is required in production/),
      ]),
    );
    expect(lines.join('\n')).not.toContain('canary');
    expect(upstream.calls).toEqual([]);
  });

  it('the doctor prints warnings of the configuration, and exits with 0', async () => {
    const { code, lines } = await visit({ SUBJECT_SECRET: SECRET });
    expect([code, toMend(lines)]).toEqual([
      0,
      [expect.stringMatching(/^warning {2}configuration: SUBJECT_SECRET is in SECRET too/)],
    ]);
  });

  it('the doctor answers unknown arguments with its usage, and exits with 1', async () => {
    for (const args of [['--help'], ['--pear', '10.0.3.7'], ['10.0.3.7'], ['--url']]) {
      const { code, lines } = await visit({}, ...args);
      expect([code, lines]).toEqual([1, [expect.stringMatching(/^FAULT {4}usage: npm run doctor -- /)]]);
    }
  });
});

describe('secrets', () => {
  it.each([
    ['a'.repeat(40), 'repeats itself'],
    ['abcabcabc'.repeat(5), 'repeats itself'],
    ['0123401243010324120341203412034120', 'few different characters'],
    ['xK9-my-very-SECRET-thing-Lm2-Qw8-Zt4', 'written by hand'],
    ['please-change-me-before-production-77', 'written by hand'],
  ])('the doctor warns of the weak secret %s', async (weak, words) => {
    const lines: string[] = [];
    const environment = {
      ...settings(),
      SECRET: `${SECRET},${weak}`,
      SUBJECT_SECRET: weak.split('').reverse().join(''),
    };
    await doctor({ environment, arguments: [], print: (line) => lines.push(line) });
    expect(linesOf(lines, 'secret')).toEqual([
      'ok       secret: SECRET, the 1. of its list, looks random',
      expect.stringMatching(`^warning  secret: SECRET, the 2. of its list, .*${words}`),
    ]);
    expect(lines.join('\n')).not.toContain(weak);
  });

  it('the doctor accepts secrets of openssl rand in hex and in base64', async () => {
    for (const random of [
      'b6c1d9e27f0a4385b6e19c72d0f8a43e',
      'q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=',
    ]) {
      const { lines } = await visit({ SECRET: random });
      expect([random, linesOf(lines, 'secret')]).toEqual([random, ['ok       secret: SECRET looks random']]);
    }
  });
});

describe('signing keys', () => {
  const keys = async (): Promise<string[]> => linesOf((await visit()).lines, 'signing_keys');

  it('the doctor prints the signing keys in order: the key to remove, the current key, and the next key', async () => {
    rmSync(folder, { recursive: true });
    folder = mkdtempSync(join(tmpdir(), 'otp-login-doctor-'));
    const oldest = putKey(minutesFromNow(-300), 'a');
    const current = putKey(minutesFromNow(-60), 'b');
    const next = putKey(minutesFromNow(20), 'c');
    expect(await keys()).toEqual([
      expect.stringMatching(
        `^ok .*${oldest} signs no more, and no token of it lives: its file can be removed`,
      ),
      expect.stringMatching(`^ok .*${current} signs, since`),
      expect.stringMatching(`^ok .*${next} will sign from`),
    ]);
  });

  it('the doctor keeps a signing key that was replaced minutes ago, because its tokens are still valid', async () => {
    putKey(minutesFromNow(-3), 'new');
    expect(await keys()).toEqual([
      expect.stringMatching(/^ok .*Z-key signs no more, and verifies the tokens that it signed/),
      expect.stringMatching(/^ok .*Z-new signs, since/),
    ]);
  });

  it('the doctor warns of a signing key that came less than 5 minutes before it signs', async () => {
    const soon = putKey(minutesFromNow(3), 'soon');
    expect((await keys())[1]).toMatch(
      new RegExp(`^warning .*${soon} will sign .* came less than 5 minutes before`),
    );
    const hourAgo = minutesFromNow(-60);
    utimesSync(join(folder, `${soon}.pem`), hourAgo, hourAgo);
    expect((await keys())[1]).toMatch(new RegExp(`^ok .*${soon} will sign`));
  });

  it('the doctor warns of an old signing key without a successor', async () => {
    rmSync(folder, { recursive: true });
    folder = mkdtempSync(join(tmpdir(), 'otp-login-doctor-'));
    putKey(minutesFromNow(-60 * 24 * 91));
    expect(await keys()).toEqual([expect.stringMatching(/^warning .* signs for 91 days: make a successor/)]);
    putKey(minutesFromNow(30), 'next');
    expect((await keys()).map((line) => line.slice(0, 2))).toEqual(['ok', 'ok']);
  });

  it('the doctor reports a missing signing key, a key before its time, and a key that cannot be read', async () => {
    rmSync(folder, { recursive: true });
    folder = mkdtempSync(join(tmpdir(), 'otp-login-doctor-'));
    expect(await keys()).toEqual([expect.stringMatching(/^FAULT .*holds no \.pem file/)]);
    putKey(minutesFromNow(30));
    expect(await keys()).toEqual([
      expect.stringMatching(/^warning .* signs, although its time has not come/),
    ]);
    writeFileSync(join(folder, '20260101T0000Z-broken.pem'), 'canary');
    const [line, ...more] = await keys();
    expect([line, more]).toEqual([expect.stringMatching(/^FAULT .*20260101T0000Z-broken\.pem/), []]);
    expect(line).not.toContain('canary');
  });
});

it('the doctor prints test numbers masked, with their last day and without their code', async () => {
  const { code, lines } = await visit({
    TEST_NUMBERS: '+910000000001:482913:2020-01-31,+910000000002:482914:2999-12-31,+910000000003:482915',
  });
  expect(code).toBe(0);
  expect(linesOf(lines, 'test_numbers')).toEqual([
    expect.stringMatching(/^warning .*1 of 3, \+91\*{6}0001, expired on 2020-01-31/),
    expect.stringMatching(/^ok .*2 of 3, \+91\*{6}0002, works until 2999-12-31/),
    expect.stringMatching(/^ok .*3 of 3, \+91\*{6}0003, never expires/),
  ]);
  expect(lines.join('\n')).not.toMatch(/48291\d|910000000/);
});

describe('the client address', () => {
  const counted = async (
    forwarded: string | undefined,
    peer = '10.0.3.7',
    TRUSTED_PROXIES = '10.0.0.0/8',
  ) => {
    const args = ['--peer', peer, ...(forwarded === undefined ? [] : ['--forwarded', forwarded])];
    const { lines } = await visit({ TRUSTED_PROXIES }, ...args);
    return linesOf(lines, 'client_address').join('\n');
  };

  it.each<[string, string | undefined, string, RegExp]>([
    [
      'named by a trusted proxy',
      '203.0.113.9, 10.0.1.2',
      '10.0.3.7',
      /^ok .* 203\.0\.113\.9 counts: a trusted proxy/,
    ],
    [
      'of the peer without a header',
      undefined,
      '10.0.3.7',
      /^ok .* 10\.0\.3\.7 counts: it is the peer, and there/,
    ],
    [
      'of a peer that is no trusted proxy',
      '203.0.113.9',
      '192.0.2.1',
      /^ok .* 192\.0\.2\.1 counts: .* is not believed/,
    ],
    ['with a port', '203.0.113.9:4711', '10.0.3.7', /^ok .* 203\.0\.113\.9 counts/],
    ['that is no address', 'unknown', '10.0.3.7', /^warning .* 10\.0\.3\.7 counts: .* is not an address/],
    [
      'of a second proxy that is not trusted',
      '203.0.113.9, 192.168.1.1',
      '10.0.3.7',
      /^warning .* 192\.168\.1\.1 counts: .* add it to TRUSTED_PROXIES/,
    ],
    ['of a proxy only', '10.0.0.1, 10.0.1.2', '10.0.3.7', /^warning .* 10\.0\.0\.1 counts: every address/],
    ['that is a name', '203.0.113.9', 'load-balancer', /^FAULT .*--peer must be the IP address/],
  ])(
    'the doctor prints which client address counts, and why: an address %s',
    async (_, forwarded, peer, expected) => {
      expect(await counted(forwarded, peer)).toMatch(expected);
    },
  );

  it('the doctor reports a fault when a header is given without its peer', async () => {
    const { lines } = await visit({}, '--forwarded', '203.0.113.9');
    expect(linesOf(lines, 'client_address')).toEqual([expect.stringMatching(/^FAULT .*--peer/)]);
  });

  it('without --peer the doctor prints the trusted proxies only', async () => {
    const { lines } = await visit({ TRUSTED_PROXIES: '10.0.0.0/8,192.0.2.1' });
    expect(linesOf(lines, 'client_address')).toEqual([]);
    expect(linesOf(lines, 'trusted_proxies')).toEqual([
      'ok       trusted_proxies: X-Forwarded-For is believed from 10.0.0.0/8, 192.0.2.1/32',
    ]);
  });
});

describe('a running service', () => {
  const asked = async (url: string, ADMIN: string | undefined = ADMIN_TOKEN): Promise<string> => {
    const { lines } = await visit({ ADMIN_TOKEN: ADMIN }, '--url', url);
    return linesOf(lines, 'service_address').join('\n');
  };
  let [withAdmin, without]: Instance[] = [];
  beforeAll(async () => {
    const start = (variables: Variables): Promise<Instance> =>
      startInstance({ ...settings(), JWT_KEYS_DIR: undefined, ...variables });
    [withAdmin, without] = await Promise.all([start(WITH_ADMIN), start({})]);
  });
  afterAll(() => Promise.all([withAdmin?.close(), without?.close()]));
  async function answering(status: number, body: string, headers = {}): Promise<string> {
    const server = createServer((_request, response) => response.writeHead(status, headers).end(body));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closing.push(() => server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  it('the doctor prints which client address a running service sees', async () => {
    expect(await asked(`${withAdmin!.url}/`)).toBe(
      'ok       service_address: Asked from here, 127.0.0.1 counts; the peer is 127.0.0.1, and there is no X-Forwarded-For',
    );
  });

  it('the doctor explains a running service that refuses the token or has no /admin', async () => {
    expect(await asked(withAdmin!.url, 'another-token')).toMatch(/^FAULT .* refuses ADMIN_TOKEN \(401\)/);
    expect(await asked(without!.url)).toMatch(
      /^FAULT .*\(404\): ADMIN_TOKENS is not set there, .* in front of it does not let \/admin through/,
    );
  });

  it.each(['login.example', 'ftp://login.example', 'https://user:word@login.example', 'https://x/?a=b', ''])(
    'the doctor refuses the URL %j for a running service',
    async (url) => {
      expect(await asked(url)).toMatch(/^FAULT .*--url must be an http or https URL/);
    },
  );

  it('the doctor asks no running service without a token or with an invalid token', async () => {
    for (const token of [undefined, '', '  ', 'canary\ntoken', 'canär'])
      expect(await visit({ ADMIN_TOKEN: token }, '--url', 'http://127.0.0.1:9')).toMatchObject({
        code: 1,
        lines: expect.arrayContaining([expect.stringMatching(/^FAULT .*ADMIN_TOKEN is not set/)]),
      });
  });

  it('the doctor reports a running service that it cannot reach', async () => {
    expect(await asked(`http://127.0.0.1:${await freePort()}`)).toMatch(
      /^FAULT .* not reached .*ECONNREFUSED/,
    );
  });

  it('the doctor does not follow a redirect with the token', async () => {
    const seen: unknown[] = [];
    const thief = createServer((request, response) => {
      seen.push(request.headers.authorization);
      response.end('{}');
    });
    await new Promise<void>((resolve) => thief.listen(0, '127.0.0.1', resolve));
    closing.push(() => thief.close());
    const location = `http://127.0.0.1:${(thief.address() as AddressInfo).port}/`;
    expect(await asked(await answering(302, '', { location }))).toMatch(/^FAULT .* answers 302/);
    expect(seen).toEqual([]);
  });

  it.each(['<html>', '[]', 'null', '{"peer":1}', '{"peer":"x","address":"y'.padEnd(40_000, 'z')])(
    'the doctor reports a server that is not this service (body %#)',
    async (body) => {
      expect(await asked(await answering(200, body))).toMatch(/^FAULT .* is not this service/);
    },
  );

  it('the doctor masks secrets that a server repeats', async () => {
    // visit() looks for them in every line of every test.
    const forwarded = [SECRET, SUBJECT_SECRET, API_KEY, ADMIN_TOKEN, 'a-password-of-redis'].join();
    const body = { peer: '10.0.0.1', forwarded, address: '10.0.0.2' };
    expect(await asked(await answering(200, JSON.stringify(body)))).toContain('"***,***,***,***,***"');
  });

  it('the doctor prints no control characters and at most 500 characters of a header', async () => {
    const body = { peer: '10.0.0.1', forwarded: `\u001b[2J\r\n${'x'.repeat(5_000)}`, address: '10.0.0.1' };
    const line = await asked(await answering(200, JSON.stringify(body)));
    expect(line).toMatch(/^warning .*"\?\[2J\?\?x+", which is not believed/);
    expect(line.length).toBeLessThan(800);
  });
});

describe('StartMessaging', () => {
  const contract = async (variables: Variables): Promise<string> =>
    linesOf((await visit(variables)).lines, 'startmessaging_contract').join('\n');

  it.each([
    ['caller', 'caller', /^ok .* speaks `caller`, as is configured/],
    ['provider', 'provider', /^ok .* speaks `provider`, as is configured/],
    ['caller', 'provider', /^FAULT .* is provider, but StartMessaging speaks caller .*Set it to caller\.$/],
    ['provider', 'caller', /^FAULT .* is caller, but StartMessaging speaks provider .*Set it to provider\.$/],
  ] as const)(
    'the doctor compares the contract %s of StartMessaging with the configured contract %s',
    async (spoken, configured, expected) => {
      upstream.settings.contract = spoken;
      expect(await contract({ STARTMESSAGING_CONTRACT: configured })).toMatch(expected);
      // No SMS was asked for, let alone paid.
      expect(upstream.messages).toEqual([]);
      expect(upstream.calls.map(({ method, path }) => `${method} ${path}`)).toEqual([
        'GET /wallet',
        'POST /otp/verify',
      ]);
    },
  );

  it.each(['caller', 'provider'] as const)(
    'the doctor reports an API key that StartMessaging refuses under the %s contract',
    async (spoken) => {
      upstream.settings.contract = spoken;
      const { code, lines } = await visit({
        STARTMESSAGING_API_KEY: 'canary-key',
        STARTMESSAGING_CONTRACT: spoken,
      });
      expect(code).toBe(1);
      expect(lines.join('\n')).toMatch(/FAULT .*STARTMESSAGING_API_KEY is wrong or suspended/);
      expect(lines.join('\n')).not.toContain('canary-key');
    },
  );

  it('the doctor reports a StartMessaging that it cannot reach', async () => {
    const STARTMESSAGING_BASE_URL = `http://127.0.0.1:${await freePort()}`;
    expect(await contract({ STARTMESSAGING_BASE_URL })).toMatch(/^FAULT .* cannot be reached/);
  });

  it.each([
    [{ kind: 'timeout' }, /^FAULT .* not answered within UPSTREAM_TIMEOUT_MS/],
    [{ kind: 'reset' }, /^FAULT .* failed/],
    [{ kind: 'raw', status: 500, body: 'canary' }, /^FAULT .* failed \(500\)/],
    [{ kind: 'raw', status: 302, body: '' }, /^FAULT .* answered with 302/],
    [{ kind: 'raw', status: 429, body: '' }, /^warning .* throttled/],
    [
      { kind: 'raw', status: 200, body: { data: { verified: true } } },
      /^FAULT .* calls an invented code right/,
    ],
    [{ kind: 'raw', status: 400, body: { error: { code: 'OTP_INVALID' } } }, /^ok .* speaks `provider`/],
  ] as const)('the doctor asks StartMessaging once and explains the response %j', async (fault, expected) => {
    upstream.fault({ on: 'verify', fault });
    // Only the first of them never answers.
    const line = await contract(fault.kind === 'timeout' ? { UPSTREAM_TIMEOUT_MS: '1000' } : {});
    expect(line).toMatch(expected);
    expect(line).not.toContain('canary');
    expect(upstream.calls.filter(({ path }) => path === '/otp/verify')).toHaveLength(1);
  });

  it('the doctor warns of a server that may not be StartMessaging, because it has no wallet', async () => {
    for (const on of ['verify', 'wallet'] as const)
      upstream.fault({ on, fault: { kind: 'raw', status: 404, body: '<html>nginx</html>' } });
    expect(await contract({})).toMatch(/^warning .* has no wallet: is STARTMESSAGING_BASE_URL/);
  });

  it('the doctor prints the balance of the wallet, and warns of an empty wallet', async () => {
    const wallet = async (): Promise<string> =>
      linesOf((await visit()).lines, 'startmessaging_wallet').join('\n');
    expect(await wallet()).toMatch(/^ok .* holds Rs 100\.00 \(100 INR, in rupees: assumed, because no SMS/);
    upstream.settings.walletUnit = 'millionths';
    expect(await wallet()).toMatch(/^ok .* holds Rs 100\.00 \(100000000 INR, in micro_rupees: assumed/);
    upstream.settings.walletUnit = 'rupees';
    upstream.settings.balance = 99;
    expect(await wallet()).toMatch(/^warning .* holds Rs 99\.00 .* below WALLET_ALERT_PAISE: recharge it/);
    upstream.settings.balance = 0;
    expect(await wallet()).toMatch(/^warning .* wallet is empty \(0\)/);
    upstream.fault({ on: 'wallet', fault: { kind: 'error', status: 403, code: 'FORBIDDEN' } });
    expect(await wallet()).toMatch(
      /^warning .*GET \/wallet is refused \(403\).* estimates the balance by its ledger/,
    );
    upstream.fault({ on: 'wallet', fault: { kind: 'raw', status: 404, body: '' } });
    expect(await wallet()).toMatch(
      /^warning .*GET \/wallet is answered with 404.*estimates the balance by its ledger: it has never read/,
    );
  });
});

describe('Redis', () => {
  const found = async (REDIS_URL: string | undefined): Promise<string[]> =>
    (await visit({ REDIS_URL })).lines.filter((line) => line.includes(' redis_'));

  it('the doctor reports a Redis that it cannot reach, with its address', async () => {
    const { lines } = await inVain;
    expect(lines.filter((line) => line.includes(' redis_'))).toEqual([
      expect.stringMatching(`^FAULT .*not reached at ${nowhere} \\(.*ECONNREFUSED`),
    ]);
  });

  it('the doctor reports a Redis that refuses the password', async () => {
    for (const credentials of [':canary-password@', '']) {
      const lines = await found(`redis://${credentials}127.0.0.1:${redis.port}`);
      expect(lines).toEqual([expect.stringMatching(/^FAULT .*not reached .*(WRONGPASS|NOAUTH)/)]);
      expect(lines.join('')).not.toContain('canary');
    }
  });

  it('the doctor warns of a Redis that evicts keys', async () => {
    const { REDIS_URL = '' } = settings();
    const client = new Redis(REDIS_URL);
    closing.push(async () => {
      await client.config('SET', 'maxmemory-policy', 'noeviction');
      client.disconnect();
    });
    await client.config('SET', 'maxmemory-policy', 'volatile-lru');
    expect(toMend(await found(REDIS_URL))).toEqual([
      expect.stringMatching(/^warning {2}redis_eviction: Redis evicts keys .*volatile-lru/),
    ]);
  });

  it('the doctor needs no checks for the embedded store', async () => {
    expect(await found(undefined)).toEqual([expect.stringMatching(/^ok .*REDIS_URL is not set/)]);
  });

  it('the doctor reports a database that Redis refuses, and a user without a right, as faults', async () => {
    const { REDIS_URL = '' } = settings();
    expect(toMend(await found(`${REDIS_URL}/99`))).toEqual([
      expect.stringMatching(/^FAULT {4}redis_reached: .*Redis refuses database 99 of REDIS_URL/),
    ]);
    const owner = new Redis(REDIS_URL);
    await owner.call('ACL', 'SETUSER', 'narrow', 'on', '>password', '~other:*', '+@all');
    owner.disconnect();
    const narrow = REDIS_URL.replace(/\/\/.*@/, '//narrow:password@');
    expect(toMend(await found(narrow))).toContainEqual(
      expect.stringMatching(/^FAULT {4}redis_scripts: Redis refuses the scripts of the service \(NOPERM\)/),
    );
  });
});
