import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type * as auditModule from '../../src/audit/audit';
import type * as signingKeys from '../../src/tokens/signing-keys';
import { ADMIN_TOKEN, asAdmin, auditOf, block, WITH_ADMIN, type AuditLine } from '../support/admin';
import { KEYS, partsOf } from '../support/keys';
import { metricOf } from '../support/metrics';
import type { RedisServer } from '../support/redis-server';
import { serviceModule } from '../support/service';
import { dateOfService } from '../support/service-clock';
import { newSigningKey } from '../support/signing-keys';
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

/** The world of a test: the shared one, or one that it began. */
let world: World;
let shared: World;
/** The ids of the events from before the test. */
let before: ReadonlySet<unknown> = new Set();

const settings = (variables: Variables): Variables => ({ ...SETTINGS, ...variables });
beforeAll(async () => {
  shared = await startWorld({ variables: SETTINGS, count: 2 });
});
afterAll(() => shared.close());
beforeEach(() => {
  world = shared;
  before = new Set();
  before = new Set(printed(/^/).map(({ id }) => id));
});
afterEach(async () => {
  jest.restoreAllMocks();
  if (world !== shared) await world.close();
});

/** A world of the test's own, with these settings. */
async function begin(variables: Variables = {}, count = 1): Promise<void> {
  world = await startWorld({ variables: settings(variables), count });
  before = new Set();
}
/** A world whose Redis the test may kill, pause or restrict. */
async function beginWithRedis(): Promise<RedisServer> {
  const own = await startWorld({ ownRedis: true, variables: SETTINGS });
  world = own;
  before = new Set();
  return own.redis;
}

/** All that the stream holds from this test, the oldest first. */
async function streamed(): Promise<Event[]> {
  const entries = (await redisCommand(world, 'XRANGE', KEYS.audit, '-', '+')) as [string, string[]][];
  return entries
    .map(([, flat]) =>
      Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : []))),
    )
    .filter(({ id }) => !before.has(id));
}
const streamedAbout = async (about: RegExp): Promise<Event[]> =>
  (await streamed()).filter(({ audit }) => about.test(audit!));

/** What stdout of all instances says about this in this test, in the order of the instances. */
const printed = (about: RegExp): AuditLine[] =>
  world.instances.flatMap((instance) => auditOf(instance, about)).filter(({ id }) => !before.has(id));

/** What the stream says about this, as soon as it says what stdout does, and that it does. */
async function told(about: RegExp): Promise<Event[]> {
  const lines = printed(about);
  const ids = lines.map(({ id }) => String(id)).sort();
  await until(async () => (await streamedAbout(about)).length >= ids.length, 'the stream of the audit');
  const events = await streamedAbout(about);
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

it('the audit of a login has the session, the device and the network of the address', async () => {
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

it('the audit of a login that is repeated under its Idempotency-Key says so', async () => {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  for (const { url } of world.instances) {
    expect(
      (await verifyOtp(url, body.requestId, code, { 'idempotency-key': 'one-and-the-same' })).status,
    ).toBe(200);
    // Replicas write by themselves: across them the order is that of `time`.
    await told(/^login$/);
  }
  const events = await told(/^login$/);
  expect(events.map(({ outcome }) => outcome)).toEqual(['opened', 'repeated']);
  expect(events[0]!.session).toBe(events[1]!.session);
});

it('the audit of a login with a test number says so', async () => {
  const { body } = await sendOtp(world.url, TEST_NUMBER);
  expect((await verifyOtp(world.url, body.requestId, '123456')).status).toBe(200);
  await login(world);
  expect((await told(/^login$/)).map(({ test }) => test)).toEqual(['true', undefined]);
});

it('the audit has each wrong code once, and the lock of the number once, over all instances', async () => {
  const began = Date.now();
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
  const guess = (url: string): Promise<Answer> => verifyOtp(url, body.requestId, wrong);
  // A repeat is answered, and is no other guess.
  for (let i = 0; i < 2; i++)
    await verifyOtp(world.url, body.requestId, wrong, { 'idempotency-key': 'one-and-the-same' });
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => guess(world.instances[i % 2]!.url)));
  expect(answers.map(({ status }) => status).sort()).toEqual([400, 400, 400, 429, 429, 429, 429, 429]);
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);

  const phone = partsOf(body.requestId as string).pseudonym;
  const network = '127.0.0.0/24';
  const events = await told(/^(code|number)\./);
  expect(events.filter(({ audit }) => audit === 'code.failed')).toHaveLength(4);
  expect(events).toContainEqual({ audit: 'code.failed', phone, network, attemptsLeft: '4' });
  const locked = events.filter(({ audit }) => audit === 'number.locked');
  expect(locked).toEqual([{ audit: 'number.locked', phone, network, allowance: 'phone', seconds: ANY }]);
  const elapsed = (Date.now() - began) / 1_000;
  expect(Number(locked[0]!.seconds)).toBeGreaterThanOrEqual(86_400 - elapsed - 1);
  expect(Number(locked[0]!.seconds)).toBeLessThanOrEqual(86_401);
});

it('the audit has a lock of the number for strangers, and another one for its device', async () => {
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

it('the audit has no lock of a number after a right code, where a wrong code would lock it', async () => {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  for (let i = 0; i < 3; i++) await verifyOtp(world.url, body.requestId, wrongCode(code));
  expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
  expect((await told(/^(code|number)\./)).map(({ audit }) => audit)).toEqual(Array(3).fill('code.failed'));
});

it('the audit of a reused refresh token has the session that ends for it', async () => {
  const { body } = await login(world);
  const session = await sessionOf({ body } as Answer);
  const subject = body.user.id as string;
  const second = await refresh(body.refreshToken);
  await refresh(second.body.refreshToken);
  expect((await refresh(body.refreshToken)).body.code).toBe('refresh_token_reused');
  // The session has ended: the next use is no reuse.
  expect((await refresh(body.refreshToken)).body.code).toBe('session_revoked');
  expect(await told(/^(token|session)\./)).toEqual([
    { audit: 'token.reused', subject, session },
    { audit: 'session.ended', subject, session, reason: 'token_reused', outcome: 'ended' },
  ]);
});

describe('the end of a session', () => {
  it('the audit has the end of each session once, with its reason', async () => {
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
      (await told(/^session\./)).map(({ subject, session, reason, outcome }) => {
        expect([subject, outcome]).toEqual([subjects[0], 'ended']);
        return [reason, ids.indexOf(session!)];
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

  it('the audit calls the end of a session unknown that Redis did not confirm', async () => {
    await beginWithRedis();
    const { body } = await login(world);
    await told(/^login$/);
    // All but the step that ends it: found, and published.
    await redisCommand(world, 'ACL', 'SETUSER', 'default', '-hgetall');
    expect((await logout({ body } as Answer)).status).toBe(503);
    await redisCommand(world, 'ACL', 'SETUSER', 'default', '+hgetall');
    expect(await told(/^session\./)).toMatchObject([{ reason: 'logout', outcome: 'unknown' }]);
  });
});

it('the audit has each call of an operator, and refused calls only once a minute in the stream', async () => {
  await asAdmin('GET', `${world.url}/admin/abuse`);
  const guarded = await told(/^admin\./);
  expect(guarded).toEqual([
    { audit: 'admin.called', admin: 'ops', method: 'GET', route: '/admin/abuse' },
    { audit: 'admin.abuse', admin: 'ops', outcome: 'done' },
  ]);
  for (let i = 0; i < 20; i++) await call('GET', `${world.url}/admin/usage`);
  await login(world);
  // Written after all of them.
  await until(async () => (await streamedAbout(/^login$/)).length > 0, 'the login in the stream');
  expect(printed(/^admin\.refused$/)).toHaveLength(20);
  expect(await streamedAbout(/^admin\.refused$/)).toHaveLength(1);
});

describe('a signing key', () => {
  const kidFrom = (time: number, name: string): string =>
    `${new Date(time).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${name}`;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'otp-login-audit-keys-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const put = (kid: string, content = newSigningKey()): void => {
    writeFileSync(join(folder, `.${kid}`), content);
    renameSync(join(folder, `.${kid}`), join(folder, `${kid}.pem`));
  };
  const remove = (kid: string): void => {
    rmSync(join(folder, `${kid}.pem`));
  };
  /** The changes as the stream has them, once each instance has looked and the stream has as many. */
  const changes = async (count: number): Promise<string[]> => {
    const { SigningKeys } = serviceModule<typeof signingKeys>('tokens/signing-keys');
    for (const { app } of world.instances) {
      // Two reads of the folder must find the same. Each is followed by the audit.
      app.get(SigningKeys).poll();
      app.get(SigningKeys).poll();
    }
    await until(async () => (await streamedAbout(/^key\./)).length >= count, `${count} changes of keys`);
    return (await streamedAbout(/^key\./)).map(({ audit, kid }) => `${audit} ${kid}`);
  };

  it('the stream has each change of a signing key once for all instances, and each instance has it in its log', async () => {
    const first = '20250101T0000Z-first';
    put(first);
    await begin({ JWT_KEYS_DIR: folder }, 2);
    const began = [`key.published ${first}`, `key.signing ${first}`];
    expect(await changes(2)).toEqual(began);

    const later = kidFrom(Date.now() + 15 * 60_000, 'later');
    put(later);
    expect(await changes(3)).toEqual([...began, `key.published ${later}`]);
    const now = Date.now.bind(Date);
    jest.spyOn(dateOfService(), 'now').mockImplementation(() => now() + 15 * 60_000);
    expect(await changes(4)).toEqual([...began, `key.published ${later}`, `key.signing ${later}`]);
    remove(first);
    const all = [...began, `key.published ${later}`, `key.signing ${later}`, `key.removed ${first}`];
    expect(await changes(5)).toEqual(all);

    for (const instance of world.instances)
      expect(auditOf(instance, /^key\./).map(({ audit, kid }) => `${audit} ${String(kid)}`)).toEqual(all);
    // An instance that starts now sees nothing new.
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

  it('the stream takes no change of a signing key from an instance that reports it only after a later change', async () => {
    const [first, second] = ['20250101T0000Z-first', '20250201T0000Z-second'];
    put(first);
    put(second);
    await begin({ JWT_KEYS_DIR: folder }, 2);
    await changes(3);
    const [published] = await streamedAbout(/^key\.published$/);
    remove(published!.kid!);
    const all = await changes(4);
    // The instance did not reach Redis when it started: it writes its events of that time now.
    const { Audit } = serviceModule<typeof auditModule>('audit/audit');
    const audit = world.instances[1]!.app.get(Audit);
    audit['entries'].add({ ...published, audit: 'key.published', id: 'late' });
    await audit['entries'].flush();
    expect(await changes(4)).toEqual(all);
  });

  it('the stream has a signing key again that comes back, and one that takes the name of another', async () => {
    const [first, second] = ['20250101T0000Z-first', '20250201T0000Z-second'];
    put(first);
    const content = newSigningKey();
    put(second, content);
    await begin({ JWT_KEYS_DIR: folder });
    await changes(3);
    remove(second);
    await changes(5);
    put(second, content);
    await changes(7);
    put(second);
    const all = await changes(10);
    const rotated = [`key.published ${second}`, `key.signing ${second}`, `key.removed ${second}`];
    expect(all.slice(5)).toEqual([`key.published ${second}`, `key.signing ${second}`, ...rotated]);
    const { thumbprint } = (await streamedAbout(/^key\.published$/))[0]!;
    expect(thumbprint).toMatch(/^[\w-]{43}$/);
  });
});

it('no event of the audit has a phone number, a code, a token or an address, or both names of one person', async () => {
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
  const text = JSON.stringify([await streamed(), printed(/^/)]);
  for (const secret of secrets) expect(text).not.toContain(secret);
  for (const number of [code, ...guesses]) expect(text).not.toMatch(new RegExp(`(?<!\\w)${number}(?!\\w)`));
  for (const event of events) expect('phone' in event && 'subject' in event).toBe(false);
});

/** As many events as are asked for, of one instance, at once. */
function tell(count: number, from = 0): void {
  const { Audit } = serviceModule<typeof auditModule>('audit/audit');
  const audit = world.instances[0]!.app.get(Audit);
  for (let i = from; i < from + count; i++)
    audit.record({ audit: 'token.reused', subject: 's', session: String(i) });
}
const sessions = async (): Promise<number[]> =>
  (await streamedAbout(/^token\.reused$/)).map(({ session }) => Number(session));
const streamHas = (session: number): Promise<void> =>
  until(async () => (await sessions()).at(-1) === session, `event ${session} in the stream`);
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const dropped = (): Promise<number> => metricOf(world.url, 'otp_login_audit_dropped_total');
/** The events about the key of a service that has just begun. */
const begun = (): Promise<void> => until(async () => (await streamed()).length === 2, 'the first events');

describe('the stream', () => {
  it('the stream keeps AUDIT_STREAM_EVENTS events, and all its keys expire', async () => {
    await begin({ AUDIT_STREAM_EVENTS: '200' });
    tell(1_500);
    await streamHas(1_499);
    const kept = await sessions();
    // Redis trims whole nodes of a hundred.
    expect(kept.length).toBeGreaterThanOrEqual(200);
    expect(kept.length).toBeLessThan(400);
    expect(kept).toEqual(upTo(1_500).slice(-kept.length));
    const keys = (await redisCommand(world, 'KEYS', `${KEYS.audit.replace('events', '')}*`)) as string[];
    expect(keys.length).toBeGreaterThan(2);
    for (const key of keys) {
      const ttl = (await redisCommand(world, 'PTTL', key)) as number;
      expect([key, ttl > 0 && ttl <= 90 * DAY_MS]).toEqual([key, true]);
    }
  });

  // Redaction would take the middle of one in two hundred and fifty UUIDs for a phone number.
  it('the stream has each event under the id of its log line', async () => {
    tell(1_500);
    const ids = printed(/^token\.reused$/).map(({ id }) => String(id));
    expect(ids.filter((id) => !UUID.test(id))).toEqual([]);
    await streamHas(1_499);
    expect((await streamedAbout(/^token\.reused$/)).map(({ id }) => id)).toEqual(ids);
  });

  it('the stream takes an event whose text is no valid Unicode, and the events after it', async () => {
    await block(world.url, freshNumber(), { reason: 'half a character: \ud83d' });
    tell(1);
    await streamHas(0);
    const [blocked] = await streamedAbout(/^admin\.block$/);
    expect(blocked).toMatchObject({ reason: 'half a character: \ufffd' });
  });

  it('the stream drops events that are older than ninety days', async () => {
    await begin();
    await begun();
    const oldest = Date.now() - 90 * DAY_MS;
    await redisCommand(world, 'DEL', KEYS.audit);
    const add = (ms: number, session: string): Promise<unknown> =>
      redisCommand(world, 'XADD', KEYS.audit, `${ms}-0`, 'audit', 'token.reused', 'session', session);
    await add(oldest - 1, '-2');
    await add(oldest + DAY_MS, '-1');
    tell(1);
    await streamHas(0);
    expect(await sessions()).toEqual([-1, 0]);
  });

  it('the service writes no stream with AUDIT_STREAM_EVENTS=0, and its log has each event', async () => {
    await begin({ AUDIT_STREAM_EVENTS: '0' });
    await login(world);
    // At its end an instance writes what still waits.
    await world.instances[0]!.close();
    expect(await redisCommand(world, 'KEYS', `${KEYS.audit.replace('events', '')}*`)).toEqual([]);
    expect(printed(/^(login|key)/).map(({ audit }) => audit)).toEqual([
      'key.published',
      'key.signing',
      'login',
    ]);
  });

  it('an instance keeps ten thousand events for the stream while Redis is away, and counts the rest as dropped', async () => {
    const redis = await beginWithRedis();
    await begun();
    await redis.kill();
    tell(10_300);
    expect(await dropped()).toBe(300);
    expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
    await redis.restart();
    await streamHas(10_299);
    expect(await sessions()).toEqual(upTo(10_300).slice(300));
    expect(await dropped()).toBe(300);
    expect(printed(/^token/)).toHaveLength(10_300);
  });

  it('the stream has no event twice when an instance writes again after Redis stalled', async () => {
    const redis = await beginWithRedis();
    await begun();
    redis.pause();
    tell(30);
    // The first write was given up: Redis has it still before it, and the next one behind it.
    const failed = 'otp_login_redis_command_duration_seconds_count{command="record",outcome="failed"}';
    await until(async () => (await metricOf(world.url, failed)) > 0, 'a write that is given up');
    redis.resume();
    await until(async () => (await sessions()).length >= 30, 'thirty events in the stream');
    // Written after the second write of the others.
    tell(1, 30);
    await streamHas(30);
    expect(await sessions()).toEqual(upTo(31));
  });

  it('requests are answered while Redis refuses the stream, and the stream has each event when Redis accepts it again', async () => {
    await begin();
    await begun();
    await redisCommand(world, 'SET', `${KEYS.audit}:aside`, '1', 'PX', '100000');
    await redisCommand(world, 'RENAME', `${KEYS.audit}:aside`, KEYS.audit);
    expect((await login(world)).status).toBe(200);
    await until(() => world.instances[0]!.logs.join('').includes('WRONGTYPE'), 'a write that Redis refused');
    await redisCommand(world, 'DEL', KEYS.audit);
    expect((await told(/^login$/)).map(({ outcome }) => outcome)).toEqual(['opened']);
  });

  it('an instance that ends writes its last events to the stream', async () => {
    await begin({}, 2);
    await login(world, freshNumber(), world.instances[1]!.url);
    await world.instances[1]!.close();
    expect(await streamedAbout(/^login$/)).toHaveLength(1);
  });
});
