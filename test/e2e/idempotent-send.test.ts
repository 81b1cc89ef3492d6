import { setTimeout as sleep } from 'node:timers/promises';
import {
  call,
  freshNumber,
  redisCommand,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  type World,
} from '../support/world';

let world: World;
afterEach(() => world.close());

const under = (key: string): Record<string, string> => ({ 'idempotency-key': key });
const keysOfUpstream = (): unknown[] =>
  world.upstream.calls.map((seen) => (seen.body as { idempotencyKey: string }).idempotencyKey);

describe.each(['caller', 'provider'] as const)(
  'a send under an Idempotency-Key and the %s contract',
  (contract) => {
    const variables = { STARTMESSAGING_CONTRACT: contract, UPSTREAM_TIMEOUT_MS: '300' };

    it('is sent once, and its repeat gets the first answer from any instance', async () => {
      world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '1/600' }, count: 2 });
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber, under('a key'));
      const again = await sendOtp(world.instances[1]?.url ?? '', phoneNumber, under('a key'));
      expect([again.status, again.body]).toEqual([200, first.body]);
      expect(world.upstream.messages).toHaveLength(1);
      // Another key, and no key, are other requests.
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    });

    it('of two numbers is two, whatever the key is', async () => {
      world = await startWorld({ variables });
      const [first, second] = [
        await sendOtp(world.url, freshNumber(), under('x')),
        await sendOtp(world.url, freshNumber(), under('x')),
      ];
      expect(second.status).toBe(200);
      expect(second.body.requestId).not.toBe(first.body.requestId);
    });

    it('is one SMS also when 100 come at once over two instances', async () => {
      world = await startWorld({
        variables: { ...variables, UPSTREAM_TIMEOUT_MS: '10000', UPSTREAM_DEADLINE_MS: '20000' },
        count: 2,
      });
      world.upstream.fault({ on: 'send', fault: { kind: 'slow', delayMs: 500 } });
      const phoneNumber = freshNumber();
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) =>
          sendOtp(world.instances[i % 2]?.url ?? '', phoneNumber, under('k')),
        ),
      );
      for (const { status, body, headers } of answers) {
        if (status === 200) continue;
        expect([status, body.code]).toEqual([409, 'idempotency_in_progress']);
        expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
      }
      expect(
        new Set(answers.flatMap(({ status, body }) => (status === 200 ? [body.requestId as string] : [])))
          .size,
      ).toBe(1);
      expect(world.upstream.messages).toHaveLength(1);
    });

    it('that upstream refused is tried again under the same upstream key and code', async () => {
      world = await startWorld({ variables });
      world.upstream.fault({
        on: 'send',
        times: 3,
        fault: { kind: 'error', status: 503, code: 'SERVICE_UNAVAILABLE' },
      });
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber, under('k'));
      expect([first.status, first.body.code]).toEqual([502, 'upstream_unavailable']);
      const again = await sendOtp(world.url, phoneNumber, under('k'));
      expect(again.status).toBe(200);
      expect([keysOfUpstream().length, new Set(keysOfUpstream()).size]).toEqual([4, 1]);
      expect(world.upstream.messages).toHaveLength(1);
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, again.body.requestId, code)).status).toBe(200);
    });

    it('that upstream refused is tried again with a code that works, also when its own was used since', async () => {
      world = await startWorld({ variables });
      world.upstream.fault({
        on: 'send',
        times: 6,
        fault: { kind: 'error', status: 503, code: 'SERVICE_UNAVAILABLE' },
      });
      const phoneNumber = freshNumber();
      for (const key of ['k', 'l']) {
        expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(502);
      }
      const logIn = async (requestId: string): Promise<number> =>
        (await verifyOtp(world.url, requestId, textedCode(world.upstream, phoneNumber))).status;
      expect(await logIn((await sendOtp(world.url, phoneNumber)).body.requestId)).toBe(200);
      expect(await logIn((await sendOtp(world.url, phoneNumber, under('k'))).body.requestId)).toBe(200);

      // Nor does it void a code that is under way, where that can be sent again.
      const other = await sendOtp(world.url, phoneNumber);
      const again = await sendOtp(world.url, phoneNumber, under('l'));
      const { body } = await call('GET', `${world.url}/auth/otp/${other.body.requestId}`);
      expect(body.state).toBe(contract === 'caller' ? 'pending' : 'expired');
      expect(await logIn(again.body.requestId)).toBe(200);
    });

    it('that certainly was not sent has the place of its number when it is tried again, also by many at once', async () => {
      world = await startWorld({
        variables: { ...variables, LIMIT_PHONE: '1/600', BUDGET_PAISE_PER_DAY: '25' },
        count: 2,
      });
      world.upstream.fault({ on: 'send', times: 2, fault: 'wallet-empty' });
      const phoneNumber = freshNumber();
      for (let i = 0; i < 2; i++) {
        const { status, body } = await sendOtp(world.url, phoneNumber, under('k'));
        expect([status, body.code]).toEqual([503, 'sms_unavailable']);
      }
      // The failed send counts for all others: it is not given back.
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          sendOtp(world.instances[i % 2]?.url ?? '', phoneNumber, under('k')),
        ),
      );
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 409]));
      expect(world.upstream.messages).toHaveLength(1);
      expect(new Set(keysOfUpstream()).size).toBe(1);
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
    });

    it('that certainly was not sent is counted when it is tried again, not when it failed', async () => {
      world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '1/5,9/600' } });
      const phoneNumber = freshNumber();
      const statusUnder = async (key: string): Promise<number> =>
        (await sendOtp(world.url, phoneNumber, under(key))).status;
      world.upstream.fault({ on: 'send', fault: 'wallet-empty' });
      expect(await statusUnder('k')).toBe(503);
      await sleep(3_000);
      expect(await statusUnder('k')).toBe(200);
      // Five seconds after the failure, not yet after the SMS.
      await sleep(2_100);
      expect(await statusUnder('b')).toBe(429);
      // Nor does it come to stand beside another's that was sent since.
      await sleep(3_000);
      world.upstream.fault({ on: 'send', fault: 'wallet-empty' });
      expect(await statusUnder('c')).toBe(503);
      await sleep(5_100);
      expect(await statusUnder('d')).toBe(200);
      expect(await statusUnder('c')).toBe(429);
      expect(world.upstream.messages).toHaveLength(2);
    });

    it('that a limit refused holds no place', async () => {
      world = await startWorld({ variables: { ...variables, LIMIT_GLOBAL: '1/1' } });
      expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
      const phoneNumber = freshNumber();
      expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(503);
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(200);
    });

    it('leaves nothing in Redis that is not to expire', async () => {
      world = await startWorld({ variables });
      await sendOtp(world.url, freshNumber(), under('k'));
      for (const key of (await redisCommand(world, 'KEYS', '*')) as string[]) {
        expect([key, Number(await redisCommand(world, 'PTTL', key)) > 0]).toEqual([key, true]);
      }
    });
  },
);

it('what may have been sent is not sent beside as many others as the limit allows', async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'provider', LIMIT_PHONE: '2/4' } });
  world.upstream.fault({
    on: 'send',
    times: 6,
    fault: { kind: 'error', status: 500, code: 'INTERNAL_ERROR' },
  });
  const phoneNumber = freshNumber();
  for (const key of ['k', 'l']) expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(502);
  await sleep(4_100);
  // Their places are as old as a window: two others come in.
  for (let i = 0; i < 2; i++) expect((await sendOtp(world.url, phoneNumber)).status).toBe(200);
  for (const key of ['k', 'l']) expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(429);
  expect(world.upstream.messages).toHaveLength(2);
  await sleep(4_100);
  expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(200);
});

it('a lost answer under the provider contract is asked for again without a second SMS or a second place', async () => {
  world = await startWorld({
    variables: {
      STARTMESSAGING_CONTRACT: 'provider',
      UPSTREAM_TIMEOUT_MS: '200',
      LIMIT_PHONE: '1/600',
      BUDGET_PAISE_PER_DAY: '25',
    },
  });
  world.upstream.fault({ on: 'send', times: 3, fault: { kind: 'timeout', when: 'after' } });
  const phoneNumber = freshNumber();
  const lost = await sendOtp(world.url, phoneNumber, under('k'));
  expect([lost.status, lost.body.code]).toEqual([504, 'upstream_timeout']);
  const again = await sendOtp(world.url, phoneNumber, under('k'));
  expect(again.status).toBe(200);
  expect(world.upstream.messages).toHaveLength(1);
  expect(
    (await verifyOtp(world.url, again.body.requestId, textedCode(world.upstream, phoneNumber))).status,
  ).toBe(200);
});

it.each(['', 'x'.repeat(256), 'ä', 'a\tb'])(
  'a key that does not hold (%p) is a 400 that sends nothing',
  async (key) => {
    world = await startWorld();
    const answer = await call(
      'POST',
      `${world.url}/auth/send-otp`,
      { phoneNumber: freshNumber() },
      under(key),
    );
    expect([answer.status, answer.body.code, answer.body.errors?.[0]?.field]).toEqual([
      400,
      'validation_failed',
      'Idempotency-Key',
    ]);
    expect(world.upstream.calls).toHaveLength(0);
  },
);
