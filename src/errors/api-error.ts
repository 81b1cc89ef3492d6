/** Every error that a caller can be told, a closed set: code, HTTP status, and the title in words. */
export const ERROR_CODES = {
  validation_failed: { status: 400, title: 'The request does not hold' },
  phone_number_rejected: { status: 400, title: 'The phone number is refused' },
  otp_incorrect: { status: 400, title: 'The code is wrong' },
  unauthenticated: { status: 401, title: 'No valid access token' },
  not_logged_in: { status: 401, title: 'There is no refresh token' },
  refresh_token_invalid: { status: 401, title: 'The refresh token is not valid' },
  refresh_token_reused: { status: 401, title: 'The refresh token was used before: the session has ended' },
  session_expired: { status: 401, title: 'The session has expired' },
  session_revoked: { status: 401, title: 'The session was ended' },
  origin_not_allowed: { status: 403, title: 'This origin may not send the cookie' },
  not_found: { status: 404, title: 'Not found' },
  method_not_allowed: { status: 405, title: 'Method not allowed' },
  idempotency_in_progress: { status: 409, title: 'The first request with this Idempotency-Key is under way' },
  otp_expired: { status: 410, title: 'The code has expired or was used' },
  otp_attempts_exhausted: { status: 410, title: 'No attempts are left for this code' },
  payload_too_large: { status: 413, title: 'The request is too large' },
  unsupported_media_type: { status: 415, title: 'Unsupported media type' },
  idempotency_key_reused: { status: 422, title: 'The Idempotency-Key was used for another request' },
  challenge_required: { status: 428, title: 'Proof of work is required first' },
  phone_locked: { status: 429, title: 'Too many wrong codes for this phone number' },
  rate_limited: { status: 429, title: 'Too many requests' },
  internal_error: { status: 500, title: 'Internal error' },
  upstream_unavailable: { status: 502, title: 'The SMS provider is not available' },
  sms_unavailable: { status: 503, title: 'SMS are not available' },
  store_unavailable: { status: 503, title: 'The service is not available for a moment' },
  overloaded: { status: 503, title: 'The service is busy' },
  upstream_timeout: { status: 504, title: 'The SMS provider did not answer in time' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** A field of the request that does not hold, and why, in words that never repeat the value. */
export interface FieldError {
  field: string;
  message: string;
}

export interface ApiErrorDetails {
  /** One sentence for the developer of the client; it never repeats input of the caller. */
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
