import type { FaultScript } from '../../src/emulator/emulator';
import { flushLedger, usageOf, WITH_ADMIN } from '../support/admin';
import { aMinuteLater, under } from '../support/crowd';
import { KEYS, partsOf } from '../support/keys';
import { rawAnswer, startRawUpstream } from '../support/raw-upstream';
import { contentsOf } from '../support/redis-contents';
import { RedisProxy } from '../support/redis-proxy';
import { holdTimersOfService, moveMonotonicClock } from '../support/service-clock';
import {
  anotherInstance,
  type Answer,
  freshNumber,
  type Instance,
  redisCommand,
  sendOtp,
  startWorld,
  textedCode,
  until,
  type Variables,
  verifyOtp,
  type World,
  wrongCode,
} from '../support/world';

type Fault = FaultScript['fault'];
type Provider = NonNullable<FaultScript['provider']>;

/** Far longer than a call takes on the busiest machine. Where a call is to time out, the test ends this timer. */
const CALL_TIMEOUT_MS = 40_000;
const DEADLINE_MS = 45_000;

const SES: Variables = {
  SENDWITHSES_TEMPLATE_KEY: 'tk_0123456789',
  SENDWITHSES_SENT_IF: 'success=true,data.status="sent"',
  SENDWITHSES_VERIFIED_IF: 'data.verified=true',
};
const BOTH: Variables = {
  ...WITH_ADMIN,
  ...SES,
  PROVIDERS: 'startmessaging,sendwithses',
  UPSTREAM_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
  UPSTREAM_CONNECT_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
  UPSTREAM_DEADLINE_MS: String(DEADLINE_MS),
};

let world: World;
const more: Instance[] = [];
/** The world of all tests of a describe. What they count begins anew with each test. */
function shareWorld(variables: Variables): void {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...BOTH, ...variables } });
  });
  beforeEach(() => {
    world.instances[0]?.logs.splice(0);
  });
  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(more.splice(0).map((instance) => instance.close()));
    world.upstream.reset();
  });
  afterAll(() => world.close());
}

/** One more instance, until the end of the test. */
async function another(variables: Variables): Promise<Instance> {
  const instance = await anotherInstance(world, { ...BOTH, ...variables });
  more.push(instance);
  return instance;
}

/** One more instance behind a proxy, at which a test stops its steps over Redis. */
async function behindProxy(
  variables: Variables,
  test: (url: string, proxy: RedisProxy) => Promise<void>,
): Promise<void> {
  const proxy = await RedisProxy.before(world.redis);
  try {
    const { url } = await another({ ...variables, REDIS_URL: proxy.url });
    await test(url, proxy);
  } finally {
    await Promise.all(more.splice(0).map((instance) => instance.close()));
    await proxy.close();
  }
}

const error = (status: number, code: string, rest: object = {}): Fault => ({
  kind: 'error',
  status,
  code,
  ...rest,
});
const WALLET_EMPTY = error(402, 'INSUFFICIENT_BALANCE');
const BUSY = error(503, 'SERVICE_UNAVAILABLE');
const fail = (provider: Provider, fault: Fault, rest: Partial<FaultScript> = {}): void => {
  world.upstream.fault({ on: 'send', times: 0, provider, fault, ...rest });
};

/** How many calls each provider got: sends and verifications. */
function calls(): { startmessaging: number; sendwithses: number } {
  const of = (pattern: RegExp): number =>
    world.upstream.calls.filter(({ path }) => pattern.test(path)).length;
  return { startmessaging: of(/^\/otp\//), sendwithses: of(/^\/(send|verify)-otp$/) };
}

/** The answer to a request of which every call of a provider times out once it has arrived there. */
async function timingOut(ask: () => Promise<Answer>): Promise<Answer> {
  const timers = holdTimersOfService((delayMs) => delayMs === CALL_TIMEOUT_MS);
  let arrived = world.upstream.calls.length;
  let answered = false;
  const asked = ask().finally(() => (answered = true));
  await until(() => {
    if (world.upstream.calls.length > arrived) timers.fire();
    arrived = world.upstream.calls.length;
    return answered;
  }, 'the answer after the timeouts');
  jest.restoreAllMocks();
  return asked;
}
const asking = (fault: Fault, ask: () => Promise<Answer>): Promise<Answer> =>
  typeof fault === 'object' && fault.kind === 'timeout' ? timingOut(ask) : ask();

const sendersTo = (phoneNumber: string): Provider[] =>
  world.upstream.messages
    .filter((sent) => sent.phoneNumber === phoneNumber)
    .map(({ contract }) => (contract === 'sendwithses' ? 'sendwithses' : 'startmessaging'));

const told = ({ status, body }: Answer): string => `${status} ${body.code ?? body.delivery ?? ''}`.trim();
const alerts = (instance = world.instances[0]!): unknown[] =>
  instance.logs.flatMap((line) => (JSON.parse(line) as { alert?: string }).alert ?? []);

async function gauge(name: string, url = world.url): Promise<Record<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const found = text.matchAll(new RegExp(`^${name}\\{provider="(\\w+)"\\} (\\d+)$`, 'gm'));
  return Object.fromEntries([...found].map(([, provider = '', value]) => [provider, Number(value)]));
}

/** What the ledger adds to its totals while the function runs. */
async function charged(run: () => Promise<void>): Promise<Record<string, number>> {
  const before = await usageOf(world);
  await run();
  const after = await usageOf(world);
  return Object.fromEntries(Object.entries(after).map(([name, total]) => [name, total - before[name]!]));
}

/** The provider of each SMS to the number of a request, as the ledger has it. */
async function ledgered(requestId: string): Promise<string[]> {
  await flushLedger(world);
  const entries = (await redisCommand(world, 'XRANGE', KEYS.ledger, '-', '+')) as [string, string[]][];
  const senders = new Map<string, string>();
  for (const [id, flat] of entries) {
    const fields = Object.fromEntries(flat.map((name, i) => [name, flat[i + 1] ?? '']));
    if (fields.event === 'sent' && fields.phone === partsOf(requestId).pseudonym)
      senders.set(id, fields.provider!);
    if (fields.event === 'handed-over' && senders.has(fields.sms!))
      senders.set(fields.sms!, fields.provider!);
  }
  return [...senders.values()];
}

/** The code that was texted is right, and another code is wrong. */
async function expectVerifies(requestId: unknown, phoneNumber: string, url = world.url): Promise<void> {
  const code = textedCode(world.upstream, phoneNumber);
  expect(told(await verifyOtp(url, requestId, wrongCode(code)))).toBe('400 otp_incorrect');
  expect((await verifyOtp(url, requestId, code)).status).toBe(200);
}

describe.each(['caller', 'provider'] as const)('two providers under the %s contract', (contract) => {
  const suffix = `under the ${contract} contract`;
  const variables = { STARTMESSAGING_CONTRACT: contract };

  describe('a limit of one SMS', () => {
    shareWorld({ ...variables, LIMIT_PHONE: '1/600' });

    it.each<[string, Fault, number, string | undefined]>([
      ['has an empty wallet', WALLET_EMPTY, 1, 'wallet_exhausted'],
      ['refuses the API key', error(401, 'UNAUTHORIZED'), 1, 'upstream_credentials'],
      ['has no such route', error(404, 'NOT_FOUND'), 1, 'contract_mismatch'],
      ['throttles', error(429, 'INTERNAL_ERROR'), 1, undefined],
      ['refuses the SMS', error(400, 'OTP_SEND_FAILED'), 1, undefined],
      ['is still busy after the retries', BUSY, 3, undefined],
    ])(
      `the second provider sends an SMS that is charged once when the first %s ${suffix}`,
      async (_name, fault, made, alert) => {
        fail('startmessaging', fault);
        const phoneNumber = freshNumber();
        let answer!: Answer;
        const usage = await charged(async () => {
          answer = await sendOtp(world.url, phoneNumber);
        });
        expect(told(answer)).toBe('200 accepted');
        expect(Object.keys(answer.body as object).sort()).toEqual([
          'attemptsLeft',
          'codeLength',
          'delivery',
          'expiresAt',
          'expiresInSeconds',
          'requestId',
          'resendAt',
          'resendInSeconds',
        ]);
        expect([calls(), sendersTo(phoneNumber)]).toEqual([
          { startmessaging: made, sendwithses: 1 },
          ['sendwithses'],
        ]);
        expect(alerts()).toEqual(alert === undefined ? [] : [alert]);
        expect(usage).toMatchObject({ sent: 1, refunded: 0, costPaise: 25 });
        expect(await ledgered(answer.body.requestId)).toEqual(['sendwithses']);
        expect(told(await sendOtp(world.url, phoneNumber))).toBe('429 rate_limited');
        await expectVerifies(answer.body.requestId, phoneNumber);
        expect(calls()).toEqual({ startmessaging: made, sendwithses: 3 });
      },
    );

    it(`a repeat under an Idempotency-Key gets the response of a send that was handed over ${suffix}`, async () => {
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber, under('k'));
      const again = await sendOtp(world.url, phoneNumber, under('k'));
      expect([again.status, again.body]).toEqual([200, first.body]);
      expect(calls()).toEqual({ startmessaging: 1, sendwithses: 1 });
      await expectVerifies(again.body.requestId, phoneNumber);
    });

    if (contract === 'provider')
      it('a send of unknown fate is repeated at the same provider only, under the provider contract', async () => {
        fail('startmessaging', { kind: 'reset', when: 'after' }, { times: 3 });
        const phoneNumber = freshNumber();
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('502 upstream_unavailable');
        fail('startmessaging', WALLET_EMPTY, { times: 1 });
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('503 sms_unavailable');
        const again = await sendOtp(world.url, phoneNumber, under('k'));
        expect([told(again), sendersTo(phoneNumber), calls().sendwithses]).toEqual([
          '200 accepted',
          ['startmessaging'],
          0,
        ]);
        await expectVerifies(again.body.requestId, phoneNumber);
      });
  });

  describe('the hand-over', () => {
    shareWorld(variables);

    it(`the second provider sends when the first cannot be reached ${suffix}`, async () => {
      const { url } = await another({ ...variables, STARTMESSAGING_BASE_URL: 'http://127.0.0.1:1' });
      const phoneNumber = freshNumber();
      const answer = await sendOtp(url, phoneNumber);
      expect([told(answer), sendersTo(phoneNumber)]).toEqual(['200 accepted', ['sendwithses']]);
    });

    it(`the second provider gets only the time that the first one left ${suffix}`, async () => {
      let refuse: (() => void) | undefined;
      const first = await startRawUpstream((socket) => {
        const body = JSON.stringify({ success: false, error: { code: 'INSUFFICIENT_BALANCE' } });
        refuse = () => socket.end(rawAnswer(body, { status: '402 Payment Required' }));
      });
      try {
        const { url } = await another({ ...variables, STARTMESSAGING_BASE_URL: first.url });
        fail('sendwithses', { kind: 'timeout' });
        // What is left of the deadline is no whole number of milliseconds.
        const timers = holdTimersOfService((delayMs) => delayMs > 1_000 && !Number.isInteger(delayMs));
        const sending = sendOtp(url, freshNumber());
        await until(() => refuse !== undefined, 'the call of the first provider');
        moveMonotonicClock(20_000);
        refuse?.();
        await until(() => calls().sendwithses === 1, 'the call of the second provider');
        const left = timers.delays.at(-1)!;
        expect(left).toBeLessThanOrEqual(DEADLINE_MS - 20_000);
        timers.fire();
        expect(told(await sending)).toBe('200 unknown');
        expect(calls()).toEqual({ startmessaging: 0, sendwithses: 1 });
      } finally {
        await first.close();
      }
    });

    it.each<[string, Fault, string]>([
      [
        'the first refused the number',
        error(400, 'VALIDATION_ERROR', { details: ['phoneNumber'] }),
        '400 phone_number_rejected',
      ],
      ['the first has a limit for the number', error(400, 'RATE_LIMIT_EXCEEDED'), '429 rate_limited'],
      [
        'the first refused the template',
        error(400, 'VALIDATION_ERROR', { details: ['templateId'] }),
        '500 internal_error',
      ],
    ])(`the second provider is not called when %s ${suffix}`, async (_name, fault, answer) => {
      fail('startmessaging', fault);
      expect(told(await sendOtp(world.url, freshNumber()))).toBe(answer);
      expect(calls().sendwithses).toBe(0);
    });

    it.each<[string, Fault]>([
      ['a timeout', { kind: 'timeout' }],
      ['a reset', { kind: 'reset' }],
      ['a 500', error(500, 'INTERNAL_ERROR', { when: 'after' })],
      ['half a response', { kind: 'cut' }],
      ['a used key', error(409, 'CONFLICT', { when: 'after' })],
    ])(
      `the second provider is not called after %s of the first, which perhaps sent the SMS, ${suffix}`,
      async (_name, fault) => {
        fail('startmessaging', fault);
        const usage = await charged(async () => {
          const answer = await asking(fault, () => sendOtp(world.url, freshNumber()));
          if (contract === 'caller') expect(told(answer)).toBe('200 unknown');
          else expect(answer.status).toBeGreaterThanOrEqual(502);
        });
        expect(calls().sendwithses).toBe(0);
        expect(usage).toMatchObject({ sent: 1, refunded: 0, costPaise: 25 });
      },
    );

    it(`send-otp gives the answer of the last provider and refunds the price when all refuse ${suffix}`, async () => {
      fail('startmessaging', WALLET_EMPTY);
      fail('sendwithses', error(429, 'TOO_MANY', { headers: { 'retry-after': '17' } }));
      const usage = await charged(async () => {
        const answer = await sendOtp(world.url, freshNumber());
        expect([told(answer), answer.headers.get('retry-after')]).toEqual(['429 rate_limited', '17']);
      });
      expect(usage).toMatchObject({ sent: 1, refunded: 1, costPaise: 0 });
    });

    it(`an SMS that the second provider perhaps sent is charged, and its code works ${suffix}`, async () => {
      fail('startmessaging', WALLET_EMPTY);
      fail('sendwithses', { kind: 'reset', when: 'after' });
      const phoneNumber = freshNumber();
      let answer!: Answer;
      const usage = await charged(async () => {
        answer = await sendOtp(world.url, phoneNumber);
      });
      expect([told(answer), sendersTo(phoneNumber)]).toEqual(['200 unknown', ['sendwithses']]);
      expect(usage).toMatchObject({ sent: 1, refunded: 0, unknown: 1, costPaise: 25 });
      await expectVerifies(answer.body.requestId, phoneNumber);
    });

    it(`the code of one provider expires when another provider has sent a newer one ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      const requests: unknown[] = [];
      const codes: string[] = [];
      for (const empty of [false, true, false, true, true, false]) {
        if (empty) fail('startmessaging', WALLET_EMPTY, { times: 1 });
        const { status, body } = await sendOtp(world.url, phoneNumber);
        expect(status).toBe(200);
        for (const [i, requestId] of requests.entries()) {
          expect(told(await verifyOtp(world.url, requestId, codes[i]!))).toBe('410 otp_expired');
        }
        requests.push(body.requestId);
        codes.push(textedCode(world.upstream, phoneNumber));
      }
      const handedOver = sendersTo(phoneNumber).map((name) => name === 'sendwithses');
      expect(handedOver).toEqual([false, true, false, true, true, false]);
      expect((await verifyOtp(world.url, requests.at(-1), codes.at(-1)!)).status).toBe(200);
    });

    it(`the next code is not valid for the request of a send that was handed over ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      const before = await sendOtp(world.url, phoneNumber);
      // It began as a send of the first provider, under a nonce that is older than the live one now.
      const after = await sendOtp(world.url, phoneNumber);
      expect(sendersTo(phoneNumber)).toEqual(['sendwithses', 'startmessaging']);
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(world.url, before.body.requestId, code))).toBe('410 otp_expired');
      expect((await verifyOtp(world.url, after.body.requestId, code)).status).toBe(200);
    });

    it(`a repeat of a send that all providers refused begins with the first provider again ${suffix}`, async () => {
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      fail('sendwithses', error(402, 'NO_MONEY'), { times: 1 });
      const phoneNumber = freshNumber();
      const usage = await charged(async () => {
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('503 sms_unavailable');
        const again = await sendOtp(world.url, phoneNumber, under('k'));
        expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 accepted', ['startmessaging']]);
        await expectVerifies(again.body.requestId, phoneNumber);
      });
      expect(usage).toMatchObject({ sent: 2, refunded: 1, costPaise: 25 });
    });

    it(`no provider repeats a send whose instance crashed after the hand-over ${suffix}`, () =>
      behindProxy(variables, async (doomed, proxy) => {
        fail('startmessaging', WALLET_EMPTY, { times: 1 });
        const phoneNumber = freshNumber();
        const usage = await charged(async () => {
          const held = proxy.trap('reassign', 'late');
          const first = sendOtp(doomed, phoneNumber, under('k'));
          await held.caught();
          proxy.sever();
          expect(told(await first)).toBe('503 store_unavailable');
          expect([calls().sendwithses, sendersTo(phoneNumber)]).toEqual([0, []]);
          expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('409 idempotency_in_progress');
          await aMinuteLater(world);
          // The first would send now. But perhaps the second has sent, and it does not know repeats.
          const again = await sendOtp(world.url, phoneNumber, under('k'));
          expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 unknown', []]);
        });
        expect(usage).toMatchObject({ sent: 1, costPaise: 25 });
        const other = await sendOtp(world.url, phoneNumber);
        await expectVerifies(other.body.requestId, phoneNumber);
      }));

    it(`a send whose Idempotency-Key is free again is not handed over ${suffix}`, () =>
      behindProxy(variables, async (slow, proxy) => {
        // Redis must know the script: a script that it asks for is not sent after the caller was answered.
        fail('startmessaging', WALLET_EMPTY, { times: 2 });
        expect(told(await sendOtp(slow, freshNumber()))).toBe('200 accepted');
        const phoneNumber = freshNumber();
        const held = proxy.trap('reassign', 'hold');
        const first = sendOtp(slow, phoneNumber, under('k'));
        await held.caught();
        await aMinuteLater(world);
        held.letGo();
        expect(told(await first)).toBe('503 store_unavailable');
        expect(sendersTo(phoneNumber)).toEqual([]);
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('200 accepted');
        expect(sendersTo(phoneNumber)).toHaveLength(1);
      }));

    it(`a send that another instance has taken over is not handed over any more ${suffix}`, () =>
      behindProxy(variables, async (stalled, proxy) => {
        // Redis must know the script: a script that it asks for is not sent after the caller was answered.
        fail('startmessaging', WALLET_EMPTY, { times: 2 });
        expect(told(await sendOtp(stalled, freshNumber()))).toBe('200 accepted');
        const phoneNumber = freshNumber();
        const held = proxy.trap('reassign', 'hold');
        expect(told(await sendOtp(stalled, phoneNumber, under('k')))).toBe('503 store_unavailable');
        await aMinuteLater(world);
        // The other instance goes on with the same challenge where the provider knows repeats. The step that was held comes
        // in between.
        const repeats = contract === 'provider';
        const before = world.upstream.calls.length;
        fail('startmessaging', { kind: 'slow', delayMs: CALL_TIMEOUT_MS }, { times: 1, phoneNumber });
        const again = sendOtp(world.url, phoneNumber, under('k'));
        if (repeats) await until(() => world.upstream.calls.length > before, 'the repeated call');
        else await again;
        held.letGo();
        // A send that goes through the same connection comes after the step.
        const delivered = async (): Promise<boolean> =>
          (await sendOtp(stalled, freshNumber())).status === 200;
        await until(delivered, 'a send after the step that was held');
        world.upstream.clearFaults();
        expect([told(await again), sendersTo(phoneNumber)]).toEqual(
          repeats ? ['200 accepted', ['startmessaging']] : ['200 unknown', []],
        );
        const { body } = repeats ? await again : await sendOtp(world.url, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber);
      }));

    it(`a send that a crash left with one provider is not handed over to the other ${suffix}`, async () => {
      const swapped = { ...variables, PROVIDERS: 'sendwithses,startmessaging' };
      const { url } = await another(swapped);
      await behindProxy(swapped, async (doomed, proxy) => {
        const phoneNumber = freshNumber();
        const held = proxy.trap('activate', 'hold');
        const first = sendOtp(doomed, phoneNumber, under('k'));
        await held.caught();
        proxy.sever();
        expect(told(await first)).toBe('503 store_unavailable');
        await aMinuteLater(world);
        const again = await sendOtp(url, phoneNumber, under('k'));
        expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 unknown', ['sendwithses']]);
        expect(calls()).toEqual({ startmessaging: 0, sendwithses: 1 });
        await expectVerifies(again.body.requestId, phoneNumber);
      });
    });

    it(`an instance verifies a code at the provider that sent it, whatever PROVIDERS is there, ${suffix}`, async () => {
      const swapped = await another({ ...variables, PROVIDERS: 'sendwithses,startmessaging' });
      const [first, second] = [
        await another({ ...variables, PROVIDERS: 'startmessaging' }),
        await another({ ...variables, PROVIDERS: 'sendwithses' }),
      ];
      for (const [sender, verifier] of [
        [world, swapped],
        [swapped, world],
        // The sender is no longer one of the providers, but its settings are still there.
        [swapped, first],
        [world, second],
      ] as const) {
        const phoneNumber = freshNumber();
        const { body } = await sendOtp(sender.url, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber, verifier.url);
      }
    });

    it(`a challenge has expired for an instance without the settings of its provider ${suffix}`, async () => {
      const swapped = await another({ ...variables, PROVIDERS: 'sendwithses,startmessaging' });
      const without = await another({
        ...variables,
        PROVIDERS: 'startmessaging',
        SENDWITHSES_TEMPLATE_KEY: '',
      });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(swapped.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(without.url, body.requestId, code))).toBe('410 otp_expired');
      expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    });

    it(`a code that was made under the ${contract} contract is verified under the other one, and the reverse`, async () => {
      const other = await another({ STARTMESSAGING_CONTRACT: contract === 'caller' ? 'provider' : 'caller' });
      for (const [sender, verifier] of [
        [world, other],
        [other, world],
      ] as const) {
        const phoneNumber = freshNumber();
        const { body } = await sendOtp(sender.url, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber, verifier.url);
      }
    });

    it(`the breaker of a provider that is down opens with one alert, and closes by itself ${suffix}`, async () => {
      const instance = await another(variables);
      const { url } = instance;
      expect(await gauge('otp_login_breaker_open', url)).toEqual({ startmessaging: 0, sendwithses: 0 });
      fail('startmessaging', BUSY);
      for (let i = 0; i < 20; i += 1) expect(told(await sendOtp(url, freshNumber()))).toBe('200 accepted');
      // Three calls each. A call that is repeated fails once.
      expect(calls()).toEqual({ startmessaging: 60, sendwithses: 20 });
      expect(alerts(instance)).toEqual(['provider_down']);
      expect(await gauge('otp_login_breaker_open', url)).toEqual({ startmessaging: 1, sendwithses: 0 });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(url, phoneNumber);
      expect(calls()).toEqual({ startmessaging: 60, sendwithses: 21 });
      await expectVerifies(body.requestId, phoneNumber, url);
      expect(instance.logs.join('')).not.toContain('works again');

      world.upstream.clearFaults();
      moveMonotonicClock(5_000);
      const probing = freshNumber();
      expect(told(await sendOtp(url, probing))).toMatch(/^200 /);
      expect(sendersTo(probing)).toEqual(['startmessaging']);
      expect(await gauge('otp_login_breaker_open', url)).toEqual({ startmessaging: 0, sendwithses: 0 });
      expect(instance.logs.join('')).toContain('works again');
      expect(alerts(instance)).toEqual(['provider_down']);
    });
  });
});

describe('StartMessaging', () => {
  shareWorld({ STARTMESSAGING_CONTRACT: 'provider' });

  it('the metrics tell an empty wallet of one provider and not of the other', async () => {
    fail('startmessaging', WALLET_EMPTY, { times: 1 });
    expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
    expect(await gauge('otp_login_wallet_exhausted')).toEqual({ startmessaging: 1, sendwithses: 0 });
    expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
    expect(await gauge('otp_login_wallet_exhausted')).toEqual({ startmessaging: 0, sendwithses: 0 });
  });

  it('an open breaker costs no attempt and no price, and requests do not wait for a provider that is down', async () => {
    const { url } = await another({ PROVIDERS: 'startmessaging', STARTMESSAGING_CONTRACT: 'provider' });
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(url, phoneNumber);
    world.upstream.fault({ on: 'any', times: 0, fault: BUSY });
    for (let i = 0; i < 20; i += 1) await sendOtp(url, freshNumber());
    const before = world.upstream.calls.length;
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    expect(told(await verifyOtp(url, body.requestId, wrong))).toBe('502 upstream_unavailable');
    const usage = await charged(async () => {
      expect(told(await sendOtp(url, freshNumber()))).toBe('502 upstream_unavailable');
    });
    expect(usage).toMatchObject({ sent: 1, refunded: 1, costPaise: 0 });
    expect(world.upstream.calls).toHaveLength(before);
    world.upstream.clearFaults();
    moveMonotonicClock(5_000);
    const answer = await verifyOtp(url, body.requestId, wrong);
    expect([told(answer), answer.body.attemptsLeft]).toEqual(['400 otp_incorrect', 2]);
  });

  it('a test number reaches no provider', async () => {
    const phoneNumber = '+910184467440';
    const { url } = await another({ TEST_NUMBERS: `${phoneNumber}:483920` });
    const { body } = await sendOtp(url, phoneNumber);
    expect((await verifyOtp(url, body.requestId, '483920')).status).toBe(200);
    expect(calls()).toEqual({ startmessaging: 0, sendwithses: 0 });
  });
});

describe('Send With SES alone', () => {
  shareWorld({ PROVIDERS: 'sendwithses', STARTMESSAGING_API_KEY: '' });

  it('Send With SES alone sends and verifies codes, and each send voids the code before it', async () => {
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber);
    const old = textedCode(world.upstream, phoneNumber);
    const second = await sendOtp(world.url, phoneNumber);
    expect(told(await verifyOtp(world.url, first.body.requestId, old))).toBe('410 otp_expired');
    await expectVerifies(second.body.requestId, phoneNumber);
    expect(calls().startmessaging).toBe(0);
    expect(await ledgered(second.body.requestId)).toEqual(['sendwithses', 'sendwithses']);
  });

  it.each<[string, Fault, string, string | undefined]>([
    ['refuses the number', error(400, 'x'), '400 phone_number_rejected', undefined],
    ['refuses the key', error(401, 'x'), '500 internal_error', 'upstream_credentials'],
    ['has an empty wallet', error(402, 'x'), '503 sms_unavailable', 'wallet_exhausted'],
    ['has no such route', error(404, 'x'), '503 sms_unavailable', 'contract_mismatch'],
    [
      'is behind a proxy that answers 400',
      { kind: 'html', status: 400 },
      '503 sms_unavailable',
      'contract_mismatch',
    ],
    ['throttles', error(429, 'x'), '429 rate_limited', undefined],
    ['answers 503', error(503, 'x'), '502 upstream_unavailable', undefined],
  ])(
    'send-otp tells the reason and refunds the price when Send With SES %s',
    async (_name, fault, answer, alert) => {
      fail('sendwithses', fault);
      const usage = await charged(async () => {
        expect(told(await sendOtp(world.url, freshNumber()))).toBe(answer);
      });
      expect(alerts()).toEqual(alert === undefined ? [] : [alert]);
      expect(usage).toMatchObject({ sent: 1, refunded: 1, costPaise: 0 });
    },
  );

  it.each<[string, Fault]>([
    ['a timeout', { kind: 'timeout' }],
    ['a 500', error(500, 'x', { when: 'after' })],
    ['half a response', { kind: 'cut' }],
    [
      'a response that confirms nothing',
      { kind: 'raw', status: 200, body: { success: true }, when: 'after' },
    ],
  ])('a repeat sends no second SMS after %s of Send With SES, and the code works', async (_name, fault) => {
    fail('sendwithses', fault);
    const phoneNumber = freshNumber();
    const answer = await asking(fault, () => sendOtp(world.url, phoneNumber, under('k')));
    expect(told(answer)).toBe('200 unknown');
    expect((await sendOtp(world.url, phoneNumber, under('k'))).body).toEqual(answer.body);
    expect([calls().sendwithses, sendersTo(phoneNumber)]).toEqual([1, ['sendwithses']]);
    await expectVerifies(answer.body.requestId, phoneNumber);
  });

  it.each<[string, Fault, string, number]>([
    ['a refused key', error(401, 'x'), '500 internal_error', 3],
    ['an empty wallet', error(402, 'x'), '503 sms_unavailable', 3],
    ['a missing route', error(404, 'x'), '503 sms_unavailable', 3],
    ['a throttle', error(429, 'x'), '429 rate_limited', 3],
    ['a redirect', { kind: 'raw', status: 302, headers: { location: '/' } }, '503 sms_unavailable', 3],
    ['a 503', error(503, 'x'), '502 upstream_unavailable', 2],
    ['a 500', error(500, 'x'), '502 upstream_unavailable', 2],
    ['a reset', { kind: 'reset', when: 'before' }, '502 upstream_unavailable', 2],
    ['a timeout', { kind: 'timeout', when: 'before' }, '504 upstream_timeout', 2],
    ['a page', { kind: 'html', status: 200 }, '502 upstream_unavailable', 2],
    ['an expired code', error(410, 'x'), '410 otp_expired', 2],
    ['"true"', { kind: 'verified', value: 'true' }, '400 otp_incorrect', 2],
  ])(
    'verify-otp counts the attempts right after Send With SES answered by %s',
    async (_name, fault, answer, left) => {
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      world.upstream.fault({ on: 'verify', fault });
      const failed = await asking(fault, () => verifyOtp(world.url, body.requestId, code));
      expect(told(failed)).toBe(answer);
      const wrong = await verifyOtp(world.url, body.requestId, wrongCode(code));
      expect([told(wrong), wrong.body.attemptsLeft]).toEqual(['400 otp_incorrect', left - 1]);
      expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    },
  );

  it('Redis and the log contain no number, code or key of Send With SES, and every key in Redis expires', async () => {
    const phoneNumber = freshNumber();
    fail('sendwithses', error(403, 'x', { message: `tk_0123456789 ${phoneNumber}` }), { times: 1 });
    await sendOtp(world.url, phoneNumber);
    const { body } = await sendOtp(world.url, phoneNumber);
    await expectVerifies(body.requestId, phoneNumber);
    const contents = await contentsOf(world.redis.url);
    expect(contents.filter(({ ttl }) => ttl === -1)).toEqual([]);
    const texts = [world.instances[0]?.logs.join(''), JSON.stringify(contents)];
    for (const secret of ['tk_0123456789', phoneNumber.slice(3), textedCode(world.upstream, phoneNumber)])
      for (const text of texts) expect(text).not.toContain(secret);
  });
});
