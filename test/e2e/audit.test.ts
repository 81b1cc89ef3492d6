import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Audit, AUDIT_KEY } from '../../src/audit/audit';
import { ADMIN_TOKEN, asAdmin, auditOf, block, WITH_ADMIN, type AuditLine } from '../support/admin';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

const TEST_NUMBER = '+910000000001';
const DAY_MS = 86_400_000;
const SETTINGS: Variables = {
  ...WITH_ADMIN,
  STARTMESSAGING_CONTRACT: 'caller',
  LIMIT_FAILED_CODES: '4/86400',
  OTP_MAX_ATTEMPTS: '5',
  SESSIONS_PER_USER: '2',
  TEST_NUMBERS: `${TEST_NUMBER}:123456`,
};

type Event = Record<string, string>;
const ANY = expect.any(String) as string;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });

let world: World;
afterEach(async () => {
  jest.restoreAllMocks();
  await world.close();
});

const begin = async (variables: Variables = {}, count = 2): Promise<void> => {
  world = await startWorld({ variables: { ...SETTINGS, ...variables }, count });
};

/** All that the stream holds, the oldest first. */
async function streamed(): Promise<Event[]> {
  const entries = (await redisCommand(world, 'XRANGE', AUDIT_KEY, '-', '+')) as [string, string[]][];
  return entries.map(([, flat]) =>
    Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : []))),
  );
}

/** What stdout of all instances says about this, in the order of the instances. */
const printed = (about: RegExp): AuditLine[] =>
  world.instances.flatMap((instance) => auditOf(instance, about));

/** What the stream says about this, as soon as it says what stdout does, and that it does. */
async function told(about: RegExp): Promise<Event[]> {
  const lines = printed(about);
  const ids = lines.map(({ id }) => String(id)).sort();
  await until(async () => {
    const events = (await streamed()).filter(({ audit }) => about.test(audit!));
    return events.length >= ids.length;
  }, 3_000);
  const events = (await streamed()).filter(({ audit }) => about.test(audit!));
  expect(events.map(({ id }) => id).sort()).toEqual(ids);
  for (const event of events) {
    expect(event.id).toMatch(UUID);
    expect(event.time).toMatch(ISO);
    const { level, time, type, msg, requestId, traceId, ...line } = lines.find(({ id }) => id === event.id)!;
    expect([level, type, msg, time]).toEqual(['info', 'audit', 'audit', expect.stringMatching(ISO)]);
    // Both, or neither where no request is about it.
    expect(typeof requestId).toBe(typeof traceId);
    const same = Object.fromEntries(Object.entries(line).map(([name, value]) => [name, String(value)]));
    expect({ ...event, time: '' }).toEqual({ ...same, time: '' });
  }
  return events.map((event) =>
    Object.fromEntries(Object.entries(event).filter(([name]) => !['id', 'time'].includes(name))),
  );
}

const logout = ({ body }: Answer): Promise<Answer> =>
  call('POST', `${world.url}/auth/logout`, { refreshToken: body.refreshToken });
const refresh = (refreshToken: unknown): Promise<Answer> =>
  call('POST', `${world.url}/auth/refresh`, { refreshToken });
const sessionOf = async ({ body }: Answer): Promise<string> => {
  const { body: me } = await call('GET', `${world.url}/auth/me`, undefined, bearer(body.accessToken));
  return me.sessionId as string;
};

it('a login is told with its session, the device, and the address cut to its network', async () => {
  await begin();
  const answer = await login(world);
  const subject = answer.body.user.id as string;
  expect(await told(/^login$/)).toEqual([
    {
      audit: 'login',
      subject,
      session: await sessionOf(answer),
      device: 'Unknown device',
      network: '127.0.0.0/24',
      outcome: 'opened',
    },
  ]);
});

it('a login that is answered again under its Idempotency-Key is told as that', async () => {
  await begin();
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  for (const { url } of world.instances) {
    expect((await verifyOtp(url, body.requestId, code, { 'idempotency-key': 'one' })).status).toBe(200);
    // Replicas write by themselves: across them the order is that of `time`.
    await told(/^login$/);
  }
  const events = await told(/^login$/);
  expect(events.map(({ outcome }) => outcome)).toEqual(['opened', 'repeated']);
  expect(events[0]!.session).toBe(events[1]!.session);
});

it('a login with a test number says so', async () => {
  await begin();
  const { body } = await sendOtp(world.url, TEST_NUMBER);
  expect((await verifyOtp(world.url, body.requestId, '123456')).status).toBe(200);
  await login(world);
  expect((await told(/^login$/)).map(({ test }) => test)).toEqual(['true', undefined]);
});

it('a wrong code is told, and the one that locks the number, once, wherever it is tried', async () => {
  await begin();
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
  const guess = (url: string): Promise<Answer> => verifyOtp(url, body.requestId, wrong);
  // A repeat is answered, and is no other guess.
  for (let i = 0; i < 2; i++) await verifyOtp(world.url, body.requestId, wrong, { 'idempotency-key': 'one' });
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => guess(world.instances[i % 2]!.url)));
  expect(answers.map(({ status }) => status).sort()).toEqual([400, 400, 400, 429, 429, 429, 429, 429]);
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);

  const phone = String(body.requestId).slice(0, 22);
  const network = '127.0.0.0/24';
  const events = await told(/^(code|number)\./);
  expect(events.filter(({ audit }) => audit === 'code.failed')).toHaveLength(4);
  expect(events).toContainEqual({ audit: 'code.failed', phone, network, attemptsLeft: '4' });
  const locked = events.filter(({ audit }) => audit === 'number.locked');
  expect(locked).toEqual([{ audit: 'number.locked', phone, network, allowance: 'phone', seconds: ANY }]);
  expect(Number(locked[0]!.seconds)).toBeGreaterThan(86_000);
  expect(Number(locked[0]!.seconds)).toBeLessThanOrEqual(86_401);
});

it('a number that is locked for strangers is not locked for its device, until that failed too', async () => {
  await begin();
  const phoneNumber = freshNumber();
  const { body } = await login(world, phoneNumber);
  const tryWrong = async (deviceToken: unknown, times: number): Promise<void> => {
    const sent = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber, deviceToken });
    const otpCode = wrongCode(textedCode(world.upstream, phoneNumber));
    const { requestId } = sent.body as { requestId: string };
    for (let i = 0; i < times; i++)
      await call('POST', `${world.url}/auth/verify-otp`, { requestId, otpCode, deviceToken });
  };
  const locks = async (): Promise<unknown[]> =>
    (await told(/^number\./)).map(({ audit, allowance }) => [audit, allowance]);
  await tryWrong(undefined, 4);
  expect(await locks()).toEqual([['number.locked', 'phone']]);
  for (let i = 0; i < 4 && (await locks()).length < 2; i++) await tryWrong(body.deviceToken, 5);
  expect(await locks()).toEqual([
    ['number.locked', 'phone'],
    ['number.locked', 'device'],
  ]);
});

it('a right code locks nobody, also where a wrong one would', async () => {
  await begin();
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  for (let i = 0; i < 3; i++) await verifyOtp(world.url, body.requestId, wrongCode(code));
  expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
  expect((await told(/^(code|number)\./)).map(({ audit }) => audit)).toEqual(Array(3).fill('code.failed'));
});

it('a refresh token that is used again is told with the session that ends for it', async () => {
  await begin();
  const { body } = await login(world);
  const session = await sessionOf({ body } as Answer);
  const subject = body.user.id as string;
  const second = await refresh(body.refreshToken);
  await refresh(second.body.refreshToken);
  expect((await refresh(body.refreshToken)).body.code).toBe('refresh_token_reused');
  // It has ended: whoever comes again reuses nothing.
  expect((await refresh(body.refreshToken)).body.code).toBe('session_revoked');
  expect(await told(/^(token|session)\./)).toEqual([
    { audit: 'token.reused', subject, session },
    { audit: 'session.ended', subject, session, because: 'token_reused', outcome: 'ended' },
  ]);
});

describe('the end of a session', () => {
  it('is told once, with its reason', async () => {
    await begin();
    const phoneNumber = freshNumber();
    const subjects: string[] = [];
    const enter = async (): Promise<Answer> => {
      const answer = await login(world, phoneNumber);
      expect(answer.status).toBe(200);
      subjects.push(answer.body.user.id as string);
      return answer;
    };
    const first = await enter();
    const ids = [await sessionOf(first)];
    for (let i = 0; i < 2; i++) await logout(first);
    for (let i = 0; i < 3; i++) ids.push(await sessionOf(await enter()));
    const last = await enter();
    ids.push(await sessionOf(last));
    const all = (query: string): Promise<Answer> =>
      call('DELETE', `${world.url}/auth/sessions${query}`, undefined, bearer(last.body.accessToken));
    expect((await all('?others=true')).status).toBe(204);
    expect((await all('')).status).toBe(204);
    const blocked = await enter();
    ids.push(await sessionOf(blocked));
    expect((await block(world.url, phoneNumber)).status).toBe(204);

    expect(new Set(subjects).size).toBe(1);
    expect(
      (await told(/^session\./)).map(({ subject, session, because, outcome }) => {
        expect([subject, outcome]).toEqual([subjects[0], 'ended']);
        return [because, ids.indexOf(session!)];
      }),
    ).toEqual([
      ['logout', 0],
      ['too_many', 1],
      ['too_many', 2],
      ['logout_everywhere', 3],
      ['logout_everywhere', 4],
      ['number_blocked', 5],
    ]);
  });

  it('that Redis did not confirm is told as unknown', async () => {
    await begin({}, 1);
    const { body } = await login(world);
    await told(/^login$/);
    // All but the step that ends it: found, and published.
    await redisCommand(world, 'ACL', 'SETUSER', 'default', '-hexists');
    expect((await logout({ body } as Answer)).status).toBe(503);
    await redisCommand(world, 'ACL', 'SETUSER', 'default', '+hexists');
    expect(await told(/^session\./)).toMatchObject([{ because: 'logout', outcome: 'unknown' }]);
  });
});

it('calls of operators are told, and what strangers do there fills no stream', async () => {
  await begin({}, 1);
  await asAdmin('GET', `${world.url}/admin/guard`);
  const guarded = await told(/^admin\./);
  expect(guarded).toEqual([
    { audit: 'admin.called', admin: 'ops', method: 'GET', route: '/admin/guard' },
    { audit: 'admin.guard', admin: 'ops', outcome: 'done' },
  ]);
  for (let i = 0; i < 20; i++) await call('GET', `${world.url}/admin/usage`);
  await login(world);
  await until(async () => (await streamed()).some(({ audit }) => audit === 'login'));
  expect(auditOf(world.instances[0]!, /^admin\.refused$/)).toHaveLength(20);
  expect((await streamed()).filter(({ audit }) => audit === 'admin.refused')).toHaveLength(1);
});

describe('a signing key', () => {
  const kidFrom = (time: number, name: string): string =>
    `${new Date(time).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${name}`;
  const pem = (): string =>
    generateKeyPairSync('ec', { namedCurve: 'P-256' })
      .privateKey.export({ type: 'pkcs8', format: 'pem' })
      .toString();
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'otp-login-audit-keys-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const put = (kid: string, content = pem()): void => {
    writeFileSync(join(folder, `.${kid}`), content);
    renameSync(join(folder, `.${kid}`), join(folder, `${kid}.pem`));
  };
  const remove = (kid: string): void => {
    rmSync(join(folder, `${kid}.pem`));
  };
  /** The changes as the stream has them, once it has as many. */
  const changes = async (count: number): Promise<string[]> => {
    const keys = async (): Promise<string[]> =>
      (await streamed())
        .filter(({ audit }) => audit!.startsWith('key.'))
        .map(({ audit, kid }) => `${audit} ${kid}`);
    await until(async () => (await keys()).length >= count);
    return keys();
  };

  it('that appears, begins to sign or goes away is told once for all replicas, and by each in its log', async () => {
    const first = '20250101T0000Z-first';
    put(first);
    await begin({ JWT_KEYS_DIR: folder });
    const began = [`key.published ${first}`, `key.signing ${first}`];
    expect(await changes(2)).toEqual(began);

    const later = kidFrom(Date.now() + 15 * 60_000, 'later');
    put(later);
    expect(await changes(3)).toEqual([...began, `key.published ${later}`]);
    const now = Date.now.bind(Date);
    jest.spyOn(Date, 'now').mockImplementation(() => now() + 15 * 60_000);
    expect(await changes(4)).toEqual([...began, `key.published ${later}`, `key.signing ${later}`]);
    remove(first);
    const all = [...began, `key.published ${later}`, `key.signing ${later}`, `key.removed ${first}`];
    expect(await changes(5)).toEqual(all);

    await until(() => printed(/^key\.removed$/).length === 2);
    for (const instance of world.instances)
      expect(auditOf(instance, /^key\./).map(({ audit, kid }) => `${audit} ${String(kid)}`)).toEqual(all);
    // A replica that starts now sees nothing new.
    const late = await startInstance({
      ...SETTINGS,
      JWT_KEYS_DIR: folder,
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
    });
    await late.close();
    expect(auditOf(late, /^key\./).map(({ audit }) => audit)).toEqual(['key.published', 'key.signing']);
    expect(await changes(5)).toEqual(all);
  });

  it('that comes back, or comes under the name of another, is told again', async () => {
    const [first, second] = ['20250101T0000Z-first', '20250201T0000Z-second'];
    put(first);
    const content = pem();
    put(second, content);
    await begin({ JWT_KEYS_DIR: folder }, 1);
    await changes(3);
    remove(second);
    await changes(5);
    put(second, content);
    await changes(7);
    put(second);
    const all = await changes(10);
    const rotated = [`key.published ${second}`, `key.signing ${second}`, `key.removed ${second}`];
    expect(all.slice(5)).toEqual([`key.published ${second}`, `key.signing ${second}`, ...rotated]);
    const { thumbprint } = (await streamed()).find(({ audit }) => audit === 'key.published')!;
    expect(thumbprint).toMatch(/^[\w-]{43}$/);
  });
});

it('no event holds a number, a code, a token or an address, nor both names of one person', async () => {
  await begin();
  const phoneNumber = freshNumber();
  const secrets = [phoneNumber, phoneNumber.slice(3), ADMIN_TOKEN, '127.0.0.1'];
  const answer = await login(world, phoneNumber);
  const { body: sent } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  const guesses = [wrongCode(code), wrongCode(wrongCode(code))];
  for (const guess of guesses) await verifyOtp(world.url, sent.requestId, guess);
  secrets.push(String(sent.requestId), answer.body.accessToken as string, answer.body.deviceToken as string);
  let { refreshToken } = answer.body as { refreshToken: string };
  secrets.push(refreshToken);
  for (let i = 0; i < 2; i++) {
    ({ refreshToken } = (await refresh(refreshToken)).body as { refreshToken: string });
    secrets.push(refreshToken);
  }
  await refresh(answer.body.refreshToken);
  await block(world.url, phoneNumber, { reason: `they called from ${phoneNumber}` });
  await asAdmin('GET', `${world.url}/admin/usage`);
  const events = await told(/^(?!key)/);
  expect(new Set(events.map(({ audit }) => audit))).toEqual(
    new Set([
      'login',
      'code.failed',
      'token.reused',
      'session.ended',
      'admin.called',
      'admin.block',
      'admin.usage',
    ]),
  );
  const lines = world.instances.flatMap((instance) => auditOf(instance, /^/));
  const text = JSON.stringify([await streamed(), lines]);
  for (const secret of secrets) expect(text).not.toContain(secret);
  for (const number of [code, ...guesses]) expect(text).not.toMatch(new RegExp(`(?<!\\w)${number}(?!\\w)`));
  for (const event of events) expect('phone' in event && 'subject' in event).toBe(false);
});

/** As many events as are asked for, of one instance, at once. */
function tell(count: number, from = 0): void {
  const audit = world.instances[0]!.app.get(Audit);
  for (let i = from; i < from + count; i++)
    audit.tell({ audit: 'token.reused', subject: 's', session: String(i) });
}
const sessions = async (): Promise<number[]> =>
  (await streamed()).filter(({ audit }) => audit === 'token.reused').map(({ session }) => Number(session));
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const dropped = async (): Promise<number> => {
  const { body } = await call('GET', `${world.url}/metrics`);
  return Number(/^otp_login_audit_dropped_total (\d+)$/m.exec(body as string)?.[1]);
};

describe('the stream', () => {
  it('keeps as many events as it is told, and all of it expires', async () => {
    await begin({ AUDIT_STREAM_EVENTS: '200' }, 1);
    tell(1_500);
    await until(async () => (await sessions()).at(-1) === 1_499);
    const kept = await sessions();
    // Redis trims whole nodes of a hundred.
    expect(kept.length).toBeGreaterThanOrEqual(200);
    expect(kept.length).toBeLessThan(400);
    expect(kept).toEqual(upTo(1_500).slice(-kept.length));
    const keys = (await redisCommand(world, 'KEYS', 'otp-login:{audit}:*')) as string[];
    expect(keys.length).toBeGreaterThan(2);
    for (const key of keys) {
      const ttl = (await redisCommand(world, 'PTTL', key)) as number;
      expect([key, ttl > 0 && ttl <= 90 * DAY_MS]).toEqual([key, true]);
    }
  });

  // Redaction takes the middle of one in two hundred and fifty UUIDs for a phone number.
  it('has each event under the id that its line of the log has', async () => {
    await begin({}, 1);
    tell(3_000);
    const ids = printed(/^token\.reused$/).map(({ id }) => String(id));
    expect(ids.filter((id) => !UUID.test(id))).toEqual([]);
    await until(async () => (await sessions()).length === 3_000);
    const events = (await streamed()).filter(({ audit }) => audit === 'token.reused');
    expect(events.map(({ id }) => id)).toEqual(ids);
  });

  it('goes on behind what is no text', async () => {
    await begin({}, 1);
    await block(world.url, freshNumber(), { reason: 'half a character: \ud83d' });
    tell(1);
    await until(async () => (await sessions()).includes(0));
    const [begun] = (await streamed()).filter(({ audit }) => audit === 'admin.block');
    expect(begun).toMatchObject({ reason: 'half a character: \ufffd' });
  });

  it('keeps no event for more than ninety days', async () => {
    await begin({}, 1);
    const old = Date.now() - 90 * DAY_MS;
    await redisCommand(world, 'DEL', AUDIT_KEY);
    await redisCommand(world, 'XADD', AUDIT_KEY, `${old - 1}-0`, 'audit', 'token.reused', 'session', '-2');
    await redisCommand(
      world,
      'XADD',
      AUDIT_KEY,
      `${old + 60_000}-0`,
      'audit',
      'token.reused',
      'session',
      '-1',
    );
    tell(1);
    await until(async () => (await sessions()).includes(0));
    expect(await sessions()).toEqual([-1, 0]);
  });

  it('is none where none is wanted, and the log has it all', async () => {
    await begin({ AUDIT_STREAM_EVENTS: '0' }, 1);
    await login(world);
    await sleep(500);
    expect(await redisCommand(world, 'KEYS', 'otp-login:{audit}:*')).toEqual([]);
    expect(auditOf(world.instances[0]!, /^(login|key)/).map(({ audit }) => audit)).toEqual([
      'key.published',
      'key.signing',
      'login',
    ]);
  });

  it('has what was told while Redis was away, in its order, up to ten thousand; the rest is counted', async () => {
    await begin({}, 1);
    await until(async () => (await streamed()).length === 2);
    await world.redis.kill();
    tell(10_300);
    expect(await dropped()).toBe(300);
    expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
    await world.redis.restart();
    await until(async () => (await sessions()).at(-1) === 10_299);
    expect(await sessions()).toEqual(upTo(10_300).slice(300));
    expect(await dropped()).toBe(300);
    expect(auditOf(world.instances[0]!, /^token/)).toHaveLength(10_300);
  });

  it('has nothing twice when Redis stalls, and answers do not wait for it', async () => {
    await begin({}, 1);
    await until(async () => (await streamed()).length === 2);
    world.redis.pause();
    tell(30);
    // Longer than a step is waited for: it is tried again, and the first try is still on its way.
    await sleep(1_500);
    world.redis.resume();
    await until(async () => (await sessions()).length >= 30);
    await sleep(1_500);
    expect(await sessions()).toEqual(upTo(30));
  });

  it('that is refused costs no answer, and has it all once it is taken again', async () => {
    await begin({}, 1);
    await redisCommand(world, 'SET', `${AUDIT_KEY}:aside`, '1', 'PX', '100000');
    await redisCommand(world, 'RENAME', `${AUDIT_KEY}:aside`, AUDIT_KEY);
    expect((await login(world)).status).toBe(200);
    // Refused at least once.
    await until(() => world.instances[0]!.logs.join('').includes('WRONGTYPE'));
    await redisCommand(world, 'DEL', AUDIT_KEY);
    expect((await told(/^login$/)).map(({ outcome }) => outcome)).toEqual(['opened']);
  });

  it('has the last words of a process that ends', async () => {
    await begin({}, 2);
    await login(world, freshNumber(), world.instances[1]!.url);
    await world.instances[1]!.close();
    expect((await streamed()).filter(({ audit }) => audit === 'login')).toHaveLength(1);
  });
});
