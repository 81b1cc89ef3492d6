import { createHash, createHmac } from 'node:crypto';
import { Redis } from 'ioredis';
import { holdUpstream, PATIENT, withoutWrites } from '../support/crowd';
import { keysOf, keysOfUser, partsOf } from '../support/keys';
import { bearer, claimsOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

let world: World;
let raw: Redis;
let other: string;
const extra: Instance[] = [];
let keys = 0;
const freshKey = (): string => `key-of-a-test-${(keys += 1)}`.padEnd(16, '.');

beforeEach(() => {
  world.upstream.reset();
});
afterEach(async () => {
  await Promise.all(extra.splice(0).map((instance) => instance.close()));
});

async function begin(variables: Variables): Promise<void> {
  world = await startWorld({
    variables: { ...PATIENT, ...variables },
    count: 2,
  });
  raw = new Redis(world.redis.url);
  other = world.instances[1]?.url ?? '';
}
async function end(): Promise<void> {
  raw.disconnect();
  await world.close();
}

/** One more instance over the same Redis, until the end of the test. */
async function another(variables: Variables, of = world): Promise<string> {
  const instance = await anotherInstance(of, variables);
  extra.push(instance);
  return instance.url;
}

interface Sent {
  requestId: string;
  code: string;
}
async function send(phoneNumber = freshNumber(), url = world.url): Promise<Sent> {
  const { status, body } = await sendOtp(url, phoneNumber);
  expect(status).toBe(200);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}
const verify = (
  { requestId, code }: Sent,
  key: string,
  { url = world.url, ...fields }: { url?: string; otpCode?: string; tokenDelivery?: string } = {},
): Promise<Answer> =>
  call('POST', `${url}/auth/verify-otp`, { requestId, otpCode: code, ...fields }, { 'idempotency-key': key });
const refresh = (refreshToken: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const sidOf = ({ body }: Answer): string => claimsOf(body.accessToken).sid;

/** The challenge in Redis, and the records of its Idempotency-Keys in it: `fingerprint:outcome:value`. */
const challengeOf = ({ requestId }: Sent): string => keysOf(requestId).challenge;
async function recordsOf(sent: Sent): Promise<{ field: string; record: string }[]> {
  const hash = await raw.hgetall(challengeOf(sent));
  return Object.entries(hash)
    .filter(([, value]) => /^[\w-]+:(flight\/[\w-]+|exhausted|\d{3}):\d+$/.test(value))
    .map(([field, record]) => ({ field, record }));
}
async function rewriteRecord(sent: Sent, rewrite: (record: string) => string): Promise<void> {
  const [found, ...more] = await recordsOf(sent);
  if (found === undefined || more.length > 0) throw new Error('There is not one record');
  await raw.hset(challengeOf(sent), found.field, rewrite(found.record));
}
/** When the right answer was given, by Redis's clock. */
async function answeredAt(sent: Sent): Promise<number> {
  const [found] = await recordsOf(sent);
  return Number(/:200:(\d+)$/.exec(found?.record ?? '')?.[1]);
}
/** As if the answer had been given that much earlier. */
const age = (sent: Sent, ms: number): Promise<void> =>
  rewriteRecord(sent, (record) => record.replace(/\d+$/, (time) => String(Number(time) - ms)));

/** Attempts left, failures counted, upstream's calls: what a repeat must not touch. */
async function costs(sent: Sent): Promise<unknown[]> {
  return [
    await raw.hget(challengeOf(sent), 'attempts'),
    await raw.llen(keysOf(sent.requestId).failed),
    world.upstream.calls.length,
  ];
}

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  beforeAll(() => begin({ STARTMESSAGING_CONTRACT: contract }));
  afterAll(end);

  it('a repeated verification gets the same session and refresh token at any instance and costs nothing', async () => {
    const [sent, key] = [await send(), freshKey()];
    const first = await verify(sent, key);
    expect(first.status).toBe(200);
    const before = await costs(sent);
    for (const url of [world.url, other, other, world.url]) {
      const again = await verify(sent, key, { url });
      expect(again.status).toBe(200);
      expect(Object.keys(again.body).sort()).toEqual(Object.keys(first.body).sort());
      expect(again.body.refreshToken).toBe(first.body.refreshToken);
      expect(again.body.user).toEqual(first.body.user);
      expect(sidOf(again)).toBe(sidOf(first));
      const me = await call('GET', `${url}/auth/me`, undefined, bearer(again.body.accessToken));
      expect([me.status, me.body.sessionId]).toEqual([200, sidOf(first)]);
    }
    expect(await costs(sent)).toEqual(before);
    // Without the key, or under another, the code is used.
    expect(statusAndCode(await verify(sent, freshKey()))).toEqual([410, 'otp_expired']);
    const bare = await call('POST', `${world.url}/auth/verify-otp`, {
      requestId: sent.requestId,
      otpCode: sent.code,
    });
    expect(statusAndCode(bare)).toEqual([410, 'otp_expired']);
  });

  it('a repeated verification that asks for a cookie gets the same cookie again', async () => {
    const [sent, key] = [await send(), freshKey()];
    const first = await verify(sent, key, { tokenDelivery: 'cookie' });
    const again = await verify(sent, key, { tokenDelivery: 'cookie', url: other });
    expect([first.status, again.status]).toEqual([200, 200]);
    const [one, two] = [first, again].map(({ headers }) => headers.get('set-cookie')?.split(';')[0]);
    expect(one).toMatch(/^__Host-refresh=[\w.-]{60,}$/);
    expect(two).toBe(one);
    expect(again.body.refreshToken).toBeUndefined();
  });

  it('a repeated verification works for 60 seconds and no longer, also when the code came late', async () => {
    const [sent, key] = [await send(), freshKey()];
    // Soon its code expires.
    const challenge = challengeOf(sent);
    await raw.hset(challenge, 'expires', String(Date.now() + 30_000));
    await raw.pexpire(challenge, 30_000);
    const first = await verify(sent, key);
    expect(first.status).toBe(200);
    expect(await raw.pexpiretime(challenge)).toBeGreaterThanOrEqual((await answeredAt(sent)) + 60_000);
    await age(sent, 40_000);
    expect((await verify(sent, key)).body.refreshToken).toBe(first.body.refreshToken);
    await age(sent, 20_001);
    for (const url of [world.url, other])
      expect(statusAndCode(await verify(sent, key, { url }))).toEqual([410, 'otp_expired']);
    // The session itself is none the worse.
    expect((await refresh(first.body.refreshToken)).status).toBe(200);
  });

  it('30 verifications at once under one Idempotency-Key at two instances are one attempt and one session', async () => {
    const [sent, key] = [await send(), freshKey()];
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => verify(sent, key, { url: i % 2 ? world.url : other })),
    );
    const right = answers.filter(({ status }) => status === 200);
    expect(right.length).toBeGreaterThan(0);
    for (const answer of answers) {
      if (answer.status === 200) continue;
      expect(statusAndCode(answer)).toEqual([409, 'idempotency_in_progress']);
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      expect(Number(answer.headers.get('retry-after'))).toBeLessThanOrEqual(60);
    }
    expect(new Set(right.map(({ body }) => body.refreshToken as string)).size).toBe(1);
    expect(new Set(right.map(sidOf)).size).toBe(1);
    expect(await raw.hget(challengeOf(sent), 'attempts')).toBe('2');
    expect(world.upstream.calls).toHaveLength(contract === 'provider' ? 2 : 1);
    const { accessToken } = (await verify(sent, key)).body;
    const list = await call('GET', `${world.url}/auth/sessions`, undefined, bearer(accessToken));
    expect(list.body.sessions).toHaveLength(1);
  });

  it('a repeated wrong code gets the same response with the same attempts left and takes no attempt', async () => {
    const sent = await send();
    const wrong = { otpCode: wrongCode(sent.code) };
    const [one, two] = [freshKey(), freshKey()];
    const first = await verify(sent, one, wrong);
    expect([...statusAndCode(first), first.body.attemptsLeft]).toEqual([400, 'otp_incorrect', 2]);
    const second = await verify(sent, two, wrong);
    expect(second.body.attemptsLeft).toBe(1);
    const before = await costs(sent);
    for (const url of [world.url, other]) {
      const again = await verify(sent, one, { ...wrong, url });
      expect([...statusAndCode(again), again.body.attemptsLeft]).toEqual([400, 'otp_incorrect', 2]);
      expect(again.body).toEqual(first.body);
    }
    expect((await verify(sent, two, wrong)).body.attemptsLeft).toBe(1);
    expect(await costs(sent)).toEqual(before);
    // The last attempt is still there, and the first answer stays what it was when the code is used.
    expect((await verify(sent, freshKey())).status).toBe(200);
    expect((await verify(sent, one, wrong)).body).toEqual(first.body);
  });

  it('a repeated verification of an expired code gets the same 410, and another body under its Idempotency-Key is refused', async () => {
    const [sent, key] = [await send(), freshKey()];
    await verify(sent, freshKey());
    const before = await costs(sent);
    for (const url of [world.url, other, world.url])
      expect(statusAndCode(await verify(sent, key, { url }))).toEqual([410, 'otp_expired']);
    expect(statusAndCode(await verify(sent, key, { otpCode: wrongCode(sent.code) }))).toEqual([
      422,
      'idempotency_key_reused',
    ]);
    expect(await costs(sent)).toEqual(before);
  });

  it('a repeated verification without attempts left gets the same 410, and another body under its Idempotency-Key is refused', async () => {
    const [sent, key] = [await send(), freshKey()];
    for (let i = 0; i < 3; i++) await verify(sent, freshKey(), { otpCode: wrongCode(sent.code) });
    const before = await costs(sent);
    for (const url of [world.url, other])
      expect(statusAndCode(await verify(sent, key, { url }))).toEqual([410, 'otp_attempts_exhausted']);
    expect(statusAndCode(await verify(sent, key, { otpCode: wrongCode(sent.code) }))).toEqual([
      422,
      'idempotency_key_reused',
    ]);
    expect(await costs(sent)).toEqual(before);
  });

  it('another body under the same Idempotency-Key is refused, takes no attempt and ends nothing', async () => {
    const [sent, key] = [await send(), freshKey()];
    const first = await verify(sent, key);
    const before = await costs(sent);
    for (const fields of [
      { otpCode: wrongCode(sent.code) },
      { otpCode: wrongCode(wrongCode(sent.code)) },
      { tokenDelivery: 'cookie' },
    ]) {
      const answer = await verify(sent, key, { ...fields, url: other });
      expect(statusAndCode(answer)).toEqual([422, 'idempotency_key_reused']);
      expect(answer.headers.get('set-cookie')).toBeNull();
    }
    expect(await costs(sent)).toEqual(before);
    expect((await verify(sent, key)).body.refreshToken).toBe(first.body.refreshToken);
  });

  it('the Idempotency-Key of a verification that crashed is free when its time is up, and the attempt stays taken', async () => {
    const [sent, key] = [await send(), freshKey()];
    const wrong = { otpCode: wrongCode(sent.code) };
    await verify(sent, key, wrong);
    await rewriteRecord(sent, (record) => record.replace(/400:2$/, `flight/x:${Date.now() + 30_000}`));
    const early = await verify(sent, key, wrong);
    expect(statusAndCode(early)).toEqual([409, 'idempotency_in_progress']);
    expect(Number(early.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(Number(early.headers.get('retry-after'))).toBeLessThanOrEqual(30);
    await age(sent, 31_000);
    expect((await verify(sent, key, wrong)).body.attemptsLeft).toBe(1);
    expect((await verify(sent, key, wrong)).body.attemptsLeft).toBe(1);
  });

  it('the same Idempotency-Key of another person is independent', async () => {
    const [one, two, key] = [await send(), await send(), freshKey()];
    const first = await verify(one, key);
    const wrong = await verify(two, key, { otpCode: wrongCode(two.code) });
    expect([...statusAndCode(wrong), wrong.body.attemptsLeft]).toEqual([400, 'otp_incorrect', 2]);
    expect((await verify(one, key)).body.refreshToken).toBe(first.body.refreshToken);
    expect(statusAndCode(await verify(two, key))).toEqual([422, 'idempotency_key_reused']);
    const second = await verify(two, freshKey());
    expect(second.status).toBe(200);
    expect(second.body.user.id).not.toBe(first.body.user.id);
  });

  it('the records in Redis reveal neither the code nor the Idempotency-Key, also when every code is tried', async () => {
    const [one, two, key] = [await send(), await send(), 'the-canary-of-keys'];
    const guess = '482913';
    // The same guess under the same key for two people leaves nothing in common to look up.
    for (const sent of [one, two]) expect((await verify(sent, key, { otpCode: guess })).status).toBe(400);
    const right = await send();
    expect((await verify(right, key)).status).toBe(200);
    const records = await Promise.all([one, two, right].map(recordsOf));
    expect(records.map((each) => each.length)).toEqual([1, 1, 1]);
    const prints = records.flat().map(({ record }) => record.split(':')[0] ?? '');
    expect(new Set(prints).size).toBe(3);
    for (const print of prints) expect(print).toMatch(/^[\w-]{22,}$/);

    const text = JSON.stringify(await Promise.all([one, two, right].map((s) => raw.hgetall(challengeOf(s)))));
    expect(text).not.toContain(key);
    for (const { requestId, code } of [{ ...one, code: guess }, { ...two, code: guess }, right]) {
      const { own } = partsOf(requestId);
      const bodies = [code, `${key}${code}`, `${key}:${code}`, `${code}:${key}`];
      for (const id of [requestId, own])
        bodies.push(`${id}${code}`, `${id}:${code}`, JSON.stringify({ requestId: id, otpCode: code }));
      bodies.push(`body:${code}`, `body:${code}:`, `body:${code}:body`, `body:${requestId}:${code}:body`);
      for (const body of bodies)
        for (const hash of ['md5', 'sha1', 'sha256', 'sha512']) {
          const digests = [
            createHash(hash).update(body).digest(),
            ...[key, requestId, own, ''].map((salt) => createHmac(hash, salt).update(body).digest()),
          ];
          for (const digest of digests)
            for (const form of ['hex', 'base64', 'base64url'] as const)
              expect(text.includes(digest.toString(form).slice(0, 16))).toBe(false);
        }
    }
  });

  it.each([
    ['empty', ''],
    ['15 characters long', 'k'.repeat(15)],
    ['256 characters long', 'k'.repeat(256)],
    ['beyond ASCII', 'sch\u00fcssel-of-a-test'],
    ['beyond ASCII in UTF-8', Buffer.from('ключ'.repeat(3)).toString('latin1')],
    ['split by a tab', 'a key of\ta test'],
  ])('an Idempotency-Key that is %s is refused, and no attempt is taken', async (_, key) => {
    const sent = await send();
    const before = await costs(sent);
    const answer = await verify(sent, key);
    expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
    expect(answer.body.errors).toEqual([
      { field: 'Idempotency-Key', message: expect.stringContaining('16 to 255') as string },
    ]);
    expect(await costs(sent)).toEqual(before);
  });

  it.each([
    ['16 characters', '!'.repeat(16)],
    ['255 characters', '~'.repeat(255)],
    ['four words', 'a key of a test'.padEnd(16)],
  ])('an Idempotency-Key of %s is accepted', async (_, key) => {
    const sent = await send();
    const first = await verify(sent, key);
    expect((await verify(sent, key)).body.refreshToken).toBe(first.body.refreshToken);
  });

  it('an invalid verification keeps nothing under its Idempotency-Key', async () => {
    const [sent, key] = [await send(), freshKey()];
    expect((await verify(sent, key, { otpCode: '12' })).status).toBe(400);
    expect(await recordsOf(sent)).toEqual([]);
    expect((await verify(sent, key)).status).toBe(200);
  });

  if (contract === 'caller') describe('an ended session', endedSessions);
  else describe('upstream that is slow or in trouble', troubleAtUpstream);
});

function endedSessions(): void {
  async function expectDead(sent: Sent, key: string, answer: Answer, url = world.url): Promise<void> {
    for (const at of [url, url])
      expect(statusAndCode(await verify(sent, key, { url: at }))).toEqual([410, 'otp_expired']);
    const alive = await raw.hexists(
      `otp-login:{${answer.body.user.id}}:session:${sidOf(answer)}`,
      'authenticated',
    );
    expect(alive).toBe(0);
  }

  it('a repeat gets a 410 after its session was refreshed, and the session goes on', async () => {
    const [sent, key] = [await send(), freshKey()];
    const first = await verify(sent, key);
    const next = await refresh(first.body.refreshToken, other);
    for (const url of [world.url, other])
      expect(statusAndCode(await verify(sent, key, { url }))).toEqual([410, 'otp_expired']);
    expect((await refresh(next.body.refreshToken)).status).toBe(200);
  });

  it('a repeat does not revive a session that was logged out', async () => {
    const [sent, key] = [await send(), freshKey()];
    const first = await verify(sent, key);
    await call('POST', `${other}/auth/logout`, { refreshToken: first.body.refreshToken });
    await expectDead(sent, key, first);
    expect(statusAndCode(await refresh(first.body.refreshToken))).toEqual([401, 'session_revoked']);
  });

  it('a repeat does not revive a session that newer sessions pushed out', async () => {
    const url = await another({ SESSIONS_PER_USER: '1' });
    const phoneNumber = freshNumber();
    const [sent, key] = [await send(phoneNumber, url), freshKey()];
    const first = await verify(sent, key, { url });
    const newer = await verify(await send(phoneNumber, url), freshKey(), { url });
    await expectDead(sent, key, first, url);
    expect((await refresh(newer.body.refreshToken, url)).status).toBe(200);
  });

  it('a repeat does not revive a session of which Redis remembers only that it was opened', async () => {
    const url = await another({
      ACCESS_TOKEN_TTL_SECONDS: '1',
      REFRESH_GRACE_SECONDS: '0',
      SESSION_IDLE_TTL_SECONDS: '1',
    });
    const [idle, ended] = [await send(freshNumber(), url), await send(freshNumber(), url)];
    const [one, two] = [freshKey(), freshKey()];
    const [wentIdle, wasEnded] = [await verify(idle, one, { url }), await verify(ended, two, { url })];
    await call('POST', `${url}/auth/logout`, { refreshToken: wasEnded.body.refreshToken });
    for (const [sent, answer] of [
      [idle, wentIdle],
      [ended, wasEnded],
    ] as const) {
      const { session, opened } = keysOfUser(answer.body.user.id as string);
      // That it was opened is remembered for longer than a repeat works.
      const rememberedUntil = await raw.pexpiretime(opened(sidOf(answer)));
      expect(rememberedUntil).toBeGreaterThanOrEqual((await answeredAt(sent)) + 60_000);
      // Its second passes.
      for (const key of await raw.keys(session('*'))) await raw.del(key);
    }
    await expectDead(idle, one, wentIdle, url);
    await expectDead(ended, two, wasEnded, url);
  });

  it('a repeat that races with a log-out does not revive the session', async () => {
    for (let round = 0; round < 4; round++) {
      const [sent, key] = [await send(), freshKey()];
      const first = await verify(sent, key);
      const racing = Array.from({ length: 10 }, (_, i) =>
        verify(sent, key, { url: i % 2 ? world.url : other }),
      );
      const logout = call('POST', `${other}/auth/logout`, { refreshToken: first.body.refreshToken });
      const answers = await Promise.all(racing);
      expect((await logout).status).toBe(204);
      for (const answer of answers) {
        expect([200, 410]).toContain(answer.status);
        if (answer.status === 200) expect(answer.body.refreshToken).toBe(first.body.refreshToken);
      }
      await expectDead(sent, key, first);
    }
  });
}

function troubleAtUpstream(): void {
  it('a repeat that comes before the response of the first gets a 409, and another body is refused', async () => {
    const [sent, key] = [await send(), freshKey()];
    const before = world.upstream.calls.length;
    const held = holdUpstream(world, 'verify');
    const first = verify(sent, key);
    await held.arrived();
    for (const url of [world.url, other]) {
      const early = await verify(sent, key, { url });
      expect(statusAndCode(early)).toEqual([409, 'idempotency_in_progress']);
      expect(early.headers.get('retry-after')).toMatch(/^([1-9]|[1-5]\d|60)$/);
      expect(early.body.retryAfterSeconds).toBe(Number(early.headers.get('retry-after')));
      expect(statusAndCode(await verify(sent, key, { url, otpCode: wrongCode(sent.code) }))).toEqual([
        422,
        'idempotency_key_reused',
      ]);
    }
    held.letGo();
    const answer = await first;
    expect(answer.status).toBe(200);
    const again = await verify(sent, key, { url: other });
    expect([again.status, again.body.refreshToken]).toEqual([200, answer.body.refreshToken]);
    expect(world.upstream.calls.length - before).toBe(1);
  });

  it.each([
    ['a 500', { kind: 'error', status: 500, code: 'INTERNAL_ERROR' }, 502],
    ['a 429', { kind: 'error', status: 429, code: 'INTERNAL_ERROR', headers: { 'Retry-After': '1' } }, 429],
    ['a 401', { kind: 'error', status: 401, code: 'UNAUTHORIZED' }, 500],
    ['a 402', { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' }, 503],
  ] as const)(
    '%s from upstream releases the Idempotency-Key, and the retry works',
    async (_, fault, status) => {
      const [sent, key] = [await send(), freshKey()];
      world.upstream.fault({ on: 'verify', times: 0, fault });
      expect((await verify(sent, key)).status).toBe(status);
      expect(await recordsOf(sent)).toEqual([]);
      world.upstream.clearFaults();
      const retried = await verify(sent, key, { url: other });
      expect(retried.status).toBe(200);
      expect((await verify(sent, key)).body.refreshToken).toBe(retried.body.refreshToken);
    },
  );

  it('a retry succeeds after Redis used the code up too late for the first response', async () => {
    const [sent, key] = [await send(), freshKey()];
    const hasty = await another(
      { ...PATIENT, STARTMESSAGING_CONTRACT: 'provider' },
      { ...world, redisTimeoutMs: undefined },
    );
    const before = world.upstream.calls.length;
    const held = holdUpstream(world, 'verify');
    const first = verify(sent, key, { url: hasty });
    await held.arrived();
    // Redis uses the code up only when the service has given that step up.
    const failed = await withoutWrites(world, () => {
      held.letGo();
      return first;
    });
    expect(statusAndCode(failed)).toEqual([503, 'store_unavailable']);
    const retried = await verify(sent, key);
    expect(retried.status).toBe(200);
    expect((await verify(sent, key, { url: other })).body.refreshToken).toBe(retried.body.refreshToken);
    expect(world.upstream.calls.length - before).toBe(1);
  });
}
