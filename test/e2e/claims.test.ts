import { Redis } from 'ioredis';
import { holdUpstream, PATIENT, told, under, lasting } from '../support/crowd';
import { challengesKey, keysOf } from '../support/keys';
import { behindProxy, type RedisProxy } from '../support/redis-proxy';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

// A request takes the place of its Idempotency-Key for as long as a request can last. A request that lost the answer of the
// step that took the place gives it up again: its own place and no other.

/** UPSTREAM_DEADLINE_MS and five seconds for Redis. */
const PLACE_MS = 50_000;

let world: World;
let redis: Redis;
let proxy: RedisProxy;
/** Reaches Redis through the proxy; the world's own instance does not. */
let unlucky: Instance;

beforeAll(async () => {
  world = await startWorld({ variables: PATIENT });
  redis = new Redis(world.redis.url);
  ({ proxy, instance: unlucky } = await behindProxy(world, PATIENT));
});
afterAll(async () => {
  redis.disconnect();
  await unlucky.close();
  await proxy.close();
  await world.close();
});
/** An instance that has no places of earlier tests to give up. */
async function replaceUnlucky(): Promise<void> {
  await unlucky.close();
  await proxy.close();
  ({ proxy, instance: unlucky } = await behindProxy(world, PATIENT));
}
beforeEach(async () => {
  world.upstream.reset();
  const recovered = async () => (await sendOtp(unlucky.url, freshNumber())).status === 200;
  await until(recovered, 'Redis behind the proxy');
});

const send = (phoneNumber: string, url = world.url): Promise<Answer> => sendOtp(url, phoneNumber, under('k'));
const messagesTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;
/** How often an instance has failed to give a place up. */
const failedSteps = ({ logs }: Instance, step: 'release' | 'store-outcome'): number =>
  logs.filter((line) => line.includes('Redis command failed') && line.includes(`"command":"${step}"`)).length;

/** Asks until the answer is no 409. */
async function soon(ask: () => Promise<Answer>): Promise<Answer> {
  let answer = await ask();
  await until(async () => {
    if (answer.status === 409) answer = await ask();
    return answer.status !== 409;
  }, 'the release of the key');
  return answer;
}
interface Sent {
  requestId: string;
  code: string;
}
async function sent(phoneNumber = freshNumber()): Promise<Sent> {
  const { body } = await sendOtp(world.url, phoneNumber);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}
const attemptsOf = async ({ requestId }: Sent): Promise<number> =>
  Number(await redis.hget(keysOf(requestId).challenge, 'attempts'));
const now = async (): Promise<number> => {
  const [seconds, microseconds] = await redis.time();
  return Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
};

it('a send holds its Idempotency-Key for the deadline of upstream and five seconds for Redis', async () => {
  const phoneNumber = freshNumber();
  const held = proxy.trap('admission', 'hold');
  const before = await now();
  const first = send(phoneNumber, unlucky.url);
  await held.caught();
  const early = await send(phoneNumber);
  expect(told(early)).toBe('409 idempotency_in_progress');
  expect(Number(early.headers.get('retry-after'))).toBeLessThanOrEqual(PLACE_MS / 1_000);
  const untils = await Promise.all((await redis.keys(challengesKey)).map((key) => redis.hget(key, 'until')));
  const until = Math.max(...untils.map(Number));
  expect(until).toBeGreaterThanOrEqual(before + PLACE_MS);
  expect(until).toBeLessThanOrEqual((await now()) + PLACE_MS);
  held.letGo();
  await first;
});

it('a verification holds its Idempotency-Key for the deadline of upstream and five seconds for Redis', async () => {
  const one = await sent();
  const held = proxy.trap('consume', 'hold');
  const before = await now();
  const first = verifyOtp(unlucky.url, one.requestId, one.code, under('v'));
  await held.caught();
  const early = await verifyOtp(world.url, one.requestId, one.code, under('v'));
  expect(told(early)).toBe('409 idempotency_in_progress');
  expect(Number(early.headers.get('retry-after'))).toBeLessThanOrEqual(PLACE_MS / 1_000);
  const fields = Object.values(await redis.hgetall(keysOf(one.requestId).challenge));
  const until = Number(fields.map((value) => /:flight\/[\w-]+:(\d+)$/.exec(value)?.[1]).find(Boolean));
  expect(until).toBeGreaterThanOrEqual(before + PLACE_MS);
  expect(until).toBeLessThanOrEqual((await now()) + PLACE_MS);
  held.letGo();
  await first;
});

// `lose`: the step did not run. `cut` and `late`: it ran, and its answer did not arrive.
describe.each(['late', 'cut', 'lose'] as const)('an answer of Redis that is lost (%s)', (fate) => {
  it.each(['create', 'admission'] as const)(
    'a send under the same Idempotency-Key soon succeeds with one SMS after the answer of Redis to %s was lost',
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

  it('a verification under the same Idempotency-Key is soon answered after the answer of Redis to take-attempt was lost, and no attempt is given back', async () => {
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

  it('the response to a wrong code is kept for repeats although the answer of Redis to store-outcome was lost', async () => {
    // What the instance still gives up of the test before would spring the trap.
    await replaceUnlucky();
    const one = await sent();
    const wrong = wrongCode(one.code);
    const trap = proxy.trap('store-outcome', fate);
    const first = await verifyOtp(unlucky.url, one.requestId, wrong, under('v'));
    expect([told(first), first.body.attemptsLeft]).toEqual(['400 otp_incorrect', 2]);
    trap.letGo();
    const again = await soon(() => verifyOtp(world.url, one.requestId, wrong, under('v')));
    expect([told(again), again.body.attemptsLeft]).toEqual(['400 otp_incorrect', 2]);
    expect(await attemptsOf(one)).toBe(2);
  });
});

it('an Idempotency-Key that is taken only after its send got a 503 is free again soon, and one SMS goes out', async () => {
  await replaceUnlucky();
  const phoneNumber = freshNumber();
  const held = proxy.trap('create', 'hold');
  const tries = failedSteps(unlucky, 'release');
  expect(told(await send(phoneNumber, unlucky.url))).toBe('503 store_unavailable');
  await held.caught();
  await until(() => failedSteps(unlucky, 'release') > tries, 'a try to give the place up');
  held.letGo();
  const again = await soon(() => send(phoneNumber));
  expect(again.status).toBe(200);
  expect(messagesTo(phoneNumber)).toBe(1);
});

it('a send keeps the Idempotency-Key although the failed request that had the key before gives it up late', async () => {
  await replaceUnlucky();
  const phoneNumber = freshNumber();
  const begin = proxy.trap('create', 'cut');
  // It runs, and is tried again because its answer does not arrive.
  const first = proxy.trap('release', 'late');
  const tries = failedSteps(unlucky, 'release');
  const failed = send(phoneNumber, unlucky.url);
  await begin.caught();
  expect(told(await failed)).toBe('503 store_unavailable');
  await first.caught();

  // Another request resumes the same challenge: only the mark of the owner in the key tells the two apart.
  const before = world.upstream.calls.length;
  const held = holdUpstream(world, 'send', phoneNumber);
  const second = proxy.trap('release', 'late');
  const underWay = send(phoneNumber);
  await held.arrived();
  await until(() => failedSteps(unlucky, 'release') > tries, 'the end of the first try');
  first.letGo();
  await second.caught();
  expect(told(await send(phoneNumber))).toBe('409 idempotency_in_progress');
  expect(world.upstream.calls).toHaveLength(before + 1);

  held.letGo();
  const answer = await underWay;
  expect(answer.status).toBe(200);
  expect(lasting(await send(phoneNumber))).toEqual(lasting(answer));
  expect(messagesTo(phoneNumber)).toBe(1);
  second.letGo();
});

it('a verification keeps the Idempotency-Key although the failed request that had the key before gives it up late', async () => {
  await replaceUnlucky();
  const one = await sent();
  const verify = (url = world.url): Promise<Answer> => verifyOtp(url, one.requestId, one.code, under('v'));
  const take = proxy.trap('take-attempt', 'cut');
  const first = proxy.trap('store-outcome', 'late');
  const tries = failedSteps(unlucky, 'store-outcome');
  const failed = verify(unlucky.url);
  await take.caught();
  expect(told(await failed)).toBe('503 store_unavailable');
  await first.caught();

  const before = world.upstream.calls.length;
  const held = holdUpstream(world, 'verify');
  const second = proxy.trap('store-outcome', 'late');
  const underWay = verify();
  await held.arrived();
  await until(() => failedSteps(unlucky, 'store-outcome') > tries, 'the end of the first try');
  first.letGo();
  await second.caught();
  expect(told(await verify())).toBe('409 idempotency_in_progress');
  expect(world.upstream.calls).toHaveLength(before + 1);
  // The attempt of the lost answer, and the attempt of the one that looks.
  expect(await attemptsOf(one)).toBe(1);

  held.letGo();
  const answer = await underWay;
  expect(answer.status).toBe(200);
  expect((await verify()).body.refreshToken).toBe(answer.body.refreshToken);
  second.letGo();
});

it('an instance keeps no more than a thousand places to give up later', async () => {
  const { IdempotencyLock } = serviceModule<typeof import('../../src/challenges/idempotency-lock')>(
    'challenges/idempotency-lock',
  );
  const instance = await anotherInstance(world);
  const claims = instance.app.get(IdempotencyLock);
  let tried = 0;
  const lost = (): Promise<unknown> =>
    claims.orRelease(Promise.reject(new Error('lost')), () => {
      tried += 1;
      return Promise.resolve(1);
    });
  const told = await Promise.allSettled(Array.from({ length: 1_500 }, lost));
  expect(new Set(told.map(({ status }) => status))).toEqual(new Set(['rejected']));
  await until(() => tried >= 1_000, 'a thousand tries');
  // It comes after all that wait.
  await lost().catch(() => undefined);
  await until(() => tried > 1_000, 'one more try');
  expect(tried).toBe(1_001);
  await instance.close();
});

it('an instance that has ended gives no Idempotency-Key up any more', async () => {
  const [ended, control] = [await behindProxy(world, PATIENT), await behindProxy(world, PATIENT)];
  for (const each of [ended, control]) {
    each.proxy.trap('create', 'hold');
    expect(told(await send(freshNumber(), each.instance.url))).toBe('503 store_unavailable');
    if (each === ended) await ended.instance.close();
  }
  // It began later.
  await until(() => failedSteps(control.instance, 'release') > 0, 'a try of the instance that goes on');
  expect(failedSteps(ended.instance, 'release')).toBe(0);
  await control.instance.close();
  await Promise.all([ended, control].map((each) => each.proxy.close()));
});
