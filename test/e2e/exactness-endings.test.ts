import { rmSync } from 'node:fs';
import { block, unblock, WITH_ADMIN } from '../support/admin';
import { as, atOnce, holdUpstream, PATIENT, queued, signingKeys, tally, told, under } from '../support/crowd';
import { keysOfUser } from '../support/keys';
import { behindProxy, type RedisProxy } from '../support/redis-proxy';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  textedCode,
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
    ...WITH_ADMIN,
    ...PATIENT,
    JWT_KEYS_DIR,
    STARTMESSAGING_CONTRACT: 'caller',
    // Three logins use a number up: what goes beyond is let through by a device's token alone.
    LIMIT_PHONE: '3/86400',
  };
  world = await startWorld({ variables, count: 2 });
  ({ proxy, instance: third } = await behindProxy(world, variables));
  world.instances.push(third);
});
afterAll(async () => {
  await proxy.close();
  await world.close();
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

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
  const keys = (await redisCommand(world, 'KEYS', keysOfUser(String(subject)).session('*'))) as string[];
  const living = await Promise.all(keys.map((key) => redisCommand(world, 'HEXISTS', key, 'authenticated')));
  expect(living).not.toContain(1);
}

/** What a request says that was held at Redis. A machine that stands still makes it a 503, and the rest holds all the same. */
const expectHeld = (answer: Answer, expected: string): void => {
  expect([expected, '503 store_unavailable']).toContain(told(answer));
};

describe('a block', () => {
  it.each([
    ['take-attempt', 'hold'],
    ['take-attempt', 'late'],
    ['consume', 'hold'],
    ['consume', 'late'],
    ['open', 'hold'],
    ['open', 'late'],
  ] as const)(
    'no session of a number lives once its block is answered, when the block comes at the step %s of a login (%s)',
    async (step, fate) => {
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
      expectHeld(answer, step === 'open' && fate === 'late' ? '200' : '410 otp_expired');
      const again = await atOnce(world, 6, (url, i) =>
        verifyOtp(url, requestId, code, under(i % 2 ? 'v' : 'w')),
      );
      expect(tally(again)).toEqual({ '410 otp_expired': 6 });
      await expectDead(subject, [...(before ? [before] : []), answer]);
      const sends = await atOnce(world, 6, (url) => sendOtp(url, phoneNumber));
      expect(tally(sends)).toEqual({ '400 phone_number_rejected': 6 });
    },
  );

  it('no session of a number lives and no SMS goes to it once its block is answered, however verifications and refreshes race with the block', async () => {
    for (let round = 0; round < 3; round++) {
      const phoneNumber = freshNumber();
      const before = await logins(phoneNumber, 2);
      const { requestId, code } = await sent(phoneNumber);
      const [blocked, raced] = await queued(world, async () => {
        const early = atOnce(world, 6 * round, (url, i) =>
          i % 2 ? verifyOtp(url, requestId, code) : refresh(url, before[i % 4 ? 0 : 1]!),
        );
        const blocking = block(third.url, phoneNumber);
        const late = atOnce(world, 12 - 6 * round, (url, i) =>
          i % 2 ? verifyOtp(url, requestId, code) : refresh(url, before[i % 4 ? 0 : 1]!),
        );
        return Promise.all([blocking, Promise.all([early, late]).then((all) => all.flat())]);
      });
      expectHeld(blocked, '204');
      // Only a block that is answered with 204 is a promise, so an operator asks again after a 503.
      if (blocked.status !== 204) expect((await block(third.url, phoneNumber)).status).toBe(204);
      await expectDead(before[0]?.body.user.id, [...before, ...raced]);
      const messages = world.upstream.messages.length;
      const after = await atOnce(world, 6, (url, i) => sendByToken(url, phoneNumber, before[i % 2]!));
      expect(tally(after)).toEqual({ '400 phone_number_rejected': 6 });
      expect(world.upstream.messages).toHaveLength(messages);
    }
  });
});

describe('an unblock', () => {
  it('a verification that a block refused stays refused under its Idempotency-Key after the unblock', async () => {
    const phoneNumber = freshNumber();
    const { requestId, code } = await sent(phoneNumber);
    const trap = proxy.trap('open', 'hold');
    const verifying = verifyOtp(third.url, requestId, code, under('v'));
    await trap.caught();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    expectHeld(await verifying, '410 otp_expired');
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    const again = await verifyOtp(world.url, requestId, code, under('v'));
    expect(told(again)).toBe('410 otp_expired');
  });

  it('a code whose SMS was under way during a block is void after the unblock', async () => {
    const phoneNumber = freshNumber();
    const held = holdUpstream(world, 'send', phoneNumber);
    const sending = sendOtp(world.url, phoneNumber);
    await held.arrived();
    expect((await block(third.url, phoneNumber)).status).toBe(204);
    held.letGo();
    const { body } = await sending;
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(410);
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    expect(told(await verifyOtp(world.url, body.requestId, code))).toBe('410 otp_expired');
  });

  it('device tokens that a block ended stay ended after the unblock, also the token of a session that was ending all others meanwhile', async () => {
    const phoneNumber = freshNumber();
    const [, , last] = await logins(phoneNumber, 3);
    const trap = proxy.trap('revoke-devices', 'hold');
    const ending = endAll(third.url, last!, '?others=true');
    await trap.caught();
    expect((await block(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    await ending;
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    expect(told(await sendByToken(world.url, phoneNumber, last!))).toBe('429 rate_limited');
  });

  it('an unblock that runs between the two halves of a block leaves the number either blocked or able to log in', async () => {
    const phoneNumber = freshNumber();
    const trap = proxy.trap('block', 'hold');
    const blocking = block(third.url, phoneNumber);
    await trap.caught();
    expect((await unblock(world.url, phoneNumber)).status).toBe(204);
    trap.letGo();
    expectHeld(await blocking, '204');
    const send = await sendOtp(world.url, phoneNumber);
    if (send.status === 200) {
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(world.url, send.body.requestId, code))).toBe('200');
    } else expect(told(send)).toBe('400 phone_number_rejected');
  });
});

describe('a log-out everywhere', () => {
  it('no device token passes the used-up limit of its number once a log-out everywhere is answered, however two log-outs race with sends by token', async () => {
    for (let round = 0; round < 3; round++) {
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

  it('no device token passes the used-up limit of its number when a log-out that keeps its own session is overtaken by one that keeps none', async () => {
    const phoneNumber = freshNumber();
    const [, thief, owner] = (await logins(phoneNumber, 3)) as [Answer, Answer, Answer];
    const trap = proxy.trap('revoke-devices', 'hold');
    const keeping = endAll(third.url, thief, '?others=true');
    await trap.caught();
    expect((await endAll(world.url, owner)).status).toBe(204);
    trap.letGo();
    expect([204, 401, 503]).toContain((await keeping).status);
    await expectDead(owner.body.user.id, [thief, owner]);
    expect(told(await sendByToken(world.url, phoneNumber, thief))).toBe('429 rate_limited');
    expect(told(await sendByToken(world.url, phoneNumber, owner))).toBe('429 rate_limited');
  });

  it('the device token of a session that was opened and ended between the steps of a log-out everywhere does not pass the used-up limit', async () => {
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
