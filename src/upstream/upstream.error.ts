/**
 * Why a call of a provider failed. A closed set; a wrong code is not in it, because it is an answer. `unconfirmed`: an
 * answer that is neither a success nor a refusal. `breaker_open`: the call was not made.
 */
export type UpstreamReason =
  | 'phone_rejected'
  | 'request_malformed'
  | 'wallet_empty'
  | 'number_limited'
  | 'send_refused'
  | 'credentials_refused'
  | 'contract_mismatch'
  | 'duplicate'
  | 'request_expired'
  | 'throttled'
  | 'unconfirmed'
  | 'breaker_open'
  | 'unreachable'
  | 'failed'
  | 'timed_out';

/** The outcome of a call. A wrong code is an answer; everything else beside a success is a failure. */
export type Outcome = 'accepted' | 'verified' | 'not_verified' | UpstreamReason;

export function isFailure(outcome: Outcome): outcome is UpstreamReason {
  return outcome !== 'accepted' && outcome !== 'verified' && outcome !== 'not_verified';
}

// After any other reason upstream may have acted: the answer was lost, or tells of an earlier call.
const CERTAINLY_NOT_ACCEPTED: ReadonlySet<UpstreamReason> = new Set([
  'phone_rejected',
  'request_malformed',
  'wallet_empty',
  'number_limited',
  'send_refused',
  'credentials_refused',
  'contract_mismatch',
  'throttled',
  'breaker_open',
  'unreachable',
]);

export interface UpstreamErrorDetails {
  retryAfterSeconds?: number | undefined;
  status?: number | undefined;
  correlationId?: string | undefined;
  upstreamMessage?: string | undefined;
}

/**
 * A call of a provider that failed.
 *
 * Safe to log and to serialise: it holds no API key, phone number, code or request body, and deliberately no
 * `cause`, because an axios error carries all of them.
 */
export class UpstreamError extends Error {
  override readonly name = 'UpstreamError';
  /** `no`: upstream certainly took nothing, sent nothing, charged nothing. `unknown`: it may have. */
  readonly accepted: 'no' | 'unknown';
  /** When to try again, in whole seconds; only with `throttled` and `number_limited`. */
  readonly retryAfterSeconds?: number | undefined;
  /** The HTTP status, if there was an answer. */
  readonly status?: number | undefined;
  /** Upstream's name for this call, for its support. */
  readonly correlationId?: string | undefined;
  /** Upstream's text, redacted and at most 300 characters. For the log, never for a caller. */
  readonly upstreamMessage?: string | undefined;

  /** @param accepted what the reason says, unless an earlier attempt is of unknown fate */
  constructor(
    readonly provider: string,
    readonly reason: UpstreamReason,
    details: UpstreamErrorDetails = {},
    accepted: 'no' | 'unknown' = CERTAINLY_NOT_ACCEPTED.has(reason) ? 'no' : 'unknown',
  ) {
    super(`${provider}: ${reason}`);
    this.accepted = accepted;
    this.retryAfterSeconds = details.retryAfterSeconds;
    this.status = details.status;
    this.correlationId = details.correlationId;
    this.upstreamMessage = details.upstreamMessage;
  }
}
