import { type UpstreamResponse, isFields, isSuccess } from '../upstream/responses';
import type { Outcome } from '../upstream/upstream.error';
import { type Condition, meets } from './predicate';

/** Classifies the answer to a send. Without a clear refusal the SMS may have been sent. */
export function classifySend({ status, body }: UpstreamResponse, sentIf: readonly Condition[]): Outcome {
  if (isSuccess(status)) {
    if (!isFields(body)) return 'failed';
    return meets(body, sentIf) ? 'accepted' : 'unconfirmed';
  }
  // A proxy's page says nothing of a number, and a person must not be told that it did.
  if (status === 400) return isFields(body) ? 'phone_rejected' : 'contract_mismatch';
  if (status === 404) return 'contract_mismatch';
  if (status === 503) return 'unreachable';
  return refusal(status) ?? (status >= 500 ? 'failed' : 'unconfirmed');
}

/** Says what the answer to a verification means. A session hangs on this one. */
export function classifyVerify(
  { status, body }: UpstreamResponse,
  verifiedIf: readonly Condition[],
): Outcome {
  if (isSuccess(status)) {
    if (!isFields(body)) return 'failed';
    return meets(body, verifiedIf) ? 'verified' : 'not_verified';
  }
  if (status === 410) return 'request_expired';
  if ((status === 400 || status === 422) && isFields(body)) return 'not_verified';
  // A 503 does not say whether the code was looked at.
  return refusal(status) ?? (status >= 500 ? 'failed' : 'contract_mismatch');
}

function refusal(status: number): Outcome | undefined {
  switch (status) {
    case 401:
    case 403:
      return 'credentials_refused';
    case 402:
      return 'wallet_empty';
    case 429:
      return 'throttled';
    default:
      return undefined;
  }
}
