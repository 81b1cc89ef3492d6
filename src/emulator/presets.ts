import type { Fault, Operation } from './faults';

interface Preset {
  /** What it does, in words for a button. */
  title: string;
  on: readonly Operation[];
  fault: () => Fault;
}

const VERIFY: readonly Operation[] = ['verify'];
const SEND: readonly Operation[] = ['send'];
const BOTH: readonly Operation[] = ['send', 'verify'];

function error(
  status: number,
  code: string,
  message?: string,
  details?: string[],
  headers?: Record<string, string>,
): () => Fault {
  return () => ({
    kind: 'error',
    status,
    code,
    ...(message !== undefined && { message }),
    ...(details && { details }),
    ...(headers && { headers }),
  });
}

function invalid(detail: string): () => Fault {
  return error(400, 'VALIDATION_ERROR', 'Validation failed', [detail]);
}

const table = {
  'wallet-empty': {
    title: 'Wallet is empty',
    on: SEND,
    fault: error(400, 'INSUFFICIENT_BALANCE', 'Insufficient wallet balance'),
  },
  'payment-required': {
    title: 'Wallet is empty (402)',
    on: SEND,
    fault: error(402, 'INSUFFICIENT_BALANCE', 'Insufficient wallet balance'),
  },
  'number-limit': {
    title: 'Too many SMS to this number',
    on: SEND,
    fault: error(400, 'RATE_LIMIT_EXCEEDED', 'Too many OTP requests for this phone number'),
  },
  'sms-refused': {
    title: 'SMS route refuses',
    on: SEND,
    fault: error(400, 'OTP_SEND_FAILED', 'Failed to send OTP'),
  },
  'phone-refused': {
    title: 'Phone number refused',
    on: SEND,
    fault: invalid('phoneNumber must be an Indian mobile number in E.164 format'),
  },
  'variables-missing': {
    title: 'Variables missing',
    on: SEND,
    fault: invalid('variables.otp must be 4 to 6 digits'),
  },
  'template-refused': { title: 'Template refused', on: SEND, fault: invalid('templateId must be a UUID') },
  'not-delivered': {
    title: 'SMS never arrives',
    on: SEND,
    fault: () => ({ kind: 'delivery', status: 'failed', failureReason: 'Absent subscriber' }),
  },
  'duplicate-key': {
    title: 'Key already used',
    on: SEND,
    fault: error(409, 'CONFLICT', 'Idempotency key already processed'),
  },
  'wrong-code': { title: 'Wrong code', on: VERIFY, fault: error(400, 'OTP_INVALID', 'Invalid OTP code') },
  unverified: { title: '200, but not verified', on: VERIFY, fault: () => ({ kind: 'unverified' }) },
  'verified-text': {
    title: 'verified: "true", a text',
    on: VERIFY,
    fault: () => ({ kind: 'verified', value: 'true' }),
  },
  'code-expired': {
    title: 'Code expired',
    on: VERIFY,
    fault: error(410, 'OTP_EXPIRED', 'This code has expired'),
  },
  'unknown-request': {
    title: 'Unknown request',
    on: VERIFY,
    fault: error(404, 'NOT_FOUND', 'OTP request not found'),
  },
  'bad-key': { title: 'API key refused', on: BOTH, fault: error(401, 'UNAUTHORIZED', 'Invalid API key') },
  'suspended-key': {
    title: 'API key suspended',
    on: BOTH,
    fault: error(401, 'UNAUTHORIZED', 'API key is suspended'),
  },
  'not-onboarded': {
    title: 'Account not onboarded',
    on: BOTH,
    fault: error(403, 'FORBIDDEN', 'Account is not onboarded'),
  },
  'route-missing': { title: 'Route missing', on: BOTH, fault: error(404, 'NOT_FOUND') },
  throttled: {
    title: 'Throttled, 30 s',
    on: BOTH,
    fault: error(429, 'INTERNAL_ERROR', 'ThrottlerException: Too Many Requests', [], { 'Retry-After': '30' }),
  },
  'throttled-no-hint': {
    title: 'Throttled, no hint',
    on: BOTH,
    fault: error(429, 'INTERNAL_ERROR', 'ThrottlerException: Too Many Requests'),
  },
  'throttled-until': {
    title: 'Throttled until a date',
    on: BOTH,
    // Whole seconds, so the date is rounded down: 31 s from now reads as 30 or more.
    fault: () =>
      error(429, 'INTERNAL_ERROR', 'ThrottlerException: Too Many Requests', [], {
        'Retry-After': new Date(Date.now() + 31_000).toUTCString(),
      })(),
  },
  redirect: {
    title: 'Redirect',
    on: BOTH,
    fault: () => ({ kind: 'raw', status: 302, headers: { Location: 'https://example.com/' }, body: '' }),
  },
  'server-error': {
    title: 'Server error (500)',
    on: BOTH,
    fault: error(500, 'INTERNAL_ERROR', 'Internal server error'),
  },
  'bad-gateway': { title: 'Proxy page (502)', on: BOTH, fault: () => ({ kind: 'html', status: 502 }) },
  unavailable: {
    title: 'Unavailable (503)',
    on: BOTH,
    fault: error(503, 'INTERNAL_ERROR', 'Service unavailable'),
  },
  'tutorial-error': {
    title: 'Error without an envelope',
    on: BOTH,
    fault: () => ({ kind: 'raw', status: 400, body: { statusCode: 400, message: 'Invalid phone number' } }),
  },
  'timeout-before': {
    title: 'Hangs, nothing done',
    on: BOTH,
    fault: () => ({ kind: 'timeout', when: 'before' }),
  },
  'timeout-after': { title: 'Hangs, but done', on: BOTH, fault: () => ({ kind: 'timeout', when: 'after' }) },
  'reset-before': {
    title: 'Connection reset, nothing done',
    on: BOTH,
    fault: () => ({ kind: 'reset', when: 'before' }),
  },
  'reset-after': {
    title: 'Connection reset, but done',
    on: BOTH,
    fault: () => ({ kind: 'reset', when: 'after' }),
  },
  cut: { title: 'Half an answer', on: BOTH, fault: () => ({ kind: 'cut' }) },
  malformed: { title: 'Broken JSON', on: BOTH, fault: () => ({ kind: 'malformed' }) },
  slow: { title: 'Slow, 5 s', on: BOTH, fault: () => ({ kind: 'slow', delayMs: 5000 }) },
  trickle: {
    title: 'Byte by byte, 30 s',
    on: BOTH,
    fault: () => ({ kind: 'slow', delayMs: 30_000, trickle: true }),
  },
  huge: { title: 'A huge answer', on: BOTH, fault: () => ({ kind: 'huge' }) },
  'gzip-bomb': { title: 'A gzip bomb', on: BOTH, fault: () => ({ kind: 'huge', gzip: true }) },
} satisfies Record<string, Preset>;

export type PresetName = keyof typeof table;

const presets: Record<string, Preset> = table;

/** The fault behind a preset's name. */
export function presetFault(name: PresetName): Fault;
export function presetFault(name: string): Fault | undefined;
export function presetFault(name: string): Fault | undefined {
  // Not `presets[name]` alone: the name may come from outside, and `toString` is no preset.
  return Object.hasOwn(presets, name) ? presets[name]?.fault() : undefined;
}

/** Every preset, for the buttons of the inbox. */
export function listPresets(): { name: string; title: string; on: readonly Operation[] }[] {
  return Object.entries(presets).map(([name, { title, on }]) => ({ name, title, on }));
}
