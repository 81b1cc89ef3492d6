import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Lifecycle } from '../../src/health/lifecycle';
import {
  ADMIN_TOKENS,
  aMinuteLater,
  as,
  atOnce,
  bill,
  queued,
  signingKeys,
  tally,
  told,
  under,
} from '../support/crowd';
import { RedisProxy, type Step } from '../support/redis-proxy';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
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

async function begin(more: Variables): Promise<void> {
  variables = {
    ADMIN_TOKENS,
    JWT_KEYS_DIR,
    UPSTREAM_TIMEOUT_MS: '10000',
    UPSTREAM_DEADLINE_MS: '20000',
    ...more,
  };
  world = await startWorld({ variables, count: 2 });
  await joinThird();
}
async function joinThird(): Promise<void> {
  proxy = await RedisProxy.before(world.redis);
  const urls = { REDIS_URL: proxy.url, STARTMESSAGING_BASE_URL: world.upstream.url };
  third = await startInstance({ ...variables, ...urls });
  world.instances.push(third);
}
async function end(): Promise<void> {
  await proxy.close();
  await world.close();
}
/** It reaches Redis again after its connection was cut. */
const recovered = (): Promise<void> =>
  until(async () => (await verifyOtp(third.url, 'A'.repeat(44), '123456')).status === 410);

const messagesTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;
const callsOf = (path: string): number => world.upstream.calls.filter((seen) => seen.path === path).length;
const verify = (
  url: string,
  { requestId, code }: { requestId: string; code: string },
  key: string,
): Promise<Answer> => verifyOtp(url, requestId, code, under(key));

async function sent(phoneNumber = freshNumber()): Promise<{ requestId: string; code: string }> {
  const { body } = await sendOtp(world.url, phoneNumber);
  return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
}
async function sessionsOf({ body }: Answer): Promise<unknown[]> {
  const listed = await call('GET', `${world.url}/auth/sessions`, undefined, as(body.accessToken));
  expect(listed.status).toBe(200);
  return listed.body.sessions as unknown[];
}

/** Every refusal is 409 with a wait of a minute at most; the others say the same. Returns those. */
function theRest(answers: readonly Answer[]): Answer[] {
  for (const answer of answers) {
    if (answer.status === 200) continue;
    expect(told(answer)).toBe('409 idempotency_in_progress');
    expect(answer.headers.get('retry-after')).toMatch(/^([1-9]|[1-5]\d|60)$/);
  }
  const right = answers.filter(({ status }) => status === 200);
  expect(right.length).toBeGreaterThan(0);
  return right;
}

/** Asks again, as a client does that was told to wait, until it is answered. */
async function insist(ask: (url: string) => Promise<Answer>): Promise<Answer> {
  const answer = await ask(world.url);
  if (answer.status !== 409) return answer;
  theRest([answer, { ...answer, status: 200 }]);
  await aMinuteLater(world);
  return ask(world.url);
}

/** The answer under a key that the instance which lost an answer gives up in the background. */
async function soonGivenUp(phoneNumber: string): Promise<Answer> {
  let answer: Answer | undefined;
  await until(async () => {
    answer = await sendOtp(world.url, phoneNumber, under('k'));
    return answer.status === 200;
  });
  return answer!;
}

// What befalls the answer to a step that ran: it comes too late, or the connection is reset instead.
const FATES = ['late', 'cut'] as const;

/** Asks the third instance and lets this befall a step of it. */
async function lose(
  step: Step,
  fate: (typeof FATES)[number] | 'lose',
  ask: (url: string) => Promise<Answer>,
): Promise<Answer> {
  const trap = proxy.trap(step, fate);
  const answer = await ask(third.url);
  await trap.caught();
  trap.letGo();
  await recovered();
  return answer;
}

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  beforeAll(() => begin({ STARTMESSAGING_CONTRACT: contract }));
  afterAll(end);

  describe('a send under an Idempotency-Key', () => {
    it('is one SMS of 50 at once, also while upstream holds the first open', async () => {
      const phoneNumber = freshNumber();
      world.upstream.fault({ on: 'send', phoneNumber, fault: { kind: 'slow', delayMs: 700 } });
      const answers = await queued(world, () =>
        atOnce(world, 50, (url) => sendOtp(url, phoneNumber, under('k'))),
      );
      answers.push(...(await atOnce(world, 6, (url) => sendOtp(url, phoneNumber, under('k')))));
      const right = theRest(answers);
      expect(right.length).toBeGreaterThanOrEqual(7);
      for (const { body } of right) expect(body).toEqual(right[0]?.body);
      expect(messagesTo(phoneNumber)).toBe(1);
    });

    it('keeps its answer while the instance that holds the key is closed', async () => {
      const phoneNumber = freshNumber();
      const closing = await startInstance({
        ...variables,
        REDIS_URL: world.redis.url,
        STARTMESSAGING_BASE_URL: world.upstream.url,
      });
      const before = world.upstream.calls.length;
      world.upstream.fault({ on: 'send', phoneNumber, fault: { kind: 'slow', delayMs: 800 } });
      const first = sendOtp(closing.url, phoneNumber, under('k'));
      await until(() => world.upstream.calls.length > before);
      closing.app.get(Lifecycle).end();
      const closed = closing.close();
      const early = await atOnce(world, 9, (url) => sendOtp(url, phoneNumber, under('k')));
      expect(tally(early)).toEqual({ '409 idempotency_in_progress': 9 });
      const answer = await first;
      await closed;
      expect(answer.status).toBe(200);
      for (const again of await atOnce(world, 9, (url) => sendOtp(url, phoneNumber, under('k'))))
        expect([again.status, again.body]).toEqual([200, answer.body]);
      expect(messagesTo(phoneNumber)).toBe(1);
    });

    it.each(
      FATES.flatMap((fate) =>
        (['begin', 'admission', 'finish'] as const).map((step) => [step, fate] as const),
      ),
    )('is one SMS, charged once, also when the answer to %s is lost (%s)', async (step, fate) => {
      const phoneNumber = freshNumber();
      const before = await bill(world);
      const failed = await lose(step, fate, (url) => sendOtp(url, phoneNumber, under('k')));
      expect(told(failed)).toBe('503 store_unavailable');
      expect(failed.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      const soon = await sendOtp(world.url, phoneNumber, under('k'));
      // What was sent is found at once.
      if (step === 'finish') expect(soon.status).toBe(200);
      const again = await soonGivenUp(phoneNumber);
      const answers = await atOnce(world, 6, (url) => sendOtp(url, phoneNumber, under('k')));
      for (const { status, body } of answers) expect([status, body]).toEqual([200, again.body]);
      expect(messagesTo(phoneNumber)).toBe(1);
      expect((await bill(world)).costPaise - before.costPaise).toBe(25);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    });

    it('whose last step never reached Redis is one SMS all the same, and its code works', async () => {
      const phoneNumber = freshNumber();
      const before = await bill(world);
      const failed = await lose('finish', 'lose', (url) => sendOtp(url, phoneNumber, under('k')));
      expect(told(failed)).toBe('503 store_unavailable');
      const again = await soonGivenUp(phoneNumber);
      // `caller` cannot ask upstream what became of the first; `provider` gets it again by its key.
      expect(again.body.delivery).toBe(contract === 'caller' ? 'unknown' : 'accepted');
      expect(messagesTo(phoneNumber)).toBe(1);
      expect((await bill(world)).costPaise - before.costPaise).toBe(25);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    });

    it('frees its key within a minute when its instance dies', async () => {
      const phoneNumber = freshNumber();
      const before = world.upstream.calls.length;
      world.upstream.fault({
        on: 'send',
        phoneNumber,
        fault: { kind: 'error', status: 400, code: 'OTP_SEND_FAILED' },
      });
      const held = proxy.trap('admission', 'hold');
      const first = sendOtp(third.url, phoneNumber, under('k'));
      await held.caught();
      proxy.sever();
      expect(told(await first)).toBe('503 store_unavailable');
      const early = await atOnce({ ...world, instances: world.instances.slice(0, 2) }, 20, (url) =>
        sendOtp(url, phoneNumber, under('k')),
      );
      expect(tally(early)).toEqual({ '409 idempotency_in_progress': 20 });
      for (const { headers } of early) expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
      await aMinuteLater(world);
      // One of them goes on, and upstream refuses it: the key is free at once.
      const refused = await sendOtp(world.url, phoneNumber, under('k'));
      expect(told(refused)).toBe('502 upstream_unavailable');
      expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(200);
      expect([world.upstream.calls.length - before, messagesTo(phoneNumber)]).toEqual([2, 1]);

      world.instances.splice(world.instances.indexOf(third), 1);
      await third.close();
      await proxy.close();
      await joinThird();
    });
  });

  describe('a verification under an Idempotency-Key', () => {
    it('is one session of 50 at once, and every answer names it', async () => {
      const one = await sent();
      const before = callsOf('/otp/verify');
      world.upstream.fault({ on: 'verify', fault: { kind: 'slow', delayMs: 500 } });
      const answers = await queued(world, () => atOnce(world, 50, (url) => verify(url, one, 'v')));
      answers.push(...(await atOnce(world, 6, (url) => verify(url, one, 'v'))));
      await fetch(`${world.upstream.url}/_emulator/faults`, { method: 'DELETE' });
      const right = theRest(answers);
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

    it('refuses another body, takes one attempt for the first, and gives one answer to it', async () => {
      const one = await sent();
      const other = { ...one, code: wrongCode(one.code) };
      const answers = await queued(world, () =>
        atOnce(world, 50, (url, i) => verify(url, i % 2 ? one : other, 'v')),
      );
      const { '422 idempotency_key_reused': reused, ...rest } = tally(answers);
      expect(reused).toBe(25);
      const won = rest['200'] === undefined ? '400 otp_incorrect' : '200';
      expect((rest[won] ?? 0) + (rest['409 idempotency_in_progress'] ?? 0)).toBe(25);
      // Had more than one attempt been taken, less would be left now.
      const next = await verify(world.url, other, 'another');
      if (won === '200') expect(told(next)).toBe('410 otp_expired');
      else expect([told(next), next.body.attemptsLeft]).toEqual(['400 otp_incorrect', 1]);
    });

    it.each(
      FATES.flatMap((fate) => [
        ['take-attempt', fate] as const,
        ['consume', fate] as const,
        ['open', fate] as const,
      ]),
    )('is one session, also when the answer to %s is lost (%s)', async (step, fate) => {
      const one = await sent();
      const before = callsOf('/otp/verify');
      const failed = await lose(step, fate, (url) => verify(url, one, 'v'));
      expect(told(failed)).toBe('503 store_unavailable');
      const again = await insist((url) => verify(url, one, 'v'));
      expect(again.status).toBe(200);
      for (const { status, body } of await atOnce(world, 6, (url) => verify(url, one, 'v')))
        expect([status, body.refreshToken]).toEqual([200, again.body.refreshToken]);
      expect(await sessionsOf(again)).toHaveLength(1);
      expect(callsOf('/otp/verify') - before).toBe(contract === 'provider' ? 1 : 0);
      expect(told(await verify(world.url, one, 'another'))).toBe('410 otp_expired');
    });

    it('of a wrong code costs one attempt for each time that it was looked at, and none for a lost answer', async () => {
      const one = await sent();
      const wrong = { ...one, code: wrongCode(one.code) };
      const failed = await lose('take-attempt', 'late', (url) => verify(url, wrong, 'v'));
      expect(told(failed)).toBe('503 store_unavailable');
      const again = await insist((url) => verify(url, wrong, 'v'));
      // The attempt was taken before the answer was lost, and stays taken.
      expect([told(again), again.body.attemptsLeft]).toEqual(['400 otp_incorrect', 1]);
    });

    it('frees its key within a minute when its instance dies', async () => {
      const one = await sent();
      const held = proxy.trap('consume', 'hold');
      const first = verify(third.url, one, 'v');
      await held.caught();
      proxy.sever();
      expect(told(await first)).toBe('503 store_unavailable');
      const others = { ...world, instances: world.instances.slice(0, 2) };
      const early = await atOnce(others, 20, (url) => verify(url, one, 'v'));
      expect(tally(early)).toEqual({ '409 idempotency_in_progress': 20 });
      for (const { headers } of early) expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
      await aMinuteLater(world);
      const again = await verify(world.url, one, 'v');
      // Upstream has used its code up; the code that is ours is still there.
      expect(told(again)).toBe(contract === 'provider' ? '410 otp_expired' : '200');
      if (contract === 'caller') expect(await sessionsOf(again)).toHaveLength(1);

      world.instances.splice(world.instances.indexOf(third), 1);
      await third.close();
      await proxy.close();
      await joinThird();
    });
  });

  it('a send without a key whose last answer is lost is a 503, and the code on its way still works for nobody else', async () => {
    const phoneNumber = freshNumber();
    const failed = await lose('finish', 'cut', (url) => sendOtp(url, phoneNumber));
    expect([told(failed), failed.body.requestId]).toEqual(['503 store_unavailable', undefined]);
    const lost = textedCode(world.upstream, phoneNumber);
    const next = await sendOtp(world.url, phoneNumber);
    expect(next.status).toBe(200);
    // `caller` texts the code that is on its way once more; `provider` makes a new one and voids the old.
    const newest = textedCode(world.upstream, phoneNumber);
    expect(newest === lost).toBe(contract === 'caller');
    expect((await verifyOtp(world.url, next.body.requestId, newest)).status).toBe(200);
  });

  it('a paused Redis that wakes up when everybody was told 503 sends nothing by itself', async () => {
    const phoneNumber = freshNumber();
    const before = world.upstream.calls.length;
    world.redis.pause();
    const answers = await atOnce(world, 12, (url) => sendOtp(url, phoneNumber, under('p')));
    expect(tally(answers)).toEqual({ '503 store_unavailable': 12 });
    world.redis.resume();
    await sleep(300);
    expect(world.upstream.calls).toHaveLength(before);
    await until(async () => (await sendOtp(world.url, phoneNumber, under('p'))).status === 200);
    expect(messagesTo(phoneNumber)).toBe(1);
  });
});
