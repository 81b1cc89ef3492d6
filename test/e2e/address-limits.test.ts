import { solveChallenge, type Challenge } from 'altcha-lib';
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2';
import { deviceTokenOf } from '../support/device-tokens';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

const SENDS = 4;
const VERIFIES = 6;
let world: World;

beforeAll(async () => {
  world = await startWorld({
    count: 2,
    variables: {
      LIMIT_IP: `${SENDS}/600,${5 * SENDS}/3600`,
      LIMIT_VERIFY_IP: `${VERIFIES}/600`,
      TRUSTED_PROXIES: '127.0.0.0/8',
    },
  });
});
afterAll(() => world.close());
beforeEach(() => redisCommand(world, 'FLUSHDB'));

const from = (address: string, more: Record<string, string> = {}): Record<string, string> => ({
  'x-forwarded-for': address,
  ...more,
});
let asked = 0;
/** The replicas in turn. */
const url = (): string => world.instances[asked++ % 2]!.url;
const post = (path: string, body: unknown, headers: Record<string, string>): Promise<Answer> =>
  call('POST', `${url()}${path}`, body, headers);
const send = (body: Record<string, unknown>, address: string): Promise<Answer> =>
  post('/auth/send-otp', { phoneNumber: freshNumber(), ...body }, from(address));
const many = (count: number, one: (i: number) => Promise<Answer>): Promise<Answer[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => one(i)));
const statuses = (answers: Answer[]): Record<number, number> => {
  const counts: Record<number, number> = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
};

describe('requests that are refused before they cost anything', () => {
  const NAT = '203.0.113.1';
  // What any web page can let its visitors send: no CORS, no preflight.
  const refusals: [string, (i: number) => Promise<Answer>][] = [
    ['empty bodies', () => post('/auth/send-otp', undefined, from(NAT))],
    ['forms', () => post('/auth/send-otp', 'a=b', from(NAT, { 'content-type': 'text/plain' }))],
    [
      'bodies of 17 KB',
      () => post('/auth/send-otp', 'x'.repeat(17_000), from(NAT, { 'content-type': 'application/json' })),
    ],
    ['sends with an invalid altcha', () => send({ altcha: 5 }, NAT)],
    [
      'sends with an Idempotency-Key of 300 characters',
      () =>
        post(
          '/auth/send-otp',
          { phoneNumber: freshNumber() },
          from(NAT, { 'idempotency-key': 'k'.repeat(300) }),
        ),
    ],
  ];

  it.each(refusals)(
    'ten times LIMIT_IP of %s stop no other client behind the address',
    async (_, refused) => {
      const answers = await many(10 * SENDS + 5, refused);
      expect(statuses(answers)[429]).toBe(5);
      expect(statuses(await many(SENDS, () => send({}, NAT)))).toEqual({ 200: SENDS });
      expect((await send({}, NAT)).status).toBe(429);
    },
  );

  it('ten times LIMIT_VERIFY_IP of empty verifications stop no other client behind the address', async () => {
    const sent = await send({}, NAT);
    const answers = await many(10 * VERIFIES + 5, () => post('/auth/verify-otp', {}, from(NAT)));
    expect(statuses(answers)).toEqual({ 400: 10 * VERIFIES, 429: 5 });
    const { phoneNumber } = world.upstream.messages.at(-1)!;
    const verified = await verifyOtp(
      url(),
      sent.body.requestId,
      textedCode(world.upstream, phoneNumber),
      from(NAT),
    );
    expect(verified.status).toBe(200);
  });

  it('a verification with a cookie from a foreign origin counts in full, whatever its origin', async () => {
    const body = { requestId: 'x', otpCode: '123456', tokenDelivery: 'cookie' };
    const headers = from('203.0.113.2', { origin: 'https://evil.example' });
    const answers = await many(VERIFIES + 3, () => post('/auth/verify-otp', body, headers));
    expect(statuses(answers)).toEqual({ 403: VERIFIES, 429: 3 });
  });
});

describe('what raises the limit of an address', () => {
  it('a device token of the number raises LIMIT_IP to three times its value, and never beyond', async () => {
    const address = '203.0.113.3';
    expect(statuses(await many(SENDS, () => send({}, address)))).toEqual({ 200: SENDS });
    const returning = (): Promise<Answer> => {
      const phoneNumber = freshNumber();
      return send({ phoneNumber, deviceToken: deviceTokenOf(phoneNumber, Date.now()) }, address);
    };
    const other = deviceTokenOf(freshNumber(), Date.now());
    expect((await send({ deviceToken: other }, address)).status).toBe(429);
    expect(statuses(await many(3 * SENDS, returning))).toEqual({ 200: 2 * SENDS, 429: SENDS });
    const refused = await returning();
    expect(statusAndCode(refused)).toEqual([429, 'rate_limited']);
    expect(refused.body).not.toHaveProperty('challenge');
  });

  it('a device token of the number raises LIMIT_VERIFY_IP to three times its value', async () => {
    const address = '203.0.113.4';
    const sent = await sendOtp(url(), freshNumber());
    const { phoneNumber } = world.upstream.messages.at(-1)!;
    const wrong = (deviceToken?: string) => (): Promise<Answer> =>
      post(
        '/auth/verify-otp',
        {
          requestId: sent.body.requestId,
          otpCode: wrongCode(textedCode(world.upstream, phoneNumber)),
          deviceToken,
        },
        from(address),
      );
    expect(statuses(await many(VERIFIES + 1, wrong()))).toEqual({ 400: 3, 410: VERIFIES - 3, 429: 1 });
    const token = deviceTokenOf(phoneNumber, Date.now());
    const raised = await many(3 * VERIFIES, wrong(token));
    expect(statuses(raised)).toEqual({ 410: 2 * VERIFIES, 429: VERIFIES });
  });

  it('a solved proof of work raises LIMIT_IP for one send, and 429 carries the challenge', async () => {
    const address = '203.0.113.5';
    await many(SENDS, () => send({}, address));
    const phoneNumber = freshNumber();
    const refused = await send({ phoneNumber }, address);
    expect(statusAndCode(refused)).toEqual([429, 'rate_limited']);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    const challenge = refused.body.challenge as Challenge;
    const solution = await solveChallenge({ challenge, deriveKey });
    const altcha = Buffer.from(JSON.stringify({ challenge, solution })).toString('base64');
    expect((await send({ phoneNumber: freshNumber(), altcha }, address)).status).toBe(429);
    const answers = await many(8, () => send({ phoneNumber, altcha }, address));
    expect(statuses(answers)).toEqual({ 200: 1, 429: 7 });
    for (const { status, body } of answers) if (status === 429) expect(body).toHaveProperty('challenge');
  });
});

describe('verifications behind one address', () => {
  it('a success gives its place back, so that more clients than LIMIT_VERIFY_IP log in', async () => {
    for (let i = 0; i < VERIFIES + 2; i++) {
      const phoneNumber = freshNumber();
      const sent = await sendOtp(url(), phoneNumber, from(`203.0.114.${i}`));
      const code = textedCode(world.upstream, phoneNumber);
      const answer = await verifyOtp(url(), sent.body.requestId, code, from('203.0.113.6'));
      expect(answer.status).toBe(200);
    }
  });

  it('failures of other clients at an address do not stop a client that asked for its code there, and its own bucket has three places', async () => {
    const address = '203.0.113.8';
    const asked = async (): Promise<{ requestId: string; code: string }> => {
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(url(), phoneNumber, from(address));
      return { requestId: body.requestId as string, code: textedCode(world.upstream, phoneNumber) };
    };
    const [honest, clumsy] = [await asked(), await asked()];
    const garbage = (): Promise<Answer> => verifyOtp(url(), 'x', '123456', from(address));
    expect(statuses(await many(VERIFIES + 2, garbage))).toEqual({ 410: VERIFIES, 429: 2 });

    const wrong = (): Promise<Answer> =>
      verifyOtp(url(), clumsy.requestId, wrongCode(clumsy.code), from(address));
    expect(statuses(await many(5, wrong))).toEqual({ 400: 3, 429: 2 });
    // From another address the same challenge is not its own.
    expect(
      (await verifyOtp(url(), honest.requestId, wrongCode(honest.code), from('203.0.113.9'))).status,
    ).toBe(400);
    expect((await verifyOtp(url(), honest.requestId, honest.code, from(address))).status).toBe(200);
  });

  it('a wrong code keeps its place', async () => {
    const address = '203.0.113.7';
    for (let i = 0; i < VERIFIES; i++) {
      const phoneNumber = freshNumber();
      const sent = await sendOtp(url(), phoneNumber, from(`203.0.115.${i}`));
      const code = wrongCode(textedCode(world.upstream, phoneNumber));
      expect((await verifyOtp(url(), sent.body.requestId, code, from(address))).status).toBe(400);
    }
    expect(statusAndCode(await verifyOtp(url(), 'x', '123456', from(address)))).toEqual([
      429,
      'rate_limited',
    ]);
  });
});

it('the metrics show how many addresses are counted, and how many share a counter', async () => {
  await login(world);
  const { body } = await call('GET', `${world.url}/metrics`);
  expect(body).toContain('otp_login_client_addresses{limit="address_send",counted="exactly"} 1');
  expect(body).toContain('otp_login_client_addresses{limit="address_send",counted="shared"} 0');
});
