import { rmSync } from 'node:fs';
import { ADMIN_TOKENS, as, atOnce, operate, queued, signingKeys, tally, told, under } from '../support/crowd';
import { RedisProxy } from '../support/redis-proxy';
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
  type Answer,
  type Instance,
  type World,
} from '../support/world';

const JWT_KEYS_DIR = signingKeys();
let world: World;
/** The third instance reaches Redis through it. */
let proxy: RedisProxy;
let third: Instance;

beforeAll(async () => {
  const variables = {
    ADMIN_TOKENS,
    JWT_KEYS_DIR,
    STARTMESSAGING_CONTRACT: 'caller',
    UPSTREAM_TIMEOUT_MS: '10000',
    UPSTREAM_DEADLINE_MS: '20000',
    // Three logins use a number up: what goes beyond is let through by a device's token alone.
    LIMIT_PHONE: '3/86400',
  };
  world = await startWorld({ variables, count: 2 });
  proxy = await RedisProxy.before(world.redis);
  const urls = { REDIS_URL: proxy.url, STARTMESSAGING_BASE_URL: world.upstream.url };
  third = await startInstance({ ...variables, ...urls });
  world.instances.push(third);
});
afterAll(async () => {
  await proxy.close();
  await world.close();
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

const block = (url: string, phoneNumber: string): Promise<Answer> =>
  operate(url, 'POST', 'numbers/block', { phoneNumber });
const unblock = (url: string, phoneNumber: string): Promise<Answer> =>
  operate(url, 'POST', 'numbers/unblock', { phoneNumber });
const refresh = (url: string, { body }: Answer): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken: body.refreshToken as unknown });
const endAll = (url: string, { body }: Answer, query = ''): Promise<Answer> =>
  call('DELETE', `${url}/auth/sessions${query}`, undefined, as(body.accessToken));
const sendByToken = (url: string, phoneNumber: string, { body }: Answer): Promise<Answer> =>
  call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken: body.deviceToken as unknown });

async function sent(phoneNumber: string): Promise<{ requestId: string; code: string }> {
  const { status, body } = await sendOtp(world.url, phoneNumber);
  expect(status).toBe(200);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}

async function logins(phoneNumber: string, count: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let i = 0; i < count; i++) answers.push(await login(world, phoneNumber));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  return answers;
}

/** No token of these answers is worth anything at any instance, and Redis holds no living session of the user. */
async function expectDead(subject: unknown, answers: readonly Answer[]): Promise<void> {
  for (const answer of answers) {
    if (answer.status !== 200) continue;
    for (const { url } of world.instances) {
      expect((await call('GET', `${url}/auth/me`, undefined, as(answer.body.accessToken))).status).toBe(401);
      expect((await refresh(url, answer)).status).toBe(401);
    }
  }
  const keys = (await redisCommand(world, 'KEYS', `otp-login:{${String(subject)}}:session:*`)) as string[];
  const living = await Promise.all(keys.map((key) => redisCommand(world, 'HEXISTS', key, 'authenticated')));
  expect(living).not.toContain(1);
}

describe('once a block was answered', () => {
  it.each([
    ['take-attempt', 'hold'],
    ['take-attempt', 'late'],
    ['consume', 'hold'],
    ['consume', 'late'],
    ['open', 'hold'],
    ['open', 'late'],
  ] as const)('no session of the number lives when it came at %s (%s)', async (step, fate) => {
    const phoneNumber = freshNumber();
    const [before] = await logins(phoneNumber, 1);
    const subject = before?.body.user.id as string;
    const { requestId, code } = await sent(phoneNumber);
    const trap = proxy.trap(step, fate);
    const verifying = verifyOtp(third.url, requestId, code, under('v'));
    await trap.caught();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    const answer = await verifying;
    // Only the answer of the last step may come after the block, and is worth nothing.
    expect(told(answer)).toBe(step === 'open' && fate === 'late' ? '200' : '410 otp_expired');
    const again = await atOnce(world, 6, (url, i) =>
      verifyOtp(url, requestId, code, under(i % 2 ? 'v' : 'w')),
    );
    expect(tally(again)).toEqual({ '410 otp_expired': 6 });
    await expectDead(subject, [...(before ? [before] : []), answer]);
    const sends = await atOnce(world, 6, (url) => sendOtp(url, phoneNumber));
    expect(tally(sends)).toEqual({ '400 phone_number_rejected': 6 });
  });

  it('no session lives and no SMS is sent, however verifications, refreshes and sends race with it', async () => {
    for (let round = 0; round < 6; round++) {
      const phoneNumber = freshNumber();
      const before = await logins(phoneNumber, 2);
      const { requestId, code } = await sent(phoneNumber);
      const [blocked, raced] = await queued(world, async () => {
        const early = atOnce(world, 3 * round, (url, i) =>
          i % 2 ? verifyOtp(url, requestId, code) : refresh(url, before[i % 4 ? 0 : 1]!),
        );
        const blocking = block(third.url, phoneNumber);
        const late = atOnce(world, 18 - 3 * round, (url, i) =>
          i % 2 ? verifyOtp(url, requestId, code) : refresh(url, before[i % 4 ? 0 : 1]!),
        );
        return Promise.all([blocking, Promise.all([early, late]).then((all) => all.flat())]);
      });
      expect(blocked.status).toBe(204);
      await expectDead(before[0]?.body.user.id, [...before, ...raced]);
      const messages = world.upstream.messages.length;
      const after = await atOnce(world, 6, (url, i) => sendByToken(url, phoneNumber, before[i % 2]!));
      expect(tally(after)).toEqual({ '400 phone_number_rejected': 6 });
      expect(world.upstream.messages).toHaveLength(messages);
    }
  });
});

describe('what a block ended stays ended after an unblock', () => {
  it('a verification that it refused stays refused under its Idempotency-Key', async () => {
    const phoneNumber = freshNumber();
    const { requestId, code } = await sent(phoneNumber);
    const trap = proxy.trap('open', 'hold');
    const verifying = verifyOtp(third.url, requestId, code, under('v'));
    await trap.caught();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    expect(told(await verifying)).toBe('410 otp_expired');
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    const again = await verifyOtp(world.url, requestId, code, under('v'));
    expect(told(again)).toBe('410 otp_expired');
  });

  it('a code whose SMS was under way is void', async () => {
    const phoneNumber = freshNumber();
    const calls = world.upstream.calls.length;
    world.upstream.fault({ on: 'send', phoneNumber, fault: { kind: 'slow', delayMs: 700 } });
    const sending = sendOtp(world.url, phoneNumber);
    await until(() => world.upstream.calls.length > calls);
    expect((await block(third.url, phoneNumber)).status).toBe(204);
    const { body } = await sending;
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(410);
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    expect(told(await verifyOtp(world.url, body.requestId, code))).toBe('410 otp_expired');
  });

  it('device tokens, also that of a session that was ending all others meanwhile', async () => {
    const phoneNumber = freshNumber();
    const [, , last] = await logins(phoneNumber, 3);
    const trap = proxy.trap('end-devices', 'hold');
    const ending = endAll(third.url, last!, '?others=true');
    await trap.caught();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    await ending;
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    expect(told(await sendByToken(world.url, phoneNumber, last!))).toBe('429 rate_limited');
  });

  it('and an unblock that runs between its two halves leaves a number that can log in, or is blocked', async () => {
    const phoneNumber = freshNumber();
    const trap = proxy.trap('block', 'hold');
    const blocking = block(third.url, phoneNumber);
    await trap.caught();
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    expect((await blocking).status).toBe(204);
    const send = await sendOtp(world.url, phoneNumber);
    if (send.status === 200) {
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(world.url, send.body.requestId, code))).toBe('200');
    } else expect(told(send)).toBe('400 phone_number_rejected');
  });
});

describe('once the last log-out everywhere was answered, no device token passes the used-up limit', () => {
  it('however two of them race with sends by token', async () => {
    for (let round = 0; round < 5; round++) {
      const phoneNumber = freshNumber();
      const [one, two, three] = (await logins(phoneNumber, 3)) as [Answer, Answer, Answer];
      expect(told(await sendOtp(world.url, phoneNumber))).toBe('429 rate_limited');
      const [ended, raced] = await queued(world, () =>
        Promise.all([
          Promise.all([
            endAll(world.instances[round % 3]!.url, one),
            endAll(world.instances[(round + 1) % 3]!.url, two),
          ]),
          // So few that the allowance itself has room left when they are done.
          atOnce(world, 3, (url, i) => sendByToken(url, phoneNumber, [one, two, three][i]!)),
        ]),
      );
      expect(ended.some(({ status }) => status === 204)).toBe(true);
      expect(ended.every(({ status }) => status === 204 || status === 401)).toBe(true);
      expect(raced.every(({ status }) => status === 200 || status === 429)).toBe(true);
      const after = await atOnce(world, 12, (url, i) =>
        sendByToken(url, phoneNumber, [one, two, three][i % 3]!),
      );
      expect(tally(after)).toEqual({ '429 rate_limited': 12 });
      await expectDead(one.body.user.id, [one, two, three]);
    }
  });

  it('while one that keeps its own session was overtaken by one that keeps none', async () => {
    const phoneNumber = freshNumber();
    const [, thief, owner] = (await logins(phoneNumber, 3)) as [Answer, Answer, Answer];
    const trap = proxy.trap('end-devices', 'hold');
    const keeping = endAll(third.url, thief, '?others=true');
    await trap.caught();
    expect((await endAll(world.url, owner)).status).toBe(204);
    trap.letGo();
    expect([204, 401]).toContain((await keeping).status);
    await expectDead(owner.body.user.id, [thief, owner]);
    expect(told(await sendByToken(world.url, phoneNumber, thief))).toBe('429 rate_limited');
    expect(told(await sendByToken(world.url, phoneNumber, owner))).toBe('429 rate_limited');
  });

  it('nor that of a session that was opened and ended between its steps', async () => {
    const phoneNumber = freshNumber();
    const [, owner] = (await logins(phoneNumber, 2)) as [Answer, Answer];
    const { requestId, code } = await sent(phoneNumber);
    const trap = proxy.trap('ZRANGE', 'hold');
    const ending = endAll(third.url, owner);
    await trap.caught();
    const opened = await verifyOtp(world.url, requestId, code);
    trap.letGo();
    expect([opened.status, (await ending).status]).toEqual([200, 204]);
    await expectDead(owner.body.user.id, [owner, opened]);
    expect(told(await sendByToken(world.url, phoneNumber, opened))).toBe('429 rate_limited');
  });
});
