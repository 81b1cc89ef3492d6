import type { Alert } from '../alerts/alert-types';
import type { Delivery } from '../challenges/challenge';
import type { ErrorCode } from '../errors/api-error';
import type { UpstreamReason } from '../upstream/upstream.error';

// The meaning of a provider's responses for the caller of this service. Free of Nest: the serverless edition uses it too.

interface FailureMapping {
  code: ErrorCode;
  alert?: Alert;
  retryAfterSeconds?: number;
  /** The fault is the provider's own, so another provider may send. The limit of a number is not, and must not be evaded. */
  itsOwn?: true;
  /**
   * After this error the provider certainly did not check the code. After any other it may have checked it: a caller that can
   * cause such errors would guess for free.
   */
  notChecked?: true;
}

/**
 * The public error and the alert for each fault of a provider. Its 401 and 403 are a fault of this service (500): a client that
 * got a 401 would log its user out. An empty wallet is a fault of this service too (503). None of these means "wrong code".
 */
export const FAILURES: Record<UpstreamReason, FailureMapping> = {
  phone_rejected: { code: 'phone_number_rejected' },
  request_malformed: { code: 'internal_error', alert: 'request_malformed' },
  wallet_empty: {
    code: 'sms_unavailable',
    alert: 'wallet_exhausted',
    retryAfterSeconds: 300,
    itsOwn: true,
    notChecked: true,
  },
  number_limited: { code: 'rate_limited', retryAfterSeconds: 300, notChecked: true },
  send_refused: { code: 'upstream_unavailable', itsOwn: true },
  credentials_refused: {
    code: 'internal_error',
    alert: 'upstream_credentials',
    itsOwn: true,
    notChecked: true,
  },
  contract_mismatch: {
    code: 'sms_unavailable',
    alert: 'contract_mismatch',
    retryAfterSeconds: 300,
    itsOwn: true,
    notChecked: true,
  },
  duplicate: { code: 'upstream_unavailable' },
  request_expired: { code: 'otp_expired' },
  throttled: { code: 'rate_limited', retryAfterSeconds: 60, itsOwn: true, notChecked: true },
  unconfirmed: { code: 'upstream_unavailable' },
  breaker_open: { code: 'upstream_unavailable', itsOwn: true, notChecked: true },
  unreachable: { code: 'upstream_unavailable', itsOwn: true, notChecked: true },
  failed: { code: 'upstream_unavailable' },
  timed_out: { code: 'upstream_timeout' },
};

// `status` is an open set: an SMS with an unknown status was accepted, too.
const DELIVERIES = new Map<string | undefined, Delivery>([
  ['sent', 'sent'],
  ['delivered', 'delivered'],
  ['failed', 'failed'],
  ['expired', 'failed'],
]);

/** The delivery of an SMS with this status at StartMessaging. */
export function deliveryOf(status: string | undefined): Delivery {
  return DELIVERIES.get(status) ?? 'accepted';
}
