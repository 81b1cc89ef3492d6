import { createHash, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  verifyOtp,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret';
const BASIC = { authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}` };

let world: World;
let raw: Redis;
let other: string;
let keys: string;
const extra: Instance[] = [];

beforeAll(async () => {
  // One signing key for all instances, as in production.
  keys = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(join(keys, '20250101T0000Z-test.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  world = await startWorld({
    variables: {
      INTROSPECTION_CLIENTS: INTROSPECTOR,
      TRUSTED_PROXIES: '127.0.0.0/8',
      JWT_KEYS_DIR: keys,
    },
    count: 2,
  });
  raw = new Redis(world.redis.url);
  other = world.instances[1]?.url ?? '';
});
afterEach(async () => {
  await Promise.all(extra.splice(0).map((instance) => instance.close()));
});
afterAll(async () => {
  raw.disconnect();
  await world.close();
  rmSync(keys, { recursive: true });
});

/** One more instance over the same Redis, until the end of the test. */
async function another(variables: Variables): Promise<string> {
  const instance = await startInstance({
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
    JWT_KEYS_DIR: keys,
    ...variables,
  });
  extra.push(instance);
  return instance.url;
}

const refresh = (refreshToken: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });
const me = (token: unknown, url = world.url): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(token));
const told = ({ status, body }: Answer): unknown[] => [status, body.code];

interface Claims {
  sub: string;
  sid: string;
  jti: string;
  iat: number;
  auth_time: number;
}
const claims = (token: unknown): Claims =>
  JSON.parse(Buffer.from(String(token).split('.')[1] ?? '', 'base64url').toString()) as Claims;

/** The key of the session that an access token belongs to. */
function recordOf({ body }: Answer): string {
  const { sub, sid } = claims(body.accessToken);
  return `otp-login:{${sub}}:session:${sid}`;
}

/** Moves a time in the record into the past, as if that much of it had gone by. */
async function age(record: string, field: 'authenticated' | 'rotated', ms: number): Promise<void> {
  await redisCommand(world, 'HINCRBY', record, field, String(-ms));
}

async function loginAs(headers: Record<string, string>, phoneNumber = freshNumber()): Promise<Answer> {
  const sent = await sendOtp(world.url, phoneNumber);
  return verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber), headers);
}

interface Listed {
  id: string;
  device: string;
  address: string;
}
async function listed({ body }: Answer, url = world.url): Promise<Listed[]> {
  const answer = await call('GET', `${url}/auth/sessions`, undefined, bearer(body.accessToken));
  return answer.body.sessions as Listed[];
}

/** The commands that clients sent, those inside scripts left out. */
async function commandsOf(step: () => Promise<unknown>): Promise<string[]> {
  const connection = raw.duplicate();
  const monitor = await connection.monitor();
  const seen: string[] = [];
  // What became of codes, and the audit, are written off every request's path: they may come at any time.
  const WRITTEN_BEHIND = ['otp-login:{admission}:ledger', 'otp-login:{audit}:events'];
  monitor.on('monitor', (_time: string, [name = '', , , key = '']: string[], source: string) => {
    if (WRITTEN_BEHIND.includes(key)) return;
    if (source !== 'lua') seen.push(name.toLowerCase());
  });
  await step();
  await raw.ping();
  await sleep(100);
  monitor.disconnect();
  connection.disconnect();
  return seen.filter((name) => !['ping', 'info', 'monitor'].includes(name));
}

describe('the life of a session', () => {
  const IDLE = 1_000;
  const MAX = 5_000;

  /** What Redis has left to it, against what the two limits leave. In milliseconds, both by the store's clock. */
  async function expectTimeLeft(answer: Answer): Promise<number> {
    const record = recordOf(answer);
    const [ends, authenticated, used] = [
      Number(await redisCommand(world, 'PEXPIRETIME', record)),
      Number(await raw.hget(record, 'authenticated')),
      Number((await raw.hget(record, 'rotated')) ?? (await raw.hget(record, 'authenticated'))),
    ];
    const expected = Math.min(used + IDLE * 1_000, authenticated + MAX * 1_000);
    // A script's own steps take a moment.
    expect(Math.abs(ends - expected)).toBeLessThanOrEqual(20);
    expect(Math.abs(answer.body.refreshExpiresIn - (ends - used) / 1_000)).toBeLessThanOrEqual(1);
    expect(answer.body.refreshExpiresIn).toBeLessThanOrEqual((ends - used + 20) / 1_000);
    return ends - used;
  }

  it('is in Redis what is left of it, after opening and after each refresh', async () => {
    const url = await another({
      SESSION_IDLE_TTL_SECONDS: String(IDLE),
      SESSION_MAX_TTL_SECONDS: String(MAX),
    });
    let answer = await login(world, freshNumber(), url);
    expect(await expectTimeLeft(answer)).toBeGreaterThan(IDLE * 1_000 - 100);
    for (const gone of [900, 900, 900, 900, 900]) {
      await age(recordOf(answer), 'authenticated', gone * 1_000);
      answer = await refresh(answer.body.refreshToken, url);
      expect(answer.status).toBe(200);
      await expectTimeLeft(answer);
    }
    // 4,500 of 5,000 seconds are gone: the idle limit reaches beyond the absolute one and does not count.
    const left = await expectTimeLeft(answer);
    expect(left).toBeLessThanOrEqual(500_000);
    expect(left).toBeGreaterThan(490_000);
    // The parent within its grace is told what is left now, and prolongs nothing.
    await raw.pexpire(recordOf(answer), 100_000);
    const again = await refresh(answer.body.refreshToken, url);
    await raw.pexpire(recordOf(again), 50_000);
    const repeat = await refresh(answer.body.refreshToken, url);
    expect(repeat.body.refreshExpiresIn).toBeLessThanOrEqual(50);
    expect(await raw.pttl(recordOf(again))).toBeLessThanOrEqual(50_000);
  });

  it('ends with the absolute limit, however busy it is', async () => {
    const url = await another({
      SESSION_IDLE_TTL_SECONDS: String(IDLE),
      SESSION_MAX_TTL_SECONDS: String(MAX),
    });
    const answer = await login(world, freshNumber(), url);
    await age(recordOf(answer), 'authenticated', MAX * 1_000);
    expect(told(await refresh(answer.body.refreshToken, url))).toEqual([401, 'session_expired']);
    expect(await raw.hget(recordOf(answer), 'counter')).toBe('0');
  });

  it('ends by itself at both limits, in real time', async () => {
    const url = await another({ SESSION_IDLE_TTL_SECONDS: '2', SESSION_MAX_TTL_SECONDS: '4' });
    const [idle, busy] = [await login(world, freshNumber(), url), await login(world, freshNumber(), url)];
    const opened = Date.now();
    let token = busy.body.refreshToken as string;
    for (const second of [1, 2, 3]) {
      await sleep(opened + second * 1_000 - Date.now());
      const answer = await refresh(token, url);
      expect(answer.status).toBe(200);
      token = answer.body.refreshToken as string;
    }
    expect(told(await refresh(idle.body.refreshToken, url))).toEqual([401, 'session_expired']);
    expect(told(await me(idle.body.accessToken, url))).toEqual([401, 'session_expired']);
    await sleep(opened + 4_050 - Date.now());
    expect(told(await refresh(token, url))).toEqual([401, 'session_expired']);
    expect(told(await me(busy.body.accessToken, url))).toEqual([401, 'session_expired']);
  });

  it('leaves who, which and since when as they are, over five refreshes at two instances', async () => {
    const first = await login(world);
    const { sub, sid, auth_time } = claims(first.body.accessToken);
    const seen = [first];
    for (let i = 0; i < 5; i++) {
      const answer = await refresh(seen.at(-1)?.body.refreshToken, i % 2 ? world.url : other);
      expect(answer.status).toBe(200);
      seen.push(answer);
    }
    const all = seen.map(({ body }) => claims(body.accessToken));
    for (const each of all) expect(each).toMatchObject({ sub, sid, auth_time });
    expect(new Set(all.map(({ jti }) => jti)).size).toBe(6);
    expect(new Set(seen.map(({ body }) => body.refreshToken as string)).size).toBe(6);
    expect(sub).toBe(first.body.user.id);
    const record = await raw.hget(recordOf(first), 'authenticated');
    expect(auth_time).toBe(Math.floor(Number(record) / 1_000));
  });
});

describe('the sessions of a user', () => {
  it('are never more than SESSIONS_PER_USER, over logins that race at two instances', async () => {
    const [one, two] = [await another({ SESSIONS_PER_USER: '3' }), await another({ SESSIONS_PER_USER: '3' })];
    const phoneNumber = freshNumber();
    // A newer code voids the one before it, so racing logins try again until they are in: each time after a longer
    // and random wait, or on a slow machine none would ever come through.
    const logIn = async (url: string): Promise<Answer> => {
      for (let tries = 0; tries < 60; tries++) {
        const answer = await login(world, phoneNumber, url);
        if (answer.status === 200) return answer;
        await sleep(Math.random() * 50 * (tries + 1));
      }
      throw new Error('A login never came through');
    };
    const logins = await Promise.all(Array.from({ length: 10 }, (_, i) => logIn(i % 2 ? one : two)));
    const { sub } = claims(logins[0]?.body.accessToken);
    const index = await raw.zrange(`otp-login:{${sub}}:sessions`, 0, -1);
    expect(index).toHaveLength(3);
    for (const answer of logins) {
      const expected = index.includes(claims(answer.body.accessToken).sid) ? 200 : 401;
      expect((await refresh(answer.body.refreshToken, one)).status).toBe(expected);
    }
    // By the store's clock the three are the newest.
    const byAge = logins.map(({ body }) => claims(body.accessToken)).sort((a, b) => b.iat - a.iat);
    const ended = byAge.filter(({ sid }) => !index.includes(sid));
    for (const { auth_time } of ended)
      expect(auth_time).toBeLessThanOrEqual(
        Math.min(...byAge.filter(({ sid }) => index.includes(sid)).map((kept) => kept.auth_time)),
      );
  });

  it('end with the oldest, whichever was used last, and say that they were ended', async () => {
    const url = await another({ SESSIONS_PER_USER: '2' });
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber, url);
    const second = await login(world, phoneNumber, url);
    const used = await refresh(first.body.refreshToken, url);
    const third = await login(world, phoneNumber, url);
    expect(told(await refresh(used.body.refreshToken, url))).toEqual([401, 'session_revoked']);
    expect(told(await me(used.body.accessToken, url))).toEqual([401, 'session_revoked']);
    expect((await refresh(second.body.refreshToken, url)).status).toBe(200);
    expect((await refresh(third.body.refreshToken, url)).status).toBe(200);
  });

  it('that went idle push no living one out, and are not listed', async () => {
    const url = await another({ SESSIONS_PER_USER: '2' });
    const phoneNumber = freshNumber();
    const living = await login(world, phoneNumber, url);
    const idle = await login(world, phoneNumber, url);
    await raw.pexpire(recordOf(idle), 1);
    await sleep(10);
    expect((await listed(living, url)).map(({ id }) => id)).toEqual([claims(living.body.accessToken).sid]);
    const newest = await login(world, phoneNumber, url);
    expect((await refresh(living.body.refreshToken, url)).status).toBe(200);
    expect((await refresh(newest.body.refreshToken, url)).status).toBe(200);
    expect(told(await refresh(idle.body.refreshToken, url))).toEqual([401, 'session_expired']);
  });
});

describe('a refresh token that was used', () => {
  it('gives its successor byte for byte until the grace interval is over, and no later', async () => {
    const first = await login(world);
    const next = await refresh(first.body.refreshToken);
    await age(recordOf(first), 'rotated', 59_000);
    const again = await refresh(first.body.refreshToken, other);
    expect([again.status, again.body.refreshToken]).toEqual([200, next.body.refreshToken]);
    await age(recordOf(first), 'rotated', 2_000);
    expect(told(await refresh(first.body.refreshToken))).toEqual([401, 'refresh_token_reused']);
    for (const token of [first.body.refreshToken, next.body.refreshToken])
      expect(told(await refresh(token, other))).toEqual([401, 'session_revoked']);
    for (const { body } of [first, next, again])
      expect(told(await me(body.accessToken, other))).toEqual([401, 'session_revoked']);
  });

  it('counts its grace from its rotation, not from its last repeat', async () => {
    const first = await login(world);
    await refresh(first.body.refreshToken);
    const rotated = await raw.hget(recordOf(first), 'rotated');
    for (let i = 0; i < 3; i++) expect((await refresh(first.body.refreshToken)).status).toBe(200);
    expect(await raw.hget(recordOf(first), 'rotated')).toBe(rotated);
  });

  it('ends the session for both holders when a thief was first', async () => {
    const owner = await login(world);
    const thief = await refresh(owner.body.refreshToken, other);
    const thiefs = await refresh(thief.body.refreshToken, other);
    expect(thiefs.status).toBe(200);
    expect(told(await refresh(owner.body.refreshToken))).toEqual([401, 'refresh_token_reused']);
    expect(told(await refresh(thiefs.body.refreshToken, other))).toEqual([401, 'session_revoked']);
    expect(told(await me(thiefs.body.accessToken, other))).toEqual([401, 'session_revoked']);
  });
});

it('an ended session is told apart for one access-token life, and then it has expired', async () => {
  const url = await another({ ACCESS_TOKEN_TTL_SECONDS: '2', REFRESH_GRACE_SECONDS: '1' });
  const { body } = await login(world, freshNumber(), url);
  expect((await call('POST', `${url}/auth/logout`, { refreshToken: body.refreshToken })).status).toBe(204);
  const ended = Date.now();
  expect(told(await refresh(body.refreshToken, url))).toEqual([401, 'session_revoked']);
  await sleep(ended + 1_500 - Date.now());
  expect(told(await refresh(body.refreshToken, url))).toEqual([401, 'session_revoked']);
  await sleep(ended + 2_100 - Date.now());
  expect(told(await refresh(body.refreshToken, url))).toEqual([401, 'session_expired']);
  expect(told(await me(body.accessToken, url))).toEqual([401, 'unauthenticated']);
});

describe('after a failover that lost rotations', () => {
  const loseRotations = (answer: Answer, count: number): Promise<unknown> =>
    redisCommand(world, 'HINCRBY', recordOf(answer), 'counter', String(-count));

  it('an authentic token one step ahead is taken, and its own successors go on', async () => {
    const first = await login(world);
    const ahead = await refresh(first.body.refreshToken);
    await loseRotations(first, 1);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => refresh(ahead.body.refreshToken, i % 2 ? world.url : other)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const successors = new Set(answers.map(({ body }) => body.refreshToken as string));
    expect(successors.size).toBe(1);
    let [token = ''] = successors;
    expect([first.body.refreshToken, ahead.body.refreshToken]).not.toContain(token);
    for (let i = 0; i < 3; i++) {
      const next = await refresh(token, i % 2 ? world.url : other);
      expect([next.status, claims(next.body.accessToken).sid]).toEqual([
        200,
        claims(first.body.accessToken).sid,
      ]);
      token = next.body.refreshToken as string;
    }
    expect(await raw.hget(recordOf(first), 'counter')).toBe('5');
  });

  it('one that is two steps ahead is invalid, and ends nothing', async () => {
    const first = await login(world);
    const second = await refresh(first.body.refreshToken);
    const third = await refresh(second.body.refreshToken);
    await loseRotations(first, 2);
    expect(told(await refresh(third.body.refreshToken))).toEqual([401, 'refresh_token_invalid']);
    expect(await raw.hget(recordOf(first), 'counter')).toBe('0');
    // Whoever holds the older one, one step ahead, goes on.
    expect((await refresh(second.body.refreshToken)).status).toBe(200);
    expect((await me(third.body.accessToken)).status).toBe(200);
  });
});

describe('Redis', () => {
  const form = (path: string, fields: Record<string, string>): Promise<Answer> =>
    call('POST', `${world.url}/oauth/${path}`, new URLSearchParams(fields).toString(), {
      'content-type': 'application/x-www-form-urlencoded',
      ...BASIC,
    });

  /** Tokens that look like ours in every way but one. */
  function forgeries(token: string): string[] {
    const [sub = '', sid = '', counter = '', secret = '', mac = ''] = token.split('.');
    const dotted = (...parts: string[]): string => parts.join('.');
    const flipped = (text: string): string => (text.startsWith('A') ? 'B' : 'A') + text.slice(1);
    return [
      dotted(sub, sid, String(Number(counter) + 1), secret, mac),
      dotted(sub, sid, String(Number(counter) - 1), secret, mac),
      dotted(flipped(sub), sid, counter, secret, mac),
      dotted(sub, flipped(sid), counter, secret, mac),
      dotted(sid, sub, counter, secret, mac),
      dotted(sub, sid, counter, flipped(secret), mac),
      dotted(sub, sid, counter, secret, flipped(mac)),
      dotted(sub, sid, counter, secret, ''),
      dotted(sub, sid, `0${counter}`, secret, mac),
      dotted(sub, sid, `${counter}e0`, secret, mac),
      dotted(sub, sid, '9'.repeat(40), secret, mac),
      `${token}.`,
      `${token}\n`,
      `${token}=`,
      '.'.repeat(200),
      'A'.repeat(1_024),
      'A'.repeat(10_000),
    ];
  }

  it('is never asked about a forged token, and a forgery ends nothing', async () => {
    const { body } = await login(world);
    const forged = forgeries(body.refreshToken as string);
    const seen = await commandsOf(async () => {
      for (const token of forged) {
        expect(told(await refresh(token))).toEqual([401, 'refresh_token_invalid']);
        const answer = await form('token', { grant_type: 'refresh_token', refresh_token: token });
        expect([answer.status, answer.body.error]).toEqual([400, 'invalid_grant']);
        expect((await form('introspect', { token })).body).toEqual({ active: false });
        expect((await form('revoke', { token })).status).toBe(200);
        expect((await call('POST', `${world.url}/auth/logout`, { refreshToken: token })).status).toBe(204);
      }
    });
    expect(seen).toEqual([]);
    expect((await refresh(body.refreshToken)).status).toBe(200);
  });

  it('is asked once for a refresh, a repeat of it, and an introspection', async () => {
    const warm = await login(world);
    await refresh(warm.body.refreshToken);
    const { body } = await login(world);
    expect(await commandsOf(() => refresh(body.refreshToken))).toEqual(['evalsha']);
    expect(await commandsOf(() => refresh(body.refreshToken))).toEqual(['evalsha']);
    const access = body.accessToken as string;
    expect(await commandsOf(() => form('introspect', { token: access }))).toHaveLength(1);
    const { body: next } = await refresh(body.refreshToken);
    const token = next.refreshToken as string;
    expect(await commandsOf(() => form('introspect', { token }))).toHaveLength(1);
    expect((await form('introspect', { token })).body.active).toBe(true);
  });

  it('holds nothing that could be replayed', async () => {
    const address = '203.0.113.77';
    const first = await loginAs({ 'x-forwarded-for': address, 'user-agent': 'canary-agent/1 (canary)' });
    const second = await refresh(first.body.refreshToken);
    await refresh(first.body.refreshToken, other);
    const ended = await login(world);
    await call('POST', `${world.url}/auth/logout`, { refreshToken: ended.body.refreshToken });

    const parts: string[] = [];
    for (const key of await raw.keys('*')) {
      const type = await raw.type(key);
      parts.push(
        key,
        JSON.stringify(
          type === 'hash'
            ? await raw.hgetall(key)
            : type === 'stream'
              ? await raw.xrange(key, '-', '+')
              : type === 'zset'
                ? await raw.zrange(key, 0, -1)
                : type === 'list'
                  ? await raw.lrange(key, 0, -1)
                  : await raw.get(key),
        ),
      );
    }
    const text = parts.join('\n');
    expect(text).toContain(claims(first.body.accessToken).sid);
    expect(text).not.toContain(address);
    expect(text).not.toContain('canary');
    for (const { body } of [first, second, ended]) {
      const token = body.refreshToken as string;
      const mac = token.slice(-43);
      const signature = (body.accessToken as string).split('.')[2] ?? '';
      for (const secret of [token, mac, signature]) {
        const bytes = Buffer.from(secret, 'base64url');
        const hash = createHash('sha256').update(secret).digest();
        expect(text).not.toContain(secret);
        expect(text).not.toContain(secret.slice(-12));
        for (const encoding of ['hex', 'base64', 'base64url'] as const) {
          expect(text).not.toContain(bytes.toString(encoding).slice(-16));
          expect(text).not.toContain(hash.toString(encoding).slice(0, 16));
        }
      }
      expect(text).not.toContain(claims(body.accessToken).jti);
    }
  });
});

describe('the device of a session', () => {
  const CHROME = 'AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0';
  it.each([
    [`Mozilla/5.0 (Linux; Android 10; K) ${CHROME} Mobile Safari/537.36`, 'Chrome on Android'],
    [`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${CHROME} Safari/537.36`, 'Chrome on Windows'],
    [
      `Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${CHROME} Safari/537.36 Edg/139.0.0.0`,
      'Microsoft Edge on Windows',
    ],
    [
      'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1',
      'Safari on iOS',
    ],
    [
      'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15',
      'Safari on macOS',
    ],
    ['Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0', 'Firefox on Linux'],
    [
      `Mozilla/5.0 (Linux; Android 13; SM-A536E) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36`,
      'Samsung Internet for Android on Android',
    ],
    [
      'Mozilla/5.0 (Linux; U; Android 12; en-in; M2101K6P Build/SKQ1) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.127 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.4.0',
      'Miui on Android',
    ],
  ])('of %s is %s', async (userAgent, device) => {
    const answer = await loginAs({ 'user-agent': userAgent });
    expect((await listed(answer))[0]?.device).toBe(device);
  });

  it.each([
    ['10 KB', 'A'.repeat(10_000)],
    ['10 KB of a product', `${'canary'.repeat(1_600)}/1.0 (x)`],
    ['markup', '<script>alert("canary")</script>/1.0 (x)'],
    ['a text for the owner to believe', 'Your own phone canary/1.0 (x)'],
    ['control characters', 'canary\u0085\u009b31m\t\u0080/1.0 (x)'],
    ['the right-to-left bytes of UTF-8', 'canary\u00e2\u0080\u00ae/1.0 (x)'],
    ['slashes and spaces', '/ '.repeat(4_000)],
    ['nested brackets', `${'('.repeat(4_000)}${')'.repeat(4_000)}`],
    ['digits and dots', `Version/${'1.'.repeat(4_000)}`],
    ['names over names', 'Mozilla/5.0 (Android MSIE Opera '.repeat(300)],
    ['spaces', `x${' '.repeat(9_000)}y`],
  ])('of a hostile user agent (%s) is short, plain and not its text', async (_, userAgent) => {
    const started = Date.now();
    const answer = await loginAs({ 'user-agent': userAgent });
    expect(answer.status).toBe(200);
    expect(Date.now() - started).toBeLessThan(2_000);
    const [session] = await listed(answer);
    expect(session?.device).toMatch(/^[A-Za-z][A-Za-z0-9 .]{0,39}$/);
    expect(session?.device).not.toMatch(/canary|script|A{5}/);
  });
});

describe('the address of a session behind TRUSTED_PROXIES', () => {
  it.each([
    ['203.0.113.77', '203.0.113.0/24'],
    ['198.51.100.255', '198.51.100.0/24'],
    ['::ffff:198.51.100.7', '198.51.100.0/24'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1::/48'],
    ['2001:0DB8:0ABC::5', '2001:db8:abc::/48'],
    ['192.0.2.1, 203.0.113.9', '203.0.113.0/24'],
    ['192.0.2.1, 203.0.113.9, 127.0.0.7', '203.0.113.0/24'],
    ['<script>, 203.0.113.9', '203.0.113.0/24'],
    ['203.0.113.9, garbage', '127.0.0.0/24'],
  ])('given as %s is %s', async (forwarded, address) => {
    const answer = await loginAs({ 'x-forwarded-for': forwarded });
    expect((await listed(answer))[0]?.address).toBe(address);
    expect(await raw.hget(recordOf(answer), 'address')).toBe(address);
  });
});
