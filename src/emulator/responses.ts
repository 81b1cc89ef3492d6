import { randomBytes } from 'node:crypto';

/** An answer of the API before it goes onto the wire. A `body` that is text is sent as it stands. */
export interface Answer {
  status: number;
  headers?: Record<string, string>;
  body: unknown;
}

/** The envelope of a success. Its `requestId` names the call, for the vendor's support; it is not the OTP's id. */
export function success(status: number, data: Record<string, unknown>): Answer {
  return { status, body: { success: true, ...envelope(status), data } };
}

/** The envelope of an error. */
export function failure(
  status: number,
  code: string,
  message: string,
  details: readonly string[] = [],
): Answer {
  const error = {
    code,
    message,
    ...(details.length > 0 && { details: details.map((text) => ({ message: text })) }),
  };
  return { status, body: { success: false, ...envelope(status), error } };
}

/** The answer of the vendor's framework for an unknown route. */
export function noSuchRoute(method: string, path: string): Answer {
  return failure(404, 'NOT_FOUND', `Cannot ${method} ${path}`);
}

function envelope(statusCode: number) {
  return {
    statusCode,
    requestId: newCorrelationId(),
    timestamp: new Date().toISOString(),
  };
}

/** An id without digits in a row that would look like a phone number. */
function newCorrelationId(): string {
  let id: string;
  do id = randomBytes(8).toString('hex');
  while (/\d{10}/.test(id));
  return `req_${id}`;
}
