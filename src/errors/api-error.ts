/**
 * Every error that a caller can be told, a closed set: code, HTTP status, the title in words, and what the caller does
 * about it, unless the error itself knows more.
 */
export const ERROR_CODES = {
  validation_failed: {
    status: 400,
    title: 'Invalid request',
    detail: 'Correct the request, and send it again.',
  },
  phone_number_rejected: {
    status: 400,
    title: 'The phone number is refused',
    detail: 'Ask the user for another phone number: no SMS can be sent to this one.',
  },
  otp_incorrect: {
    status: 400,
    title: 'The code is wrong',
    detail: 'Let the user type the code again while attemptsLeft is above 0; at 0, request a new code.',
  },
  unauthenticated: {
    status: 401,
    title: 'No valid access token',
    detail:
      'Get a new access token at POST /auth/refresh, and send it as Authorization: Bearer <accessToken>.',
  },
  not_logged_in: {
    status: 401,
    title: 'There is no refresh token',
    detail: 'Show the login: neither the body nor the cookie of this refresh carries a refresh token.',
  },
  refresh_token_invalid: {
    status: 401,
    title: 'The refresh token is not valid',
    detail: 'Let the user log in again: this is no refresh token of this service.',
  },
  refresh_token_reused: {
    status: 401,
    title: 'The refresh token was used before: the session has ended',
    detail: 'Let the user log in again, and store each new refresh token before you use it.',
  },
  session_expired: {
    status: 401,
    title: 'The session has expired',
    detail: 'Let the user log in again.',
  },
  session_revoked: {
    status: 401,
    title: 'The session was ended',
    detail: 'Let the user log in again: the session was ended by a logout, by an operator or for safety.',
  },
  origin_not_allowed: {
    status: 403,
    title: 'This origin may not send the cookie',
    detail: 'Add the origin of the page to CORS_ORIGINS, or send the refresh token in the body.',
  },
  not_found: {
    status: 404,
    title: 'Not found',
    detail: 'Check the id in the path: there is no such thing, or it belongs to another user.',
  },
  method_not_allowed: {
    status: 405,
    title: 'Method not allowed',
    detail: 'Use one of the methods of the Allow header.',
  },
  idempotency_in_progress: {
    status: 409,
    title: 'The first request with this Idempotency-Key is under way',
    detail: 'Wait for retryAfterSeconds, and repeat the same request under the same Idempotency-Key.',
  },
  otp_expired: {
    status: 410,
    title: 'The code has expired or was used',
    detail:
      'Request a new code: this request id has expired, was used or replaced, or is not one of this service.',
  },
  otp_attempts_exhausted: {
    status: 410,
    title: 'No attempts are left for this code',
    detail: 'Request a new code: this one is refused from now on, even if it is right.',
  },
  payload_too_large: {
    status: 413,
    title: 'The request is too large',
    detail: 'Send a body of at most 16 KB.',
  },
  unsupported_media_type: {
    status: 415,
    title: 'Unsupported media type',
    detail: 'Send the body as JSON, with the header Content-Type: application/json.',
  },
  idempotency_key_reused: {
    status: 422,
    title: 'The Idempotency-Key was used for another request',
    detail:
      'Make a new random Idempotency-Key for each new request, and keep it for the repeats of that request only.',
  },
  challenge_required: {
    status: 428,
    title: 'Proof of work is required first',
    detail: 'Solve challenge with an ALTCHA client, and send the request again with the solution as altcha.',
  },
  phone_locked: {
    status: 429,
    title: 'Too many wrong codes for this phone number',
    detail: 'Tell the user to wait: after retryAfterSeconds this phone number may be tried again.',
  },
  rate_limited: {
    status: 429,
    title: 'Too many requests',
    detail: 'Wait for retryAfterSeconds, and send the request again.',
  },
  internal_error: {
    status: 500,
    title: 'Internal error',
    detail:
      'Try again later, and give X-Request-Id to the operator of this service: the fault is on this side.',
  },
  upstream_unavailable: {
    status: 502,
    title: 'The SMS provider is not available',
    detail: 'Try again in some seconds: no SMS was sent.',
  },
  sms_unavailable: {
    status: 503,
    title: 'SMS are not available',
    detail: 'Try again after retryAfterSeconds: the service can send no SMS now.',
  },
  store_unavailable: {
    status: 503,
    title: 'The service is not available for a moment',
    detail: 'Try again after retryAfterSeconds, and keep the user logged in.',
  },
  overloaded: {
    status: 503,
    title: 'The service is busy',
    detail: 'Try again after retryAfterSeconds, and keep the user logged in.',
  },
  upstream_timeout: {
    status: 504,
    title: 'The SMS provider did not answer in time',
    detail: 'Try again in some seconds.',
  },
} as const satisfies Record<string, { status: number; title: string; detail: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An invalid field of the request, and why, in words that never repeat the value. */
interface FieldError {
  field: string;
  message: string;
}

export interface ApiErrorDetails {
  /** The advice for the caller, if the thrower knows more than the table; it repeats no value that the caller sent. */
  detail?: string;
  attemptsLeft?: number;
  /** Rounded up to whole seconds, at least 1. Every 429 and 503 has one; 1 when none is given. */
  retryAfterSeconds?: number;
  errors?: FieldError[];
  /** The challenge of ALTCHA's protocol that the client must solve before it repeats the request. */
  proofOfWork?: object;
  /** How to authenticate instead of by a bearer token, for WWW-Authenticate. */
  challenge?: string;
  /** The private reason. It is logged for internal errors and cannot reach the caller: only the filter writes bodies. */
  cause?: unknown;
}

/** An error as the caller will see it. Thrown anywhere, written to the answer by the one filter. */
export class ApiError extends Error {
  readonly status: number;
  readonly detail: string | undefined;
  readonly attemptsLeft: number | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly errors: FieldError[] | undefined;
  readonly proofOfWork: object | undefined;
  readonly challenge: string | undefined;

  constructor(
    readonly code: ErrorCode,
    details: ApiErrorDetails = {},
  ) {
    super(ERROR_CODES[code].title, { cause: details.cause });
    this.name = 'ApiError';
    this.status = ERROR_CODES[code].status;
    this.detail = details.detail;
    this.attemptsLeft = details.attemptsLeft;
    this.errors = details.errors;
    this.proofOfWork = details.proofOfWork;
    this.challenge = details.challenge;
    const wait = details.retryAfterSeconds;
    // RFC 9110 section 10.2.3: delay-seconds is a whole number. 429, 503 and 409 always say when to come back.
    this.retryAfterSeconds = [409, 429, 503].includes(this.status)
      ? Math.max(1, Math.ceil(wait ?? 1))
      : undefined;
  }
}
