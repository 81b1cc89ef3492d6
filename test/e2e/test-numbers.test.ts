import { lasting } from '../support/crowd';
import { usageOf, WITH_ADMIN } from '../support/admin';
import { dateOfService } from '../support/service-clock';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startInstance,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const DAY_MS = 86_400_000;
/** A day of UTC, at whose beginning a number expires. It is not the next day, which may begin while the tests run. */
const LAST_DAY = new Date(Date.now() + 2 * DAY_MS).toISOString().slice(0, 10);
const REVIEW = '+910000000001';
const OTHER = '+910000000002';
const EXPIRED = '+910000000003';
const UNKNOWN = '+910000000004';
const CODES: Record<string, string> = { [REVIEW]: '123456', [OTHER]: '000000', [EXPIRED]: '654321' };
const TEST_NUMBERS = `${REVIEW}:123456:${LAST_DAY},${OTHER}:000000,${EXPIRED}:654321:2020-01-31`;

const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });
const claims = (token: unknown): Record<string, unknown> =>
  JSON.parse(Buffer.from(String(token).split('.')[1] ?? '', 'base64url').toString()) as Record<
    string,
    unknown
  >;

/** An introspection request by the client that may ask. */
const introspectAt = (url: string, token: unknown): Promise<Answer> =>
  call('POST', `${url}/oauth/introspect`, new URLSearchParams({ token: String(token) }).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}`,
  });

/** The whole login with a test number, which gets no SMS. */
async function enter(url: string, phoneNumber = REVIEW): Promise<Answer> {
  const sent = await sendOtp(url, phoneNumber);
  expect(statusAndCode(sent)).toEqual([200, undefined]);
  return verifyOtp(url, sent.body.requestId, CODES[phoneNumber]);
}

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({
      variables: {
        STARTMESSAGING_CONTRACT: contract,
        TEST_NUMBERS,
        INTROSPECTION_CLIENTS: INTROSPECTOR,
      },
    });
  });
  afterEach(() => {
    world.upstream.reset();
  });
  afterAll(() => world.close());

  const introspect = async (token: unknown): Promise<Record<string, unknown>> =>
    (await introspectAt(world.url, token)).body as Record<string, unknown>;

  it(`a test number logs in with its configured code and reaches no provider under the ${contract} contract`, async () => {
    const sent = await sendOtp(world.url, REVIEW);
    expect(sent.body).toMatchObject({ attemptsLeft: 3, delivery: 'delivered' });
    const status = await call('GET', `${world.url}/auth/otp/${sent.body.requestId}`);
    expect(status.body).toMatchObject({ state: 'pending', delivery: 'delivered' });
    const verified = await verifyOtp(world.url, sent.body.requestId, '123456');
    expect(verified.body).toMatchObject({ verified: true, user: { phoneNumber: REVIEW } });
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(verified.body.accessToken));
    expect(me.body).toMatchObject({ id: verified.body.user.id, phoneNumber: REVIEW });
    // Its code is used like any other.
    expect(statusAndCode(await verifyOtp(world.url, sent.body.requestId, '123456'))).toEqual([
      410,
      'otp_expired',
    ]);
    expect(world.upstream.calls).toEqual([]);
  });

  it(`the tokens of a test number, and only these, carry the claim test under the ${contract} contract`, async () => {
    const { body } = await enter(world.url);
    expect(claims(body.accessToken).test).toBe(true);
    expect((await introspect(body.accessToken)).test).toBe(true);
    const refreshed = await call('POST', `${world.url}/auth/refresh`, { refreshToken: body.refreshToken });
    expect(claims(refreshed.body.accessToken).test).toBe(true);

    const real = (await login(world)).body;
    expect(claims(real.accessToken)).not.toHaveProperty('test');
    expect(await introspect(real.accessToken)).not.toHaveProperty('test');
    const next = await call('POST', `${world.url}/auth/refresh`, { refreshToken: real.refreshToken });
    expect(claims(next.body.accessToken)).not.toHaveProperty('test');
  });

  it(`the code of a test number is wrong for every other number under the ${contract} contract, and the reverse`, async () => {
    const phoneNumber = freshNumber();
    const real = await sendOtp(world.url, phoneNumber);
    const [test, other] = [await sendOtp(world.url, REVIEW), await sendOtp(world.url, OTHER)];
    const code = textedCode(world.upstream, phoneNumber);
    for (const [requestId, wrong] of [
      [real.body.requestId, '123456'],
      [real.body.requestId, '000000'],
      [test.body.requestId, '000000'],
      [test.body.requestId, code],
      [other.body.requestId, '123456'],
    ])
      expect(statusAndCode(await verifyOtp(world.url, requestId, wrong))).toEqual([400, 'otp_incorrect']);
    // Nor do parts of two request ids make one.
    for (const [one, two] of [
      [real, test],
      [test, real],
      [test, other],
    ] as const) {
      const mixed = String(one.body.requestId).slice(0, 22) + String(two.body.requestId).slice(22);
      expect(statusAndCode(await verifyOtp(world.url, mixed, '123456'))).toEqual([410, 'otp_expired']);
    }
    expect((await verifyOtp(world.url, real.body.requestId, code)).status).toBe(200);
    expect((await verifyOtp(world.url, test.body.requestId, '123456')).body.user.phoneNumber).toBe(REVIEW);
    expect((await verifyOtp(world.url, other.body.requestId, '000000')).body.user.phoneNumber).toBe(OTHER);
  });

  it(`a repeat for a test number under an Idempotency-Key gets the same response under the ${contract} contract`, async () => {
    const headers = { 'idempotency-key': `a-key-of-${contract}-1` };
    const [sent, resent] = [
      await sendOtp(world.url, REVIEW, headers),
      await sendOtp(world.url, REVIEW, headers),
    ];
    expect(lasting(resent)).toEqual(lasting(sent));
    const wrong = { 'idempotency-key': 'a-wrong-code-key' };
    for (let i = 0; i < 2; i++)
      expect((await verifyOtp(world.url, sent.body.requestId, '123457', wrong)).body).toMatchObject({
        code: 'otp_incorrect',
        attemptsLeft: 2,
      });
    const [first, again] = [
      await verifyOtp(world.url, sent.body.requestId, '123456', headers),
      await verifyOtp(world.url, sent.body.requestId, '123456', headers),
    ];
    expect([first.status, again.status]).toEqual([200, 200]);
    expect(again.body).toMatchObject({
      refreshToken: first.body.refreshToken,
      deviceToken: first.body.deviceToken,
      user: first.body.user,
    });
    expect(world.upstream.calls).toEqual([]);
  });

  it(`send-otp refuses a test number that is not configured or has expired under the ${contract} contract`, async () => {
    for (const phoneNumber of [UNKNOWN, EXPIRED]) {
      const answer = await sendOtp(world.url, phoneNumber);
      expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
      expect(answer.body.errors).toEqual([expect.objectContaining({ field: 'phoneNumber' })]);
      expect(JSON.stringify(answer.body)).not.toContain(phoneNumber.slice(3));
    }
    expect(world.upstream.calls).toEqual([]);
  });

  it(`send-otp refuses texts that only look like a test number under the ${contract} contract`, async () => {
    const texts = [
      '+910',
      '+91000000001',
      '+9100000000012',
      '910000000001',
      '+91 0000000001',
      '+91000000000१',
    ];
    for (const phoneNumber of texts)
      expect([phoneNumber, ...statusAndCode(await sendOtp(world.url, phoneNumber))]).toEqual([
        phoneNumber,
        400,
        'validation_failed',
      ]);
  });
});

describe('the limits', () => {
  let world: World;
  afterEach(() => world.close());

  it('test numbers neither obey nor use up the limits of SMS and the budget', async () => {
    world = await startWorld({
      variables: {
        ...WITH_ADMIN,
        TEST_NUMBERS,
        LIMIT_PHONE: '1/600',
        LIMIT_GLOBAL: '2/600',
        BUDGET_PAISE_PER_HOUR: '25',
        BUDGET_PAISE_PER_DAY: '50',
      },
    });
    for (let i = 0; i < 5; i++) expect((await enter(world.url)).status).toBe(200);
    // No reserve of the budget is kept for a test number that logged in.
    expect(await usageOf(world)).toMatchObject({ sent: 0, verified: 0, costPaise: 0 });
    expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
    expect(statusAndCode(await sendOtp(world.url, freshNumber()))).toEqual([503, 'sms_unavailable']);
    expect((await enter(world.url)).status).toBe(200);
    expect(await usageOf(world)).toMatchObject({ sent: 1, verified: 0, costPaise: 25 });
  });

  it('wrong codes for a test number use up its attempts and lock it, and no other test number', async () => {
    world = await startWorld({ variables: { TEST_NUMBERS, LIMIT_FAILED_CODES: '4/3600' } });
    const { body } = await sendOtp(world.url, REVIEW);
    for (const attemptsLeft of [2, 1, 0]) {
      const wrong = await verifyOtp(world.url, body.requestId, wrongCode('123456'));
      expect(wrong.body).toMatchObject({ status: 400, code: 'otp_incorrect', attemptsLeft });
    }
    const exhausted = await verifyOtp(world.url, body.requestId, '123456');
    expect(statusAndCode(exhausted)).toEqual([410, 'otp_attempts_exhausted']);
    const { body: second } = await sendOtp(world.url, REVIEW);
    expect((await verifyOtp(world.url, second.requestId, wrongCode('123456'))).status).toBe(400);
    expect(statusAndCode(await verifyOtp(world.url, second.requestId, '123456'))).toEqual([
      429,
      'phone_locked',
    ]);
    expect(statusAndCode(await sendOtp(world.url, REVIEW))).toEqual([429, 'phone_locked']);
    expect((await enter(world.url, OTHER)).status).toBe(200);
  });

  it('sixty guesses at once for a test number use up exactly three attempts', async () => {
    world = await startWorld({ variables: { TEST_NUMBERS } });
    const { body } = await sendOtp(world.url, REVIEW);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) => verifyOtp(world.url, body.requestId, String(200_000 + i))),
    );
    expect(answers.filter(({ status }) => status === 400)).toHaveLength(3);
    expect(statusAndCode(await verifyOtp(world.url, body.requestId, '123456'))).toEqual([
      410,
      'otp_attempts_exhausted',
    ]);
  });

  it('LIMIT_IP counts the sends to test numbers', async () => {
    world = await startWorld({ variables: { TEST_NUMBERS, LIMIT_IP: '2/600' } });
    expect((await enter(world.url)).status).toBe(200);
    expect((await enter(world.url)).status).toBe(200);
    expect(statusAndCode(await sendOtp(world.url, REVIEW))).toEqual([429, 'rate_limited']);
  });
});

describe('the sessions of a test number', () => {
  let world: World;
  const extra: Instance[] = [];
  beforeAll(async () => {
    world = await startWorld({ variables: { TEST_NUMBERS, INTROSPECTION_CLIENTS: INTROSPECTOR } });
  });
  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(extra.splice(0).map((instance) => instance.close()));
  });
  afterAll(() => world.close());

  const refresh = (token: unknown, url = world.url): Promise<Answer> =>
    call('POST', `${url}/auth/refresh`, { refreshToken: token });
  /** One more instance over the same Redis. */
  async function another(variables: Variables): Promise<string> {
    const instance = await startInstance({
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
      ...variables,
    });
    extra.push(instance);
    return instance.url;
  }

  it.each<[string, Variables]>([
    ['is removed', { TEST_NUMBERS: `${OTHER}:000000` }],
    ['is removed with all others', { TEST_NUMBERS: undefined }],
    ['has expired', { TEST_NUMBERS: `${REVIEW}:123456:2020-01-31` }],
  ])('the sessions of a test number end when it %s', async (_, variables) => {
    const { body } = await enter(world.url);
    const without = await another(variables);
    expect(statusAndCode(await refresh(body.refreshToken, without))).toEqual([401, 'session_expired']);
    expect(statusAndCode(await sendOtp(without, REVIEW))).toEqual([400, 'validation_failed']);
    const cookie = { cookie: `__Host-refresh=${body.refreshToken}`, origin: 'http://localhost:3000' };
    const byCookie = await call('POST', `${without}/auth/refresh`, {}, cookie);
    expect(statusAndCode(byCookie)).toEqual([401, 'session_expired']);
    expect(byCookie.headers.getSetCookie()[0]).toMatch(/^__Host-refresh=; .*Max-Age=0/);
  });

  it('the sessions and codes of a test number end at the beginning of its last day, while the service runs', async () => {
    const { body } = await enter(world.url);
    const open = await sendOtp(world.url, REVIEW);
    const midnight = Date.parse(LAST_DAY);
    const clock = jest.spyOn(dateOfService(), 'now').mockReturnValue(midnight - 1);
    const next = await refresh(body.refreshToken);
    expect(next.status).toBe(200);
    clock.mockReturnValue(midnight);
    expect(statusAndCode(await refresh(next.body.refreshToken))).toEqual([401, 'session_expired']);
    expect(statusAndCode(await sendOtp(world.url, REVIEW))).toEqual([400, 'validation_failed']);
    // A code that was sent before is void.
    expect(statusAndCode(await verifyOtp(world.url, open.body.requestId, '123456'))).toEqual([
      410,
      'otp_expired',
    ]);
    const forever = await sendOtp(world.url, OTHER);
    expect((await verifyOtp(world.url, forever.body.requestId, '000000')).status).toBe(200);
  });

  it('/auth/me and introspection refuse the tokens of a test number that has expired', async () => {
    const { url } = world;
    const midnight = Date.parse(LAST_DAY);
    const clock = jest.spyOn(dateOfService(), 'now').mockReturnValue(midnight - 60_000);
    const { body } = await enter(url);
    const me = (): Promise<Answer> => call('GET', `${url}/auth/me`, undefined, bearer(body.accessToken));
    clock.mockReturnValue(midnight - 1);
    expect((await me()).status).toBe(200);
    clock.mockReturnValue(midnight);
    expect(statusAndCode(await me())).toEqual([401, 'session_expired']);
    for (const token of [body.accessToken, body.refreshToken])
      expect((await introspectAt(url, token)).body).toEqual({ active: false });
  });
});
