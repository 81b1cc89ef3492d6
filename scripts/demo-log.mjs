// The log of the demo for a reader at a terminal: one line for each call, and every fault.

/** Error codes in words for a newcomer. Every other code stands for itself. */
const OUTCOMES = {
  otp_incorrect: 'wrong code',
  otp_expired: 'code expired, used or unknown',
  otp_attempts_exhausted: 'no attempts left',
  rate_limited: 'too many requests',
  phone_locked: 'the number is locked',
  challenge_required: 'proof of work required',
  sms_unavailable: 'no SMS can be sent',
  not_logged_in: 'no login in this browser',
};
const SUCCESSES = {
  'POST /auth/send-otp': 'code sent',
  'POST /auth/verify-otp': 'code right, session opened',
  'POST /auth/refresh': 'tokens refreshed',
  'POST /auth/logout': 'logged out',
};
/** Files of pages and probes would hide the calls. */
const SILENT = /^\/(?:pages|docs|health)\b|^\/(?:metrics|login|account)?$|^unknown$/;

/** The line of the terminal for a line of the log; undefined for one that is not shown. */
export function readableLine(line) {
  let event;
  try {
    event = JSON.parse(line);
  } catch {
    return line.startsWith('StartMessaging emulator:') ? undefined : line;
  }
  const { level, msg, method, route, status, durationMs, code, type } = event;
  if (type === 'audit') return undefined;
  if (msg === 'request') {
    if (SILENT.test(route) && status < 400) return undefined;
    const call = `${method} ${route}`;
    const outcome = OUTCOMES[code] ?? code ?? SUCCESSES[call] ?? '';
    return `  ${call} ${status} ${Math.round(durationMs)} ms  ${outcome}`.trimEnd();
  }
  // Warnings of the start name defaults that are right for a demo.
  return ['error', 'fatal'].includes(level) ? `  ${level}: ${msg}` : undefined;
}
