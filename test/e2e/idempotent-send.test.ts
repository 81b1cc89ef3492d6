import {
  ADMIN_TOKENS,
  aMinuteLater,
  atOnce,
  bill,
  holdUpstream,
  lasting,
  PATIENT,
  tally,
  told,
  under,
} from '../support/crowd';
import { keysOf } from '../support/keys';
import { contentsOf } from '../support/redis-contents';
import { behindProxy } from '../support/redis-proxy';
import { makeSendsOlder } from '../support/service-clock';
import { claimsOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  redisCommand,
  SECRET,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

let world: World;
const start = async (variables: Variables, count = 1): Promise<void> => {
  world = await startWorld({ variables, count });
};

const callsAbout = (phoneNumber: string) =>
  world.upstream.calls.filter(({ body }) => (body as { phoneNumber?: string }).phoneNumber === phoneNumber);
const keysOfUpstream = (phoneNumber: string): unknown[] =>
  callsAbout(phoneNumber).map(({ body }) => (body as { idempotencyKey: string }).idempotencyKey);
const messagesTo = (phoneNumber: string) =>
  world.upstream.messages.filter((sent) => sent.phoneNumber === phoneNumber);
const busy = (phoneNumber: string, times: number, status = 503): void => {
  const code = status === 503 ? 'SERVICE_UNAVAILABLE' : 'INTERNAL_ERROR';
  world.upstream.fault({ on: 'send', phoneNumber, times, fault: { kind: 'error', status, code } });
};
const logIn = async ({ body }: Answer, phoneNumber: string): Promise<number> =>
  (await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber))).status;

describe.each(['caller', 'provider'] as const)('the %s contract', (contract) => {
  const suffix = `under the ${contract} contract`;

  describe('without limits', () => {
    beforeAll(() => start({ STARTMESSAGING_CONTRACT: contract }, 2));
    afterAll(() => world.close());

    it(`two numbers under the same Idempotency-Key get a request each ${suffix}`, async () => {
      const first = await sendOtp(world.url, freshNumber(), under('x'));
      const second = await sendOtp(world.url, freshNumber(), under('x'));
      expect(second.status).toBe(200);
      expect(second.body.requestId).not.toBe(first.body.requestId);
    });

    it(`50 sends at once under one Idempotency-Key over two instances are one SMS ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      const answers = await atOnce(world, 50, (url) => sendOtp(url, phoneNumber, under('k')));
      for (const answer of answers.filter(({ status }) => status !== 200)) {
        expect(statusAndCode(answer)).toEqual([409, 'idempotency_in_progress']);
        expect(Number(answer.headers.get('retry-after'))).toBeLessThanOrEqual(60);
      }
      const accepted = answers.filter(({ status }) => status === 200);
      expect(new Set(accepted.map(({ body }) => body.requestId as string)).size).toBe(1);
      expect(messagesTo(phoneNumber)).toHaveLength(1);
    });

    it(`a send that the provider refused is retried with the same upstream key and code ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      busy(phoneNumber, 3);
      const first = await sendOtp(world.url, phoneNumber, under('k'));
      expect(statusAndCode(first)).toEqual([502, 'upstream_unavailable']);
      const again = await sendOtp(world.url, phoneNumber, under('k'));
      expect(again.status).toBe(200);
      const keys = keysOfUpstream(phoneNumber);
      expect([keys.length, new Set(keys).size]).toEqual([4, 1]);
      expect(messagesTo(phoneNumber)).toHaveLength(1);
      expect(await logIn(again, phoneNumber)).toBe(200);
    });

    it(`a retried send has a code that works even if its first code was used meanwhile ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      busy(phoneNumber, 6);
      for (const key of ['k', 'l']) {
        expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(502);
      }
      expect(await logIn(await sendOtp(world.url, phoneNumber), phoneNumber)).toBe(200);
      expect(await logIn(await sendOtp(world.url, phoneNumber, under('k')), phoneNumber)).toBe(200);

      // Nor does the retry void a code that is on its way, where that one can be sent again.
      const other = await sendOtp(world.url, phoneNumber);
      const again = await sendOtp(world.url, phoneNumber, under('l'));
      const { body } = await call('GET', `${world.url}/auth/otp/${other.body.requestId}`);
      expect(body.state).toBe(contract === 'caller' ? 'pending' : 'expired');
      expect(await logIn(again, phoneNumber)).toBe(200);
    });

    it(`every key in Redis expires after a send under an Idempotency-Key ${suffix}`, async () => {
      await sendOtp(world.url, freshNumber(), under('k'));
      const contents = await contentsOf(world.redis.url);
      expect(contents.filter(({ ttl }) => ttl === -1)).toEqual([]);
    });
  });

  describe('a limit of one SMS', () => {
    beforeAll(() => start({ STARTMESSAGING_CONTRACT: contract, LIMIT_PHONE: '1/600,9/1200' }, 2));
    afterAll(() => world.close());

    it(`a repeated send gets the first response from any instance and sends no SMS ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber, under('a key'));
      const again = await sendOtp(world.instances[1]?.url ?? '', phoneNumber, under('a key'));
      expect(lasting(again)).toEqual(lasting(first));
      expect(messagesTo(phoneNumber)).toHaveLength(1);
      // Another key, and no key, are other requests.
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      expect(await logIn(again, phoneNumber)).toBe(200);
    });

    it(`a send that failed counts for LIMIT_PHONE from the time of its retry, not of its failure ${suffix}`, async () => {
      const phoneNumber = freshNumber();
      const statusUnder = async (key: string): Promise<number> =>
        (await sendOtp(world.url, phoneNumber, under(key))).status;
      const walletEmpty = (): void => {
        world.upstream.fault({ on: 'send', phoneNumber, fault: 'wallet-empty' });
      };
      walletEmpty();
      expect(await statusUnder('k')).toBe(503);
      await makeSendsOlder(world, 400_000);
      expect(await statusUnder('k')).toBe(200);
      // The failure is older than the window, the SMS is not.
      await makeSendsOlder(world, 400_000);
      expect(await statusUnder('b')).toBe(429);
      // Nor is the retry sent beside the SMS of another key that was sent since.
      await makeSendsOlder(world, 250_000);
      walletEmpty();
      expect(await statusUnder('c')).toBe(503);
      await makeSendsOlder(world, 601_000);
      expect(await statusUnder('d')).toBe(200);
      expect(await statusUnder('c')).toBe(429);
      expect(messagesTo(phoneNumber)).toHaveLength(2);
    });
  });

  it(`retries at once of a send that certainly failed use its own place in LIMIT_PHONE ${suffix}`, async () => {
    const limits = { LIMIT_PHONE: '1/600', BUDGET_PAISE_PER_DAY: '25' };
    await start({ STARTMESSAGING_CONTRACT: contract, ...limits }, 2);
    try {
      world.upstream.fault({ on: 'send', times: 2, fault: 'wallet-empty' });
      const phoneNumber = freshNumber();
      for (let i = 0; i < 2; i++)
        expect(statusAndCode(await sendOtp(world.url, phoneNumber, under('k')))).toEqual([
          503,
          'sms_unavailable',
        ]);
      // For other requests the failed send still counts.
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      const answers = await atOnce(world, 20, (url) => sendOtp(url, phoneNumber, under('k')));
      const { 200: accepted = 0, '409 idempotency_in_progress': inProgress = 0 } = tally(answers);
      expect([accepted > 0, accepted + inProgress]).toEqual([true, 20]);
      expect(world.upstream.messages).toHaveLength(1);
      expect(new Set(keysOfUpstream(phoneNumber)).size).toBe(1);
      expect((await sendOtp(world.url, phoneNumber, under('b'))).status).toBe(429);
    } finally {
      await world.close();
    }
  });

  it(`a send that LIMIT_GLOBAL refused has no place, and its retry is sent when there is room ${suffix}`, async () => {
    await start({ STARTMESSAGING_CONTRACT: contract, LIMIT_GLOBAL: '1/600' });
    try {
      expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
      const phoneNumber = freshNumber();
      expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(503);
      await makeSendsOlder(world, 601_000);
      expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(200);
    } finally {
      await world.close();
    }
  });
});

describe('one key', () => {
  const OTHER_SECRET = 'another-secret-0123456789-abcdefghij';
  const variables = { ADMIN_TOKENS, STARTMESSAGING_CONTRACT: 'caller', ...PATIENT };
  beforeAll(() => start(variables, 3));
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
  });
  const expire = async (requestId: string): Promise<unknown> =>
    redisCommand(world, 'DEL', keysOf(requestId).challenge);
  /** What the calls of the function added to the bill. */
  const costOf = async (run: () => Promise<unknown>): Promise<{ sent: number; costPaise: number }> => {
    const before = await bill(world);
    await run();
    const after = await bill(world);
    return { sent: after.sent - before.sent, costPaise: after.costPaise - before.costPaise };
  };

  it('100 sends at once under one key over three instances are one SMS and one charge, and all get the same response', async () => {
    const phoneNumber = freshNumber();
    let answers: Answer[] = [];
    const cost = await costOf(async () => {
      answers = await atOnce(world, 100, (url) => sendOtp(url, phoneNumber, under('k')));
    });
    for (const answer of answers.filter(({ status }) => status !== 200)) {
      expect(statusAndCode(answer)).toEqual([409, 'idempotency_in_progress']);
      expect(answer.headers.get('retry-after')).toBe('1');
    }
    const bodies = answers
      .filter(({ status }) => status === 200)
      .map((answer) => JSON.stringify(lasting(answer)));
    expect(new Set(bodies).size).toBe(1);
    expect(messagesTo(phoneNumber)).toHaveLength(1);
    expect(cost).toEqual({ sent: 1, costPaise: 25 });
  });

  it('a repeat waits for the send in flight, and gets its response', async () => {
    const phoneNumber = freshNumber();
    const held = holdUpstream(world, 'send', phoneNumber);
    const first = sendOtp(world.url, phoneNumber, under('k'));
    await held.arrived();
    const late = await sendOtp(world.url, phoneNumber, under('k'));
    expect([...statusAndCode(late), late.headers.get('retry-after')]).toEqual([
      409,
      'idempotency_in_progress',
      '1',
    ]);
    const waiting = sendOtp(world.instances[1]?.url ?? '', phoneNumber, under('k'));
    held.letGo();
    expect(lasting(await waiting)).toEqual(lasting(await first));
    expect(messagesTo(phoneNumber)).toHaveLength(1);
  });

  it('a key that is used again after its challenge expired is charged twice, sends twice and opens another session', async () => {
    const phoneNumber = freshNumber();
    const sessions: string[] = [];
    const cost = await costOf(async () => {
      for (let i = 0; i < 2; i++) {
        const sent = await sendOtp(world.url, phoneNumber, under('k'));
        const verified = await verifyOtp(
          world.url,
          sent.body.requestId,
          textedCode(world.upstream, phoneNumber),
        );
        expect(verified.status).toBe(200);
        sessions.push(claimsOf(verified.body.accessToken).sid);
        await call('POST', `${world.url}/auth/logout`, { refreshToken: verified.body.refreshToken });
        await expire(sent.body.requestId as string);
      }
    });
    expect(cost).toEqual({ sent: 2, costPaise: 50 });
    expect(messagesTo(phoneNumber)).toHaveLength(2);
    // Upstream must not take the second send for a repeat of the first, and an ended session must not return.
    expect(new Set(keysOfUpstream(phoneNumber)).size).toBe(2);
    expect(new Set(sessions).size).toBe(2);
  });

  it('a replay after wrong codes tells the attempts that are left', async () => {
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber, under('k'));
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    for (const left of [2, 1, 0]) {
      await verifyOtp(world.url, first.body.requestId, wrong);
      const replay = await sendOtp(world.url, phoneNumber, under('k'));
      expect(lasting(replay)).toEqual({ ...lasting(first), attemptsLeft: left });
    }
    expect(messagesTo(phoneNumber)).toHaveLength(1);
  });

  it('a first request that stalls before admission sends nothing after its repeat was sent', async () => {
    const { proxy, instance } = await behindProxy(world, variables);
    const phoneNumber = freshNumber();
    const held = proxy.trap('admission', 'hold');
    const stalled = sendOtp(instance.url, phoneNumber, under('k'));
    await held.caught();
    await aMinuteLater(world);
    const repeat = await sendOtp(world.url, phoneNumber, under('k'));
    expect(repeat.status).toBe(200);
    const cost = await costOf(async () => {
      held.letGo();
      expect(['409 idempotency_in_progress', '503 store_unavailable']).toContain(told(await stalled));
    });
    expect(cost).toEqual({ sent: 0, costPaise: 0 });
    expect(messagesTo(phoneNumber)).toHaveLength(1);
    expect(lasting(await sendOtp(world.url, phoneNumber, under('k')))).toEqual(lasting(repeat));
    await instance.close();
    await proxy.close();
  });

  it('a rotation of SECRET between a send and its retry sends no second SMS', async () => {
    const rotated = await anotherInstance(world, { ...variables, SECRET: `${OTHER_SECRET},${SECRET}` });
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber, under('k'));
    const replay = await sendOtp(rotated.url, phoneNumber, under('k'));
    expect(lasting(replay)).toEqual(lasting(first));
    expect(messagesTo(phoneNumber)).toHaveLength(1);

    // Nor a second upstream key, where the first try failed.
    const another = freshNumber();
    world.upstream.fault({ on: 'send', phoneNumber: another, fault: 'wallet-empty' });
    expect((await sendOtp(world.url, another, under('k'))).status).toBe(503);
    const retried = await sendOtp(rotated.url, another, under('k'));
    expect(retried.status).toBe(200);
    expect([messagesTo(another).length, new Set(keysOfUpstream(another)).size]).toEqual([1, 1]);
    const code = textedCode(world.upstream, another);
    expect((await verifyOtp(rotated.url, retried.body.requestId, code)).status).toBe(200);
    await rotated.close();
  });
});

describe('a send of unknown fate', () => {
  afterEach(() => world.close());

  it('a retry of a send that perhaps arrived is refused while other sends use the limit', async () => {
    await start({ STARTMESSAGING_CONTRACT: 'provider', LIMIT_PHONE: '2/600' });
    const phoneNumber = freshNumber();
    busy(phoneNumber, 6, 500);
    for (const key of ['k', 'l'])
      expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(502);
    // Their places are older than the window, so two other sends are admitted.
    await makeSendsOlder(world, 601_000);
    for (let i = 0; i < 2; i++) expect((await sendOtp(world.url, phoneNumber)).status).toBe(200);
    for (const key of ['k', 'l'])
      expect((await sendOtp(world.url, phoneNumber, under(key))).status).toBe(429);
    expect(world.upstream.messages).toHaveLength(2);
    await makeSendsOlder(world, 601_000);
    expect((await sendOtp(world.url, phoneNumber, under('k'))).status).toBe(200);
  });

  it('a retry after a lost response sends no second SMS and takes no second place', async () => {
    await start({
      STARTMESSAGING_CONTRACT: 'provider',
      LIMIT_PHONE: '1/600',
      BUDGET_PAISE_PER_DAY: '25',
    });
    world.upstream.fault({ on: 'send', times: 3, fault: { kind: 'reset', when: 'after' } });
    const phoneNumber = freshNumber();
    const lost = await sendOtp(world.url, phoneNumber, under('k'));
    expect(statusAndCode(lost)).toEqual([502, 'upstream_unavailable']);
    expect(world.upstream.messages).toHaveLength(1);
    const again = await sendOtp(world.url, phoneNumber, under('k'));
    expect(again.status).toBe(200);
    expect(world.upstream.messages).toHaveLength(1);
    expect(await logIn(again, phoneNumber)).toBe(200);
  });
});

describe('an invalid Idempotency-Key', () => {
  beforeAll(() => start({}));
  afterAll(() => world.close());

  it.each([
    ['an empty text', ''],
    ['15 characters', 'x'.repeat(15)],
    ['256 characters', 'x'.repeat(256)],
    ['a letter beyond ASCII', 'ä'.repeat(16)],
    ['a tab', 'a key of\ta test'],
  ])('send-otp refuses %s as Idempotency-Key and calls no provider', async (_, key) => {
    const answer = await sendOtp(world.url, freshNumber(), { 'idempotency-key': key });
    expect([...statusAndCode(answer), answer.body.errors?.[0]?.field]).toEqual([
      400,
      'validation_failed',
      'Idempotency-Key',
    ]);
    expect(world.upstream.calls).toHaveLength(0);
  });
});
