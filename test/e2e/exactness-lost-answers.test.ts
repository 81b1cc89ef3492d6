import { rmSync } from 'node:fs';
import {
  ADMIN_TOKENS,
  aMinuteLater,
  as,
  atOnce,
  bill,
  holdUpstream,
  PATIENT,
  queued,
  signingKeys,
  tally,
  told,
  under,
  withoutWrites,
  lasting,
} from '../support/crowd';
import { unknownRequestId } from '../support/keys';
import { behindProxy, type RedisProxy, type ScriptCall } from '../support/redis-proxy';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  call,
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const JWT_KEYS_DIR = signingKeys();
afterAll(() => {
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

let world: World;
/** The third instance reaches Redis through it. */
let proxy: RedisProxy;
let third: Instance;
let variables: Variables;

async function joinThird(): Promise<void> {
  ({ proxy, instance: third } = await behindProxy(world, variables));
  world.instances.push(third);
}
/** The process of the third instance is gone, as after a crash, and another one takes its place. */
async function replaceThird(): Promise<void> {
  world.instances.splice(world.instances.indexOf(third), 1);
  await third.close();
  await proxy.close();
  await joinThird();
}
/** The first two instances. */
const others = (): World => ({ ...world, instances: world.instances.slice(0, 2) });
/** The third instance reaches Redis again after its connection was cut. */
const recovered = (): Promise<void> =>
  until(
    async () => (await verifyOtp(third.url, unknownRequestId(), '123456')).status === 410,
    'Redis behind the proxy',
  );

const messagesTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;
const callsOf = (path: string): number => world.upstream.calls.filter((seen) => seen.path === path).length;
const send = (phoneNumber: string, url = world.url): Promise<Answer> => sendOtp(url, phoneNumber, under('k'));
const sendAtOnce = (count: number, phoneNumber: string, instances = world): Promise<Answer[]> =>
  atOnce(instances, count, (url) => send(phoneNumber, url));

interface Sent {
  requestId: string;
  code: string;
}
const verify = (url: string, { requestId, code }: Sent, key = 'v'): Promise<Answer> =>
  verifyOtp(url, requestId, code, under(key));
async function sent(phoneNumber = freshNumber()): Promise<Sent> {
  const { body } = await sendOtp(world.url, phoneNumber);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}
async function sessionsOf({ body }: Answer): Promise<unknown[]> {
  const listed = await call('GET', `${world.url}/auth/sessions`, undefined, as(body.accessToken));
  expect(listed.status).toBe(200);
  return listed.body.sessions as unknown[];
}

/** Every refusal is 409 with a wait of a minute at most. Returns the other answers. */
function successes(answers: readonly Answer[]): Answer[] {
  for (const answer of answers) {
    if (answer.status === 200) continue;
    expect(told(answer)).toBe('409 idempotency_in_progress');
    expect(answer.headers.get('retry-after')).toMatch(/^([1-9]|[1-5]\d|60)$/);
  }
  return answers.filter(({ status }) => status === 200);
}

/** Asks again as a client does that was told to wait. */
async function insist(ask: (url: string) => Promise<Answer>): Promise<Answer> {
  const answer = await ask(world.url);
  if (answer.status !== 409) return answer;
  successes([answer]);
  await aMinuteLater(world);
  return ask(world.url);
}

/** The response under a key that the third instance gives up in the background. */
async function soonGivenUp(phoneNumber: string): Promise<Answer> {
  let answer: Answer | undefined;
  await until(async () => {
    answer = await send(phoneNumber);
    return answer.status === 200;
  }, 'the release of the key');
  return answer!;
}

/** Asks the third instance and lets this happen to a step of it. */
async function lose(
  step: ScriptCall,
  fate: 'late' | 'cut' | 'lose',
  ask: (url: string) => Promise<Answer>,
): Promise<Answer> {
  const trap = proxy.trap(step, fate);
  const answer = await ask(third.url);
  await trap.caught();
  trap.letGo();
  await recovered();
  return answer;
}

// The answer of a step that ran is lost in two ways: the connection is reset instead, or it comes too late, which takes a
// real 750 ms. claims.test.ts has both ways of each step; here each contract has one.
describe.each([
  ['caller', 'cut'],
  ['provider', 'late'],
] as const)('under the %s contract', (contract, fate) => {
  beforeAll(async () => {
    variables = { ADMIN_TOKENS, JWT_KEYS_DIR, ...PATIENT, STARTMESSAGING_CONTRACT: contract };
    world = await startWorld({ variables, count: 2, hastyRedis: true });
    await joinThird();
  });
  afterAll(async () => {
    await proxy.close();
    await world.close();
  });

  describe('a send under an Idempotency-Key', () => {
    it('24 sends at once under one Idempotency-Key are one SMS, also while upstream holds the first send', async () => {
      const phoneNumber = freshNumber();
      const held = holdUpstream(world, 'send', phoneNumber);
      const asked = queued(world, () => sendAtOnce(24, phoneNumber));
      await held.arrived();
      expect(tally(await sendAtOnce(6, phoneNumber))).toEqual({ '409 idempotency_in_progress': 6 });
      held.letGo();
      const right = successes([...(await asked), ...(await sendAtOnce(6, phoneNumber))]);
      expect(right.length).toBeGreaterThanOrEqual(7);
      for (const answer of right) expect(lasting(answer)).toEqual(lasting(right[0]!));
      expect(messagesTo(phoneNumber)).toBe(1);
    });

    it('a send keeps its response for repeats while the instance that holds the Idempotency-Key is closed', async () => {
      const { Lifecycle } = serviceModule<typeof import('../../src/health/lifecycle')>('health/lifecycle');
      const phoneNumber = freshNumber();
      const closing = await anotherInstance(world, variables);
      const held = holdUpstream(world, 'send', phoneNumber);
      const first = send(phoneNumber, closing.url);
      await held.arrived();
      closing.app.get(Lifecycle).end();
      const closed = closing.close();
      expect(tally(await sendAtOnce(6, phoneNumber))).toEqual({ '409 idempotency_in_progress': 6 });
      held.letGo();
      const answer = await first;
      await closed;
      expect(answer.status).toBe(200);
      for (const again of await sendAtOnce(6, phoneNumber)) expect(lasting(again)).toEqual(lasting(answer));
      expect(messagesTo(phoneNumber)).toBe(1);
    });

    it.each(['create', 'admission', 'activate'] as const)(
      'a send is one SMS, charged once, also when the service loses the answer of Redis to %s',
      async (step) => {
        const phoneNumber = freshNumber();
        const before = await bill(world);
        const failed = await lose(step, fate, (url) => send(phoneNumber, url));
        expect(told(failed)).toBe('503 store_unavailable');
        expect(failed.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
        const soon = await send(phoneNumber);
        // What was sent is found at once.
        if (step === 'activate') expect(soon.status).toBe(200);
        const again = await soonGivenUp(phoneNumber);
        for (const repeat of await sendAtOnce(6, phoneNumber))
          expect(lasting(repeat)).toEqual(lasting(again));
        expect(messagesTo(phoneNumber)).toBe(1);
        expect((await bill(world)).costPaise - before.costPaise).toBe(25);
        const code = textedCode(world.upstream, phoneNumber);
        expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
      },
    );

    it('a send whose last step never reaches Redis is one SMS all the same, and its code works', async () => {
      const phoneNumber = freshNumber();
      const before = await bill(world);
      const failed = await lose('activate', 'lose', (url) => send(phoneNumber, url));
      expect(told(failed)).toBe('503 store_unavailable');
      const again = await soonGivenUp(phoneNumber);
      // `caller` cannot ask upstream what became of the first; `provider` gets it again by its key.
      expect(again.body.delivery).toBe(contract === 'caller' ? 'unknown' : 'accepted');
      expect(messagesTo(phoneNumber)).toBe(1);
      expect((await bill(world)).costPaise - before.costPaise).toBe(25);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    });

    it('the Idempotency-Key of a send is free within a minute after its instance dies', async () => {
      const phoneNumber = freshNumber();
      const before = world.upstream.calls.length;
      world.upstream.fault({
        on: 'send',
        phoneNumber,
        fault: { kind: 'error', status: 400, code: 'OTP_SEND_FAILED' },
      });
      const held = proxy.trap('admission', 'hold');
      const first = send(phoneNumber, third.url);
      await held.caught();
      proxy.sever();
      expect(told(await first)).toBe('503 store_unavailable');
      const early = await sendAtOnce(8, phoneNumber, others());
      expect(tally(early)).toEqual({ '409 idempotency_in_progress': 8 });
      for (const { headers } of early) expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
      await aMinuteLater(world);
      // One of them goes on, and upstream refuses it: the key is free at once.
      expect(told(await send(phoneNumber))).toBe('502 upstream_unavailable');
      expect((await send(phoneNumber)).status).toBe(200);
      expect([world.upstream.calls.length - before, messagesTo(phoneNumber)]).toEqual([2, 1]);
      await replaceThird();
    });
  });

  describe('a verification under an Idempotency-Key', () => {
    it('24 verifications at once under one Idempotency-Key open one session, and every response names it', async () => {
      const one = await sent();
      const before = callsOf('/otp/verify');
      const ask = (count: number): Promise<Answer[]> => atOnce(world, count, (url) => verify(url, one));
      // `caller` asks upstream nothing.
      const held = contract === 'provider' ? holdUpstream(world, 'verify') : undefined;
      const asked = queued(world, () => ask(24));
      if (held) {
        await held.arrived();
        expect(tally(await ask(6))).toEqual({ '409 idempotency_in_progress': 6 });
        held.letGo();
      }
      const right = successes([...(await asked), ...(await ask(6))]);
      expect(right.length).toBeGreaterThanOrEqual(7);
      const [first] = right;
      for (const { body } of right) {
        const { refreshToken, deviceToken, user, tokenType, expiresIn } = body;
        expect({ refreshToken, deviceToken, user, tokenType, expiresIn }).toEqual({
          refreshToken: first?.body.refreshToken as string,
          deviceToken: first?.body.deviceToken as string,
          user: first?.body.user as object,
          tokenType: 'Bearer',
          expiresIn: 600,
        });
      }
      expect(await sessionsOf(right[0]!)).toHaveLength(1);
      expect(callsOf('/otp/verify') - before).toBe(contract === 'provider' ? 1 : 0);
    });

    it('two codes at once under one Idempotency-Key take one attempt, and the one that came second is refused', async () => {
      const one = await sent();
      const other = { ...one, code: wrongCode(one.code) };
      const answers = await queued(world, () =>
        atOnce(world, 24, (url, i) => verify(url, i % 2 ? one : other)),
      );
      const { '422 idempotency_key_reused': reused, ...rest } = tally(answers);
      expect(reused).toBe(12);
      const won = rest['200'] === undefined ? '400 otp_incorrect' : '200';
      expect((rest[won] ?? 0) + (rest['409 idempotency_in_progress'] ?? 0)).toBe(12);
      // Had more than one attempt been taken, less would be left now.
      const next = await verify(world.url, other, 'another');
      if (won === '200') expect(told(next)).toBe('410 otp_expired');
      else expect([told(next), next.body.attemptsLeft]).toEqual(['400 otp_incorrect', 1]);
    });

    it.each(['take-attempt', 'consume', 'open'] as const)(
      'a verification opens one session, also when the service loses the answer of Redis to %s',
      async (step) => {
        const one = await sent();
        const before = callsOf('/otp/verify');
        const failed = await lose(step, fate, (url) => verify(url, one));
        expect(told(failed)).toBe('503 store_unavailable');
        const again = await insist((url) => verify(url, one));
        expect(again.status).toBe(200);
        for (const { status, body } of await atOnce(world, 6, (url) => verify(url, one)))
          expect([status, body.refreshToken]).toEqual([200, again.body.refreshToken]);
        expect(await sessionsOf(again)).toHaveLength(1);
        expect(callsOf('/otp/verify') - before).toBe(contract === 'provider' ? 1 : 0);
        expect(told(await verify(world.url, one, 'another'))).toBe('410 otp_expired');
      },
    );

    it('a wrong code keeps the attempt that it took before the answer of Redis was lost', async () => {
      const one = await sent();
      const wrong = { ...one, code: wrongCode(one.code) };
      const failed = await lose('take-attempt', fate, (url) => verify(url, wrong));
      expect(told(failed)).toBe('503 store_unavailable');
      const again = await insist((url) => verify(url, wrong));
      expect([told(again), again.body.attemptsLeft]).toEqual(['400 otp_incorrect', 1]);
    });

    it('the Idempotency-Key of a verification is free within a minute after its instance dies', async () => {
      const one = await sent();
      const held = proxy.trap('consume', 'hold');
      const first = verify(third.url, one);
      await held.caught();
      proxy.sever();
      expect(told(await first)).toBe('503 store_unavailable');
      const early = await atOnce(others(), 8, (url) => verify(url, one));
      expect(tally(early)).toEqual({ '409 idempotency_in_progress': 8 });
      for (const { headers } of early) expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
      await aMinuteLater(world);
      const again = await verify(world.url, one);
      // Upstream has used its code up; the code that is ours is still there.
      expect(told(again)).toBe(contract === 'provider' ? '410 otp_expired' : '200');
      if (contract === 'caller') expect(await sessionsOf(again)).toHaveLength(1);
      await replaceThird();
    });
  });

  it('a send without an Idempotency-Key that loses its last answer is a 503, and the next send replaces its code', async () => {
    const phoneNumber = freshNumber();
    const failed = await lose('activate', 'cut', (url) => sendOtp(url, phoneNumber));
    expect([told(failed), failed.body.requestId]).toEqual(['503 store_unavailable', undefined]);
    const lost = textedCode(world.upstream, phoneNumber);
    const next = await sendOtp(world.url, phoneNumber);
    expect(next.status).toBe(200);
    // `caller` texts the code that is on its way once more; `provider` makes a new one and voids the old.
    const newest = textedCode(world.upstream, phoneNumber);
    expect(newest === lost).toBe(contract === 'caller');
    expect((await verifyOtp(world.url, next.body.requestId, newest)).status).toBe(200);
  });

  it('a Redis that answers again after every send got a 503 makes no SMS of those sends', async () => {
    const phoneNumber = freshNumber();
    const answers = await withoutWrites(world, () => sendAtOnce(12, phoneNumber));
    expect(tally(answers)).toEqual({ '503 store_unavailable': 12 });
    // What was kept waiting has run before this: an instance that went on would have asked upstream by now.
    await Promise.all(
      world.instances.map(({ url }) =>
        until(async () => (await sendOtp(url, freshNumber())).status === 200, 'a send'),
      ),
    );
    expect(messagesTo(phoneNumber)).toBe(0);
    expect((await soonGivenUp(phoneNumber)).status).toBe(200);
    expect(messagesTo(phoneNumber)).toBe(1);
  });
});
