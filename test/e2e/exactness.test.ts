import { rmSync } from 'node:fs';
import { Lifecycle } from '../../src/health/lifecycle';
import { ADMIN_TOKENS, as, atOnce, bill, queued, signingKeys, tally, told } from '../support/crowd';
import { RedisProxy } from '../support/redis-proxy';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
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
afterEach(() => world.close());

/** Tokens of each instance are good at every other. */
const JWT_KEYS_DIR = signingKeys();
afterAll(() => {
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

const PATIENT: Variables = { UPSTREAM_TIMEOUT_MS: '10000', UPSTREAM_DEADLINE_MS: '20000' };
const three = async (variables: Variables): Promise<void> => {
  world = await startWorld({ variables: { ADMIN_TOKENS, JWT_KEYS_DIR, ...PATIENT, ...variables }, count: 3 });
};
const callsOf = (path: string): number => world.upstream.calls.filter((seen) => seen.path === path).length;

/** What upstream charged, in paise. */
const charged = (): number => (100 - world.upstream.settings.balance) * 100;

/** Sends to different numbers, until nobody is let through any more. */
async function useUp(): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (;;) {
    const some = await atOnce(world, 30, (url) => sendOtp(url, freshNumber()));
    answers.push(...some);
    if (some.every(({ status }) => status === 503)) return answers;
  }
}

describe.each([
  ['an hour', 'BUDGET_PAISE_PER_HOUR'],
  ['a day', 'BUDGET_PAISE_PER_DAY'],
])('a budget for %s', (_, name) => {
  // Forty SMS, and what is left pays for none.
  const budget = { [name]: '1010' };

  it.each(['caller', 'provider'])('pays for 40 of 300 at once, to the paisa (%s)', async (contract) => {
    await three({ ...budget, STARTMESSAGING_CONTRACT: contract });
    const answers = await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())));
    expect(tally(answers)).toEqual({ '200': 40, '503 sms_unavailable': 260 });
    expect([world.upstream.messages.length, callsOf('/otp/send'), charged()]).toEqual([40, 40, 1_000]);
    expect(await bill(world)).toMatchObject({ sent: 40, refunded: 0, costPaise: 1_000 });
  });

  it('gets back what upstream refused while others were asking, once, and no more', async () => {
    await three({ ...budget, STARTMESSAGING_CONTRACT: 'caller' });
    world.upstream.fault({
      on: 'send',
      times: 25,
      fault: { kind: 'error', status: 402, code: 'PAYMENT_REQUIRED' },
    });
    const answers = await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())));
    expect(world.upstream.messages.length).toBeLessThanOrEqual(40);
    expect(callsOf('/otp/send') - world.upstream.messages.length).toBe(25);
    answers.push(...(await useUp()));
    expect(tally(answers)['200']).toBe(40);
    expect([world.upstream.messages.length, charged()]).toEqual([40, 1_000]);
    expect(await bill(world)).toMatchObject({ sent: 65, refunded: 25, costPaise: 1_000 });
  });

  it('keeps what may have been sent', async () => {
    await three({ ...budget, STARTMESSAGING_CONTRACT: 'caller', UPSTREAM_TIMEOUT_MS: '2000' });
    // Fewer than open a breaker, should they all befall one instance.
    world.upstream.fault({ on: 'send', times: 8, fault: { kind: 'timeout', when: 'after' } });
    world.upstream.fault({ on: 'send', times: 4, fault: { kind: 'timeout', when: 'before' } });
    world.upstream.fault({ on: 'send', times: 4, fault: { kind: 'reset', when: 'after' } });
    world.upstream.fault({
      on: 'send',
      times: 5,
      fault: { kind: 'error', status: 402, code: 'PAYMENT_REQUIRED' },
    });
    const answers = await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())));
    answers.push(...(await useUp()));
    const sent = answers.filter(({ status }) => status === 200);
    expect(sent).toHaveLength(40);
    expect(sent.filter(({ body }) => body.delivery === 'unknown')).toHaveLength(16);
    // Four hung before they were accepted, and nobody can know which.
    expect([world.upstream.messages.length, charged()]).toEqual([36, 900]);
    await until(async () => (await bill(world)).unknown === 16);
    expect(await bill(world)).toMatchObject({ sent: 45, refunded: 5, costPaise: 1_000 });
  });

  it('keeps what may have been sent also where the asker is told of a failure', async () => {
    const once = { UPSTREAM_MAX_ATTEMPTS: '1', UPSTREAM_TIMEOUT_MS: '2000' };
    await three({ ...budget, ...once, STARTMESSAGING_CONTRACT: 'provider' });
    world.upstream.fault({ on: 'send', times: 8, fault: { kind: 'timeout', when: 'after' } });
    world.upstream.fault({ on: 'send', times: 8, fault: { kind: 'reset', when: 'after' } });
    const answers = await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())));
    answers.push(...(await useUp()));
    const { '503 sms_unavailable': refused, ...rest } = tally(answers);
    expect(refused).toBeGreaterThan(0);
    expect(rest).toEqual({ '200': 24, '502 upstream_unavailable': 8, '504 upstream_timeout': 8 });
    expect([world.upstream.messages.length, charged()]).toEqual([40, 1_000]);
    expect(await bill(world)).toMatchObject({ sent: 40, refunded: 0, costPaise: 1_000 });
  });

  it('pays once for an SMS that had to be asked for several times', async () => {
    await three({ ...budget, STARTMESSAGING_CONTRACT: 'provider', UPSTREAM_TIMEOUT_MS: '1500' });
    // Fewer than open a breaker, should they all befall one instance.
    world.upstream.fault({ on: 'send', times: 13, fault: { kind: 'reset', when: 'after' } });
    world.upstream.fault({ on: 'send', times: 4, fault: { kind: 'timeout', when: 'after' } });
    const answers = await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())));
    answers.push(...(await useUp()));
    expect(callsOf('/otp/send')).toBeGreaterThan(53);
    expect([world.upstream.messages.length, charged()]).toEqual([40, 1_000]);
    expect(await bill(world)).toMatchObject({ sent: 40, refunded: 0, costPaise: 1_000 });
  });

  it('holds while one instance is closed in the middle', async () => {
    await three({ ...budget, STARTMESSAGING_CONTRACT: 'caller' });
    world.upstream.fault({ on: 'send', times: 0, fault: { kind: 'slow', delayMs: 300 } });
    // Whoever comes to a closed door is told by the socket.
    const refused = { status: 0, headers: new Headers(), body: {} };
    const asked = atOnce(world, 300, (url) => sendOtp(url, freshNumber()).catch(() => refused));
    await until(() => world.upstream.calls.length > 5);
    for (const instance of world.instances.splice(2, 1)) {
      instance.app.get(Lifecycle).end();
      await instance.close();
    }
    const answers = [...(await asked), ...(await useUp())];
    expect(tally(answers)['200']).toBe(40);
    expect([world.upstream.messages.length, charged()]).toEqual([40, 1_000]);
    expect(await bill(world)).toMatchObject({ sent: 40, refunded: 0, costPaise: 1_000 });
  });

  it('is never overdrawn when answers of Redis are lost: what they let through is paid for and not sent', async () => {
    const variables = { ...budget, STARTMESSAGING_CONTRACT: 'caller' };
    await three(variables);
    const proxy = await RedisProxy.before(world.redis);
    try {
      const urls = { REDIS_URL: proxy.url, STARTMESSAGING_BASE_URL: world.upstream.url };
      world.instances.push(await startInstance({ ...PATIENT, ...variables, ...urls }));
      const cut = proxy.trap('admission', 'cut');
      const answers = await queued(world, () => atOnce(world, 36, (url) => sendOtp(url, freshNumber())));
      await cut.caught();
      const lost = tally(answers)['503 store_unavailable'] ?? 0;
      expect(lost).toBeGreaterThan(0);
      await until(async () => (await sendOtp(world.instances[3]?.url ?? '', 'ready?')).status === 400);
      answers.push(...(await queued(world, () => atOnce(world, 300, (url) => sendOtp(url, freshNumber())))));
      // What was cut off before it was counted, or never asked, made room for another.
      expect(await bill(world)).toMatchObject({ sent: 40, refunded: 0, costPaise: 1_000 });
      expect(tally(answers)['200']).toBe(world.upstream.messages.length);
      expect(world.upstream.messages.length).toBeLessThan(40);
      expect(world.upstream.messages.length).toBeGreaterThanOrEqual(40 - lost);
    } finally {
      await proxy.close();
    }
  });
});

it('the reserve of a budget is for those who logged in before, and both parts are exact', async () => {
  await three({ BUDGET_PAISE_PER_DAY: '1000', STARTMESSAGING_CONTRACT: 'caller' });
  const regular = freshNumber();
  expect((await login(world, regular)).status).toBe(200);
  await until(async () => (await redisCommand(world, 'EXISTS', 'otp-login:{admission}:regulars')) === 1);
  const strangers = await queued(world, () => atOnce(world, 120, (url) => sendOtp(url, freshNumber())));
  expect(tally(strangers)).toEqual({ '200': 27, '503 sms_unavailable': 93 });
  const known = await queued(world, () => atOnce(world, 60, (url) => sendOtp(url, regular)));
  expect(tally(known)).toEqual({ '200': 12, '503 sms_unavailable': 48 });
  expect([world.upstream.messages.length, charged()]).toEqual([40, 1_000]);
  expect((await bill(world)).costPaise).toBe(1_000);
});

describe('LIMIT_FAILED_CODES', () => {
  /** Requests of one number that share a code. */
  async function requests(phoneNumber: string, count: number): Promise<string[]> {
    const answers = await atOnce(world, count, (url) => sendOtp(url, phoneNumber));
    return answers.map(({ body }) => body.requestId as string);
  }

  async function restart(variables: Variables): Promise<void> {
    const urls = { REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: world.upstream.url };
    await Promise.all(world.instances.splice(0).map((instance) => instance.close()));
    for (let i = 0; i < 3; i++)
      world.instances.push(await startInstance({ ...PATIENT, ...variables, ...urls }));
    world.url = world.instances[0]?.url ?? '';
  }

  it('lets 7 of 90 guesses over four requests be looked at, then locks the number, also over a restart', async () => {
    const variables = { STARTMESSAGING_CONTRACT: 'caller', LIMIT_FAILED_CODES: '7/86400' };
    await three(variables);
    const phoneNumber = freshNumber();
    const ids = await requests(phoneNumber, 4);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await queued(world, () =>
      atOnce(world, 90, (url, i) => verifyOtp(url, ids[i % 4], wrongCode(code))),
    );
    const counts = tally(answers);
    expect(counts['400 otp_incorrect']).toBe(7);
    expect((counts['429 phone_locked'] ?? 0) + (counts['410 otp_attempts_exhausted'] ?? 0)).toBe(83);

    const locked = async (): Promise<void> => {
      const sent = world.upstream.calls.length;
      const right = await Promise.all(ids.map((id) => verifyOtp(world.url, id, code)));
      expect(right.map(told)).toContain('429 phone_locked');
      expect(right.map(({ status }) => status)).not.toContain(200);
      const sends = await atOnce(world, 9, (url) => sendOtp(url, phoneNumber));
      expect(tally(sends)).toEqual({ '429 phone_locked': 9 });
      for (const { headers } of sends)
        expect(Number(headers.get('retry-after'))).toBeGreaterThan(86_400 - 60);
      expect(world.upstream.calls).toHaveLength(sent);
    };
    await locked();
    await restart(variables);
    await locked();
  });

  it('is counted over resends of new codes: upstream is asked 7 times, however sends and guesses interleave', async () => {
    await three({
      STARTMESSAGING_CONTRACT: 'provider',
      LIMIT_FAILED_CODES: '7/86400',
      OTP_MAX_ATTEMPTS: '5',
    });
    world.upstream.settings.otpAttempts = 5;
    const phoneNumber = freshNumber();
    const guesses: Answer[] = [];
    const ids: string[] = [];
    for (let round = 0; round < 20; round++) {
      const sent = await sendOtp(world.url, phoneNumber);
      if (told(sent) === '429 phone_locked') break;
      ids.push(sent.body.requestId as string);
      await queued(world, async () => {
        const both = await Promise.all([
          atOnce(world, 12, (url, i) => verifyOtp(url, ids.at(-1 - (i % 2)) ?? ids[0], '000000')),
          atOnce(world, 3, (url) => sendOtp(url, phoneNumber)),
        ]);
        guesses.push(...both[0]);
        ids.push(...both[1].flatMap(({ body }) => (body.requestId as string | undefined) ?? []));
      });
    }
    expect([callsOf('/otp/verify'), tally(guesses)['400 otp_incorrect']]).toEqual([7, 7]);
    const after = await atOnce(world, 30, (url, i) =>
      i % 2 ? sendOtp(url, phoneNumber) : verifyOtp(url, ids[i % ids.length], '000000'),
    );
    expect(after.every(({ status }) => status === 429 || status === 410)).toBe(true);
    expect(tally(after)['429 phone_locked']).toBeGreaterThanOrEqual(15);
    expect(callsOf('/otp/verify')).toBe(7);
  });

  it.each([
    ['429', { kind: 'error', status: 429, code: 'INTERNAL_ERROR', headers: { 'Retry-After': '1' } }],
    ['401', { kind: 'error', status: 401, code: 'UNAUTHORIZED' }],
  ] as const)('does not count what upstream answers with %s: it did not look', async (_, fault) => {
    await three({ STARTMESSAGING_CONTRACT: 'provider', LIMIT_FAILED_CODES: '2/86400' });
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    world.upstream.fault({ on: 'verify', times: 0, fault });
    for (let round = 0; round < 3; round++) {
      const answers = await queued(world, () =>
        atOnce(world, 30, (url) => verifyOtp(url, body.requestId, wrongCode(code))),
      );
      expect(answers.every(({ status }) => status === 429 || status === 500)).toBe(true);
    }
    await fetch(`${world.upstream.url}/_emulator/faults`, { method: 'DELETE' });
    const before = callsOf('/otp/verify');
    const answers = await queued(world, () =>
      atOnce(world, 30, (url) => verifyOtp(url, body.requestId, wrongCode(code))),
    );
    expect(tally(answers)).toEqual({ '400 otp_incorrect': 2, '429 phone_locked': 28 });
    expect(callsOf('/otp/verify') - before).toBe(2);
  });

  it('does not count a right code that is still being looked at while wrong ones overtake it', async () => {
    await three({
      STARTMESSAGING_CONTRACT: 'provider',
      LIMIT_FAILED_CODES: '3/86400',
      OTP_MAX_ATTEMPTS: '5',
    });
    world.upstream.settings.otpAttempts = 5;
    const phoneNumber = freshNumber();
    const first = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    world.upstream.fault({ on: 'verify', fault: { kind: 'slow', delayMs: 2_000 } });
    const right = verifyOtp(world.url, first.body.requestId, code);
    await until(() => callsOf('/otp/verify') === 1);
    const wrong = await queued(world, () =>
      atOnce(world, 30, (url) => verifyOtp(url, first.body.requestId, wrongCode(code))),
    );
    // Until it is known to be right it holds one of the three places: upstream answers the overtakers by 410.
    expect(callsOf('/otp/verify')).toBe(3);
    expect(tally(wrong)['429 phone_locked']).toBeGreaterThan(0);
    expect((await sendOtp(world.url, phoneNumber)).body.code).toBe('phone_locked');
    const answer = await right;
    expect(answer.status).toBe(200);
    const { body } = await call('GET', `${world.url}/auth/sessions`, undefined, as(answer.body.accessToken));
    expect(body.sessions).toHaveLength(1);
    // Two of three are counted: one more guess is looked at.
    const next = await sendOtp(world.url, phoneNumber);
    const answers = await queued(world, () =>
      atOnce(world, 30, (url) => verifyOtp(url, next.body.requestId, '000000')),
    );
    expect(tally(answers)).toEqual({ '400 otp_incorrect': 1, '429 phone_locked': 29 });
  });

  it('is not touched by right codes of two requests at once: one session, and every wrong guess still counts', async () => {
    await three({
      STARTMESSAGING_CONTRACT: 'caller',
      LIMIT_FAILED_CODES: '15/86400',
      SESSIONS_PER_USER: '50',
    });
    const phoneNumber = freshNumber();
    const ids = await requests(phoneNumber, 8);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await queued(world, () =>
      atOnce(world, 32, (url, i) => verifyOtp(url, ids[i % 8], i % 4 ? wrongCode(code) : code)),
    );
    const { '200': right, '400 otp_incorrect': wrong = 0 } = tally(answers);
    expect(right).toBe(1);
    const token = answers.find(({ status }) => status === 200)?.body.accessToken as unknown;
    const { body } = await call('GET', `${world.url}/auth/sessions`, undefined, as(token));
    expect(body.sessions).toHaveLength(1);
    const more = await requests(phoneNumber, 8);
    const guesses = await queued(world, () =>
      atOnce(world, 48, (url, i) =>
        verifyOtp(url, more[i % 8], wrongCode(textedCode(world.upstream, phoneNumber))),
      ),
    );
    expect((tally(guesses)['400 otp_incorrect'] ?? 0) + wrong).toBe(15);
  });
});

describe('the allowance of a device', () => {
  it('is 5 of 40 sends at once, whatever strangers and forgers do meanwhile', async () => {
    await three({ STARTMESSAGING_CONTRACT: 'caller', LIMIT_PHONE: '1/86400' });
    const phoneNumber = freshNumber();
    const { deviceToken } = (await login(world, phoneNumber)).body;
    const forged = String(deviceToken).replace(/.$/, (last) => (last === 'A' ? 'E' : 'A'));
    const tokens = [deviceToken, undefined, forged, 'none', deviceToken];
    const answers = await queued(world, () =>
      atOnce(world, 100, (url, i) =>
        call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken: tokens[i % 5] }),
      ),
    );
    expect(tally(answers)).toEqual({ '200': 5, '429 rate_limited': 95 });
    expect(answers.filter(({ status }, i) => status === 200 && [0, 4].includes(i % 5))).toHaveLength(5);
    expect(world.upstream.messages).toHaveLength(6);
  });

  it('is 10 wrong codes more than the number’s own, of 60 at once, for who holds its token', async () => {
    await three({ STARTMESSAGING_CONTRACT: 'caller', LIMIT_FAILED_CODES: '4/86400', OTP_MAX_ATTEMPTS: '5' });
    const phoneNumber = freshNumber();
    const { deviceToken } = (await login(world, phoneNumber)).body;
    const ids = (await atOnce(world, 4, (url) => sendOtp(url, phoneNumber))).map(
      ({ body }) => body.requestId,
    );
    const otpCode = wrongCode(textedCode(world.upstream, phoneNumber));
    const answers = await queued(world, () =>
      atOnce(world, 120, (url, i) => {
        const token = i % 2 ? { deviceToken } : {};
        return call('POST', `${url}/auth/verify-otp`, { requestId: ids[(i >> 1) % 4], otpCode, ...token });
      }),
    );
    const looked = (own: number): number =>
      answers.filter(({ status }, i) => status === 400 && i % 2 === own).length;
    expect(looked(0) + looked(1)).toBe(14);
    expect(looked(0)).toBeLessThanOrEqual(4);
  });
});
