import { createHmac } from 'node:crypto';
import type { SessionsService as Sessions } from '../../src/sessions/sessions.service';
import { atOnce } from '../support/crowd';
import { deviceTokenOf } from '../support/device-tokens';
import { keysOf } from '../support/keys';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  redisCommand,
  SECRET,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const LIMITS: Variables = {
  LIMIT_PHONE: '5/3600',
  // A login of the owner clears only limits of an hour or less.
  // As many as one request allows: after half of them a stranger's next send needs a proof of work.
  LIMIT_FAILED_CODES: '3/86400',
  INTROSPECTION_CLIENTS: INTROSPECTOR,
};
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let world: World;

const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });

/** A send by the owner of the token; without a token it is a send by a stranger. */
const send = (phoneNumber: string, deviceToken?: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken });

const verify = (
  requestId: unknown,
  otpCode: string,
  deviceToken?: unknown,
  { url = world.url, headers = {} }: { url?: string; headers?: Record<string, string> } = {},
): Promise<Answer> => call('POST', `${url}/auth/verify-otp`, { requestId, otpCode, deviceToken }, headers);

const codeOf = (phoneNumber: string): string => textedCode(world.upstream, phoneNumber);
const messagesTo = (phoneNumber: string) =>
  world.upstream.messages.filter((sent) => sent.phoneNumber === phoneNumber);

/** A number whose owner has logged in, and what the login left on the device. */
async function owner(url = world.url): Promise<{ phoneNumber: string; deviceToken: string }> {
  const phoneNumber = freshNumber();
  const { body } = await login(world, phoneNumber, url);
  return { phoneNumber, deviceToken: body.deviceToken as string };
}

/** Strangers ask for SMS until the number's limit refuses them. */
async function useUpSends(phoneNumber: string): Promise<void> {
  for (let i = 0; i < 10; i++) {
    if ((await send(phoneNumber)).status === 429) return;
  }
  throw new Error('The number has no limit');
}

/** Strangers try codes until the number is locked. */
async function lock(phoneNumber: string): Promise<void> {
  const { body } = await send(phoneNumber);
  for (let i = 0; i < 3; i++) await verify(body.requestId, wrongCode(codeOf(phoneNumber)));
  expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'phone_locked']);
}

/** Whether the token gives an allowance: then the number gets one more SMS after strangers used up its own. */
async function counts(phoneNumber: string, deviceToken: unknown, url = world.url): Promise<boolean> {
  await useUpSends(phoneNumber);
  const answer = await send(phoneNumber, deviceToken, url);
  if (answer.status !== 200) expect(statusAndCode(answer)).toEqual([429, 'rate_limited']);
  return answer.status === 200;
}

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, STARTMESSAGING_CONTRACT: contract } });
  });
  afterAll(() => world.close());

  it(`the owner of a device token gets an SMS after strangers used up the number's own under the ${contract} contract`, async () => {
    const { phoneNumber, deviceToken } = await owner();
    await useUpSends(phoneNumber);
    const sent = await send(phoneNumber, deviceToken);
    expect(sent.status).toBe(200);
    const verified = await verify(sent.body.requestId, codeOf(phoneNumber), deviceToken);
    expect(verified.body).toMatchObject({ verified: true, user: { phoneNumber } });
    expect(
      (await call('GET', `${world.url}/auth/me`, undefined, bearer(verified.body.accessToken))).status,
    ).toBe(200);
    // Strangers are still refused.
    expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'rate_limited']);
  });

  it(`the owner of a device token logs in after strangers locked the number under the ${contract} contract`, async () => {
    const { phoneNumber, deviceToken } = await owner();
    await lock(phoneNumber);
    const sent = await send(phoneNumber, deviceToken);
    expect(sent.status).toBe(200);
    // The right code of the owner's own request: without the token the number is locked.
    expect(statusAndCode(await verify(sent.body.requestId, codeOf(phoneNumber)))).toEqual([
      429,
      'phone_locked',
    ]);
    const verified = await verify(sent.body.requestId, codeOf(phoneNumber), deviceToken);
    expect(verified.body).toMatchObject({ verified: true, user: { phoneNumber } });
    expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'phone_locked']);
  });

  it(`a device token allows ten wrong codes a day of its own and then the number is locked for it under the ${contract} contract`, async () => {
    const { phoneNumber, deviceToken } = await owner();
    await lock(phoneNumber);
    const wrongByDevice = async (times: number, of: unknown): Promise<void> => {
      for (let i = 0; i < times; i++) {
        const answer = await verify(of, wrongCode(codeOf(phoneNumber)), deviceToken);
        expect([i, ...statusAndCode(answer)]).toEqual([i, 400, 'otp_incorrect']);
      }
    };
    for (let request = 0; request < 3; request++)
      await wrongByDevice(3, (await send(phoneNumber, deviceToken)).body.requestId);
    const { requestId } = (await send(phoneNumber, deviceToken)).body;
    await wrongByDevice(1, requestId);

    // The eleventh attempt is refused even with the right code, and no SMS is paid for.
    for (const code of [wrongCode(codeOf(phoneNumber)), codeOf(phoneNumber)]) {
      const locked = await verify(requestId, code, deviceToken);
      expect(statusAndCode(locked)).toEqual([429, 'phone_locked']);
      expect(Number(locked.headers.get('retry-after'))).toBeGreaterThan(82_800);
    }
    const sms = messagesTo(phoneNumber).length;
    for (const token of [deviceToken, undefined])
      expect(statusAndCode(await send(phoneNumber, token))).toEqual([429, 'phone_locked']);
    expect(messagesTo(phoneNumber)).toHaveLength(sms);
  });
});

describe('the allowance of devices', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, STARTMESSAGING_CONTRACT: 'caller' }, count: 3 });
  });
  afterAll(() => world.close());

  it("a device token allows five SMS a day in addition to the number's own", async () => {
    const { phoneNumber, deviceToken } = await owner();
    // The login was the first of the number's own five.
    for (let i = 0; i < 9; i++) expect([i, (await send(phoneNumber, deviceToken)).status]).toEqual([i, 200]);
    const tenth = await send(phoneNumber, deviceToken);
    expect(statusAndCode(tenth)).toEqual([429, 'rate_limited']);
    // The limit of the number has room again first.
    expect(Number(tenth.headers.get('retry-after'))).toBeLessThanOrEqual(3_601);
    expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'rate_limited']);
    expect(messagesTo(phoneNumber)).toHaveLength(10);
  });

  it('all device tokens of a number share one allowance, and each number has its own', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const other = (await login(world, phoneNumber)).body.deviceToken as string;
    expect(other).not.toBe(deviceToken);
    await useUpSends(phoneNumber);
    for (const token of [deviceToken, other, deviceToken, other, other])
      expect((await send(phoneNumber, token)).status).toBe(200);
    for (const token of [deviceToken, other])
      expect(statusAndCode(await send(phoneNumber, token))).toEqual([429, 'rate_limited']);
    const neighbour = await owner();
    expect((await send(neighbour.phoneNumber, neighbour.deviceToken)).status).toBe(200);
  });

  it('all device tokens of a number share ten wrong codes', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const other = (await login(world, phoneNumber)).body.deviceToken as string;
    const answers: unknown[] = [];
    const requests = [];
    for (let i = 0; i < 4; i++) requests.push((await send(phoneNumber, deviceToken)).body.requestId);
    for (let i = 0; i < 11; i++) {
      const token = i % 2 === 0 ? deviceToken : other;
      answers.push(statusAndCode(await verify(requests[i % 4], wrongCode(codeOf(phoneNumber)), token)));
    }
    expect(answers).toEqual([...Array<unknown>(10).fill([400, 'otp_incorrect']), [429, 'phone_locked']]);
    // They used up nothing of the limit that clients without a device token share.
    const byStranger = await verify(requests[3], wrongCode(codeOf(phoneNumber)));
    expect(statusAndCode(byStranger)).toEqual([400, 'otp_incorrect']);
  });

  it('of thirty sends at once with a device token over three instances exactly five are admitted', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await useUpSends(phoneNumber);
    const answers = await atOnce(world, 30, (url) => send(phoneNumber, deviceToken, url));
    expect(answers.map(statusAndCode).sort()).toEqual([
      ...Array<unknown>(5).fill([200, undefined]),
      ...Array<unknown>(25).fill([429, 'rate_limited']),
    ]);
    expect(messagesTo(phoneNumber)).toHaveLength(10);
  });

  it('of fifteen wrong codes at once with a device token over three instances exactly ten are checked', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const requests: unknown[] = [];
    for (let i = 0; i < 5; i++) requests.push((await send(phoneNumber, deviceToken)).body.requestId);
    const code = wrongCode(codeOf(phoneNumber));
    const answers = await atOnce(world, 15, (url, i) => verify(requests[i % 5], code, deviceToken, { url }));
    expect(answers.map(statusAndCode).sort()).toEqual([
      ...Array<unknown>(10).fill([400, 'otp_incorrect']),
      ...Array<unknown>(5).fill([429, 'phone_locked']),
    ]);
  });
});

describe('the allowance of devices where a number has one SMS an hour', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, LIMIT_PHONE: '1/3600' } });
  });
  afterAll(() => world.close());

  it('send-otp says that a device token may send again at once until its allowance is used up', async () => {
    const { phoneNumber, deviceToken } = await owner();
    for (let i = 0; i < 5; i++) {
      const { body } = await send(phoneNumber, deviceToken);
      const resendAt = Date.parse(body.resendAt as string);
      if (i < 4) expect(resendAt).toBeLessThanOrEqual(Date.now() + 1_000);
      else expect(resendAt).toBeGreaterThan(Date.now() + HOUR_MS / 2);
    }
    expect(statusAndCode(await send(phoneNumber, deviceToken))).toEqual([429, 'rate_limited']);
  });

  it('an SMS that the provider certainly refused does not use up the allowance of a device token', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const fault = { kind: 'error', status: 400, code: 'RATE_LIMIT_EXCEEDED' } as const;
    world.upstream.fault({ on: 'send', phoneNumber, times: 7, fault });
    for (let i = 0; i < 7; i++) {
      const refused = await send(phoneNumber, deviceToken);
      expect([i, refused.headers.get('retry-after')]).toEqual([i, '300']);
    }
    for (let i = 0; i < 5; i++) expect([i, (await send(phoneNumber, deviceToken)).status]).toEqual([i, 200]);
    expect(statusAndCode(await send(phoneNumber, deviceToken))).toEqual([429, 'rate_limited']);
  });
});

it.each<[string, Variables, string]>([
  ['the budget', { BUDGET_PAISE_PER_DAY: '50', BUDGET_RESERVE_PERCENT: '0' }, 'sms_unavailable'],
  ['the limit of the whole service', { LIMIT_GLOBAL: '2/600' }, 'overloaded'],
])('a device token allows no SMS beyond %s', async (_, variables, code) => {
  world = await startWorld({ variables });
  try {
    const { phoneNumber, deviceToken } = await owner();
    expect((await send(freshNumber())).status).toBe(200);
    expect(statusAndCode(await send(phoneNumber, deviceToken))).toEqual([503, code]);
    expect(world.upstream.messages).toHaveLength(2);
  } finally {
    await world.close();
  }
});

describe('an invalid device token', () => {
  // A login and one more SMS use up the number's own.
  const limits = { ...LIMITS, LIMIT_PHONE: '2/3600' };
  beforeAll(async () => {
    world = await startWorld({ variables: limits });
  });
  afterAll(() => world.close());

  /** Another character of base64url in this place. */
  const twist = (text: string, at: number): string =>
    text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
  /** Another text of the same bytes: a lenient decoder ignores the spare bits of the last character. */
  function twin(part: string): string {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const other = part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1)!) ^ 1]!;
    expect(Buffer.from(other, 'base64url')).toEqual(Buffer.from(part, 'base64url'));
    return other;
  }
  type Parts = [id: string, issued: string, secret: string, mac: string];

  it.each<[string, (...parts: Parts) => string[]]>([
    ['of another device', (id, ...rest) => [twist(id, 0), ...rest]],
    ['of a device in another spelling', (id, ...rest) => [twin(id), ...rest]],
    ['issued a millisecond later', (id, at, ...rest) => [id, String(Number(at) + 1), ...rest]],
    ['issued in the far future', (id, _, ...rest) => [id, '999999999999999', ...rest]],
    ['issued at a time with a leading zero', (id, at, ...rest) => [id, `0${at}`, ...rest]],
    ['issued at a time with a sign', (id, at, ...rest) => [id, `+${at}`, ...rest]],
    ['issued at a time with an exponent', (id, at, ...rest) => [id, `${at}e0`, ...rest]],
    ['of an unknown secret', (id, at, secret, mac) => [id, at, twist(secret, 0), mac]],
    ['of no secret', (id, at, _, mac) => [id, at, '', mac]],
    ['with the first character of its MAC changed', (id, at, secret, mac) => [id, at, secret, twist(mac, 0)]],
    ['with the MAC in another spelling', (id, at, secret, mac) => [id, at, secret, twin(mac)]],
    ['with a padded MAC', (id, at, secret, mac) => [id, at, secret, `${mac}=`]],
    ['with a MAC that is cut', (id, at, secret, mac) => [id, at, secret, mac.slice(0, -1)]],
    ['with a MAC of zeros', (id, at, secret) => [id, at, secret, 'A'.repeat(43)]],
    ['without a MAC', (id, at, secret) => [id, at, secret]],
    ['with one part more', (...parts) => [...parts, 'x']],
    ['with a newline behind it', (id, at, secret, mac) => [id, at, secret, `${mac}\n`]],
    ['with a space before it', (id, ...rest) => [` ${id}`, ...rest]],
    [
      'signed with an empty secret',
      (id, at, secret) => [
        id,
        at,
        secret,
        createHmac('sha256', '').update(`${id}.${at}.${secret}`).digest('base64url'),
      ],
    ],
    ['that is empty', () => ['']],
    ['that is a word', () => ['undefined']],
    ['of 512 characters', () => ['x'.repeat(512)]],
  ])('a device token %s gives no allowance and no error', async (_, change) => {
    const { phoneNumber, deviceToken } = await owner();
    const forged = change(...(deviceToken.split('.') as Parts)).join('.');
    expect(forged).not.toBe(deviceToken);
    const sent = await send(phoneNumber, forged);
    expect(sent.status).toBe(200);
    expect((await verify(sent.body.requestId, codeOf(phoneNumber), forged)).status).toBe(200);
    expect(statusAndCode(await send(phoneNumber, forged))).toEqual([429, 'rate_limited']);
    // The token that it was made from is valid.
    expect((await send(phoneNumber, deviceToken)).status).toBe(200);
  });

  it('a device token of another number gives no allowance and no error', async () => {
    const [mine, theirs] = [await owner(), await owner()];
    expect(await counts(mine.phoneNumber, theirs.deviceToken)).toBe(false);
    const sent = await send(theirs.phoneNumber, mine.deviceToken);
    const verified = await verify(sent.body.requestId, codeOf(theirs.phoneNumber), mine.deviceToken);
    expect(verified.status).toBe(200);
  });

  it('an access token or a refresh token is no device token', async () => {
    const phoneNumber = freshNumber();
    const { accessToken, refreshToken } = (await login(world, phoneNumber)).body;
    expect(await counts(phoneNumber, refreshToken)).toBe(false);
    expect(await counts(phoneNumber, String(accessToken).slice(0, 512))).toBe(false);
  });

  it('send-otp accepts a device token for 90 days', async () => {
    const phoneNumber = freshNumber();
    const limit = Date.now() - 90 * DAY_MS;
    expect(await counts(phoneNumber, deviceTokenOf(phoneNumber, limit - DAY_MS))).toBe(false);
    expect(await counts(phoneNumber, deviceTokenOf(phoneNumber, limit - 1))).toBe(false);
    expect(await counts(phoneNumber, deviceTokenOf(phoneNumber, limit + HOUR_MS))).toBe(true);
  });

  it('a device token that was signed by another secret gives no allowance', async () => {
    const phoneNumber = freshNumber();
    const other = 'another-secret-0123456789-abcdefghij';
    expect(await counts(phoneNumber, deviceTokenOf(phoneNumber, Date.now(), other))).toBe(false);
    expect(await counts(phoneNumber, deviceTokenOf(phoneNumber, Date.now()))).toBe(true);
  });

  it('a device token is valid while its secret is rotated, and invalid when the secret was removed', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const next = 'rotated-secret-0123456789-abcdefghij';
    const rotated = await anotherInstance(world, { ...limits, SECRET: `${next},${SECRET}` });
    const dropped = await anotherInstance(world, { ...limits, SECRET: next });
    try {
      expect(await counts(phoneNumber, deviceToken, dropped.url)).toBe(false);
      expect(await counts(phoneNumber, deviceToken, rotated.url)).toBe(true);
    } finally {
      await rotated.close();
      await dropped.close();
    }
  });
});

describe('attempts by a device, and the end of device tokens', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, LIMIT_PHONE: '20/3600' } });
  });
  afterAll(() => world.close());

  it('twelve logins with a device token use up none of its wrong codes', async () => {
    const { phoneNumber, deviceToken } = await owner();
    for (let i = 0; i < 12; i++) {
      const { body } = await send(phoneNumber);
      const verified = await verify(body.requestId, codeOf(phoneNumber), deviceToken);
      expect([i, verified.status]).toEqual([i, 200]);
    }
  });

  it('a verification that the provider certainly did not check uses up no wrong code of a device token', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const { body } = await send(phoneNumber);
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    world.upstream.fault({ on: 'verify', phoneNumber, times: 12, fault });
    for (let i = 0; i < 12; i++) {
      const refused = await verify(body.requestId, codeOf(phoneNumber), deviceToken);
      expect([i, ...statusAndCode(refused)]).toEqual([i, 503, 'sms_unavailable']);
    }
    expect((await verify(body.requestId, codeOf(phoneNumber), deviceToken)).status).toBe(200);
  });

  it('a device token of another number does not help against a lock', async () => {
    const [locked, other] = [await owner(), await owner()];
    await lock(locked.phoneNumber);
    expect(statusAndCode(await send(locked.phoneNumber, other.deviceToken))).toEqual([429, 'phone_locked']);
    expect((await send(locked.phoneNumber, locked.deviceToken)).status).toBe(200);
  });

  const end = async ({ body }: Answer, path = ''): Promise<void> => {
    const answer = await call(
      'DELETE',
      `${world.url}/auth/sessions${path}`,
      undefined,
      bearer(body.accessToken),
    );
    expect(answer.status).toBe(204);
  };
  /** Which of the logins have a valid device token: its owner gets an SMS although the number is locked. */
  async function alive(phoneNumber: string, ...logins: Answer[]): Promise<boolean[]> {
    const lives: boolean[] = [];
    for (const { body } of logins) {
      const answer = await send(phoneNumber, body.deviceToken);
      if (answer.status !== 200) expect(statusAndCode(answer)).toEqual([429, 'phone_locked']);
      lives.push(answer.status === 200);
    }
    return lives;
  }

  it('a log-out everywhere ends all device tokens of a user, but not that of a later login', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    await end(second);
    const third = await login(world, phoneNumber);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first, second, third)).toEqual([false, false, true]);
  });

  it('a log-out of all other sessions keeps the device token of the current session', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    await end(first, '?others=true');
    const third = await login(world, phoneNumber);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first, second, third)).toEqual([true, false, true]);
    // The next log-out ends a token that the last one kept.
    await end(third, '?others=true');
    expect(await alive(phoneNumber, first, third)).toEqual([false, true]);
    await end(third);
    expect(await alive(phoneNumber, third)).toEqual([false]);
  });

  it('a log-out and a refresh do not end the device token of a session', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    await call('POST', `${world.url}/auth/refresh`, { refreshToken: first.body.refreshToken });
    await call('POST', `${world.url}/auth/logout`, { refreshToken: first.body.refreshToken });
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first)).toEqual([true]);
  });

  it('a log-out everywhere does not end the device tokens of other users', async () => {
    const phoneNumber = freshNumber();
    const [mine, other] = [await login(world, phoneNumber), await login(world)];
    await end(other);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, mine)).toEqual([true]);
  });

  it('the end of device tokens is stored for 90 days, as long as a token is valid', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    await end(first);
    const { devicesEnded } = keysOf((await send(phoneNumber)).body.requestId);
    const ms = Number(await redisCommand(world, 'PTTL', devicesEnded));
    expect(ms).toBeGreaterThan(90 * DAY_MS - HOUR_MS);
    expect(ms).toBeLessThanOrEqual(90 * DAY_MS);
  });

  it('a log-out everywhere ends the session and the device token of a login that happens meanwhile', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    const { body } = await send(phoneNumber);
    // The login happens between the end of the tokens and the end of the sessions.
    const { SessionsService } = serviceModule<{ SessionsService: typeof Sessions }>(
      'sessions/sessions.service',
    );
    const sessions = world.instances[0]!.app.get(SessionsService);
    const endAll = sessions.endAll.bind(sessions);
    let between: Answer | undefined;
    sessions.endAll = async (...args) => {
      between = await verify(body.requestId, codeOf(phoneNumber));
      await endAll(...args);
    };
    try {
      await end(first);
    } finally {
      sessions.endAll = endAll;
    }
    expect(between?.status).toBe(200);
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(between?.body.accessToken));
    expect(statusAndCode(me)).toEqual([401, 'session_revoked']);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, between!)).toEqual([false]);
  });
});

describe('a device token', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: LIMITS });
  });
  afterAll(() => world.close());

  it.each<[string, unknown]>([
    ['a number', 7],
    ['true', true],
    ['an array', []],
    ['an array with a text', ['x']],
    ['an object', {}],
    ['513 characters', 'x'.repeat(513)],
  ])('send-otp and verify-otp refuse %s as a device token, and change nothing', async (_, deviceToken) => {
    const phoneNumber = freshNumber();
    const { body } = await send(phoneNumber);
    const refused = [
      await send(phoneNumber, deviceToken),
      await verify(body.requestId, wrongCode(codeOf(phoneNumber)), deviceToken),
    ];
    for (const answer of refused) {
      expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
      expect(answer.body.errors).toEqual([expect.objectContaining({ field: 'deviceToken' })]);
    }
    expect(messagesTo(phoneNumber)).toHaveLength(1);
    const status = await call('GET', `${world.url}/auth/otp/${body.requestId}`);
    expect(status.body.attemptsLeft).toBe(3);
  });

  it('send-otp and verify-otp take null as no device token', async () => {
    const phoneNumber = freshNumber();
    const { status, body } = await send(phoneNumber, null);
    expect(status).toBe(200);
    expect((await verify(body.requestId, codeOf(phoneNumber), null)).status).toBe(200);
  });

  it('a repeated verification under an Idempotency-Key returns the same device token', async () => {
    const phoneNumber = freshNumber();
    const { body } = await send(phoneNumber);
    const headers = { 'idempotency-key': 'one-and-the-same' };
    const first = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    const verifiedAt = Date.now();
    // The time of the token is that of the first verification.
    await until(() => Date.now() > verifiedAt, 'the next millisecond');
    const again = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    expect([first.status, again.status]).toEqual([200, 200]);
    expect(again.body.deviceToken).toBe(first.body.deviceToken);
    expect(await counts(phoneNumber, again.body.deviceToken)).toBe(true);
  });

  it('a repeat without the device token of its first request is still the same request', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const { body } = await send(phoneNumber);
    const headers = { 'idempotency-key': 'one-and-the-same' };
    const first = await verify(body.requestId, codeOf(phoneNumber), deviceToken, { headers });
    const again = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    expect([again.status, again.body.refreshToken]).toEqual([200, first.body.refreshToken]);
  });

  it('verify-otp returns the device token in the body even if the refresh token is in a cookie', async () => {
    const phoneNumber = freshNumber();
    const { body } = await send(phoneNumber);
    const answer = await call('POST', `${world.url}/auth/verify-otp`, {
      requestId: body.requestId,
      otpCode: codeOf(phoneNumber),
      tokenDelivery: 'cookie',
    });
    expect(answer.body.refreshToken).toBeUndefined();
    expect(await counts(phoneNumber, answer.body.deviceToken)).toBe(true);
  });

  it('a device token is accepted in place of no other token, and ends nothing', async () => {
    const { body } = await login(world);
    const { deviceToken, accessToken } = body as { deviceToken: string; accessToken: string };
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(deviceToken));
    expect(statusAndCode(me)).toEqual([401, 'unauthenticated']);
    for (const path of ['/auth/sessions', '/auth/revocations?since=0'])
      expect((await call('GET', world.url + path, undefined, bearer(deviceToken))).status).toBe(401);
    const refreshed = await call('POST', `${world.url}/auth/refresh`, { refreshToken: deviceToken });
    expect(statusAndCode(refreshed)).toEqual([401, 'refresh_token_invalid']);
    const cookie = { cookie: `__Host-refresh=${deviceToken}`, origin: 'http://localhost:3000' };
    expect(statusAndCode(await call('POST', `${world.url}/auth/refresh`, {}, cookie))).toEqual([
      401,
      'refresh_token_invalid',
    ]);
    const form = (path: string, fields: Record<string, string>): Promise<Answer> =>
      call('POST', `${world.url}/oauth/${path}`, new URLSearchParams(fields).toString(), {
        'content-type': 'application/x-www-form-urlencoded',
        authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}`,
      });
    const granted = await form('token', { grant_type: 'refresh_token', refresh_token: deviceToken });
    expect([granted.status, granted.body.error]).toEqual([400, 'invalid_grant']);
    expect((await form('introspect', { token: deviceToken })).body).toEqual({ active: false });
    expect((await form('revoke', { token: deviceToken })).status).toBe(200);
    expect((await call('POST', `${world.url}/auth/logout`, { refreshToken: deviceToken })).status).toBe(204);
    expect((await call('POST', `${world.url}/auth/logout`, {}, bearer(deviceToken))).status).toBe(204);
    expect((await call('GET', `${world.url}/auth/me`, undefined, bearer(accessToken))).status).toBe(200);
  });

  it('the log contains no device token', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await send(phoneNumber, deviceToken);
    await verify('x', '123456', deviceToken);
    await send(phoneNumber, `${deviceToken}=`.repeat(5));
    const logs = world.instances[0]!.logs.join('');
    expect(logs).toContain('send-otp');
    expect(logs).not.toContain(deviceToken.split('.')[3]!);
  });
});
