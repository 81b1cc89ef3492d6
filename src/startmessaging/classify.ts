import { type UpstreamResponse, isFields, isSuccess, readMessages } from '../upstream/responses';
import type { Outcome } from '../upstream/upstream.error';
import { hasData, readErrorCode, readSentOtp, readVerified, saysFailure, takesBack } from './responses';

/** `sendCode`: we made the code. `sendOtp`, `verifyOtp`: StartMessaging makes and checks it. */
export type Operation = 'sendCode' | 'sendOtp' | 'verifyOtp';

/**
 * Classifies an answer.
 *
 * The vendor's pages, its source and its tutorials contradict each other, so `error.code` counts before the status. Exceptions
 * are the statuses that have one meaning with every code.
 */
export function classify(operation: Operation, answer: UpstreamResponse): Outcome {
  return (
    byStatusAlone(operation, answer) ??
    byCode(operation, answer) ??
    (isSuccess(answer.status) ? bySuccess(operation, answer.body) : byStatus(operation, answer))
  );
}

function byStatusAlone(operation: Operation, { status, body }: UpstreamResponse): Outcome | undefined {
  if (status >= 300 && status < 400) return 'contract_mismatch';
  switch (status) {
    case 404:
      return routeOrRequestMissing(operation, body);
    case 409:
      return operation === 'verifyOtp' ? 'request_expired' : 'duplicate';
    case 410:
      return operation === 'verifyOtp' ? 'request_expired' : 'contract_mismatch';
    case 429:
      // The vendor's source sends INTERNAL_ERROR with it.
      return 'throttled';
    default:
      return undefined;
  }
}

function byCode(operation: Operation, { status, body }: UpstreamResponse): Outcome | undefined {
  // An acceptance and a refusal in one: what it says of a refused send or a wrong code is not certain.
  if (isSuccess(status) && hasData(body)) return undefined;
  switch (readErrorCode(body)) {
    case 'VALIDATION_ERROR':
      // A person is not told "bad number" or "wrong code" by an answer about our key, our wallet or upstream's trouble.
      return status >= 401 && status !== 422 ? undefined : byMessages(operation, body);
    case 'INSUFFICIENT_BALANCE':
      return 'wallet_empty';
    case 'RATE_LIMIT_EXCEEDED':
      return 'number_limited';
    case 'OTP_SEND_FAILED':
      return 'send_refused';
    case 'UNAUTHORIZED':
    case 'FORBIDDEN':
      return 'credentials_refused';
    case 'NOT_FOUND':
      return routeOrRequestMissing(operation, body);
    default:
      return undefined;
  }
}

// A session hangs on this one: true only where the status, the envelope and the data all say so.
function bySuccess(operation: Operation, body: unknown): Outcome {
  if (operation === 'verifyOtp') {
    const verified = readVerified(body);
    if (verified === false) return 'not_verified';
    return verified === true && !saysFailure(body) && !takesBack(body) ? 'verified' : 'failed';
  }
  if (saysFailure(body) || !hasData(body)) return 'failed';
  // Without upstream's id this code could never be verified.
  return operation === 'sendOtp' && readSentOtp(body).id === undefined ? 'failed' : 'accepted';
}

function byStatus(operation: Operation, { status, body }: UpstreamResponse): Outcome {
  switch (status) {
    case 400:
      // A proxy's page or a list knows nothing of a number or a code, and the user must not be told that it does.
      if (!isFields(body)) return 'contract_mismatch';
      // A wrong OTP is told by an unknown code or none, although the text may name something else.
      return operation === 'verifyOtp' && (readErrorCode(body) !== undefined || !namesOtherContract(body))
        ? 'not_verified'
        : byMessages(operation, body);
    case 401:
    case 403:
      return 'credentials_refused';
    case 402:
      return 'wallet_empty';
    case 503:
      // A send was not accepted. Whether a code was looked at, a 503 does not say.
      return operation === 'verifyOtp' ? 'failed' : 'unreachable';
    default:
      return status >= 400 && status < 500 ? 'contract_mismatch' : 'failed';
  }
}

// A refusal that names a part of our request is about us, and must not be told to a person as "bad number" or
// "wrong code". One that misses `variables` where we never send any comes from the other contract.
function byMessages(operation: Operation, body: unknown): Outcome {
  const messages = readMessages(body);
  const names = (field: RegExp) => messages.some((message) => field.test(message));
  if (names(/\bvariables\b/i)) return operation === 'sendCode' ? 'request_malformed' : 'contract_mismatch';
  if (names(/\btemplate_?id\b/i)) return 'request_malformed';
  if (operation !== 'verifyOtp') return 'phone_rejected';
  return names(/\b(?:otp)?requestid\b/i) ? 'request_malformed' : 'not_verified';
}

function namesOtherContract(body: unknown): boolean {
  return readMessages(body).some((message) => /\bvariables\b|\btemplate_?id\b/i.test(message));
}

function routeOrRequestMissing(operation: Operation, body: unknown): Outcome {
  if (operation !== 'verifyOtp') return 'contract_mismatch';
  return saysRouteMissing('POST', body) ? 'contract_mismatch' : 'request_expired';
}

// Express words it so, as JSON under Nest and inside an HTML page without it. "Cannot get the message" has no path.
const NO_ROUTE = {
  GET: /(?:^\s*|<pre>\s*)Cannot GET \//i,
  POST: /(?:^\s*|<pre>\s*)Cannot POST\b/i,
};

/** Whether a 404 is about the route, and not about what was looked for. */
export function saysRouteMissing(method: 'GET' | 'POST', body: unknown): boolean {
  return readMessages(body).some((message) => NO_ROUTE[method].test(message));
}
