import { type UpstreamResponse, fields, isFields, isSuccess, shortText } from '../upstream/responses';
import type { UpstreamReason } from '../upstream/upstream.error';
import { hasData, readErrorCode, saysFailure } from './responses';
import { saysRouteMissing } from './classify';

/** StartMessaging's state of one SMS. Every field may be missing, and `status` is an open set. */
export interface MessageState {
  status?: string;
  /** In ten-thousandths of a rupee, a whole number. */
  cost?: number;
}

const DEAREST = 100 * 10_000;

/** Reads the `data` of a look-up that `classifyLookUp` accepted. */
export function readMessageState(body: unknown): MessageState {
  const data = fields(fields(body).data);
  const state: MessageState = {};
  const status = shortText(data.status);
  if (status !== undefined) state.status = status;
  const cost = tenThousandths(data.costAmount);
  if (cost !== undefined) state.cost = cost;
  return state;
}

// By its digits, because 0.0003 * 10_000 is not 3. An amount that is no price of an SMS is as if it was missing.
function tenThousandths(rupees: unknown): number | undefined {
  const text = typeof rupees === 'number' ? String(rupees) : rupees;
  if (typeof text !== 'string' || !/^(?:0|[1-9]\d{0,2})(?:\.\d{1,4})?$/.test(text)) return undefined;
  const [whole, fraction = ''] = text.split('.');
  const cost = Number(`${whole}${fraction.padEnd(4, '0')}`);
  return cost <= DEAREST ? cost : undefined;
}

/**
 * Says what the answer to a look-up means, of the message `id` if one is named. Like `classify`, by `error.code` before
 * the status; but what a code says of a phone number or of a send cannot be about a look-up.
 */
export function classifyLookUp(
  id: string | undefined,
  { status, body }: UpstreamResponse,
): 'accepted' | UpstreamReason {
  if (status >= 300 && status < 400) return 'contract_mismatch';
  if (status === 429) return 'throttled';
  if (status === 404) return routeOrMessageMissing(body);
  switch (readErrorCode(body)) {
    case 'UNAUTHORIZED':
    case 'FORBIDDEN':
      return 'credentials_refused';
    case 'INSUFFICIENT_BALANCE':
      return 'wallet_empty';
    case 'RATE_LIMIT_EXCEEDED':
      return 'throttled';
    case 'VALIDATION_ERROR':
      return 'request_malformed';
    case 'NOT_FOUND':
      return routeOrMessageMissing(body);
    default:
      return isSuccess(status) ? bySuccess(id, body) : byStatus(status, body);
  }
}

function bySuccess(id: string | undefined, body: unknown): 'accepted' | 'failed' {
  return !saysFailure(body) && hasData(body) && (id === undefined || !namesAnother(id, body))
    ? 'accepted'
    : 'failed';
}

// The state of another SMS, for example from a proxy's cache, must not be taken for this one. One of the two names may be the
// id of the record itself.
// two names may be the record's own.
function namesAnother(id: string, body: unknown): boolean {
  const data = fields(fields(body).data);
  const named = [data.id, data.messageId].filter((name) => typeof name === 'string');
  return named.length > 0 && !named.includes(id);
}

function byStatus(status: number, body: unknown): UpstreamReason {
  switch (status) {
    case 400:
      // A proxy's page says nothing of our id.
      return isFields(body) ? 'request_malformed' : 'contract_mismatch';
    case 401:
    case 403:
      return 'credentials_refused';
    case 402:
      return 'wallet_empty';
    case 410:
      return 'request_expired';
    default:
      return status >= 400 && status < 500 ? 'contract_mismatch' : 'failed';
  }
}

// A message that upstream does not know, or no longer, is nothing that operations could mend.
function routeOrMessageMissing(body: unknown): 'contract_mismatch' | 'request_expired' {
  return saysRouteMissing('GET', body) ? 'contract_mismatch' : 'request_expired';
}
