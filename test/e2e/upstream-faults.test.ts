import type { FaultScript } from '../../src/emulator/emulator';
import { ADMIN_TOKENS, bill } from '../support/crowd';
import {
  freshNumber,
  anotherInstance,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

type Fault = FaultScript['fault'];
const error = (status: number, code: string, more: Record<string, unknown> = {}): Fault => ({
  kind: 'error',
  status,
  code,
  ...more,
});

let world: World;
/** Gives up on an upstream that hangs, after a real wait. The other one is patient. */
let hasty: Instance;

async function verifyTexted({ body }: Answer, phoneNumber: string): Promise<number> {
  const code = textedCode(world.upstream, phoneNumber);
  return (await verifyOtp(world.url, body.requestId, code)).status;
}

/** What is the same under both contracts: fault, our status and code, Retry-After, alert. */
const REFUSALS: [string, Fault, number, string, { retryAfter?: string; alert?: string }][] = [
  [
    'a refusal of the phone number',
    error(400, 'VALIDATION_ERROR', { details: ['phoneNumber must be valid'] }),
    400,
    'phone_number_rejected',
    {},
  ],
  [
    'a refusal of the templateId',
    error(400, 'VALIDATION_ERROR', { details: ['templateId must be a UUID'] }),
    500,
    'internal_error',
    { alert: 'request_malformed' },
  ],
  [
    'an empty wallet',
    error(400, 'INSUFFICIENT_BALANCE'),
    503,
    'sms_unavailable',
    { alert: 'wallet_exhausted' },
  ],
  [
    'an empty wallet as 402',
    error(402, 'INSUFFICIENT_BALANCE'),
    503,
    'sms_unavailable',
    { alert: 'wallet_exhausted' },
  ],
  [
    'a 402 of another code',
    error(402, 'PAYMENT_REQUIRED'),
    503,
    'sms_unavailable',
    { alert: 'wallet_exhausted' },
  ],
  ['the limit of the number', error(400, 'RATE_LIMIT_EXCEEDED'), 429, 'rate_limited', { retryAfter: '300' }],
  ['a refusal by the SMS route', error(400, 'OTP_SEND_FAILED'), 502, 'upstream_unavailable', {}],
  ['a bad API key', error(401, 'UNAUTHORIZED'), 500, 'internal_error', { alert: 'upstream_credentials' }],
  [
    'an account that is not onboarded',
    error(403, 'FORBIDDEN'),
    500,
    'internal_error',
    { alert: 'upstream_credentials' },
  ],
  [
    'a missing route',
    error(404, 'NOT_FOUND', { message: 'Cannot POST /otp/send' }),
    503,
    'sms_unavailable',
    { alert: 'contract_mismatch' },
  ],
  [
    'a throttle of 17 seconds',
    error(429, 'INTERNAL_ERROR', { headers: { 'retry-after': '17' } }),
    429,
    'rate_limited',
    { retryAfter: '17' },
  ],
  ['a throttle of no stated time', error(429, 'INTERNAL_ERROR'), 429, 'rate_limited', { retryAfter: '60' }],
  [
    'a redirect',
    { kind: 'raw', status: 302, headers: { location: 'http://127.0.0.1:1/' } },
    503,
    'sms_unavailable',
    { alert: 'contract_mismatch' },
  ],
];

const UNKNOWN_FATE =
  'a send that ends in %s under the caller contract is a 200 of unknown delivery, is paid for, is never repeated, and its code works';
const UNKNOWN_FATES: [string, Fault][] = [
  ['a reset', { kind: 'reset', when: 'after' }],
  ['half an answer', { kind: 'cut' }],
  ['malformed JSON', { kind: 'malformed' }],
  ['a 500', error(500, 'INTERNAL_ERROR', { when: 'after' })],
  ['a page of a proxy', { kind: 'html', status: 502, when: 'after' }],
  ['a page with 200', { kind: 'html', status: 200, when: 'after' }],
  ['a huge answer', { kind: 'huge' }],
  ['a gzip bomb', { kind: 'huge', gzip: true }],
  ['a duplicate key', error(409, 'CONFLICT', { when: 'after' })],
];

const HANGS: [string, Fault][] = [
  ['a timeout', { kind: 'timeout', when: 'after' }],
  ['a trickle', { kind: 'slow', delayMs: 600_000, trickle: true }],
];

/** Under this contract a repeat would be a second SMS and a second charge. */
async function expectUnknownFate(fault: Fault, url: string): Promise<void> {
  const before = await bill(world);
  world.upstream.fault({ on: 'send', times: 1, fault });
  const phoneNumber = freshNumber();
  const answer = await sendOtp(url, phoneNumber);
  expect([answer.status, answer.body.delivery]).toEqual([200, 'unknown']);
  expect(world.upstream.calls).toHaveLength(1);
  expect(world.upstream.messages).toHaveLength(1);
  const after = await bill(world);
  expect([after.costPaise - before.costPaise, after.refunded - before.refunded]).toEqual([25, 0]);
  expect(await verifyTexted(answer, phoneNumber)).toBe(200);
}

type Failure = [name: string, fault: Fault, status: number, code: string];
const FAILURES: Failure[] = [
  ['a reset', { kind: 'reset', when: 'after' }, 502, 'upstream_unavailable'],
  ['malformed JSON', { kind: 'malformed' }, 502, 'upstream_unavailable'],
  ['a 500', error(500, 'INTERNAL_ERROR'), 502, 'upstream_unavailable'],
  ['a page of a proxy', { kind: 'html', status: 502 }, 502, 'upstream_unavailable'],
  ['a huge answer', { kind: 'huge' }, 502, 'upstream_unavailable'],
];

const TIMEOUT: Failure = ['a timeout', { kind: 'timeout', when: 'after' }, 504, 'upstream_timeout'];

const REPEATED =
  'a send that ends in %s once under the provider contract is repeated under the same key and makes one SMS';
async function expectRepeated(fault: Fault): Promise<void> {
  world.upstream.fault({ on: 'send', times: 1, fault });
  const phoneNumber = freshNumber();
  const answer = await sendOtp(world.url, phoneNumber);
  expect(answer.status).toBe(200);
  expectOneKey(2);
  expect(world.upstream.messages).toHaveLength(1);
  expect(await verifyTexted(answer, phoneNumber)).toBe(200);
}

/** Upstream was called so often, always under one key. */
function expectOneKey(calls: number): void {
  const keys = world.upstream.calls.map(({ body }) => (body as { idempotencyKey: string }).idempotencyKey);
  expect([keys.length, new Set(keys).size]).toEqual([calls, 1]);
}

const GIVEN_UP =
  'a send that ends in %s every time under the provider contract gets an error after three calls';
async function expectGivenUp([, fault, status, code]: Failure, url: string): Promise<void> {
  world.upstream.fault({ on: 'send', times: 0, fault });
  expect(statusAndCode(await sendOtp(url, freshNumber()))).toEqual([status, code]);
  await until(() => world.upstream.calls.length >= 3, 'the third call at upstream');
  expectOneKey(3);
  expect(world.upstream.messages.length).toBeLessThanOrEqual(1);
}

/** Sends, fails one verification, and tells its answer and how many attempts were left after it. */
async function failOnce(
  fault: Fault,
  url = world.url,
): Promise<{ answer: Answer; left: number; token: boolean }> {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  world.upstream.fault({ on: 'verify', times: 0, fault });
  const answer = await verifyOtp(url, body.requestId, code);
  world.upstream.reset();
  // Upstream has forgotten everything; a wrong code here only reads our own count.
  world.upstream.fault({ on: 'verify', times: 0, fault: { kind: 'unverified' } });
  const next = await verifyOtp(world.url, body.requestId, wrongCode(code));
  return {
    answer,
    left: (next.body.attemptsLeft as number) + 1,
    token: 'accessToken' in (answer.body as object),
  };
}

function verifications(): void {
  it.each<[string, Fault, number, string]>([
    ['a bad API key', error(401, 'UNAUTHORIZED'), 500, 'internal_error'],
    ['an empty wallet', error(402, 'INSUFFICIENT_BALANCE'), 503, 'sms_unavailable'],
    ['no onboarding', error(403, 'FORBIDDEN'), 500, 'internal_error'],
    ['a throttle', error(429, 'INTERNAL_ERROR'), 429, 'rate_limited'],
    ['the limit of the number', error(400, 'RATE_LIMIT_EXCEEDED'), 429, 'rate_limited'],
    [
      'a missing route',
      error(404, 'NOT_FOUND', { message: 'Cannot POST /otp/verify' }),
      503,
      'sms_unavailable',
    ],
    [
      'a demand for variables',
      error(400, 'VALIDATION_ERROR', { details: ['variables.otp is required'] }),
      503,
      'sms_unavailable',
    ],
    ['a redirect', { kind: 'raw', status: 301, headers: { location: '/' } }, 503, 'sms_unavailable'],
    ['a 400 of a proxy', { kind: 'html', status: 400 }, 503, 'sms_unavailable'],
  ])('a verification that upstream answers with %s costs no attempt', async (_name, fault, status, code) => {
    const { answer, left } = await failOnce(fault);
    expect([...statusAndCode(answer), left]).toEqual([status, code, 3]);
  });

  it.each<[string, Fault, number, string]>([
    ['a reset', { kind: 'reset', when: 'before' }, 502, 'upstream_unavailable'],
    ['a 500', error(500, 'INTERNAL_ERROR'), 502, 'upstream_unavailable'],
    ['a 503', error(503, 'SERVICE_UNAVAILABLE'), 502, 'upstream_unavailable'],
    ['a page', { kind: 'html', status: 200 }, 502, 'upstream_unavailable'],
    ['an empty object', { kind: 'raw', status: 200, body: {} }, 502, 'upstream_unavailable'],
    ['verified as a text', { kind: 'verified', value: 'true' }, 502, 'upstream_unavailable'],
    ['verified as 1', { kind: 'verified', value: 1 }, 502, 'upstream_unavailable'],
    [
      'verified at the top',
      { kind: 'raw', status: 200, body: { success: true, verified: true } },
      502,
      'upstream_unavailable',
    ],
    [
      'verified but failed',
      { kind: 'raw', status: 200, body: { success: false, data: { verified: true } } },
      502,
      'upstream_unavailable',
    ],
    ['an expired code', error(410, 'OTP_EXPIRED'), 410, 'otp_expired'],
    ['an unknown request', error(404, 'NOT_FOUND', { message: 'No such OTP request' }), 410, 'otp_expired'],
  ])(
    'a verification that upstream answers with %s costs the attempt and gives no token',
    async (_name, fault, status, code) => {
      const { answer, left, token } = await failOnce(fault);
      expect([...statusAndCode(answer), left, token]).toEqual([status, code, 2, false]);
    },
  );

  it('a verification that upstream answers with verified: false is a wrong code', async () => {
    const { answer, left } = await failOnce({ kind: 'unverified' });
    expect([...statusAndCode(answer), answer.body.attemptsLeft, left]).toEqual([400, 'otp_incorrect', 2, 2]);
  });

  it('a verification that meets a timeout costs the attempt and gives no token', async () => {
    const { answer, left, token } = await failOnce({ kind: 'timeout', when: 'before' }, hasty.url);
    expect([...statusAndCode(answer), left, token]).toEqual([504, 'upstream_timeout', 2, false]);
  });

  it('a verification gets a 502 and costs no attempt when upstream cannot be reached', async () => {
    const { body } = await sendOtp(world.url, freshNumber());
    // Nobody listens there.
    const lost = await anotherInstance(world, {
      STARTMESSAGING_CONTRACT: 'provider',
      STARTMESSAGING_BASE_URL: 'http://127.0.0.1:1',
    });
    // More often than there are attempts.
    for (let i = 0; i < 4; i++)
      expect(statusAndCode(await verifyOtp(lost.url, body.requestId, '123456'))).toEqual([
        502,
        'upstream_unavailable',
      ]);
    await lost.close();
  });

  it('an upstream of the other contract is an alert and never a wrong code or a login', async () => {
    world.upstream.settings.contract = 'caller';
    expect(statusAndCode(await sendOtp(world.url, freshNumber()))).toEqual([503, 'sms_unavailable']);
    expect(world.instances[0]?.logs.join('')).toContain('"alert":"contract_mismatch"');
  });
}

describe.each(['caller', 'provider'] as const)('upstream under the %s contract', (contract) => {
  beforeAll(async () => {
    const variables = { ADMIN_TOKENS, OTP_MAX_ATTEMPTS: '3', STARTMESSAGING_CONTRACT: contract };
    world = await startWorld({ variables });
    hasty = await anotherInstance(world, { ...variables, UPSTREAM_TIMEOUT_MS: '700' });
    world.instances.push(hasty);
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
    world.instances[0]?.logs.splice(0);
  });

  it.each(REFUSALS)(
    'a send that upstream answers with %s gets the documented response after one call',
    async (_name, fault, status, code, more) => {
      world.upstream.fault({ on: 'send', times: 0, fault });
      const answer = await sendOtp(world.url, freshNumber());
      expect(statusAndCode(answer)).toEqual([status, code]);
      if (more.retryAfter) expect(answer.headers.get('retry-after')).toBe(more.retryAfter);
      const logs = world.instances[0]?.logs.join('') ?? '';
      if (more.alert) expect(logs).toContain(`"alert":"${more.alert}"`);
      else expect(logs).not.toContain('"alert"');
      expect(world.upstream.calls).toHaveLength(1);
      expect(world.upstream.messages).toHaveLength(0);
      // Nothing of upstream's words reaches the caller.
      expect(JSON.stringify(answer.body)).not.toMatch(/templateId|Cannot|balance/i);
    },
  );

  it('a send that upstream throttles until a date gets a 429 with the seconds until then', async () => {
    const date = Math.ceil(Date.now() / 1_000) * 1_000 + 30_000;
    const headers = { 'retry-after': new Date(date).toUTCString() };
    world.upstream.fault({ on: 'send', fault: error(429, 'INTERNAL_ERROR', { headers }) });
    const before = Date.now();
    const answer = await sendOtp(world.url, freshNumber());
    const after = Date.now();
    expect(answer.status).toBe(429);
    const seconds = Number(answer.headers.get('retry-after'));
    expect(seconds).toBeGreaterThanOrEqual(Math.max(1, Math.floor((date - after) / 1_000)));
    expect(seconds).toBeLessThanOrEqual(Math.ceil((date - before) / 1_000));
  });

  it('a send that upstream answers with 503 twice is asked for three times and makes one SMS', async () => {
    world.upstream.fault({ on: 'send', times: 2, fault: error(503, 'SERVICE_UNAVAILABLE') });
    const phoneNumber = freshNumber();
    const answer = await sendOtp(world.url, phoneNumber);
    expect(answer.status).toBe(200);
    expect(world.upstream.calls).toHaveLength(3);
    expect(world.upstream.messages).toHaveLength(1);
    expect(await verifyTexted(answer, phoneNumber)).toBe(200);
  });

  it('a send that upstream always answers with 503 gets a 502 after three calls', async () => {
    world.upstream.fault({ on: 'send', times: 0, fault: error(503, 'SERVICE_UNAVAILABLE') });
    expect(statusAndCode(await sendOtp(world.url, freshNumber()))).toEqual([502, 'upstream_unavailable']);
    expect(world.upstream.calls).toHaveLength(3);
  });

  if (contract === 'caller') {
    it.each(UNKNOWN_FATES)(UNKNOWN_FATE, (_, fault) => expectUnknownFate(fault, world.url));
    it.each(HANGS)(UNKNOWN_FATE, (_, fault) => expectUnknownFate(fault, hasty.url));
  } else {
    it.each(FAILURES)(REPEATED, (_, fault) => expectRepeated(fault));
    it.each(FAILURES)(GIVEN_UP, (...failure) => expectGivenUp(failure, world.url));
    it.each([TIMEOUT])(GIVEN_UP, (...failure) => expectGivenUp(failure, hasty.url));
    describe('a verification', verifications);
  }
});
