import type { Counter } from 'prom-client';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { type Metrics, startAtZero } from '../metrics/metrics';
import type { Delivery } from '../challenges/challenge';

/** How both can end that ask the store and a provider. */
const BOTH: readonly ErrorCode[] = [
  'phone_number_rejected',
  'idempotency_in_progress',
  'idempotency_key_reused',
  'phone_locked',
  'rate_limited',
  'internal_error',
  'upstream_unavailable',
  'sms_unavailable',
  'store_unavailable',
  'upstream_timeout',
];
const SENDS: readonly (Delivery | ErrorCode)[] = [
  ...BOTH,
  'accepted',
  'sent',
  'delivered',
  'failed',
  'unknown',
  'validation_failed',
  'challenge_required',
  'overloaded',
];
const VERIFICATIONS: readonly (ErrorCode | 'verified')[] = [
  ...BOTH,
  'verified',
  'otp_incorrect',
  'otp_expired',
  'otp_attempts_exhausted',
];

/** Makes every outcome known to Prometheus before the first of them. */
export function startOutcomes({ sends, verifications }: Metrics): void {
  startAtZero(sends, 'outcome', SENDS);
  startAtZero(verifications, 'outcome', VERIFICATIONS);
}

/** Counts how a step ended: what it answered, or the code of its error. */
export async function counted<Answer>(
  counter: Counter<'outcome'>,
  step: Promise<Answer>,
  outcomeOf: (answer: Answer) => string,
): Promise<Answer> {
  try {
    const answer = await step;
    counter.inc({ outcome: outcomeOf(answer) });
    return answer;
  } catch (error) {
    counter.inc({ outcome: error instanceof ApiError ? error.code : 'internal_error' });
    throw error;
  }
}
