import { setTimeout as sleep } from 'node:timers/promises';
import { Claims } from '../../src/otp/claims';
import { ADMIN_TOKENS, told, under } from '../support/crowd';
import { RedisProxy } from '../support/redis-proxy';
import {
  freshNumber,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

// The place of an Idempotency-Key: it lasts for as long as a request can, and who lost the answer of the step that took it
// gives it up again, its own and no other.

const DEADLINE_MS = 15_000;
/** Sooner than the place would run out by itself. */
const SOON_MS = 10_000;
/** A step over Redis is given up by then. */
const STEP_MS = 800;

let world: World;
let proxy: RedisProxy;
/** Reaches Redis through the proxy; the world's own does not. */
let unlucky: Instance;

beforeEach(async () => {
  const variables = { ADMIN_TOKENS, UPSTREAM_TIMEOUT_MS: '10000', UPSTREAM_DEADLINE_MS: String(DEADLINE_MS) };
  world = await startWorld({ variables });
  proxy = await RedisProxy.before(world.redis);
  unlucky = await startInstance({
    ...variables,
    REDIS_URL: proxy.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
  });
});
afterEach(async () => {
  await unlucky.close();
  await proxy.close();
  await world.close();
});

const send = (phoneNumber: string, url = world.url): Promise<Answer> => sendOtp(url, phoneNumber, under('k'));
const messagesTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;

/** Asks until it is no 409. */
async function soon(ask: () => Promise<Answer>): Promise<Answer> {
  let answer = await ask();
  await until(async () => {
    if (answer.status === 409) answer = await ask();
    return answer.status !== 409;
  }, SOON_MS);
  return answer;
}
async function sent(): Promise<{ requestId: string; code: string }> {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}
const attemptsOf = async ({ requestId }: { requestId: string }): Promise<number> => {
  const challenge = `otp-login:{${requestId.slice(0, 22)}}:challenge:${requestId.slice(22)}`;
  return Number(await redisCommand(world, 'HGET', challenge, 'attempts'));
};

it('lasts for the deadline of upstream and five seconds for Redis', async () => {
  const held = proxy.trap('admission', 'hold');
  const phoneNumber = freshNumber();
  const first = send(phoneNumber, unlucky.url);
  await held.caught();
  const early = await send(phoneNumber);
  expect(told(early)).toBe('409 idempotency_in_progress');
  expect(Number(early.headers.get('retry-after'))).toBeGreaterThan(DEADLINE_MS / 1_000);
  expect(Number(early.headers.get('retry-after'))).toBeLessThanOrEqual(DEADLINE_MS / 1_000 + 5);

  const one = await sent();
  const trap = proxy.trap('consume', 'hold');
  held.letGo();
  await first;
  const look = verifyOtp(unlucky.url, one.requestId, one.code, under('v'));
  await trap.caught();
  const again = await verifyOtp(world.url, one.requestId, one.code, under('v'));
  expect(told(again)).toBe('409 idempotency_in_progress');
  expect(Number(again.headers.get('retry-after'))).toBeGreaterThan(DEADLINE_MS / 1_000);
  expect(Number(again.headers.get('retry-after'))).toBeLessThanOrEqual(DEADLINE_MS / 1_000 + 5);
  trap.letGo();
  await look;
});

// `lose`: the step did not run, `cut` and `late`: it ran, and nobody was told.
describe.each(['late', 'cut', 'lose'] as const)('when an answer of Redis is lost (%s)', (fate) => {
  it.each(['begin', 'admission'] as const)(
    'of %s, a send under the key soon succeeds, with one SMS',
    async (step) => {
      const phoneNumber = freshNumber();
      const trap = proxy.trap(step, fate);
      const failed = await send(phoneNumber, unlucky.url);
      expect(told(failed)).toBe('503 store_unavailable');
      trap.letGo();
      const again = await soon(() => send(phoneNumber));
      expect(again.status).toBe(200);
      expect(messagesTo(phoneNumber)).toBe(1);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    },
  );

  it('of take-attempt, a verification under the key soon gets its answer, and no attempt is given back', async () => {
    const one = await sent();
    const wrong = wrongCode(one.code);
    const trap = proxy.trap('take-attempt', fate);
    const failed = await verifyOtp(unlucky.url, one.requestId, wrong, under('v'));
    expect(told(failed)).toBe('503 store_unavailable');
    trap.letGo();
    const again = await soon(() => verifyOtp(world.url, one.requestId, wrong, under('v')));
    // One for the look; and one for the step that ran and whose answer was lost.
    const left = fate === 'lose' ? 2 : 1;
    expect([told(again), again.body.attemptsLeft]).toEqual(['400 otp_incorrect', left]);
    expect(await attemptsOf(one)).toBe(left);
    expect((await verifyOtp(world.url, one.requestId, one.code, under('w'))).status).toBe(200);
  });

  it('of settle, the wrong code that was told is kept for the repeat all the same', async () => {
    const one = await sent();
    const wrong = wrongCode(one.code);
    const trap = proxy.trap('settle', fate);
    const first = await verifyOtp(unlucky.url, one.requestId, wrong, under('v'));
    expect([told(first), first.body.attemptsLeft]).toEqual(['400 otp_incorrect', 2]);
    trap.letGo();
    const again = await soon(() => verifyOtp(world.url, one.requestId, wrong, under('v')));
    expect([told(again), again.body.attemptsLeft]).toEqual(['400 otp_incorrect', 2]);
    expect(await attemptsOf(one)).toBe(2);
  });
});

it('when Redis stands still for two seconds, everybody is told 503, and soon one SMS goes out', async () => {
  const phoneNumber = freshNumber();
  world.redis.pause();
  const failed = await Promise.all([send(phoneNumber), send(phoneNumber, unlucky.url)]);
  expect(failed.map(told)).toEqual(['503 store_unavailable', '503 store_unavailable']);
  await sleep(1_200);
  world.redis.resume();
  const again = await soon(() => send(phoneNumber));
  expect(again.status).toBe(200);
  expect(messagesTo(phoneNumber)).toBe(1);
});

it('a send is not given up by who had the key before, and lost that answer too', async () => {
  const phoneNumber = freshNumber();
  const begin = proxy.trap('begin', 'cut');
  // It runs, and is tried again because nobody was told.
  const first = proxy.trap('release', 'late');
  const failed = send(phoneNumber, unlucky.url);
  await begin.caught();
  expect(told(await failed)).toBe('503 store_unavailable');
  await first.caught();

  // The same challenge is resumed by another: only the mark of who took the key tells the two apart.
  const before = world.upstream.calls.length;
  world.upstream.fault({ on: 'send', phoneNumber, fault: { kind: 'slow', delayMs: 4_000 } });
  const second = proxy.trap('release', 'late');
  const underWay = send(phoneNumber);
  await until(() => world.upstream.calls.length > before);
  await sleep(STEP_MS);
  first.letGo();
  await second.caught();
  expect(told(await send(phoneNumber))).toBe('409 idempotency_in_progress');
  expect(world.upstream.calls).toHaveLength(before + 1);

  const answer = await underWay;
  expect(answer.status).toBe(200);
  expect((await send(phoneNumber)).body).toEqual(answer.body);
  expect(messagesTo(phoneNumber)).toBe(1);
  second.letGo();
});

it('a verification is not given up by who had the key before, and lost that answer too', async () => {
  const one = await sent();
  const verify = (url = world.url): Promise<Answer> => verifyOtp(url, one.requestId, one.code, under('v'));
  const take = proxy.trap('take-attempt', 'cut');
  const first = proxy.trap('settle', 'late');
  const failed = verify(unlucky.url);
  await take.caught();
  expect(told(await failed)).toBe('503 store_unavailable');
  await first.caught();

  const before = world.upstream.calls.length;
  world.upstream.fault({ on: 'verify', fault: { kind: 'slow', delayMs: 4_000 } });
  const second = proxy.trap('settle', 'late');
  const underWay = verify();
  await until(() => world.upstream.calls.length > before);
  await sleep(STEP_MS);
  first.letGo();
  await second.caught();
  expect(told(await verify())).toBe('409 idempotency_in_progress');
  expect(world.upstream.calls).toHaveLength(before + 1);
  // The lost answer's, and the one that looks.
  expect(await attemptsOf(one)).toBe(1);

  const answer = await underWay;
  expect(answer.status).toBe(200);
  expect((await verify()).body.refreshToken).toBe(answer.body.refreshToken);
  second.letGo();
});

it('no more than a thousand wait to be given up in an instance', async () => {
  const claims = unlucky.app.get(Claims);
  let tried = 0;
  const lost = (): Promise<unknown> =>
    claims.orGiveUp(Promise.reject(new Error('lost')), () => Promise.resolve((tried += 1)));
  const told = await Promise.allSettled(Array.from({ length: 1_500 }, lost));
  expect(new Set(told.map(({ status }) => status))).toEqual(new Set(['rejected']));
  await sleep(1_000);
  expect(tried).toBe(1_000);
});

it('nothing is given up by an instance that has ended', async () => {
  const lost = await startInstance({
    UPSTREAM_DEADLINE_MS: '1000',
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
  });
  world.redis.pause();
  const failed = await sendOtp(lost.url, freshNumber(), under('k'));
  expect(told(failed)).toBe('503 store_unavailable');
  const lines = lost.logs.length;
  await lost.close();
  await sleep(2_000);
  expect(lost.logs.slice(lines).filter((line) => line.includes('"release"'))).toEqual([]);
  world.redis.resume();
});
