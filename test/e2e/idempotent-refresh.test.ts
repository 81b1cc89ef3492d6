import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { metricOf } from '../support/metrics';
import { contentsOf } from '../support/redis-contents';
import { sessionKeyOf } from '../support/tokens';
import { call, login, startWorld, statusAndCode, type Answer, type World } from '../support/world';

// Beside test/e2e/session-model.test.ts, which proves the rule in random lives: the header, the cookie, what is stored.

const APP = 'https://app.example';
let world: World;
let raw: Redis;

beforeAll(async () => {
  world = await startWorld({
    variables: { CORS_ORIGINS: APP, TRUSTED_PROXIES: '127.0.0.1/32', AUDIT_STREAM_EVENTS: '0' },
    count: 2,
  });
  raw = new Redis(world.redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await world.close();
});

const refresh = (
  refreshToken: unknown,
  key?: string,
  more: { url?: string | undefined; address?: string; body?: object } = {},
): Promise<Answer> =>
  call(
    'POST',
    `${more.url ?? world.url}/auth/refresh`,
    { refreshToken, ...more.body },
    {
      ...(key === undefined ? {} : { 'idempotency-key': key }),
      ...(more.address === undefined ? {} : { 'x-forwarded-for': more.address }),
    },
  );
/** Makes the last rotation of the session older than any grace. */
const pastGrace = (answer: Answer): Promise<number> =>
  raw.hincrby(sessionKeyOf(answer), 'rotated', -3_600_000);

test('a lost response to a refresh is found again under its Idempotency-Key after the grace, at another instance, and the session goes on', async () => {
  const opened = await login(world);
  const key = randomUUID();
  const lost = await refresh(opened.body.refreshToken, key);
  await pastGrace(opened);
  const [left] = [await raw.pttl(sessionKeyOf(opened))];
  // The body of a repeat is not compared: a client that adds a field after an update is still the same client.
  const again = await refresh(opened.body.refreshToken, key, {
    url: world.instances[1]?.url,
    body: { added: 'later' },
  });
  expect(again.status).toBe(200);
  expect(again.body.refreshToken).toBe(lost.body.refreshToken);
  expect(await raw.pttl(sessionKeyOf(opened))).toBeLessThanOrEqual(left);
  const next = await refresh(again.body.refreshToken, randomUUID());
  expect(next.status).toBe(200);
  // The successor was used: the key is worth nothing any more.
  expect(statusAndCode(await refresh(opened.body.refreshToken, key))).toEqual([401, 'refresh_token_reused']);
});

test('a lost response to a refresh by cookie is found again under its Idempotency-Key', async () => {
  const opened = await login(world);
  const headers = { origin: APP, 'idempotency-key': randomUUID() };
  const byCookie = (token: string): Promise<Answer> =>
    call('POST', `${world.url}/auth/refresh`, {}, { ...headers, cookie: `__Host-refresh=${token}` });
  const token = String(opened.body.refreshToken);
  const lost = await byCookie(token);
  await pastGrace(opened);
  const again = await byCookie(token);
  expect([lost.status, again.status]).toEqual([200, 200]);
  const cookie = (answer: Answer): string | undefined => answer.headers.getSetCookie()[0]?.split(';')[0];
  expect(cookie(again)).toBe(cookie(lost));
  expect(again.body).not.toHaveProperty('refreshToken');
});

test('a thief with the parent and another key, or none, ends the session after the grace', async () => {
  for (const thief of [undefined, randomUUID()]) {
    const opened = await login(world);
    const newest = await refresh(opened.body.refreshToken, randomUUID());
    await pastGrace(opened);
    expect(statusAndCode(await refresh(opened.body.refreshToken, thief))).toEqual([
      401,
      'refresh_token_reused',
    ]);
    expect(statusAndCode(await refresh(newest.body.refreshToken))).toEqual([401, 'session_revoked']);
  }
});

test('a rotation under the key of the previous rotation is refused with 422 and changes nothing', async () => {
  const opened = await login(world);
  const key = randomUUID();
  const first = await refresh(opened.body.refreshToken, key);
  const before = await raw.hgetall(sessionKeyOf(opened));
  expect(statusAndCode(await refresh(first.body.refreshToken, key))).toEqual([422, 'idempotency_key_reused']);
  expect(await raw.hgetall(sessionKeyOf(opened))).toEqual(before);
  expect((await refresh(first.body.refreshToken, randomUUID())).status).toBe(200);
});

test.each([
  ['', 'empty'],
  ['x'.repeat(15), 'of 15 characters'],
  ['x'.repeat(256), 'of 256 characters'],
  [`${'x'.repeat(16)}\u00e9`, 'with a letter that is not ASCII'],
  [`${'x'.repeat(16)}\tx`, 'with a tab'],
])('a refresh under the key %j (%#) is a 400 that names the header, and uses no token', async (key) => {
  const { body } = await login(world);
  const refused = await refresh(body.refreshToken, key);
  expect(statusAndCode(refused)).toEqual([400, 'validation_failed']);
  expect(refused.body.errors).toEqual([
    { field: 'Idempotency-Key', message: 'Idempotency-Key must be 16 to 255 printable ASCII characters' },
  ]);
  for (const good of ['x'.repeat(16), `~ ${'x'.repeat(253)}`]) {
    const { body: other } = await login(world);
    expect((await refresh(other.refreshToken, good)).status).toBe(200);
  }
});

test('Redis keeps a MAC of the last key only, and it differs between sessions of one key', async () => {
  const key = `key-that-is-stored-nowhere-${randomUUID()}`;
  const [one, other] = [await login(world), await login(world)];
  const next = await refresh(one.body.refreshToken, key);
  await refresh(other.body.refreshToken, key);
  expect(JSON.stringify(await contentsOf(world.redis.url))).not.toContain(key);
  const macs = await Promise.all([one, other].map((answer) => raw.hget(sessionKeyOf(answer), 'key')));
  expect(macs).toEqual([expect.stringMatching(/^[\w-]{22}$/), expect.stringMatching(/^[\w-]{22}$/)]);
  expect(macs[0]).not.toBe(macs[1]);
  // A rotation without a key forgets the last one.
  await refresh(next.body.refreshToken);
  expect(await raw.hget(sessionKeyOf(one), 'key')).toBeNull();
});

test('the repeat of a refresh from another network is in the audit and in the metrics, once for each rotation', async () => {
  const counted = (): Promise<number> =>
    metricOf(world.url, 'otp_login_refreshes_total{outcome="repeated_elsewhere"}');
  const events = (): unknown[] =>
    world.instances
      .flatMap(({ logs }) => logs)
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ audit }) => audit === 'token.repeated');
  const before = await counted();
  const opened = await login(world);
  const key = randomUUID();
  const at = (address: string) => ({ address });
  const first = await refresh(opened.body.refreshToken, key, at('203.0.113.7'));
  await refresh(opened.body.refreshToken, key, at('203.0.113.99'));
  expect([await counted(), events()]).toEqual([before, []]);
  for (let i = 0; i < 3; i++) await refresh(opened.body.refreshToken, key, at('198.51.100.7'));
  expect(await counted()).toBe(before + 1);
  const { sub, sid } = { sub: opened.body.user.id as string, sid: sessionKeyOf(opened).split(':').at(-1) };
  expect(events()).toEqual([
    expect.objectContaining({
      audit: 'token.repeated',
      subject: sub,
      session: sid,
      network: '198.51.100.0/24',
    }),
  ]);
  // The next rotation is from there, so its repeat from there is none from elsewhere.
  const next = await refresh(first.body.refreshToken, undefined, at('198.51.100.8'));
  await refresh(first.body.refreshToken, undefined, at('198.51.100.9'));
  expect(await counted()).toBe(before + 1);
  await refresh(next.body.refreshToken, undefined, at('2001:db8:1::1'));
  await refresh(next.body.refreshToken, undefined, at('2001:db8:2::1'));
  expect(await counted()).toBe(before + 2);
});
