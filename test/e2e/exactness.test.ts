import { rmSync } from 'node:fs';
import { flushLedger } from '../support/admin';
import {
  ADMIN_TOKENS,
  as,
  atOnce,
  bill,
  holdUpstream,
  PATIENT,
  queued,
  signingKeys,
  tally,
  told,
} from '../support/crowd';
import { KEYS } from '../support/keys';
import { behindProxy } from '../support/redis-proxy';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

let world: World;

/** Tokens of each instance are good at every other. */
const JWT_KEYS_DIR = signingKeys();
afterAll(() => {
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

/** One world of three instances for all tests of a describe. */
function threeInstances(variables: Variables): void {
  beforeAll(async () => {
    world = await startWorld({ variables: { ADMIN_TOKENS, JWT_KEYS_DIR, ...variables }, count: 3 });
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
  });
}
const callsOf = (path: string): number => world.upstream.calls.filter((seen) => seen.path === path).length;

/** What upstream charged, in paise. */
const charged = (): number => (100 - world.upstream.settings.balance) * 100;

const sendToFresh = (url: string): Promise<Answer> => sendOtp(url, freshNumber());
/** Five sends for each SMS that the budget pays for, each to another number. */
const rush = (): Promise<Answer[]> => queued(world, () => atOnce(world, 60, sendToFresh));

/** Sends to different numbers until all of them are refused. */
async function useUp(): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (;;) {
    const some = await atOnce(world, 9, sendToFresh);
    answers.push(...some);
    if (some.every(({ status }) => status === 503)) return answers;
  }
}

/** A window of more than a day: half of a shorter one would ask each send for a proof of work. */
const LOCKS_AT_7 = '7/172800';
/** Twelve SMS, and what is left pays for none. */
const BUDGET = '310';
const REFUSED = { kind: 'error', status: 402, code: 'PAYMENT_REQUIRED' } as const;

describe.each([
  ['an hour', 'caller', { BUDGET_PAISE_PER_HOUR: BUDGET }],
  ['a day', 'caller', { BUDGET_PAISE_PER_DAY: BUDGET }],
  ['a day', 'provider', { BUDGET_PAISE_PER_DAY: BUDGET }],
] as const)('the budget of %s under the %s contract', (span, contract, budget) => {
  const variables: Variables = { ...budget, STARTMESSAGING_CONTRACT: contract };
  threeInstances(variables);
  beforeEach(async () => {
    await flushLedger(world);
    await redisCommand(world, 'FLUSHDB');
  });

  it(`the budget of ${span} pays for 12 of 60 sends at once under the ${contract} contract, to the paisa`, async () => {
    expect(tally(await rush())).toEqual({ '200': 12, '503 sms_unavailable': 48 });
    expect([world.upstream.messages.length, callsOf('/otp/send'), charged()]).toEqual([12, 12, 300]);
    expect(await bill(world)).toMatchObject({ sent: 12, refunded: 0, costPaise: 300 });
  });

  it(`the budget of ${span} gets an SMS that upstream refuses refunded exactly once while other sends run (${contract})`, async () => {
    world.upstream.fault({ on: 'send', times: 8, fault: REFUSED });
    const answers = await rush();
    expect(world.upstream.messages.length).toBeLessThanOrEqual(12);
    expect(callsOf('/otp/send') - world.upstream.messages.length).toBe(8);
    answers.push(...(await useUp()));
    expect(tally(answers)['200']).toBe(12);
    expect([world.upstream.messages.length, charged()]).toEqual([12, 300]);
    expect(await bill(world)).toMatchObject({ sent: 20, refunded: 8, costPaise: 300 });
  });

  if (span === 'a day' && contract === 'caller') {
    it('the budget of a day keeps the price of an SMS that may have been sent', async () => {
      // Fewer than open a breaker, should they all befall one instance.
      world.upstream.fault({ on: 'send', times: 3, fault: { kind: 'cut' } });
      const lost = { kind: 'error', status: 500, code: 'INTERNAL_ERROR', when: 'before' } as const;
      world.upstream.fault({ on: 'send', times: 2, fault: lost });
      world.upstream.fault({ on: 'send', times: 2, fault: { kind: 'reset', when: 'after' } });
      world.upstream.fault({ on: 'send', times: 4, fault: REFUSED });
      const answers = await rush();
      answers.push(...(await useUp()));
      const sent = answers.filter(({ status }) => status === 200);
      expect(sent).toHaveLength(12);
      expect(sent.filter(({ body }) => body.delivery === 'unknown')).toHaveLength(7);
      // Two failed before they were accepted, and the service cannot know which.
      expect([world.upstream.messages.length, charged()]).toEqual([10, 250]);
      await flushLedger(world);
      expect(await bill(world)).toMatchObject({ sent: 16, refunded: 4, unknown: 7, costPaise: 300 });
    });

    it('the budget of a day holds while one instance is closed in the middle of sends', async () => {
      const { Lifecycle } = serviceModule<typeof import('../../src/health/lifecycle')>('health/lifecycle');
      const last = await anotherInstance(world, { ADMIN_TOKENS, JWT_KEYS_DIR, ...variables });
      world.upstream.fault({ on: 'send', times: 0, fault: { kind: 'slow', delayMs: 100 } });
      // A send that comes to a closed door is refused by the socket.
      const refused = { status: 0, headers: new Headers(), body: {} };
      const four = { ...world, instances: [last, ...world.instances] };
      const asked = atOnce(four, 60, (url) => sendToFresh(url).catch(() => refused));
      await until(() => world.upstream.calls.length > 5, 'sends under way');
      last.app.get(Lifecycle).end();
      await last.close();
      const answers = [...(await asked), ...(await useUp())];
      expect(tally(answers)['200']).toBe(12);
      expect([world.upstream.messages.length, charged()]).toEqual([12, 300]);
      expect(await bill(world)).toMatchObject({ sent: 12, refunded: 0, costPaise: 300 });
    });

    it('the budget of a day pays for an admitted send whose answer from Redis is lost, and no SMS goes out for it', async () => {
      const { proxy, instance: fourth } = await behindProxy(world, variables);
      try {
        const four = { ...world, instances: [...world.instances, fourth] };
        const cut = proxy.trap('admission', 'cut');
        const answers = await queued(world, () => atOnce(four, 8, sendToFresh));
        await cut.caught();
        const lost = tally(answers)['503 store_unavailable'] ?? 0;
        expect(lost).toBeGreaterThan(0);
        await until(
          async () => (await sendOtp(fourth.url, 'ready?')).status === 400,
          'Redis behind the proxy',
        );
        answers.push(...(await queued(world, () => atOnce(four, 60, sendToFresh))));
        // A send that was cut off before it was counted made room for another one.
        expect(await bill(world)).toMatchObject({ sent: 12, refunded: 0, costPaise: 300 });
        expect(tally(answers)['200']).toBe(world.upstream.messages.length);
        expect(world.upstream.messages.length).toBeLessThan(12);
        expect(world.upstream.messages.length).toBeGreaterThanOrEqual(12 - lost);
      } finally {
        await fourth.close();
        await proxy.close();
      }
    });
  }
  if (contract === 'provider') {
    it('the budget of a day pays once for an SMS that had to be asked for several times', async () => {
      // Fewer than open a breaker, should they all befall one instance.
      world.upstream.fault({ on: 'send', times: 4, fault: { kind: 'reset', when: 'after' } });
      world.upstream.fault({ on: 'send', times: 2, fault: { kind: 'cut' } });
      const answers = await rush();
      answers.push(...(await useUp()));
      expect(callsOf('/otp/send')).toBe(18);
      expect([world.upstream.messages.length, charged()]).toEqual([12, 300]);
      expect(await bill(world)).toMatchObject({ sent: 12, refunded: 0, costPaise: 300 });
    });
  }
});

describe('a budget whose upstream accepts an SMS and never answers', () => {
  threeInstances({
    BUDGET_PAISE_PER_DAY: BUDGET,
    STARTMESSAGING_CONTRACT: 'provider',
  });

  it('the budget keeps the price of an SMS that may have been sent although the client gets an error', async () => {
    const answers: Answer[] = [];
    // Each of the three calls of each send fails.
    for (const fault of [{ kind: 'cut' }, { kind: 'reset', when: 'after' }] as const) {
      world.upstream.fault({ on: 'send', times: 9, fault });
      answers.push(...(await atOnce(world, 3, sendToFresh)));
    }
    answers.push(...(await rush()));
    answers.push(...(await useUp()));
    const { '503 sms_unavailable': refused, ...rest } = tally(answers);
    expect(refused).toBeGreaterThan(0);
    expect(rest).toEqual({ '200': 6, '502 upstream_unavailable': 6 });
    expect([world.upstream.messages.length, charged()]).toEqual([12, 300]);
    expect(await bill(world)).toMatchObject({ sent: 12, refunded: 0, costPaise: 300 });
  });
});

describe('the reserve of a budget', () => {
  threeInstances({ BUDGET_PAISE_PER_DAY: '500', STARTMESSAGING_CONTRACT: 'caller' });

  it('the reserve of a budget pays only for numbers that logged in before, and both parts are exact', async () => {
    const regular = freshNumber();
    expect((await login(world, regular)).status).toBe(200);
    await flushLedger(world);
    expect(await redisCommand(world, 'EXISTS', KEYS.regulars)).toBe(1);
    const strangers = await queued(world, () => atOnce(world, 45, sendToFresh));
    expect(tally(strangers)).toEqual({ '200': 13, '503 sms_unavailable': 32 });
    const known = await queued(world, () => atOnce(world, 30, (url) => sendOtp(url, regular)));
    expect(tally(known)).toEqual({ '200': 6, '503 sms_unavailable': 24 });
    expect([world.upstream.messages.length, charged()]).toEqual([20, 500]);
    expect((await bill(world)).costPaise).toBe(500);
  });
});

/** Requests of one number that share a code. */
async function requests(phoneNumber: string, count: number): Promise<string[]> {
  const answers = await atOnce(world, count, (url) => sendOtp(url, phoneNumber));
  return answers.map(({ body }) => body.requestId as string);
}
const sessionsOf = async ({ body }: Answer): Promise<unknown> =>
  (await call('GET', `${world.url}/auth/sessions`, undefined, as(body.accessToken))).body.sessions;

const sendByDevice = (url: string, phoneNumber: string, { body }: Answer): Promise<Answer> =>
  call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken: body.deviceToken as string });

describe('LIMIT_FAILED_CODES under the caller contract', () => {
  const variables = {
    STARTMESSAGING_CONTRACT: 'caller',
    LIMIT_FAILED_CODES: LOCKS_AT_7,
    OTP_MAX_ATTEMPTS: '5',
  };
  threeInstances(variables);

  it('LIMIT_FAILED_CODES lets 7 of 40 guesses over four requests be checked and then locks the number, also after a restart', async () => {
    const phoneNumber = freshNumber();
    const ids = await requests(phoneNumber, 4);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await queued(world, () =>
      atOnce(world, 40, (url, i) => verifyOtp(url, ids[i % 4], wrongCode(code))),
    );
    const counts = tally(answers);
    expect(counts['400 otp_incorrect']).toBe(7);
    expect((counts['429 phone_locked'] ?? 0) + (counts['410 otp_attempts_exhausted'] ?? 0)).toBe(33);

    const locked = async (): Promise<void> => {
      const sent = world.upstream.calls.length;
      const right = await Promise.all(ids.map((id) => verifyOtp(world.url, id, code)));
      expect(right.map(told)).toContain('429 phone_locked');
      expect(right.map(({ status }) => status)).not.toContain(200);
      const sends = await atOnce(world, 6, (url) => sendOtp(url, phoneNumber));
      expect(tally(sends)).toEqual({ '429 phone_locked': 6 });
      for (const { headers } of sends)
        expect(Number(headers.get('retry-after'))).toBeGreaterThan(86_400 - 600);
      expect(world.upstream.calls).toHaveLength(sent);
    };
    await locked();
    await Promise.all(world.instances.splice(0).map((instance) => instance.close()));
    for (let i = 0; i < 3; i++)
      world.instances.push(await anotherInstance(world, { ADMIN_TOKENS, JWT_KEYS_DIR, ...variables }));
    world.url = world.instances[0]?.url ?? '';
    await locked();
  });

  it('right codes of two requests at once open one session, and LIMIT_FAILED_CODES still counts every wrong guess', async () => {
    const phoneNumber = freshNumber();
    const ids = await requests(phoneNumber, 4);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await queued(world, () =>
      atOnce(world, 16, (url, i) => verifyOtp(url, ids[i % 4], i % 4 ? wrongCode(code) : code)),
    );
    const { '200': right, '400 otp_incorrect': wrong = 0 } = tally(answers);
    expect(right).toBe(1);
    const opened = answers.find(({ status }) => status === 200)!;
    expect(await sessionsOf(opened)).toHaveLength(1);
    // After so many wrong codes a send without a device token would need a proof of work.
    const sent = await atOnce(world, 4, (url) => sendByDevice(url, phoneNumber, opened));
    const more = sent.map(({ body }) => body.requestId as string);
    const other = wrongCode(textedCode(world.upstream, phoneNumber));
    const guesses = await queued(world, () =>
      atOnce(world, 32, (url, i) => verifyOtp(url, more[i % 4], other)),
    );
    expect((tally(guesses)['400 otp_incorrect'] ?? 0) + wrong).toBe(7);
  });

  it('a device with its token gets exactly 10 wrong codes more than the 7 of the number, of 80 guesses at once', async () => {
    const phoneNumber = freshNumber();
    const { deviceToken } = (await login(world, phoneNumber)).body;
    const ids = await requests(phoneNumber, 4);
    const otpCode = wrongCode(textedCode(world.upstream, phoneNumber));
    const answers = await queued(world, () =>
      atOnce(world, 80, (url, i) => {
        const token = i % 2 ? { deviceToken } : {};
        return call('POST', `${url}/auth/verify-otp`, { requestId: ids[(i >> 1) % 4], otpCode, ...token });
      }),
    );
    const looked = (own: number): number =>
      answers.filter(({ status }, i) => status === 400 && i % 2 === own).length;
    expect(looked(0) + looked(1)).toBe(17);
    expect(looked(0)).toBeLessThanOrEqual(7);
  });
});

describe('LIMIT_FAILED_CODES under the provider contract', () => {
  describe('over resends', () => {
    threeInstances({
      STARTMESSAGING_CONTRACT: 'provider',
      LIMIT_FAILED_CODES: LOCKS_AT_7,
      OTP_MAX_ATTEMPTS: '5',
    });

    it('LIMIT_FAILED_CODES counts over resends: upstream checks 7 codes, however sends and guesses interleave', async () => {
      world.upstream.settings.otpAttempts = 5;
      const phoneNumber = freshNumber();
      // After half of the wrong codes a send without a device token would need a proof of work.
      const owner = await login(world, phoneNumber);
      const guesses: Answer[] = [];
      const ids: string[] = [];
      for (let round = 0; round < 20 && !tally(guesses)['429 phone_locked']; round++) {
        const sent = await sendByDevice(world.url, phoneNumber, owner);
        ids.push(sent.body.requestId as string);
        await queued(world, async () => {
          const both = await Promise.all([
            atOnce(world, 12, (url, i) => verifyOtp(url, ids.at(-1 - (i % 2)) ?? ids[0], '000000')),
            atOnce(world, 3, (url) => sendByDevice(url, phoneNumber, owner)),
          ]);
          guesses.push(...both[0]);
          ids.push(...both[1].flatMap(({ body }) => (body.requestId as string | undefined) ?? []));
        });
      }
      const checked = callsOf('/otp/verify');
      // One of them was the login.
      expect([checked - 1, tally(guesses)['400 otp_incorrect']]).toEqual([7, 7]);
      const after = await atOnce(world, 12, (url, i) =>
        i % 2 ? sendOtp(url, phoneNumber) : verifyOtp(url, ids[i % ids.length], '000000'),
      );
      expect(after.every(({ status }) => status === 429 || status === 410)).toBe(true);
      expect(tally(after)['429 phone_locked']).toBeGreaterThanOrEqual(6);
      expect(callsOf('/otp/verify')).toBe(checked);
    });
  });

  describe('and what upstream does not check', () => {
    threeInstances({
      STARTMESSAGING_CONTRACT: 'provider',
      ...PATIENT,
      LIMIT_FAILED_CODES: '3/172800',
      OTP_MAX_ATTEMPTS: '5',
    });
    beforeEach(() => {
      world.upstream.settings.otpAttempts = 5;
    });

    it.each([
      ['429', { kind: 'error', status: 429, code: 'INTERNAL_ERROR', headers: { 'Retry-After': '1' } }],
      ['401', { kind: 'error', status: 401, code: 'UNAUTHORIZED' }],
    ] as const)(
      'LIMIT_FAILED_CODES does not count a guess that upstream answers with %s without a check',
      async (_, fault) => {
        const phoneNumber = freshNumber();
        const { body } = await sendOtp(world.url, phoneNumber);
        const guess = wrongCode(textedCode(world.upstream, phoneNumber));
        const guessAtOnce = (): Promise<Answer[]> =>
          queued(world, () => atOnce(world, 18, (url) => verifyOtp(url, body.requestId, guess)));
        world.upstream.fault({ on: 'verify', times: 0, fault });
        for (let round = 0; round < 2; round++)
          expect((await guessAtOnce()).every(({ status }) => status === 429 || status === 500)).toBe(true);
        world.upstream.clearFaults();
        const before = callsOf('/otp/verify');
        expect(tally(await guessAtOnce())).toEqual({ '400 otp_incorrect': 3, '429 phone_locked': 15 });
        expect(callsOf('/otp/verify') - before).toBe(3);
      },
    );

    it('LIMIT_FAILED_CODES does not count a right code that wrong ones overtake while upstream checks it', async () => {
      const phoneNumber = freshNumber();
      const first = await sendOtp(world.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      const held = holdUpstream(world, 'verify');
      const right = verifyOtp(world.url, first.body.requestId, code);
      await held.arrived();
      const wrong = await queued(world, () =>
        atOnce(world, 18, (url) => verifyOtp(url, first.body.requestId, wrongCode(code))),
      );
      // Until it is known to be right it holds one of the three places: upstream answers the overtakers by 410.
      expect(callsOf('/otp/verify')).toBe(3);
      expect(tally(wrong)['429 phone_locked']).toBeGreaterThan(0);
      expect(told(await sendOtp(world.url, phoneNumber))).toBe('429 phone_locked');
      held.letGo();
      const answer = await right;
      expect(answer.status).toBe(200);
      expect(await sessionsOf(answer)).toHaveLength(1);
      // Two of three are counted: one more guess is checked.
      const next = await sendByDevice(world.url, phoneNumber, answer);
      const answers = await queued(world, () =>
        atOnce(world, 18, (url) => verifyOtp(url, next.body.requestId, '000000')),
      );
      expect(tally(answers)).toEqual({ '400 otp_incorrect': 1, '429 phone_locked': 17 });
    });
  });
});

describe('the allowance of a device', () => {
  threeInstances({ STARTMESSAGING_CONTRACT: 'caller', LIMIT_PHONE: '1/86400' });

  it('a device with its token gets exactly 5 sends of 24 at once while strangers and forgers use the number', async () => {
    const phoneNumber = freshNumber();
    const { deviceToken } = (await login(world, phoneNumber)).body;
    const forged = String(deviceToken).replace(/.$/, (last) => (last === 'A' ? 'E' : 'A'));
    const tokens = [deviceToken, undefined, forged, 'none', deviceToken];
    const answers = await queued(world, () =>
      atOnce(world, 60, (url, i) =>
        call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken: tokens[i % 5] }),
      ),
    );
    expect(tally(answers)).toEqual({ '200': 5, '429 rate_limited': 55 });
    expect(answers.filter(({ status }, i) => status === 200 && [0, 4].includes(i % 5))).toHaveLength(5);
    expect(world.upstream.messages).toHaveLength(6);
  });
});
