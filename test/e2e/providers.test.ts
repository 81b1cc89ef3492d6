import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import type { FaultScript } from '../../src/emulator/emulator';
import { LEDGER_KEY } from '../../src/ledger/ledger';
import { usageOf, WITH_ADMIN } from '../support/admin';
import { aMinuteLater, under } from '../support/crowd';
import { RedisProxy } from '../support/redis-proxy';
import {
  type Answer,
  freshNumber,
  type Instance,
  redisCommand,
  sendOtp,
  startInstance,
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

const SES: Variables = {
  SENDWITHSES_TEMPLATE_KEY: 'tk_0123456789',
  SENDWITHSES_SENT_IF: 'success=true,data.status="sent"',
  SENDWITHSES_VERIFIED_IF: 'data.verified=true',
};
const BOTH: Variables = {
  ...WITH_ADMIN,
  ...SES,
  PROVIDERS: 'startmessaging,sendwithses',
  UPSTREAM_TIMEOUT_MS: '300',
};

let world: World;
const more: Instance[] = [];
afterEach(async () => {
  for (const instance of more.splice(0)) await instance.close();
  await world.close();
});

/** Another instance over the same Redis and the same upstream. */
async function another(variables: Variables): Promise<string> {
  const both = { STARTMESSAGING_BASE_URL: world.upstream.url, SENDWITHSES_BASE_URL: world.upstream.url };
  const instance = await startInstance({ REDIS_URL: world.redis.url, ...both, ...BOTH, ...variables });
  more.push(instance);
  return instance.url;
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

/** Who sent each SMS, as the ledger has it. */
async function ledgered(): Promise<string[]> {
  const entries = (await redisCommand(world, 'XRANGE', LEDGER_KEY, '-', '+')) as [string, string[]][];
  const senders = new Map<string, string>();
  for (const [id, flat] of entries) {
    const fields = Object.fromEntries(flat.map((name, i) => [name, flat[i + 1] ?? '']));
    if (fields.event === 'sent') senders.set(id, fields.provider!);
    if (fields.event === 'handed-over') senders.set(fields.sms!, fields.provider!);
  }
  return [...senders.values()];
}

/** The code that was texted is the right one, and a wrong one is told as such first. */
async function expectVerifies(requestId: unknown, phoneNumber: string, url = world.url): Promise<void> {
  const code = textedCode(world.upstream, phoneNumber);
  expect(told(await verifyOtp(url, requestId, wrongCode(code)))).toBe('400 otp_incorrect');
  expect((await verifyOtp(url, requestId, code)).status).toBe(200);
}

describe.each(['caller', 'provider'] as const)(
  'with a second provider, under the %s contract',
  (contract) => {
    const variables = { ...BOTH, STARTMESSAGING_CONTRACT: contract };

    it.each<[string, Fault, number, string | undefined]>([
      ['has an empty wallet', WALLET_EMPTY, 1, 'wallet_exhausted'],
      ['refuses the API key', error(401, 'UNAUTHORIZED'), 1, 'upstream_credentials'],
      ['has another contract', error(404, 'NOT_FOUND'), 1, 'contract_mismatch'],
      ['throttles', error(429, 'INTERNAL_ERROR'), 1, undefined],
      ['refuses the SMS', error(400, 'OTP_SEND_FAILED'), 1, undefined],
      ['is busy, after its retries', BUSY, 3, undefined],
    ])('the second sends when the first %s', async (_name, fault, made, alert) => {
      world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '1/600' } });
      fail('startmessaging', fault);
      const phoneNumber = freshNumber();
      const answer = await sendOtp(world.url, phoneNumber);
      expect(told(answer)).toBe('200 accepted');
      expect(Object.keys(answer.body as object).sort()).toEqual(
        ['attemptsLeft', 'delivery', 'expiresAt', 'requestId', 'resendAt'].sort(),
      );
      expect([calls(), sendersTo(phoneNumber)]).toEqual([
        { startmessaging: made, sendwithses: 1 },
        ['sendwithses'],
      ]);
      expect(alerts()).toEqual(alert === undefined ? [] : [alert]);
      // One SMS, admitted and charged once, and the ledger knows who sent it.
      expect(await usageOf(world)).toMatchObject({ sent: 1, refunded: 0, costPaise: 25 });
      expect(await ledgered()).toEqual(['sendwithses']);
      expect(told(await sendOtp(world.url, phoneNumber))).toBe('429 rate_limited');
      await expectVerifies(answer.body.requestId, phoneNumber);
      expect(calls()).toEqual({ startmessaging: made, sendwithses: 3 });
    });

    it('the second sends when the first is not there', async () => {
      world = await startWorld({
        variables: { ...variables, STARTMESSAGING_BASE_URL: 'http://127.0.0.1:1' },
      });
      const phoneNumber = freshNumber();
      const answer = await sendOtp(world.url, phoneNumber);
      expect([told(answer), sendersTo(phoneNumber)]).toEqual(['200 accepted', ['sendwithses']]);
    });

    it('the second has what the first left of the time for both', async () => {
      // A TLS handshake that never ends: three tries of a second each, and certainly nothing was sent.
      const silent = createServer().listen(0, '127.0.0.1');
      await once(silent, 'listening');
      world = await startWorld({
        variables: {
          ...variables,
          STARTMESSAGING_BASE_URL: `https://127.0.0.1:${(silent.address() as AddressInfo).port}`,
          UPSTREAM_CONNECT_TIMEOUT_MS: '1000',
          UPSTREAM_TIMEOUT_MS: '10000',
          UPSTREAM_DEADLINE_MS: '5000',
        },
      });
      // Shorter than the deadline, longer than what is left of it.
      fail('sendwithses', { kind: 'slow', delayMs: 3_500 });
      const phoneNumber = freshNumber();
      expect(told(await sendOtp(world.url, phoneNumber))).toBe('200 unknown');
      expect(calls()).toEqual({ startmessaging: 0, sendwithses: 1 });
      silent.close();
    });

    it.each<[string, Fault, string]>([
      [
        'a refused number',
        error(400, 'VALIDATION_ERROR', { details: ['phoneNumber'] }),
        '400 phone_number_rejected',
      ],
      ["a number's limit", error(400, 'RATE_LIMIT_EXCEEDED'), '429 rate_limited'],
      [
        'a refused template',
        error(400, 'VALIDATION_ERROR', { details: ['templateId'] }),
        '500 internal_error',
      ],
    ])('the second is not asked after %s', async (_name, fault, answer) => {
      world = await startWorld({ variables });
      fail('startmessaging', fault);
      expect(told(await sendOtp(world.url, freshNumber()))).toBe(answer);
      expect(calls().sendwithses).toBe(0);
    });

    it.each<[string, Fault]>([
      ['a timeout', { kind: 'timeout' }],
      ['a reset', { kind: 'reset' }],
      ['a 500', error(500, 'INTERNAL_ERROR', { when: 'after' })],
      ['half an answer', { kind: 'cut' }],
      ['a used key', error(409, 'CONFLICT', { when: 'after' })],
    ])('the second is not asked after %s, because the SMS may be on its way', async (_name, fault) => {
      world = await startWorld({ variables });
      fail('startmessaging', fault);
      const answer = await sendOtp(world.url, freshNumber());
      if (contract === 'caller') expect(told(answer)).toBe('200 unknown');
      else expect(answer.status).toBeGreaterThanOrEqual(502);
      expect(calls().sendwithses).toBe(0);
      expect(await usageOf(world)).toMatchObject({ sent: 1, refunded: 0, costPaise: 25 });
    });

    it('the last answer is told when none takes it, and the price is given back', async () => {
      world = await startWorld({ variables });
      fail('startmessaging', WALLET_EMPTY);
      fail('sendwithses', error(429, 'TOO_MANY', { headers: { 'retry-after': '17' } }));
      const answer = await sendOtp(world.url, freshNumber());
      expect([told(answer), answer.headers.get('retry-after')]).toEqual(['429 rate_limited', '17']);
      expect(await usageOf(world)).toMatchObject({ sent: 1, refunded: 1, costPaise: 0 });
    });

    it('a send that the second may have sent is paid for, and its code works', async () => {
      world = await startWorld({ variables });
      fail('startmessaging', WALLET_EMPTY);
      fail('sendwithses', { kind: 'reset', when: 'after' });
      const phoneNumber = freshNumber();
      const answer = await sendOtp(world.url, phoneNumber);
      expect([told(answer), sendersTo(phoneNumber)]).toEqual(['200 unknown', ['sendwithses']]);
      expect(await usageOf(world)).toMatchObject({ sent: 1, refunded: 0, unknown: 1, costPaise: 25 });
      await expectVerifies(answer.body.requestId, phoneNumber);
    });

    it("the first provider's code is void once the second sent its own, and the other way round", async () => {
      world = await startWorld({ variables });
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

    it('no code is left behind by a send that was handed over', async () => {
      world = await startWorld({ variables });
      const phoneNumber = freshNumber();
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      const before = await sendOtp(world.url, phoneNumber);
      // Begun as the first provider's, whose nonce was never sent: it is older than the live one now.
      const after = await sendOtp(world.url, phoneNumber);
      expect(sendersTo(phoneNumber)).toEqual(['sendwithses', 'startmessaging']);
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(world.url, before.body.requestId, code))).toBe('410 otp_expired');
      expect((await verifyOtp(world.url, after.body.requestId, code)).status).toBe(200);
    });

    it('a repeat under an Idempotency-Key gets the answer of a send that was handed over', async () => {
      world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '1/600' } });
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber, under('k'));
      const again = await sendOtp(world.url, phoneNumber, under('k'));
      expect([again.status, again.body]).toEqual([200, first.body]);
      expect(calls()).toEqual({ startmessaging: 1, sendwithses: 1 });
      await expectVerifies(again.body.requestId, phoneNumber);
    });

    it('a repeat of what certainly nobody sent begins with the first provider again', async () => {
      world = await startWorld({ variables });
      fail('startmessaging', WALLET_EMPTY, { times: 1 });
      fail('sendwithses', error(402, 'NO_MONEY'), { times: 1 });
      const phoneNumber = freshNumber();
      expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('503 sms_unavailable');
      const again = await sendOtp(world.url, phoneNumber, under('k'));
      expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 accepted', ['startmessaging']]);
      await expectVerifies(again.body.requestId, phoneNumber);
      expect(await usageOf(world)).toMatchObject({ sent: 2, refunded: 1, costPaise: 25 });
    });

    it('a crash after the hand-over is sent by nobody again', async () => {
      world = await startWorld({ variables });
      const proxy = await RedisProxy.before(world.redis);
      try {
        const doomed = await another({ ...variables, REDIS_URL: proxy.url });
        fail('startmessaging', WALLET_EMPTY, { times: 1 });
        const phoneNumber = freshNumber();
        const held = proxy.trap('hand-over', 'late');
        const first = sendOtp(doomed, phoneNumber, under('k'));
        await held.caught();
        proxy.sever();
        expect(told(await first)).toBe('503 store_unavailable');
        expect([calls().sendwithses, sendersTo(phoneNumber)]).toEqual([0, []]);
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('409 idempotency_in_progress');
        await aMinuteLater(world);
        // The first would send now; but for all that is known, the second may have, and it knows no repeats.
        const again = await sendOtp(world.url, phoneNumber, under('k'));
        expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 unknown', []]);
        expect(await usageOf(world)).toMatchObject({ sent: 1, costPaise: 25 });
        const other = await sendOtp(world.url, phoneNumber);
        await expectVerifies(other.body.requestId, phoneNumber);
      } finally {
        await Promise.all(more.splice(0).map((instance) => instance.close()));
        await proxy.close();
      }
    });

    it('a send whose key has run out is not handed over: another may take it at any time', async () => {
      world = await startWorld({ variables });
      const proxy = await RedisProxy.before(world.redis);
      try {
        const slow = await another({ ...variables, REDIS_URL: proxy.url });
        // Redis must know the script: one that it asks for is not sent for a caller who was answered.
        fail('startmessaging', WALLET_EMPTY, { times: 2 });
        expect(told(await sendOtp(slow, freshNumber()))).toBe('200 accepted');
        const phoneNumber = freshNumber();
        const held = proxy.trap('hand-over', 'hold');
        const first = sendOtp(slow, phoneNumber, under('k'));
        await held.caught();
        await aMinuteLater(world);
        held.letGo();
        expect(told(await first)).toBe('503 store_unavailable');
        expect(sendersTo(phoneNumber)).toEqual([]);
        expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('200 accepted');
        expect(sendersTo(phoneNumber)).toHaveLength(1);
      } finally {
        await Promise.all(more.splice(0).map((instance) => instance.close()));
        await proxy.close();
      }
    });

    it('a send that another has in hand by now is not handed over under it', async () => {
      const patient = { ...variables, UPSTREAM_TIMEOUT_MS: '10000' };
      world = await startWorld({ variables: patient });
      const proxy = await RedisProxy.before(world.redis);
      try {
        const stalled = await another({ ...patient, REDIS_URL: proxy.url });
        // Redis must know the script: one that it asks for is not sent for a caller who was answered.
        fail('startmessaging', WALLET_EMPTY, { times: 2 });
        expect(told(await sendOtp(stalled, freshNumber()))).toBe('200 accepted');
        const phoneNumber = freshNumber();
        const held = proxy.trap('hand-over', 'hold');
        expect(told(await sendOtp(stalled, phoneNumber, under('k')))).toBe('503 store_unavailable');
        await aMinuteLater(world);
        // The same challenge goes on here, where upstream knows repeats. The other's step, of which nobody hears any more,
        // comes in between.
        const repeats = contract === 'provider';
        const before = world.upstream.calls.length;
        fail('startmessaging', { kind: 'slow', delayMs: 200 }, { times: 1 });
        const again = sendOtp(world.url, phoneNumber, under('k'));
        if (repeats) await until(() => world.upstream.calls.length > before);
        held.letGo();
        expect([told(await again), sendersTo(phoneNumber)]).toEqual(
          repeats ? ['200 accepted', ['startmessaging']] : ['200 unknown', []],
        );
        const { body } = repeats ? await again : await sendOtp(world.url, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber);
      } finally {
        await Promise.all(more.splice(0).map((instance) => instance.close()));
        await proxy.close();
      }
    });

    it('a crash that left a send with one provider is not handed on to the other', async () => {
      world = await startWorld({ variables: { ...variables, PROVIDERS: 'sendwithses,startmessaging' } });
      const proxy = await RedisProxy.before(world.redis);
      try {
        const doomed = await another({ REDIS_URL: proxy.url, PROVIDERS: 'sendwithses,startmessaging' });
        const phoneNumber = freshNumber();
        const held = proxy.trap('finish', 'hold');
        const first = sendOtp(doomed, phoneNumber, under('k'));
        await held.caught();
        proxy.sever();
        expect(told(await first)).toBe('503 store_unavailable');
        await aMinuteLater(world);
        const again = await sendOtp(world.url, phoneNumber, under('k'));
        expect([told(again), sendersTo(phoneNumber)]).toEqual(['200 unknown', ['sendwithses']]);
        expect(calls()).toEqual({ startmessaging: 0, sendwithses: 1 });
        await expectVerifies(again.body.requestId, phoneNumber);
      } finally {
        await Promise.all(more.splice(0).map((instance) => instance.close()));
        await proxy.close();
      }
    });

    it('a challenge is verified by who sent its code, whatever the order is elsewhere', async () => {
      world = await startWorld({ variables });
      const swapped = await another({ ...variables, PROVIDERS: 'sendwithses,startmessaging' });
      const dropped = await another({ ...variables, PROVIDERS: 'startmessaging' });
      for (const [sender, verifier] of [
        [world.url, swapped],
        [swapped, world.url],
        // No longer one of the providers, but its settings are still there.
        [swapped, dropped],
        [world.url, await another({ ...variables, PROVIDERS: 'sendwithses' })],
      ] as const) {
        const phoneNumber = freshNumber();
        const { body } = await sendOtp(sender, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber, verifier);
      }
    });

    it('a challenge whose provider has no settings any more has expired', async () => {
      world = await startWorld({ variables: { ...variables, PROVIDERS: 'sendwithses,startmessaging' } });
      const without = await another({
        ...variables,
        PROVIDERS: 'startmessaging',
        SENDWITHSES_TEMPLATE_KEY: '',
      });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      expect(told(await verifyOtp(without, body.requestId, code))).toBe('410 otp_expired');
      expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    });

    it('a challenge of an older version is that of StartMessaging', async () => {
      world = await startWorld({ variables });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const [record] = (await redisCommand(world, 'KEYS', '*:challenge:*')) as string[];
      expect(await redisCommand(world, 'HDEL', record!, 'provider')).toBe(1);
      await expectVerifies(body.requestId, phoneNumber);
      expect(calls().sendwithses).toBe(0);
    });

    it('a code is checked as it was made, also where the contract is another by now', async () => {
      world = await startWorld({ variables });
      const other = await another({
        ...variables,
        STARTMESSAGING_CONTRACT: contract === 'caller' ? 'provider' : 'caller',
      });
      for (const [sender, verifier] of [
        [world.url, other],
        [other, world.url],
      ] as const) {
        const phoneNumber = freshNumber();
        const { body } = await sendOtp(sender, phoneNumber);
        await expectVerifies(body.requestId, phoneNumber, verifier);
      }
    });

    it('the breaker of a provider that is down opens, tells, and closes by itself', async () => {
      world = await startWorld({ variables });
      const [instance] = world.instances as [Instance];
      expect(await gauge('otp_login_breaker_open')).toEqual({ startmessaging: 0, sendwithses: 0 });
      fail('startmessaging', BUSY);
      for (let i = 0; i < 20; i += 1)
        expect(told(await sendOtp(world.url, freshNumber()))).toBe('200 accepted');
      // Three calls each: what is repeated fails once.
      expect(calls()).toEqual({ startmessaging: 60, sendwithses: 20 });
      expect(alerts()).toEqual(['provider_down']);
      expect(await gauge('otp_login_breaker_open')).toEqual({ startmessaging: 1, sendwithses: 0 });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      expect(calls()).toEqual({ startmessaging: 60, sendwithses: 21 });
      await expectVerifies(body.requestId, phoneNumber);
      expect(instance.logs.join('')).not.toContain('works again');

      await fetch(`${world.upstream.url}/_emulator/faults`, { method: 'DELETE' });
      await until(async () => {
        const number = freshNumber();
        expect(told(await sendOtp(world.url, number))).toMatch(/^200 /);
        return sendersTo(number)[0] === 'startmessaging';
      });
      expect(await gauge('otp_login_breaker_open')).toEqual({ startmessaging: 0, sendwithses: 0 });
      expect(instance.logs.join('')).toContain('works again');
      expect(alerts()).toEqual(['provider_down']);
    });
  },
);

it('the wallet of one provider is not told as that of another', async () => {
  world = await startWorld({ variables: BOTH });
  fail('startmessaging', WALLET_EMPTY, { times: 1 });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect(await gauge('otp_login_wallet_exhausted')).toEqual({ startmessaging: 1, sendwithses: 0 });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect(await gauge('otp_login_wallet_exhausted')).toEqual({ startmessaging: 0, sendwithses: 0 });
});

it('an unknown fate under the provider contract is asked of the same provider again, and of no other', async () => {
  const variables = { ...BOTH, STARTMESSAGING_CONTRACT: 'provider', LIMIT_PHONE: '1/600' };
  world = await startWorld({ variables });
  fail('startmessaging', { kind: 'timeout', when: 'after' }, { times: 3 });
  const phoneNumber = freshNumber();
  expect(told(await sendOtp(world.url, phoneNumber, under('k')))).toBe('504 upstream_timeout');
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

it('an open breaker gives the attempt back, and nobody waits for a provider that is down', async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'provider' } });
  const asked = freshNumber();
  const { body } = await sendOtp(world.url, asked);
  world.upstream.fault({ on: 'any', times: 0, fault: BUSY });
  for (let i = 0; i < 20; i += 1) await sendOtp(world.url, freshNumber());
  const before = world.upstream.calls.length;
  const refused = await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, asked)));
  expect([told(refused), world.upstream.calls.length]).toEqual(['502 upstream_unavailable', before]);
  // Alone, an open breaker is the caller's answer to a send, too; and its price is given back.
  expect(told(await sendOtp(world.url, freshNumber()))).toBe('502 upstream_unavailable');
  expect(world.upstream.calls).toHaveLength(before);
  await fetch(`${world.upstream.url}/_emulator/faults`, { method: 'DELETE' });
  let answer!: Answer;
  await until(async () => {
    answer = await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, asked)));
    return answer.status === 400;
  });
  expect([answer.body.code, answer.body.attemptsLeft]).toEqual(['otp_incorrect', 2]);
});

describe('Send With SES alone', () => {
  const variables = { ...BOTH, PROVIDERS: 'sendwithses', STARTMESSAGING_API_KEY: '' };

  it('logs in, and each send voids the code before', async () => {
    world = await startWorld({ variables });
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber);
    const old = textedCode(world.upstream, phoneNumber);
    const second = await sendOtp(world.url, phoneNumber);
    expect(told(await verifyOtp(world.url, first.body.requestId, old))).toBe('410 otp_expired');
    await expectVerifies(second.body.requestId, phoneNumber);
    expect([calls().startmessaging, await ledgered()]).toEqual([0, ['sendwithses', 'sendwithses']]);
  });

  it.each<[string, Fault, string, string | undefined]>([
    ['a refused number', error(400, 'x'), '400 phone_number_rejected', undefined],
    ['a refused key', error(401, 'x'), '500 internal_error', 'upstream_credentials'],
    ['an empty wallet', error(402, 'x'), '503 sms_unavailable', 'wallet_exhausted'],
    ['a missing route', error(404, 'x'), '503 sms_unavailable', 'contract_mismatch'],
    ['a 400 of a proxy', { kind: 'html', status: 400 }, '503 sms_unavailable', 'contract_mismatch'],
    ['a throttle', error(429, 'x'), '429 rate_limited', undefined],
    ['a 503', error(503, 'x'), '502 upstream_unavailable', undefined],
  ])('tells %s, and gives the price back', async (_name, fault, answer, alert) => {
    world = await startWorld({ variables });
    fail('sendwithses', fault);
    expect(told(await sendOtp(world.url, freshNumber()))).toBe(answer);
    expect(alerts()).toEqual(alert === undefined ? [] : [alert]);
    expect(await usageOf(world)).toMatchObject({ sent: 1, refunded: 1, costPaise: 0 });
  });

  it.each<[string, Fault]>([
    ['a timeout', { kind: 'timeout' }],
    ['a 500', error(500, 'x', { when: 'after' })],
    ['half an answer', { kind: 'cut' }],
    ['an answer that confirms nothing', { kind: 'raw', status: 200, body: { success: true }, when: 'after' }],
  ])('after %s sends nothing twice, and the code works', async (_name, fault) => {
    world = await startWorld({ variables });
    fail('sendwithses', fault);
    const phoneNumber = freshNumber();
    const answer = await sendOtp(world.url, phoneNumber, under('k'));
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
    'answers a verification that met %s, and keeps the count of attempts',
    async (_name, fault, answer, left) => {
      world = await startWorld({ variables });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      world.upstream.fault({ on: 'verify', fault });
      expect(told(await verifyOtp(world.url, body.requestId, code))).toBe(answer);
      const wrong = await verifyOtp(world.url, body.requestId, wrongCode(code));
      expect([told(wrong), wrong.body.attemptsLeft]).toEqual(['400 otp_incorrect', left - 1]);
      expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
    },
  );

  it('leaves no number, code or key in Redis, nor in a log', async () => {
    world = await startWorld({ variables });
    const phoneNumber = freshNumber();
    fail('sendwithses', error(403, 'x', { message: `tk_0123456789 ${phoneNumber}` }), { times: 1 });
    await sendOtp(world.url, phoneNumber);
    const { body } = await sendOtp(world.url, phoneNumber);
    await expectVerifies(body.requestId, phoneNumber);
    const logs = world.instances[0]?.logs.join('') ?? '';
    for (const secret of ['tk_0123456789', phoneNumber.slice(3), textedCode(world.upstream, phoneNumber)]) {
      expect(logs).not.toContain(secret);
    }
    for (const key of (await redisCommand(world, 'KEYS', '*')) as string[]) {
      expect([key, Number(await redisCommand(world, 'PTTL', key)) > 0]).toEqual([key, true]);
    }
  });
});

it('a test number reaches no provider', async () => {
  const phoneNumber = '+910184467440';
  world = await startWorld({ variables: { ...BOTH, TEST_NUMBERS: `${phoneNumber}:483920` } });
  const { body } = await sendOtp(world.url, phoneNumber);
  expect((await verifyOtp(world.url, body.requestId, '483920')).status).toBe(200);
  expect(calls()).toEqual({ startmessaging: 0, sendwithses: 0 });
});
