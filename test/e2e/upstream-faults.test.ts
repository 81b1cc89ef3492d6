import type { FaultScript } from '../../src/emulator/emulator';
import {
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

type Fault = FaultScript['fault'];
const error = (status: number, code: string, more: Record<string, unknown> = {}): Fault => ({
  kind: 'error',
  status,
  code,
  ...more,
});

/** What is the same under both contracts: fault, our status and code, Retry-After, alert. */
const REFUSALS: [string, Fault, number, string, { retryAfter?: string; alert?: string }][] = [
  [
    'a refused phone number',
    error(400, 'VALIDATION_ERROR', { details: ['phoneNumber must be valid'] }),
    400,
    'phone_number_rejected',
    {},
  ],
  [
    'a refused templateId',
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
  ['a refusing SMS route', error(400, 'OTP_SEND_FAILED'), 502, 'upstream_unavailable', {}],
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
    'a throttle with seconds',
    error(429, 'INTERNAL_ERROR', { headers: { 'retry-after': '17' } }),
    429,
    'rate_limited',
    { retryAfter: '17' },
  ],
  ['a throttle without', error(429, 'INTERNAL_ERROR'), 429, 'rate_limited', { retryAfter: '60' }],
  [
    'a redirect',
    { kind: 'raw', status: 302, headers: { location: 'http://127.0.0.1:1/' } },
    503,
    'sms_unavailable',
    { alert: 'contract_mismatch' },
  ],
];

describe.each(['caller', 'provider'] as const)('upstream under the %s contract', (contract) => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: contract, UPSTREAM_TIMEOUT_MS: '300' },
    });
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
    world.instances[0]?.logs.splice(0);
  });

  it.each(REFUSALS)(
    'with %s on a send is answered as it should be, after one call',
    async (_name, fault, status, code, more) => {
      world.upstream.fault({ on: 'send', times: 0, fault });
      const answer = await sendOtp(world.url, freshNumber());
      expect([answer.status, answer.body.code]).toEqual([status, code]);
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

  it('with a throttle until a date is a 429 with seconds', async () => {
    const date = new Date(Date.now() + 30_000).toUTCString();
    world.upstream.fault({
      on: 'send',
      fault: error(429, 'INTERNAL_ERROR', { headers: { 'retry-after': date } }),
    });
    const answer = await sendOtp(world.url, freshNumber());
    expect(answer.status).toBe(429);
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(25);
    expect(Number(answer.headers.get('retry-after'))).toBeLessThanOrEqual(31);
  });

  it('that is busy twice (503) and then well is asked three times, and one SMS is sent', async () => {
    world.upstream.fault({ on: 'send', times: 2, fault: error(503, 'SERVICE_UNAVAILABLE') });
    const phoneNumber = freshNumber();
    const { status, body } = await sendOtp(world.url, phoneNumber);
    expect(status).toBe(200);
    expect(world.upstream.calls).toHaveLength(3);
    expect(world.upstream.messages).toHaveLength(1);
    expect((await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber))).status).toBe(
      200,
    );
  });

  it('that stays busy is a 502 after three calls', async () => {
    world.upstream.fault({ on: 'send', times: 0, fault: error(503, 'SERVICE_UNAVAILABLE') });
    const answer = await sendOtp(world.url, freshNumber());
    expect([answer.status, answer.body.code]).toEqual([502, 'upstream_unavailable']);
    expect(world.upstream.calls).toHaveLength(3);
  });
});

// Under this contract a repeat is a second SMS and a second charge.
describe('a send of unknown fate under the caller contract', () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: 'caller', UPSTREAM_TIMEOUT_MS: '300' },
    });
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
  });

  it.each<[string, Fault]>([
    ['a timeout', { kind: 'timeout', when: 'after' }],
    ['a reset', { kind: 'reset', when: 'after' }],
    ['half an answer', { kind: 'cut' }],
    ['malformed JSON', { kind: 'malformed' }],
    ['a 500', error(500, 'INTERNAL_ERROR', { when: 'after' })],
    ['a page of a proxy', { kind: 'html', status: 502, when: 'after' }],
    ['a page with 200', { kind: 'html', status: 200, when: 'after' }],
    ['a huge answer', { kind: 'huge' }],
    ['a gzip bomb', { kind: 'huge', gzip: true }],
    ['a trickle', { kind: 'slow', delayMs: 3_000, trickle: true }],
    ['a duplicate key', error(409, 'CONFLICT', { when: 'after' })],
  ])('after %s is a 200 of unknown delivery, is never repeated, and its code works', async (_name, fault) => {
    world.upstream.fault({ on: 'send', times: 1, fault });
    const phoneNumber = freshNumber();
    const answer = await sendOtp(world.url, phoneNumber);
    expect([answer.status, answer.body.delivery]).toEqual([200, 'unknown']);
    expect(world.upstream.calls).toHaveLength(1);
    expect(world.upstream.messages).toHaveLength(1);
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, answer.body.requestId, code)).status).toBe(200);
  });
});

describe('a send that fails under the provider contract', () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: 'provider', UPSTREAM_TIMEOUT_MS: '300' },
    });
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
  });

  const FAILURES: [string, Fault, number, string][] = [
    ['a timeout', { kind: 'timeout', when: 'after' }, 504, 'upstream_timeout'],
    ['a reset', { kind: 'reset', when: 'after' }, 502, 'upstream_unavailable'],
    ['malformed JSON', { kind: 'malformed' }, 502, 'upstream_unavailable'],
    ['a 500', error(500, 'INTERNAL_ERROR'), 502, 'upstream_unavailable'],
    ['a page of a proxy', { kind: 'html', status: 502 }, 502, 'upstream_unavailable'],
    ['a huge answer', { kind: 'huge' }, 502, 'upstream_unavailable'],
  ];

  it.each(FAILURES)('once by %s is repeated under the same key, and is one SMS', async (_name, fault) => {
    world.upstream.fault({ on: 'send', times: 1, fault });
    const phoneNumber = freshNumber();
    const answer = await sendOtp(world.url, phoneNumber);
    expect(answer.status).toBe(200);
    const keys = world.upstream.calls.map((call) => (call.body as { idempotencyKey: string }).idempotencyKey);
    expect([keys.length, new Set(keys).size]).toEqual([2, 1]);
    expect(world.upstream.messages).toHaveLength(1);
    expect(
      (await verifyOtp(world.url, answer.body.requestId, textedCode(world.upstream, phoneNumber))).status,
    ).toBe(200);
  });

  it.each(FAILURES)('always by %s is given up after three calls', async (_name, fault, status, code) => {
    world.upstream.fault({ on: 'send', times: 0, fault });
    const answer = await sendOtp(world.url, freshNumber());
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(world.upstream.calls).toHaveLength(3);
  });
});

describe('a verification that upstream does not answer well', () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: 'provider', UPSTREAM_TIMEOUT_MS: '300', OTP_MAX_ATTEMPTS: '3' },
    });
  });
  afterAll(() => world.close());
  beforeEach(() => {
    world.upstream.reset();
  });

  /** Sends, fails one verification, and tells its answer and how many attempts were left after it. */
  async function failOnce(
    fault: Fault,
  ): Promise<{ answer: Awaited<ReturnType<typeof verifyOtp>>; left: number; token: boolean }> {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    world.upstream.fault({ on: 'verify', times: 0, fault });
    const answer = await verifyOtp(world.url, body.requestId, code);
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
  ])('with %s costs no attempt', async (_name, fault, status, code) => {
    const { answer, left } = await failOnce(fault);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(left).toBe(3);
  });

  it.each<[string, Fault, number, string]>([
    ['a timeout', { kind: 'timeout', when: 'before' }, 504, 'upstream_timeout'],
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
  ])('with %s costs the attempt, and gives no token', async (_name, fault, status, code) => {
    const { answer, left, token } = await failOnce(fault);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(left).toBe(2);
    expect(token).toBe(false);
  });

  it('with verified: false is a wrong code', async () => {
    const { answer, left } = await failOnce({ kind: 'unverified' });
    expect([answer.status, answer.body.code, answer.body.attemptsLeft]).toEqual([400, 'otp_incorrect', 2]);
    expect(left).toBe(2);
  });

  it('at all, because it is not there, costs no attempt', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    await world.upstream.close();
    const answer = await verifyOtp(world.url, body.requestId, '123456');
    expect([answer.status, answer.body.code]).toEqual([502, 'upstream_unavailable']);
    const again = await verifyOtp(world.url, body.requestId, '123456');
    expect([again.status, again.body.code]).toEqual([502, 'upstream_unavailable']);
  });
});

it('a mistaken contract is never a wrong code and never a login', async () => {
  const world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'provider' } });
  world.upstream.settings.contract = 'caller';
  try {
    const answer = await sendOtp(world.url, freshNumber());
    expect([answer.status, answer.body.code]).toEqual([503, 'sms_unavailable']);
    expect(world.instances[0]?.logs.join('')).toContain('"alert":"contract_mismatch"');
  } finally {
    await world.close();
  }
});
