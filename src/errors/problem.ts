import type { FastifyReply } from 'fastify';
import type { ApiError } from './api-error';

/** RFC 9457. The one place that says how an error looks; whatever is not here cannot reach a caller. */
export function problemBody(error: ApiError): Record<string, unknown> {
  return {
    type: `urn:otp-login:${error.code}`,
    title: error.message,
    status: error.status,
    code: error.code,
    detail: error.detail ?? error.message,
    ...(error.attemptsLeft === undefined ? {} : { attemptsLeft: error.attemptsLeft }),
    ...(error.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: error.retryAfterSeconds }),
    ...(error.errors === undefined ? {} : { errors: error.errors }),
  };
}

/** Writes an error to an answer that has not begun, with the headers that belong to its status. */
export function writeProblem(reply: FastifyReply, error: ApiError): void {
  if (error.retryAfterSeconds !== undefined)
    void reply.header('Retry-After', String(error.retryAfterSeconds));
  // RFC 6750 section 3: a token that was given and refused is told apart from none.
  if (error.status === 401) {
    const given = reply.request.headers.authorization !== undefined;
    void reply.header('WWW-Authenticate', given ? 'Bearer error="invalid_token"' : 'Bearer');
  }
  void reply
    .status(error.status)
    .header('Content-Type', 'application/problem+json; charset=utf-8')
    .send(JSON.stringify(problemBody(error)));
}
