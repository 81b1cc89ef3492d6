import { Redis } from 'ioredis';
import { asAdmin, auditOf, block, unblock, WITH_ADMIN } from '../support/admin';
import { holdUpstream, PATIENT } from '../support/crowd';
import { keysOfNumber, keysOfUser, partsOf } from '../support/keys';
import { behindProxy, type RedisProxy } from '../support/redis-proxy';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const BASIC = { authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}` };
const TEST_NUMBER = '+910000000001';
const DAY_MS = 86_400_000;

let world: World;
/** Two more instances. Each reaches Redis through a proxy, which holds steps of it. */
let entering: { proxy: RedisProxy; instance: Instance };
let blocking: typeof entering;
beforeAll(async () => {
  const variables = {
    ...WITH_ADMIN,
    ...PATIENT,
    INTROSPECTION_CLIENTS: INTROSPECTOR,
    TEST_NUMBERS: `${TEST_NUMBER}:123456`,
    STARTMESSAGING_CONTRACT: 'provider',
    LIMIT_FAILED_CODES: '4/86400',
    // A device token that lives is worth an SMS beyond this.
    LIMIT_PHONE: '6/3600',
  };
  world = await startWorld({ variables, count: 3 });
  entering = await behindProxy(world, variables);
  blocking = await behindProxy(world, variables);
});
afterAll(async () => {
  for (const each of [entering, blocking]) {
    await each.instance.close();
    await each.proxy.close();
  }
  await world.close();
});

const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });
const me = ({ body }: Answer, url = world.url): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(body.accessToken));
const refresh = ({ body }: Answer, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken: body.refreshToken });
const smsTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;

/** The ids of all sessions that live in Redis. */
async function livingSessions(): Promise<string[]> {
  const redis = new Redis(world.redis.url);
  try {
    const keys = await redis.keys('otp-login:*:session:*');
    const live = await Promise.all(keys.map((key) => redis.hexists(key, 'authenticated')));
    return keys
      .filter((_, i) => live[i] === 1)
      .map((key) => key.split(':').at(-1)!)
      .sort();
  } finally {
    redis.disconnect();
  }
}

/** Whether a device's token still passes the used-up limit of its number. */
async function deviceLives(phoneNumber: string, { body }: Answer): Promise<boolean> {
  for (let i = 0; i < 20; i++) if ((await sendOtp(world.url, phoneNumber)).status === 429) break;
  const answer = await call('POST', `${world.url}/auth/send-otp`, {
    phoneNumber,
    deviceToken: body.deviceToken,
  });
  if (answer.status !== 200) expect(statusAndCode(answer)).toEqual([429, 'rate_limited']);
  return answer.status === 200;
}

describe('a blocked number', () => {
  it('send-otp refuses a blocked number, and calls no provider', async () => {
    const phoneNumber = freshNumber();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    const calls = world.upstream.calls.length;
    for (const { url } of world.instances)
      expect(statusAndCode(await sendOtp(url, phoneNumber))).toEqual([400, 'phone_number_rejected']);
    expect(world.upstream.calls).toHaveLength(calls);
  });

  it('send-otp refuses a blocked number with a device token or an Idempotency-Key, too', async () => {
    const phoneNumber = freshNumber();
    const { deviceToken } = (await login(world, phoneNumber)).body;
    await block(world.url, phoneNumber);
    const byDevice = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber, deviceToken });
    expect(statusAndCode(byDevice)).toEqual([400, 'phone_number_rejected']);
    const headers = { 'idempotency-key': 'one-and-the-same' };
    for (let i = 0; i < 2; i++)
      expect(statusAndCode(await sendOtp(world.url, phoneNumber, headers))).toEqual([
        400,
        'phone_number_rejected',
      ]);
    expect(smsTo(phoneNumber)).toBe(1);
    await unblock(world.url, phoneNumber);
    expect((await sendOtp(world.url, phoneNumber, headers)).status).toBe(200);
  });

  it('a code from before a block is void during the block and after the unblock', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    await block(world.url, phoneNumber);
    const calls = world.upstream.calls.length;
    for (const headers of [{}, { 'idempotency-key': 'one-and-the-same' }])
      expect(statusAndCode(await verifyOtp(world.url, body.requestId, code, headers))).toEqual([
        410,
        'otp_expired',
      ]);
    expect(world.upstream.calls).toHaveLength(calls);
    await unblock(world.url, phoneNumber);
    for (const headers of [{}, { 'idempotency-key': 'one-and-the-same' }])
      expect(statusAndCode(await verifyOtp(world.url, body.requestId, code, headers))).toEqual([
        410,
        'otp_expired',
      ]);
  });

  it('a block ends all sessions of the number at all instances, and publishes their revocation', async () => {
    const phoneNumber = freshNumber();
    const before = Date.now();
    const logins = [];
    for (const { url } of world.instances) logins.push([await login(world, phoneNumber, url), url] as const);
    await block(world.url, phoneNumber);
    for (const [answer, url] of logins) {
      expect(statusAndCode(await me(answer, url))).toEqual([401, 'session_revoked']);
      expect(statusAndCode(await refresh(answer, url))).toEqual([401, 'session_revoked']);
      const introspected = await call(
        'POST',
        `${url}/oauth/introspect`,
        new URLSearchParams({ token: answer.body.accessToken as string }).toString(),
        { 'content-type': 'application/x-www-form-urlencoded', ...BASIC },
      );
      expect(introspected.body).toEqual({ active: false });
    }
    // For resource servers that verify tokens by themselves.
    const feed = await call('GET', `${world.url}/auth/revocations?since=${before - 1_000}`, undefined, BASIC);
    const published = JSON.stringify(feed.body);
    for (const [{ body }] of logins) {
      const claims = Buffer.from(String(body.accessToken).split('.')[1]!, 'base64url').toString();
      expect(published).toContain((JSON.parse(claims) as { sid: string }).sid);
    }
  });

  it('an unblock revives no session and no device token of the number', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    await block(world.url, phoneNumber);
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    expect(statusAndCode(await refresh(first))).toEqual([401, 'session_revoked']);
    expect(statusAndCode(await me(first))).toEqual([401, 'session_revoked']);
    const again = await login(world, phoneNumber);
    expect(again.status).toBe(200);
    expect(again.body.user).toEqual(first.body.user);
    expect((await me(again)).status).toBe(200);
    expect(await deviceLives(phoneNumber, first)).toBe(false);
    expect(await deviceLives(phoneNumber, again)).toBe(true);
  });

  it('a login that is repeated under its Idempotency-Key after a block gives no session', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    const headers = { 'idempotency-key': 'one-and-the-same' };
    expect((await verifyOtp(world.url, body.requestId, code, headers)).status).toBe(200);
    await block(world.url, phoneNumber);
    expect(statusAndCode(await verifyOtp(world.url, body.requestId, code, headers))).toEqual([
      410,
      'otp_expired',
    ]);
    await unblock(world.url, phoneNumber);
    expect(statusAndCode(await verifyOtp(world.url, body.requestId, code, headers))).toEqual([
      410,
      'otp_expired',
    ]);
  });

  it('a block changes nothing for another number', async () => {
    const [phoneNumber, other] = [freshNumber(), freshNumber()];
    const theirs = await login(world, other);
    const { body } = await sendOtp(world.url, other);
    await block(world.url, phoneNumber);
    expect((await me(theirs)).status).toBe(200);
    expect((await refresh(theirs)).status).toBe(200);
    const code = textedCode(world.upstream, other);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    expect(await deviceLives(other, theirs)).toBe(true);
  });

  it('an operator may block a test number', async () => {
    const enter = async (): Promise<Answer> =>
      verifyOtp(world.url, (await sendOtp(world.url, TEST_NUMBER)).body.requestId, '123456');
    const first = await enter();
    expect((await me(first)).status).toBe(200);
    const open = await sendOtp(world.url, TEST_NUMBER);
    await block(world.url, TEST_NUMBER);
    expect(statusAndCode(await me(first))).toEqual([401, 'session_revoked']);
    expect(statusAndCode(await sendOtp(world.url, TEST_NUMBER))).toEqual([400, 'phone_number_rejected']);
    expect(statusAndCode(await verifyOtp(world.url, open.body.requestId, '123456'))).toEqual([
      410,
      'otp_expired',
    ]);
    await unblock(world.url, TEST_NUMBER);
    expect((await me(await enter())).status).toBe(200);
  });

  it.each([
    [{ days: 1 }, 1],
    [{ days: 3_650 }, 3_650],
    [{}, 3_650],
  ])('a block with %j holds for %d days, for sends and for sessions', async (more, days) => {
    const before = Date.now();
    const phoneNumber = freshNumber();
    const { body } = await login(world, phoneNumber);
    const pseudonym = partsOf((await sendOtp(world.url, phoneNumber)).body.requestId as string).pseudonym;
    // Once more, for longer or shorter: the last word counts.
    for (const each of [{ days: 30 }, more])
      expect((await block(world.url, phoneNumber, each)).status).toBe(204);
    for (const { blocked } of [keysOfNumber(pseudonym), keysOfUser(body.user.id as string)]) {
      const ms = Number(await redisCommand(world, 'PTTL', blocked));
      expect(ms).toBeLessThanOrEqual(days * DAY_MS);
      expect(ms).toBeGreaterThanOrEqual(days * DAY_MS - (Date.now() - before) - 1);
    }
  });

  it('a number may be blocked and unblocked again and again', async () => {
    const phoneNumber = freshNumber();
    const steps = [block, block, unblock, unblock, unblock, block];
    for (const step of steps) {
      expect((await step(world.url, phoneNumber)).status).toBe(204);
      const expected = step === block ? [400, 'phone_number_rejected'] : [200, undefined];
      expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual(expected);
    }
  });
});

describe('the routes', () => {
  it.each(['block', 'unblock'])(
    'POST /admin/numbers/%s refuses a request without the token of an operator',
    async (route) => {
      const phoneNumber = freshNumber();
      if (route === 'unblock') await block(world.url, phoneNumber);
      const user = bearer((await login(world)).body.accessToken);
      for (const headers of [{}, bearer('x'.repeat(32)), user]) {
        const refused = await call('POST', `${world.url}/admin/numbers/${route}`, { phoneNumber }, headers);
        expect(statusAndCode(refused)).toEqual([401, 'unauthenticated']);
      }
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(route === 'block' ? 200 : 400);
    },
  );

  it.each<[string, object | undefined, string[]]>([
    ['a request without a body', undefined, ['phoneNumber']],
    ['a body without a number', {}, ['phoneNumber']],
    ['a number of another country', { phoneNumber: '+12025550123' }, ['phoneNumber']],
    ['a number with spaces', { phoneNumber: '+91 98765 43210' }, ['phoneNumber']],
    ['an array', { phoneNumber: ['+919876543210'] }, ['phoneNumber']],
    ['a number as a JSON number', { phoneNumber: 919_876_543_210 }, ['phoneNumber']],
    ['0 days', { days: 0 }, ['days']],
    ['-1 days', { days: -1 }, ['days']],
    ['1.5 days', { days: 1.5 }, ['days']],
    ['more than ten years', { days: 3_651 }, ['days']],
    ['days as a text', { days: '3' }, ['days']],
    ['days in an array', { days: [3] }, ['days']],
    ['days that are true', { days: true }, ['days']],
    ['a reason of 201 characters', { reason: 'x'.repeat(201) }, ['reason']],
    ['a reason that is a number', { reason: 4711 }, ['reason']],
    ['a reason in an array', { reason: ['x'] }, ['reason']],
    ['three invalid fields', { phoneNumber: 1, days: 'x', reason: 2 }, ['phoneNumber', 'days', 'reason']],
  ])(
    'POST /admin/numbers/block refuses %s, names the invalid fields, and blocks no number',
    async (_, body, fields) => {
      const phoneNumber = freshNumber();
      const sent =
        body === undefined || Object.keys(body).length === 0 || 'phoneNumber' in body
          ? body
          : { phoneNumber, ...body };
      const answer = await asAdmin('POST', `${world.url}/admin/numbers/block`, sent);
      expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
      const errors = answer.body.errors as { field: string }[];
      expect(errors.map(({ field }) => field).sort()).toEqual([...fields].sort());
      if (fields.includes('phoneNumber')) {
        const unblocked = await asAdmin('POST', `${world.url}/admin/numbers/unblock`, sent);
        expect(statusAndCode(unblocked)).toEqual([400, 'validation_failed']);
      } else {
        expect((await sendOtp(world.url, phoneNumber)).status).toBe(200);
      }
    },
  );
});

describe('the audit of a block', () => {
  it('the audit of a block names the operator and the pseudonym of the number, and no log has the number', async () => {
    const phoneNumber = freshNumber();
    const pseudonym = partsOf((await sendOtp(world.url, phoneNumber)).body.requestId as string).pseudonym;
    const instance = world.instances[1]!;
    const before = auditOf(instance).length;
    await block(instance.url, phoneNumber, { days: 7, reason: 'DoT order 4711' });
    await unblock(instance.url, phoneNumber);
    const told = { admin: 'ops', phone: pseudonym };
    const blocked = { audit: 'admin.block', ...told, days: 7, reason: 'DoT order 4711' };
    const lines = auditOf(instance).slice(before);
    expect(lines.filter(({ audit }) => audit !== 'admin.called')).toEqual([
      expect.objectContaining({ ...blocked, outcome: 'begun' }),
      expect.objectContaining({ ...blocked, outcome: 'done' }),
      expect.objectContaining({ audit: 'admin.unblock', ...told, outcome: 'begun' }),
      expect.objectContaining({ audit: 'admin.unblock', ...told, outcome: 'done' }),
    ]);
    for (const { logs } of world.instances) expect(logs.join('')).not.toContain(phoneNumber.slice(3));
  });

  // As people write numbers into such a field.
  it.each([
    '+919876501234',
    '919876501234',
    '9876501234',
    '09876501234',
    '+91 98765 01234',
    '98765 01234',
    '98765-01234',
    '+91-9876501234',
    '(+91) 987 650 1234',
  ])('the audit of a block hides the phone number %s in the reason', async (spelling) => {
    const instance = world.instances[2]!;
    await block(instance.url, freshNumber(), { reason: `stolen, owner calls from ${spelling} today` });
    const { reason } = auditOf(instance).at(-1)!;
    expect(reason).toMatch(/^stolen, owner calls from .*\*.* today$/);
    expect(String(reason).replace(/\D/g, '')).not.toContain('01234');
  });

  it('the audit says that a block failed while Redis did not answer, and the next try blocks the number', async () => {
    const phoneNumber = freshNumber();
    const { proxy, instance } = blocking;
    const step = proxy.trap('block', 'hold');
    expect(statusAndCode(await block(instance.url, phoneNumber))).toEqual([503, 'store_unavailable']);
    const [begun, failed] = auditOf(instance).slice(-2);
    expect([begun?.outcome, failed?.outcome]).toEqual(['begun', 'failed']);
    step.letGo();
    expect((await block(instance.url, phoneNumber)).status).toBe(204);
    expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual([400, 'phone_number_rejected']);
  });
});

// More of this is in test/e2e/exactness-endings.test.ts.
describe('a block during a login', () => {
  it('a code that the provider verifies during a block and an unblock is void', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const held = holdUpstream(world, 'verify', phoneNumber);
    const entered = verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber));
    await held.arrived();
    await block(world.url, phoneNumber);
    await unblock(world.url, phoneNumber);
    held.letGo();
    expect(statusAndCode(await entered)).toEqual([410, 'otp_expired']);
    // The provider had found it right.
    expect(world.upstream.calls.at(-1)).toMatchObject({ path: '/otp/verify', accepted: true, status: 200 });
  });

  it('verify-otp calls no provider for a code whose SMS was under way when its number was blocked', async () => {
    const phoneNumber = freshNumber();
    const held = holdUpstream(world, 'send', phoneNumber);
    const sending = sendOtp(world.url, phoneNumber);
    await held.arrived();
    await block(world.url, phoneNumber);
    held.letGo();
    const { status, body } = await sending;
    expect(status).toBe(200);
    const calls = world.upstream.calls.length;
    const code = textedCode(world.upstream, phoneNumber);
    expect(statusAndCode(await verifyOtp(world.url, body.requestId, code))).toEqual([410, 'otp_expired']);
    expect(world.upstream.calls).toHaveLength(calls);
  });

  const redisTime = async (): Promise<number> => {
    const [seconds, micros] = (await redisCommand(world, 'TIME')) as [string, string];
    return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
  };

  interface Race {
    phoneNumber: string;
    before: string[];
    entered: Answer;
    blocked: Answer;
  }
  /**
   * The session of a login is opened after its code was used, and while the block of the number stands at its step over the
   * sessions: held before it (`hold`), or done, with its answer kept (`late`).
   */
  async function openDuringBlock(fate: 'hold' | 'late'): Promise<Race> {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    const before = await livingSessions();
    const used = entering.proxy.trap('consume', 'late');
    const halfway = blocking.proxy.trap('block', fate);
    const entered = verifyOtp(entering.instance.url, body.requestId, code);
    await used.caught();
    const blocked = block(blocking.instance.url, phoneNumber);
    await halfway.caught();
    // Not within the millisecond of the first half of the block.
    const half = await redisTime();
    await until(async () => (await redisTime()) > half, 'the next millisecond');
    used.letGo();
    const answer = await entered;
    halfway.letGo();
    const race = { phoneNumber, before, entered: answer, blocked: await blocked };
    // A step that was held for too long was given up: the same again.
    return [race.entered.status, race.blocked.status].includes(503) ? openDuringBlock(fate) : race;
  }

  it('a block ends the session, and its device token, that a login opened between the two halves of the block', async () => {
    const { phoneNumber, before, entered, blocked } = await openDuringBlock('hold');
    expect([entered.status, blocked.status]).toEqual([200, 204]);
    expect(statusAndCode(await me(entered, entering.instance.url))).toEqual([401, 'session_revoked']);
    expect(statusAndCode(await refresh(entered))).toEqual([401, 'session_revoked']);
    expect(await livingSessions()).toEqual(before);
    await unblock(world.url, phoneNumber);
    expect(await deviceLives(phoneNumber, entered)).toBe(false);
  });

  it('a login opens no session between the start of the block of its sessions and their end', async () => {
    const { before, entered, blocked } = await openDuringBlock('late');
    expect(statusAndCode(entered)).toEqual([410, 'otp_expired']);
    expect(blocked.status).toBe(204);
    expect(await livingSessions()).toEqual(before);
  });
});
