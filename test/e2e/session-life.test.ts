import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { withoutHang } from '../support/hang';
import { commandsDuring } from '../support/redis-monitor';
import { KEYS, keysOfUser } from '../support/keys';
import { contentsOf } from '../support/redis-contents';
import { newSigningKey } from '../support/signing-keys';
import { bearer, claimsOf, sessionKeyOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const BASIC = { authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}` };

let world: World;
let raw: Redis;
let other: string;
let keys: string;
const extra: Instance[] = [];

beforeAll(async () => {
  // One signing key for all instances, as in production.
  keys = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  writeFileSync(join(keys, '20250101T0000Z-test.pem'), newSigningKey());
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
  const instance = await anotherInstance(world, { JWT_KEYS_DIR: keys, ...variables });
  extra.push(instance);
  return instance.url;
}

const refresh = (refreshToken: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const me = (token: unknown, url = world.url): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(token));
/** Moves a time in the record into the past, as if that much of it had gone by. */
async function age(record: string, field: 'authenticated' | 'rotated', ms: number): Promise<void> {
  await raw.hincrby(record, field, -ms);
}

/** The time to live of a session's record has run out. */
async function letExpire(answer: Answer): Promise<void> {
  await raw.pexpire(sessionKeyOf(answer), 1);
  await until(async () => (await raw.exists(sessionKeyOf(answer))) === 0, 'the end of the record');
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

/** The commands that clients sent, without the batches that are written off the path of every request. */
async function commandsOf(step: () => Promise<unknown>): Promise<string[]> {
  const writtenBehind: (string | undefined)[] = [KEYS.ledger, KEYS.audit];
  const seen = await commandsDuring(world.redis.url, step);
  return seen.filter(({ args: [, , key] }) => !writtenBehind.includes(key)).map(({ name }) => name);
}

describe('the life of a session', () => {
  const IDLE = 1_000;
  const MAX = 5_000;

  /** Redis keeps the record until the nearer of the two limits, and the answer says the same. Returns what was left. */
  async function expectTimeLeft(answer: Answer): Promise<number> {
    const record = sessionKeyOf(answer);
    const ends = await raw.pexpiretime(record);
    const authenticated = Number(await raw.hget(record, 'authenticated'));
    const used = Number((await raw.hget(record, 'rotated')) ?? authenticated);
    const left = Math.min(IDLE * 1_000, authenticated + MAX * 1_000 - used);
    expect(answer.body.refreshExpiresIn).toBe(Math.floor(left / 1_000));
    // Between the limits lie hundreds of seconds; a script and the clock of Redis may be some apart.
    expect(Math.abs(ends - used - left)).toBeLessThan(60_000);
    return left;
  }

  it('the record of a session lives in Redis until the nearer of its idle and its absolute limit', async () => {
    const url = await another({
      SESSION_IDLE_TTL_SECONDS: String(IDLE),
      SESSION_MAX_TTL_SECONDS: String(MAX),
    });
    let answer = await login(world, freshNumber(), url);
    expect(await expectTimeLeft(answer)).toBe(IDLE * 1_000);
    for (let gone = 900; gone <= 4_500; gone += 900) {
      await age(sessionKeyOf(answer), 'authenticated', 900_000);
      answer = await refresh(answer.body.refreshToken, url);
      expect(answer.status).toBe(200);
      // In the last of these rounds the idle limit reaches beyond the absolute one.
      expect(await expectTimeLeft(answer)).toBeLessThanOrEqual((MAX - gone) * 1_000);
    }
    // The parent within its grace is told what is left now, and prolongs nothing.
    await raw.pexpire(sessionKeyOf(answer), 100_000);
    const again = await refresh(answer.body.refreshToken, url);
    await raw.pexpire(sessionKeyOf(again), 50_000);
    const repeat = await refresh(answer.body.refreshToken, url);
    expect(repeat.body.refreshExpiresIn).toBeLessThanOrEqual(50);
    expect(await raw.pttl(sessionKeyOf(again))).toBeLessThanOrEqual(50_000);
  });

  it('a session ends at its absolute limit although it is used', async () => {
    const url = await another({
      SESSION_IDLE_TTL_SECONDS: String(IDLE),
      SESSION_MAX_TTL_SECONDS: String(MAX),
    });
    const answer = await login(world, freshNumber(), url);
    await age(sessionKeyOf(answer), 'authenticated', MAX * 1_000);
    expect(statusAndCode(await refresh(answer.body.refreshToken, url))).toEqual([401, 'session_expired']);
    expect(await raw.hget(sessionKeyOf(answer), 'counter')).toBe('0');
  });

  it('a session has expired when the time to live of its record has run out', async () => {
    const { body, ...answer } = await login(world);
    await letExpire({ body, ...answer });
    for (const url of [world.url, other]) {
      expect(statusAndCode(await refresh(body.refreshToken, url))).toEqual([401, 'session_expired']);
      expect(statusAndCode(await me(body.accessToken, url))).toEqual([401, 'session_expired']);
    }
  });

  it('five refreshes at two instances keep sub, sid and auth_time', async () => {
    const first = await login(world);
    const { sub, sid, auth_time } = claimsOf(first.body.accessToken);
    const seen = [first];
    for (let i = 0; i < 5; i++) {
      const answer = await refresh(seen.at(-1)?.body.refreshToken, i % 2 ? world.url : other);
      expect(answer.status).toBe(200);
      seen.push(answer);
    }
    const all = seen.map(({ body }) => claimsOf(body.accessToken));
    for (const each of all) expect(each).toMatchObject({ sub, sid, auth_time });
    expect(new Set(all.map(({ jti }) => jti)).size).toBe(6);
    expect(new Set(seen.map(({ body }) => body.refreshToken as string)).size).toBe(6);
    expect(sub).toBe(first.body.user.id);
    const record = await raw.hget(sessionKeyOf(first), 'authenticated');
    expect(auth_time).toBe(Math.floor(Number(record) / 1_000));
  });
});

describe('the sessions of a user', () => {
  it('a user never has more than SESSIONS_PER_USER sessions when logins race at two instances', async () => {
    const [one, two] = [await another({ SESSIONS_PER_USER: '3' }), await another({ SESSIONS_PER_USER: '3' })];
    const phoneNumber = freshNumber();
    // A newer code voids the one before it, so each login is tried again until it comes through. The wait before is random
    // and grows: without it the logins would void each other's codes for ever.
    const logIn = async (url: string): Promise<Answer> => {
      for (let tries = 1; ; tries++) {
        const answer = await login(world, phoneNumber, url);
        if (answer.status === 200) return answer;
        await sleep(Math.random() * 50 * tries);
      }
    };
    const racing = Array.from({ length: 6 }, (_, i) => logIn(i % 2 ? one : two));
    const logins = await withoutHang(Promise.all(racing), 'the logins');
    const { sub } = claimsOf(logins[0]?.body.accessToken);
    const index = await raw.zrange(keysOfUser(sub).sessions, 0, -1);
    expect(index).toHaveLength(3);
    for (const answer of logins) {
      const expected = index.includes(claimsOf(answer.body.accessToken).sid) ? 200 : 401;
      expect((await refresh(answer.body.refreshToken, one)).status).toBe(expected);
    }
    // By the store's clock the three are the newest.
    const byAge = logins.map(({ body }) => claimsOf(body.accessToken)).sort((a, b) => b.iat - a.iat);
    const ended = byAge.filter(({ sid }) => !index.includes(sid));
    for (const { auth_time } of ended)
      expect(auth_time).toBeLessThanOrEqual(
        Math.min(...byAge.filter(({ sid }) => index.includes(sid)).map((kept) => kept.auth_time)),
      );
  });

  it('a login beyond SESSIONS_PER_USER ends the oldest session, also when that one was used last', async () => {
    const url = await another({ SESSIONS_PER_USER: '2' });
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber, url);
    const second = await login(world, phoneNumber, url);
    const used = await refresh(first.body.refreshToken, url);
    const third = await login(world, phoneNumber, url);
    expect(statusAndCode(await refresh(used.body.refreshToken, url))).toEqual([401, 'session_revoked']);
    expect(statusAndCode(await me(used.body.accessToken, url))).toEqual([401, 'session_revoked']);
    expect((await refresh(second.body.refreshToken, url)).status).toBe(200);
    expect((await refresh(third.body.refreshToken, url)).status).toBe(200);
  });

  it('an expired session is not listed and does not count for SESSIONS_PER_USER', async () => {
    const url = await another({ SESSIONS_PER_USER: '2' });
    const phoneNumber = freshNumber();
    const living = await login(world, phoneNumber, url);
    const idle = await login(world, phoneNumber, url);
    await letExpire(idle);
    expect((await listed(living, url)).map(({ id }) => id)).toEqual([claimsOf(living.body.accessToken).sid]);
    const newest = await login(world, phoneNumber, url);
    expect((await refresh(living.body.refreshToken, url)).status).toBe(200);
    expect((await refresh(newest.body.refreshToken, url)).status).toBe(200);
    expect(statusAndCode(await refresh(idle.body.refreshToken, url))).toEqual([401, 'session_expired']);
  });
});

describe('a refresh token that was used', () => {
  it('a used refresh token gives the same successor within the grace interval and ends the session after it', async () => {
    const url = await another({ REFRESH_GRACE_SECONDS: '120' });
    const first = await login(world, freshNumber(), url);
    const next = await refresh(first.body.refreshToken, url);
    await age(sessionKeyOf(first), 'rotated', 60_000);
    const again = await refresh(first.body.refreshToken, url);
    expect([again.status, again.body.refreshToken]).toEqual([200, next.body.refreshToken]);
    await age(sessionKeyOf(first), 'rotated', 60_001);
    expect(statusAndCode(await refresh(first.body.refreshToken, url))).toEqual([401, 'refresh_token_reused']);
    for (const token of [first.body.refreshToken, next.body.refreshToken])
      expect(statusAndCode(await refresh(token, other))).toEqual([401, 'session_revoked']);
    for (const { body } of [first, next, again])
      expect(statusAndCode(await me(body.accessToken, other))).toEqual([401, 'session_revoked']);
  });

  it('the grace interval of a refresh token begins at its rotation and not at its last repeat', async () => {
    const first = await login(world);
    await refresh(first.body.refreshToken);
    const rotated = await raw.hget(sessionKeyOf(first), 'rotated');
    for (let i = 0; i < 3; i++) expect((await refresh(first.body.refreshToken)).status).toBe(200);
    expect(await raw.hget(sessionKeyOf(first), 'rotated')).toBe(rotated);
  });

  it('a session ends for its owner and the thief when the thief used the refresh token first', async () => {
    const owner = await login(world);
    const thief = await refresh(owner.body.refreshToken, other);
    const thiefs = await refresh(thief.body.refreshToken, other);
    expect(thiefs.status).toBe(200);
    expect(statusAndCode(await refresh(owner.body.refreshToken))).toEqual([401, 'refresh_token_reused']);
    expect(statusAndCode(await refresh(thiefs.body.refreshToken, other))).toEqual([401, 'session_revoked']);
    expect(statusAndCode(await me(thiefs.body.accessToken, other))).toEqual([401, 'session_revoked']);
  });
});

it('the service tells an ended session from an expired one for the lifetime of an access token', async () => {
  const answer = await login(world);
  const { accessToken, refreshToken } = answer.body as Record<string, unknown>;
  const before = Date.now();
  expect((await call('POST', `${world.url}/auth/logout`, { refreshToken })).status).toBe(204);
  const ends = await raw.pexpiretime(sessionKeyOf(answer));
  expect(ends).toBeGreaterThanOrEqual(before + 600_000);
  expect(ends).toBeLessThanOrEqual(Date.now() + 600_000);
  expect(statusAndCode(await refresh(refreshToken))).toEqual([401, 'session_revoked']);
  expect(statusAndCode(await me(accessToken))).toEqual([401, 'session_revoked']);
  await letExpire(answer);
  expect(statusAndCode(await refresh(refreshToken))).toEqual([401, 'session_expired']);
});

describe('after a failover that lost rotations', () => {
  const loseRotations = (answer: Answer, count: number): Promise<unknown> =>
    raw.hincrby(sessionKeyOf(answer), 'counter', -count);

  it('after a failover that lost one rotation, the newest refresh token still works and its successors too', async () => {
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
      expect([next.status, claimsOf(next.body.accessToken).sid]).toEqual([
        200,
        claimsOf(first.body.accessToken).sid,
      ]);
      token = next.body.refreshToken as string;
    }
    expect(await raw.hget(sessionKeyOf(first), 'counter')).toBe('5');
  });

  it('after a failover that lost two rotations, the newest refresh token is invalid and ends nothing', async () => {
    const first = await login(world);
    const second = await refresh(first.body.refreshToken);
    const third = await refresh(second.body.refreshToken);
    await loseRotations(first, 2);
    expect(statusAndCode(await refresh(third.body.refreshToken))).toEqual([401, 'refresh_token_invalid']);
    expect(await raw.hget(sessionKeyOf(first), 'counter')).toBe('0');
    // The older token is one step ahead, and still works.
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

  it('Redis is never asked about a forged token, and a forged token ends nothing', async () => {
    const { body } = await login(world);
    const forged = forgeries(body.refreshToken as string);
    const seen = await commandsOf(async () => {
      for (const token of forged) {
        expect(statusAndCode(await refresh(token))).toEqual([401, 'refresh_token_invalid']);
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

  it('Redis is asked once for a refresh, for its repeat and for an introspection', async () => {
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

  it('Redis holds no token, no part of a token, no address and no user agent', async () => {
    const address = '203.0.113.77';
    const first = await loginAs({ 'x-forwarded-for': address, 'user-agent': 'canary-agent/1 (canary)' });
    const second = await refresh(first.body.refreshToken);
    await refresh(first.body.refreshToken, other);
    const ended = await login(world);
    await call('POST', `${world.url}/auth/logout`, { refreshToken: ended.body.refreshToken });

    const text = JSON.stringify(await contentsOf(world.redis.url));
    expect(text).toContain(claimsOf(first.body.accessToken).sid);
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
      expect(text).not.toContain(claimsOf(body.accessToken).jti);
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
  ])('the device of the user agent %s is shown as %s', async (userAgent, device) => {
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
  ])(
    'the device of a hostile user agent (%s) is a short plain text without the words of the user agent',
    async (_, userAgent) => {
      const answer = await withoutHang(loginAs({ 'user-agent': userAgent }), 'reading the user agent');
      expect(answer.status).toBe(200);
      const [session] = await listed(answer);
      expect(session?.device).toMatch(/^[A-Za-z][A-Za-z0-9 .]{0,39}$/);
      expect(session?.device).not.toMatch(/canary|script|A{5}/);
    },
  );
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
  ])('the address of a session with X-Forwarded-For: %s is shown as %s', async (forwarded, address) => {
    const answer = await loginAs({ 'x-forwarded-for': forwarded });
    expect((await listed(answer))[0]?.address).toBe(address);
    expect(await raw.hget(sessionKeyOf(answer), 'address')).toBe(address);
  });
});
