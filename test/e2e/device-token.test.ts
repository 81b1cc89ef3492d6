import { createHmac, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { readConfig } from '../../src/config/read-config';
import { ChallengeRecords } from '../../src/otp/challenge-records';
import { DeviceTokens } from '../../src/otp/device-tokens';
import { isPhoneNumber } from '../../src/phone-number/phone-number';
import { SessionsService } from '../../src/sessions/sessions.service';
import {
  API_KEY,
  call,
  freshNumber,
  login,
  redisCommand,
  SECRET,
  startInstance,
  startWorld,
  SUBJECT_SECRET,
  textedCode,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret';
const LIMITS: Variables = {
  LIMIT_PHONE: '5/3600',
  // A day: the login of the owner does not clear it.
  LIMIT_FAILED_CODES: '4/86400',
  INTROSPECTION_CLIENTS: INTROSPECTOR,
};
const DAY_MS = 86_400_000;

let world: World;

const told = ({ status, body }: Answer): unknown[] => [status, body.code];
const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });

/** A send; by a stranger when there is no token. */
const send = (phoneNumber: string, deviceToken?: unknown, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/send-otp`, { phoneNumber, deviceToken });

const verify = (
  requestId: unknown,
  otpCode: string,
  deviceToken?: unknown,
  { url = world.url, headers = {} }: { url?: string; headers?: Record<string, string> } = {},
): Promise<Answer> => call('POST', `${url}/auth/verify-otp`, { requestId, otpCode, deviceToken }, headers);

const codeOf = (phoneNumber: string): string => textedCode(world.upstream, phoneNumber);

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
  for (let request = 0; request < 2; request++) {
    const { body } = await send(phoneNumber);
    for (let i = 0; i < 2; i++) await verify(body.requestId, wrongCode(codeOf(phoneNumber)));
  }
  expect(told(await send(phoneNumber))).toEqual([429, 'phone_locked']);
}

/** Whether the token gives an allowance: only then a number that strangers used up gets one more SMS. */
async function counts(phoneNumber: string, deviceToken: unknown, url = world.url): Promise<boolean> {
  await useUpSends(phoneNumber);
  const answer = await send(phoneNumber, deviceToken, url);
  if (answer.status !== 200) expect(told(answer)).toEqual([429, 'rate_limited']);
  return answer.status === 200;
}

/** A token as this service would have signed it at that time. */
function signedAt(phoneNumber: string, issuedAt: number, secret = SECRET): string {
  const config = readConfig({
    STARTMESSAGING_API_KEY: API_KEY,
    SECRET: secret,
    SUBJECT_SECRET,
  });
  if (!isPhoneNumber(phoneNumber)) throw new Error('This is no phone number');
  const pseudonym = new ChallengeRecords(config).pseudonymOf(phoneNumber);
  const id = randomBytes(16).toString('base64url');
  return new DeviceTokens(config).issue(pseudonym, { id, issuedAt });
}

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, STARTMESSAGING_CONTRACT: contract } });
  });
  afterAll(() => world.close());

  it('strangers who use up the SMS of a number do not lock its owner out', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await useUpSends(phoneNumber);
    const sent = await send(phoneNumber, deviceToken);
    expect(sent.status).toBe(200);
    const verified = await verify(sent.body.requestId, codeOf(phoneNumber), deviceToken);
    expect(verified.body).toMatchObject({ verified: true, user: { phoneNumber } });
    expect(
      (await call('GET', `${world.url}/auth/me`, undefined, bearer(verified.body.accessToken))).status,
    ).toBe(200);
    // The strangers stay where they were.
    expect(told(await send(phoneNumber))).toEqual([429, 'rate_limited']);
  });

  it('strangers who lock a number by wrong codes do not lock its owner out', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await lock(phoneNumber);
    const sent = await send(phoneNumber, deviceToken);
    expect(sent.status).toBe(200);
    // The right code of the owner's own request: without the token the number is locked.
    expect(told(await verify(sent.body.requestId, codeOf(phoneNumber)))).toEqual([429, 'phone_locked']);
    const verified = await verify(sent.body.requestId, codeOf(phoneNumber), deviceToken);
    expect(verified.body).toMatchObject({ verified: true, user: { phoneNumber } });
    expect(told(await send(phoneNumber))).toEqual([429, 'phone_locked']);
  });

  it('devices get ten wrong codes a day more than strangers leave them, and are locked then', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await lock(phoneNumber);
    const wrongByDevice = async (times: number, of: unknown): Promise<void> => {
      for (let i = 0; i < times; i++) {
        const answer = await verify(of, wrongCode(codeOf(phoneNumber)), deviceToken);
        expect([i, ...told(answer)]).toEqual([i, 400, 'otp_incorrect']);
      }
    };
    for (let request = 0; request < 3; request++)
      await wrongByDevice(3, (await send(phoneNumber, deviceToken)).body.requestId);
    const { requestId } = (await send(phoneNumber, deviceToken)).body;
    await wrongByDevice(1, requestId);

    // The eleventh, also when it is right; and no SMS is paid for.
    for (const code of [wrongCode(codeOf(phoneNumber)), codeOf(phoneNumber)]) {
      const locked = await verify(requestId, code, deviceToken);
      expect(told(locked)).toEqual([429, 'phone_locked']);
      expect(Number(locked.headers.get('retry-after'))).toBeGreaterThan(86_000);
    }
    const sms = world.upstream.messages.length;
    for (const token of [deviceToken, undefined])
      expect(told(await send(phoneNumber, token))).toEqual([429, 'phone_locked']);
    expect(world.upstream.messages).toHaveLength(sms);
  });
});

describe('the allowance of devices', () => {
  afterEach(() => world.close());

  it('is five SMS a day beyond the number’s own: a token leaves nobody worse off', async () => {
    world = await startWorld({ variables: LIMITS });
    const { phoneNumber, deviceToken } = await owner();
    // The login was the first of the number's own five.
    for (let i = 0; i < 9; i++) expect([i, (await send(phoneNumber, deviceToken)).status]).toEqual([i, 200]);
    const tenth = await send(phoneNumber, deviceToken);
    expect(told(tenth)).toEqual([429, 'rate_limited']);
    // That of the number opens first.
    expect(Number(tenth.headers.get('retry-after'))).toBeLessThanOrEqual(3_601);
    expect(told(await send(phoneNumber))).toEqual([429, 'rate_limited']);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('says when the next SMS may be asked for: at once, while one of the two has room', async () => {
    world = await startWorld({ variables: { ...LIMITS, LIMIT_PHONE: '1/3600' } });
    const { phoneNumber, deviceToken } = await owner();
    for (let i = 0; i < 5; i++) {
      const { body } = await send(phoneNumber, deviceToken);
      const waitSeconds = (Date.parse(body.resendAt as string) - Date.now()) / 1_000;
      if (i < 4) expect(waitSeconds).toBeLessThan(5);
      else expect(waitSeconds).toBeGreaterThan(3_000);
    }
  });

  it('is all there when the number has used up its own', async () => {
    world = await startWorld({ variables: LIMITS });
    const { phoneNumber, deviceToken } = await owner();
    await useUpSends(phoneNumber);
    for (let i = 0; i < 5; i++) expect([i, (await send(phoneNumber, deviceToken)).status]).toEqual([i, 200]);
    expect(told(await send(phoneNumber, deviceToken))).toEqual([429, 'rate_limited']);
  });

  it('is not used up by what the provider certainly refuses, such as its own limit of a number', async () => {
    world = await startWorld({ variables: { ...LIMITS, LIMIT_PHONE: '1/3600' } });
    const { phoneNumber, deviceToken } = await owner();
    const fault = { kind: 'error', status: 400, code: 'RATE_LIMIT_EXCEEDED' } as const;
    world.upstream.fault({ on: 'send', times: 7, fault });
    for (let i = 0; i < 7; i++) {
      const refused = await send(phoneNumber, deviceToken);
      expect([i, refused.headers.get('retry-after')]).toEqual([i, '300']);
    }
    for (let i = 0; i < 5; i++) expect([i, (await send(phoneNumber, deviceToken)).status]).toEqual([i, 200]);
    expect(told(await send(phoneNumber, deviceToken))).toEqual([429, 'rate_limited']);
  });

  it('is one for all devices of a number, and each number has its own', async () => {
    world = await startWorld({ variables: LIMITS });
    const { phoneNumber, deviceToken } = await owner();
    const other = (await login(world, phoneNumber)).body.deviceToken as string;
    expect(other).not.toBe(deviceToken);
    await useUpSends(phoneNumber);
    for (const token of [deviceToken, other, deviceToken, other, other])
      expect((await send(phoneNumber, token)).status).toBe(200);
    for (const token of [deviceToken, other])
      expect(told(await send(phoneNumber, token))).toEqual([429, 'rate_limited']);
    const neighbour = await owner();
    expect((await send(neighbour.phoneNumber, neighbour.deviceToken)).status).toBe(200);
  });

  it('of wrong codes is one for all devices, too', async () => {
    world = await startWorld({ variables: LIMITS });
    const { phoneNumber, deviceToken } = await owner();
    const other = (await login(world, phoneNumber)).body.deviceToken as string;
    const answers: unknown[] = [];
    for (let request = 0; request < 5; request++) {
      const { body } = await send(phoneNumber, deviceToken);
      for (const token of [deviceToken, other, other])
        answers.push(told(await verify(body.requestId, wrongCode(codeOf(phoneNumber)), token)));
    }
    expect(answers).toEqual([...Array<unknown>(4 + 10).fill([400, 'otp_incorrect']), [429, 'phone_locked']]);
  });

  it('is within the budget', async () => {
    world = await startWorld({ variables: { BUDGET_PAISE_PER_DAY: '50', BUDGET_RESERVE_PERCENT: '0' } });
    const { phoneNumber, deviceToken } = await owner();
    expect((await send(freshNumber())).status).toBe(200);
    expect(told(await send(phoneNumber, deviceToken))).toEqual([503, 'sms_unavailable']);
    expect(world.upstream.messages).toHaveLength(2);
  });

  it('is within the limit of the whole service', async () => {
    world = await startWorld({ variables: { LIMIT_GLOBAL: '2/60' } });
    const { phoneNumber, deviceToken } = await owner();
    expect((await send(freshNumber())).status).toBe(200);
    expect(told(await send(phoneNumber, deviceToken))).toEqual([503, 'overloaded']);
    expect(world.upstream.messages).toHaveLength(2);
  });

  it('lets exactly five of thirty sends at once pass over three instances when the number’s own is used up', async () => {
    world = await startWorld({ variables: LIMITS, count: 3 });
    const { phoneNumber, deviceToken } = await owner();
    await useUpSends(phoneNumber);
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => send(phoneNumber, deviceToken, world.instances[i % 3]!.url)),
    );
    expect(answers.map(told).sort()).toEqual([
      ...Array<unknown>(5).fill([200, undefined]),
      ...Array<unknown>(25).fill([429, 'rate_limited']),
    ]);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('lets exactly ten wrong codes more of fifteen at once be looked at over three instances', async () => {
    world = await startWorld({ variables: { ...LIMITS, STARTMESSAGING_CONTRACT: 'caller' }, count: 3 });
    const { phoneNumber, deviceToken } = await owner();
    const requests: unknown[] = [];
    for (let i = 0; i < 5; i++) requests.push((await send(phoneNumber, deviceToken)).body.requestId);
    const code = wrongCode(codeOf(phoneNumber));
    const answers = await Promise.all(
      Array.from({ length: 15 }, (_, i) =>
        verify(requests[i % 5], code, deviceToken, { url: world.instances[i % 3]!.url }),
      ),
    );
    expect(answers.map(told).sort()).toEqual([
      ...Array<unknown>(4 + 10).fill([400, 'otp_incorrect']),
      [429, 'phone_locked'],
    ]);
  });
});

describe('a device token that is not good is as none, and never an error', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: LIMITS });
  });
  afterAll(() => world.close());

  /** Another character of base64url in this place. */
  const twist = (text: string, at: number): string =>
    text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
  /** Another text of the same bytes: the last character has spare bits, which a lenient decoder ignores. */
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
    ['of a secret that nobody knows', (id, at, secret, mac) => [id, at, twist(secret, 0), mac]],
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
      'signed by what everybody may know',
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
  ])('%s', async (_, change) => {
    const { phoneNumber, deviceToken } = await owner();
    const forged = change(...(deviceToken.split('.') as Parts)).join('.');
    expect(forged).not.toBe(deviceToken);
    // Where there is room, it is in nobody's way.
    const sent = await send(phoneNumber, forged);
    expect(sent.status).toBe(200);
    expect((await verify(sent.body.requestId, codeOf(phoneNumber), forged)).status).toBe(200);
    expect(await counts(phoneNumber, forged)).toBe(false);
    // And what it was made from is good.
    expect(await counts(phoneNumber, deviceToken)).toBe(true);
  });

  it('of another number', async () => {
    const [mine, theirs] = [await owner(), await owner()];
    expect(await counts(mine.phoneNumber, theirs.deviceToken)).toBe(false);
    const sent = await send(theirs.phoneNumber, mine.deviceToken);
    expect((await verify(sent.body.requestId, codeOf(theirs.phoneNumber), mine.deviceToken)).status).toBe(
      200,
    );
    // Nor does it help against a lock.
    const locked = await owner();
    await lock(locked.phoneNumber);
    expect(told(await send(locked.phoneNumber, theirs.deviceToken))).toEqual([429, 'phone_locked']);
    expect((await send(locked.phoneNumber, locked.deviceToken)).status).toBe(200);
  });

  it('that is a token of another kind', async () => {
    const phoneNumber = freshNumber();
    const { accessToken, refreshToken } = (await login(world, phoneNumber)).body;
    expect(await counts(phoneNumber, refreshToken)).toBe(false);
    expect(await counts(phoneNumber, String(accessToken).slice(0, 512))).toBe(false);
  });

  it('that is older than 90 days', async () => {
    const phoneNumber = freshNumber();
    expect(await counts(phoneNumber, signedAt(phoneNumber, Date.now() - 91 * DAY_MS))).toBe(false);
    expect(await counts(phoneNumber, signedAt(phoneNumber, Date.now() - 90 * DAY_MS - 1_000))).toBe(false);
    expect(await counts(phoneNumber, signedAt(phoneNumber, Date.now() - 90 * DAY_MS + 60_000))).toBe(true);
  });

  it('that was signed by another secret', async () => {
    const phoneNumber = freshNumber();
    const other = 'another-secret-0123456789-abcdefghij';
    expect(await counts(phoneNumber, signedAt(phoneNumber, Date.now(), other))).toBe(false);
    expect(await counts(phoneNumber, signedAt(phoneNumber, Date.now()))).toBe(true);
  });

  it('whose secret was dropped; and it is good while that is only rotated', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const next = 'rotated-secret-0123456789-abcdefghij';
    const settings = {
      ...LIMITS,
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
    };
    const rotated = await startInstance({ ...settings, SECRET: `${next},${SECRET}` });
    const dropped = await startInstance({ ...settings, SECRET: next });
    try {
      expect(await counts(phoneNumber, deviceToken, dropped.url)).toBe(false);
      expect(await counts(phoneNumber, deviceToken, rotated.url)).toBe(true);
    } finally {
      await rotated.close();
      await dropped.close();
    }
  });
});

describe('an attempt by a device', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: { LIMIT_FAILED_CODES: '4/86400' } });
  });
  afterAll(() => world.close());

  it('that is right is no wrong one, however often its owner logs in', async () => {
    const { phoneNumber, deviceToken } = await owner();
    for (let i = 0; i < 12; i++) {
      const { body } = await send(phoneNumber);
      const verified = await verify(body.requestId, codeOf(phoneNumber), deviceToken);
      expect([i, verified.status]).toEqual([i, 200]);
    }
  });

  it('that upstream certainly did not look at is given back', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const { body } = await send(phoneNumber);
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    world.upstream.fault({ on: 'verify', times: 12, fault });
    for (let i = 0; i < 12; i++) {
      const refused = await verify(body.requestId, codeOf(phoneNumber), deviceToken);
      expect([i, ...told(refused)]).toEqual([i, 503, 'sms_unavailable']);
    }
    expect((await verify(body.requestId, codeOf(phoneNumber), deviceToken)).status).toBe(200);
  });
});

describe('the end of device tokens', () => {
  beforeAll(async () => {
    world = await startWorld({ variables: { ...LIMITS, LIMIT_PHONE: '20/3600' } });
  });
  afterAll(() => world.close());

  const end = async ({ body }: Answer, path = ''): Promise<void> => {
    const answer = await call(
      'DELETE',
      `${world.url}/auth/sessions${path}`,
      undefined,
      bearer(body.accessToken),
    );
    expect(answer.status).toBe(204);
  };
  /** Which of them live: their holders are not locked out where strangers are. */
  async function alive(phoneNumber: string, ...logins: Answer[]): Promise<boolean[]> {
    const lives: boolean[] = [];
    for (const { body } of logins) {
      const answer = await send(phoneNumber, body.deviceToken);
      if (answer.status !== 200) expect(told(answer)).toEqual([429, 'phone_locked']);
      lives.push(answer.status === 200);
    }
    return lives;
  }

  it('comes with a log-out everywhere, from whichever device; a later login’s lives', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    await end(second);
    const third = await login(world, phoneNumber);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first, second, third)).toEqual([false, false, true]);
  });

  it('spares the current session’s when all others end', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await login(world, phoneNumber), await login(world, phoneNumber)];
    await end(first, '?others=true');
    const third = await login(world, phoneNumber);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first, second, third)).toEqual([true, false, true]);
    // Spared once is not spared for ever.
    await end(third, '?others=true');
    expect(await alive(phoneNumber, first, third)).toEqual([false, true]);
    await end(third);
    expect(await alive(phoneNumber, third)).toEqual([false]);
  });

  it('does not come with a log-out, nor with a refresh', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    await call('POST', `${world.url}/auth/refresh`, { refreshToken: first.body.refreshToken });
    await call('POST', `${world.url}/auth/logout`, { refreshToken: first.body.refreshToken });
    await lock(phoneNumber);
    expect(await alive(phoneNumber, first)).toEqual([true]);
  });

  it('leaves other numbers’ alone', async () => {
    const phoneNumber = freshNumber();
    const [mine, other] = [await login(world, phoneNumber), await login(world)];
    await end(other);
    await lock(phoneNumber);
    expect(await alive(phoneNumber, mine)).toEqual([true]);
  });

  it('is remembered for as long as an ended one could be shown', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    await end(first);
    const pseudonym = String((await send(phoneNumber)).body.requestId).slice(0, 22);
    const ms = Number(await redisCommand(world, 'PTTL', `otp-login:{${pseudonym}}:devices-ended`));
    expect(ms).toBeGreaterThan(90 * DAY_MS - 60_000);
    expect(ms).toBeLessThanOrEqual(90 * DAY_MS);
  });

  it('comes for a session that is opened while everything ends, and ends with it', async () => {
    const phoneNumber = freshNumber();
    const first = await login(world, phoneNumber);
    const { body } = await send(phoneNumber);
    // The login falls between the end of the tokens and the end of the sessions.
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
    expect(told(me)).toEqual([401, 'session_revoked']);
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
    ['null', null],
    ['an array', []],
    ['an array with a text', ['x']],
    ['an object', {}],
    ['513 characters', 'x'.repeat(513)],
  ])('that is %s is refused by name, and nothing is touched', async (_, deviceToken) => {
    const phoneNumber = freshNumber();
    const { body } = await send(phoneNumber);
    const refused = [
      await send(phoneNumber, deviceToken),
      await verify(body.requestId, wrongCode(codeOf(phoneNumber)), deviceToken),
    ];
    for (const answer of refused) {
      expect(told(answer)).toEqual([400, 'validation_failed']);
      expect(answer.body.errors).toEqual([expect.objectContaining({ field: 'deviceToken' })]);
    }
    const sms = world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber);
    expect(sms).toHaveLength(1);
    const status = await call('GET', `${world.url}/auth/otp/${body.requestId}`);
    expect(status.body.attemptsLeft).toBe(3);
  });

  it('is the same again under the same Idempotency-Key', async () => {
    const phoneNumber = freshNumber();
    const { body } = await send(phoneNumber);
    const headers = { 'idempotency-key': 'one' };
    const first = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    await sleep(20);
    const again = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    expect([first.status, again.status]).toEqual([200, 200]);
    expect(again.body.deviceToken).toBe(first.body.deviceToken);
    expect(await counts(phoneNumber, again.body.deviceToken)).toBe(true);
  });

  it('does not make a repeat under an Idempotency-Key another request', async () => {
    const { phoneNumber, deviceToken } = await owner();
    const { body } = await send(phoneNumber);
    const headers = { 'idempotency-key': 'one' };
    const first = await verify(body.requestId, codeOf(phoneNumber), deviceToken, { headers });
    const again = await verify(body.requestId, codeOf(phoneNumber), undefined, { headers });
    expect([again.status, again.body.refreshToken]).toEqual([200, first.body.refreshToken]);
  });

  it('comes in the body also where the refresh token goes into the cookie', async () => {
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

  it('is no token for anything else', async () => {
    const { body } = await login(world);
    const { deviceToken, accessToken } = body as { deviceToken: string; accessToken: string };
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(deviceToken));
    expect(told(me)).toEqual([401, 'unauthenticated']);
    for (const path of ['/auth/sessions', '/auth/revocations?since=0'])
      expect((await call('GET', world.url + path, undefined, bearer(deviceToken))).status).toBe(401);
    const refreshed = await call('POST', `${world.url}/auth/refresh`, { refreshToken: deviceToken });
    expect(told(refreshed)).toEqual([401, 'refresh_token_invalid']);
    const cookie = { cookie: `__Host-refresh=${deviceToken}`, origin: 'http://localhost:3000' };
    expect(told(await call('POST', `${world.url}/auth/refresh`, {}, cookie))).toEqual([
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
    // Nor does it end anything.
    expect((await form('revoke', { token: deviceToken })).status).toBe(200);
    expect((await call('POST', `${world.url}/auth/logout`, { refreshToken: deviceToken })).status).toBe(204);
    expect((await call('POST', `${world.url}/auth/logout`, {}, bearer(deviceToken))).status).toBe(204);
    expect((await call('GET', `${world.url}/auth/me`, undefined, bearer(accessToken))).status).toBe(200);
  });

  it('stands in no log', async () => {
    const { phoneNumber, deviceToken } = await owner();
    await send(phoneNumber, deviceToken);
    await verify('x', '123456', deviceToken);
    await send(phoneNumber, `${deviceToken}=`.repeat(5));
    const logs = world.instances[0]!.logs.join('');
    expect(logs).toContain('send-otp');
    expect(logs).not.toContain(deviceToken.split('.')[3]!);
  });
});
