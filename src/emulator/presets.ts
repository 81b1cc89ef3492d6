import type { Fault, Operation } from './fault';

interface Preset {
  /** The label of its button. */
  title: string;
  on: readonly Operation[];
  fault: () => Fault;
}

const SEND: readonly Operation[] = ['send'];
const VERIFY: readonly Operation[] = ['verify'];
const BOTH: readonly Operation[] = ['send', 'verify'];

function preset(title: string, on: readonly Operation[], fault: Fault | (() => Fault)): Preset {
  return { title, on, fault: typeof fault === 'function' ? fault : () => fault };
}

function error(status: number, code: string, message?: string): Fault {
  return { kind: 'error', status, code, ...(message !== undefined && { message }) };
}

function invalid(detail: string): Fault {
  const message = 'Validation failed';
  return { kind: 'error', status: 400, code: 'VALIDATION_ERROR', message, details: [detail] };
}

// The original's throttler answers with this code.
function throttled(headers: Record<string, string>): Fault {
  const message = 'ThrottlerException: Too Many Requests';
  return { kind: 'error', status: 429, code: 'INTERNAL_ERROR', message, headers };
}

const refusals = {
  'wallet-empty': preset('Wallet is empty', SEND, error(400, 'INSUFFICIENT_BALANCE', 'Insufficient balance')),
  'payment-required': preset(
    'Payment required (402)',
    SEND,
    error(402, 'INSUFFICIENT_BALANCE', 'No balance'),
  ),
  'number-limit': preset('Too many to this number', SEND, error(400, 'RATE_LIMIT_EXCEEDED', 'Too many OTPs')),
  'sms-refused': preset('SMS route refuses', SEND, error(400, 'OTP_SEND_FAILED', 'Failed to send OTP')),
  'phone-refused': preset(
    'Phone number refused',
    SEND,
    invalid('phoneNumber must be an Indian mobile number'),
  ),
  'variables-missing': preset('Variables missing', SEND, invalid('variables.otp must be 4 to 6 digits')),
  'template-refused': preset('Template refused', SEND, invalid('templateId must be a UUID')),
  'duplicate-key': preset(
    'Key already used',
    SEND,
    error(409, 'CONFLICT', 'Idempotency key already processed'),
  ),
  'wrong-code': preset('Wrong code', VERIFY, error(400, 'OTP_INVALID', 'Invalid OTP code')),
  unverified: preset('200, but not verified', VERIFY, { kind: 'unverified' }),
  'code-expired': preset('Code expired', VERIFY, error(410, 'OTP_EXPIRED', 'This code has expired')),
  'unknown-request': preset('Unknown request', VERIFY, error(404, 'NOT_FOUND', 'OTP request not found')),
  'bad-key': preset('API key refused', BOTH, error(401, 'UNAUTHORIZED', 'Invalid API key')),
  'suspended-key': preset('API key suspended', BOTH, error(401, 'UNAUTHORIZED', 'API key is suspended')),
  'not-onboarded': preset('Account not onboarded', BOTH, error(403, 'FORBIDDEN', 'Account is not onboarded')),
  'route-missing': preset('Route missing', BOTH, error(404, 'NOT_FOUND')),
} satisfies Record<string, Preset>;

const troubles = {
  'not-delivered': preset('SMS never arrives', SEND, {
    kind: 'delivery',
    status: 'failed',
    failureReason: 'Absent subscriber',
  }),
  throttled: preset('Throttled for 30 s', BOTH, throttled({ 'Retry-After': '30' })),
  'throttled-no-hint': preset('Throttled, no hint', BOTH, throttled({})),
  'throttled-until': preset('Throttled until a date', BOTH, () =>
    // A date has whole seconds: rounded down, this is still 30 s or more from now.
    throttled({ 'Retry-After': new Date(Date.now() + 31_000).toUTCString() }),
  ),
  'server-error': preset('Server error (500)', BOTH, error(500, 'INTERNAL_ERROR', 'Internal server error')),
  'bad-gateway': preset('Proxy page (502)', BOTH, { kind: 'html', status: 502 }),
  unavailable: preset('Unavailable (503)', BOTH, error(503, 'INTERNAL_ERROR', 'Service unavailable')),
  'timeout-before': preset('Hangs, nothing done', BOTH, { kind: 'timeout', when: 'before' }),
  'timeout-after': preset('Hangs, but done', BOTH, { kind: 'timeout', when: 'after' }),
  'reset-before': preset('Reset, nothing done', BOTH, { kind: 'reset', when: 'before' }),
  'reset-after': preset('Reset, but done', BOTH, { kind: 'reset', when: 'after' }),
  slow: preset('5 s late', BOTH, { kind: 'slow', delayMs: 5000 }),
  trickle: preset('Byte by byte for 30 s', BOTH, { kind: 'slow', delayMs: 30_000, trickle: true }),
} satisfies Record<string, Preset>;

const nonsense = {
  'verified-text': preset('verified: "true", a text', VERIFY, { kind: 'verified', value: 'true' }),
  'tutorial-error': preset('Error without an envelope', BOTH, {
    kind: 'raw',
    status: 400,
    body: { statusCode: 400, message: 'Invalid phone number' },
  }),
  redirect: preset('Redirect', BOTH, {
    kind: 'raw',
    status: 302,
    headers: { Location: 'https://example.com/' },
  }),
  cut: preset('Half an answer', BOTH, { kind: 'cut' }),
  malformed: preset('Broken JSON', BOTH, { kind: 'malformed' }),
  huge: preset('A huge answer', BOTH, { kind: 'huge' }),
  'gzip-bomb': preset('A gzip bomb', BOTH, { kind: 'huge', gzip: true }),
} satisfies Record<string, Preset>;

export type PresetName = keyof typeof refusals | keyof typeof troubles | keyof typeof nonsense;

const AFTER_RETRY = '200, after a retry';

/**
 * The answer of the service, under the `provider` contract of the demo, to a send or a verification in which the call fails once
 * in this way: one for both, or one for each. A test compares them with the service.
 */
export const ANSWERS: Readonly<Record<PresetName, readonly [send: string, verify?: string]>> = {
  'wallet-empty': ['503 sms_unavailable'],
  'payment-required': ['503 sms_unavailable'],
  'number-limit': ['429 rate_limited'],
  'sms-refused': ['502 upstream_unavailable'],
  'phone-refused': ['400 phone_number_rejected'],
  'variables-missing': ['503 sms_unavailable'],
  'template-refused': ['500 internal_error'],
  'duplicate-key': ['502 upstream_unavailable'],
  'wrong-code': ['400 otp_incorrect'],
  unverified: ['400 otp_incorrect'],
  'code-expired': ['410 otp_expired'],
  'unknown-request': ['410 otp_expired'],
  'bad-key': ['500 internal_error'],
  'suspended-key': ['500 internal_error'],
  'not-onboarded': ['500 internal_error'],
  'route-missing': ['503 sms_unavailable'],
  'not-delivered': ['200, later delivery failed'],
  throttled: ['429 rate_limited'],
  'throttled-no-hint': ['429 rate_limited'],
  'throttled-until': ['429 rate_limited'],
  'server-error': [AFTER_RETRY],
  'bad-gateway': [AFTER_RETRY],
  unavailable: [AFTER_RETRY],
  'timeout-before': [AFTER_RETRY],
  'timeout-after': [AFTER_RETRY, '410 otp_expired'],
  'reset-before': [AFTER_RETRY],
  'reset-after': [AFTER_RETRY, '410 otp_expired'],
  slow: ['200, 5 s late'],
  trickle: [AFTER_RETRY, '410 otp_expired'],
  'verified-text': [AFTER_RETRY],
  'tutorial-error': ['400 phone_number_rejected', '400 otp_incorrect'],
  redirect: ['503 sms_unavailable'],
  cut: [AFTER_RETRY, '410 otp_expired'],
  malformed: [AFTER_RETRY, '410 otp_expired'],
  huge: [AFTER_RETRY, '410 otp_expired'],
  'gzip-bomb': [AFTER_RETRY, '410 otp_expired'],
};

const GROUPS = { 'It says no': refusals, 'It is in trouble': troubles, 'It talks nonsense': nonsense };
const presets = new Map<string, Preset>(Object.values(GROUPS).flatMap((group) => Object.entries(group)));

/** The fault behind a preset's name. */
export function presetFault(name: PresetName): Fault;
export function presetFault(name: string): Fault | undefined;
export function presetFault(name: string): Fault | undefined {
  return presets.get(name)?.fault();
}

interface ListedPreset {
  name: PresetName;
  group: string;
  title: string;
  on: readonly Operation[];
  /** The answer of the service by the operation that fails. */
  answers: { send: string; verify: string };
}

/** Every preset, for the buttons of the inbox. */
export function listPresets(): ListedPreset[] {
  return Object.entries(GROUPS).flatMap(([group, members]) =>
    Object.entries<Preset>(members).map(([name, { title, on }]) => {
      const [send, verify = send] = ANSWERS[name as PresetName];
      return { name: name as PresetName, group, title, on, answers: { send, verify } };
    }),
  );
}
