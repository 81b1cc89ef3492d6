import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError, ERROR_CODES } from '../errors/api-error';
import { OAuthError, oauthAnswer, type OAuthErrorCode } from './oauth-error';
import { pathOf } from './routes';

/** RFC 9457. The only definition of error bodies: other fields of an error cannot reach a caller. */
export function problemBody(error: ApiError): Record<string, unknown> {
  return {
    type: `urn:otp-login:${error.code}`,
    title: error.message,
    status: error.status,
    code: error.code,
    detail: detailOf(error),
    ...(error.attemptsLeft === undefined ? {} : { attemptsLeft: error.attemptsLeft }),
    ...(error.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: error.retryAfterSeconds }),
    ...(error.errors === undefined ? {} : { errors: error.errors }),
    ...(error.proofOfWork === undefined ? {} : { challenge: error.proofOfWork }),
  };
}

/** The advice for the caller: from the thrower, otherwise from the invalid fields, otherwise from the code. */
function detailOf({ code, detail, errors }: ApiError): string {
  if (detail !== undefined) return detail;
  if (errors === undefined) return ERROR_CODES[code].detail;
  return `Correct the request: ${errors.map(({ message }) => message).join('; ')}.`;
}

/** The paths with errors of the OAuth RFCs. */
export function isOAuth(request: FastifyRequest): boolean {
  return pathOf(request).startsWith('/oauth/');
}

/** Writes an error to an answer that has not begun, with the headers that belong to its status. */
export function writeProblem(reply: FastifyReply, error: ApiError | OAuthError): void {
  if (error instanceof ApiError && error.retryAfterSeconds !== undefined) {
    void reply.header('Retry-After', String(error.retryAfterSeconds));
  }
  if (error instanceof OAuthError || isOAuth(reply.request)) writeOAuthError(reply, error);
  else writeProblemDetails(reply, error);
}

function writeProblemDetails(reply: FastifyReply, error: ApiError): void {
  // RFC 6750 section 3: a token that was given and refused is told apart from none.
  if (error.status === 401) {
    const given = reply.request.headers.authorization !== undefined;
    const bearer = given ? 'Bearer error="invalid_token"' : 'Bearer';
    void reply.header('WWW-Authenticate', error.challenge ?? bearer);
  }
  void reply
    .status(error.status)
    .header('Content-Type', 'application/problem+json; charset=utf-8')
    .send(JSON.stringify(problemBody(error)));
}

/** RFC 6749 section 5.2 for clients, RFC 6750 section 3 for tokens. Basic would make a browser ask for a password. */
function challengeOf(error: OAuthErrorCode, { headers }: FastifyRequest): string {
  if (error === 'invalid_client') return 'Basic realm="otp-login"';
  const given = headers.authorization !== undefined && error !== 'login_required';
  return given ? `Bearer error="${error}"` : 'Bearer';
}

/** RFC 6749 section 5.2. */
function writeOAuthError(reply: FastifyReply, error: ApiError | OAuthError): void {
  const answer = oauthAnswer(error);
  if (answer.status === 401 || answer.error === 'insufficient_scope') {
    void reply.header('WWW-Authenticate', challengeOf(answer.error, reply.request));
  }
  const description = error instanceof ApiError ? (error.detail ?? error.message) : error.message;
  void reply
    .status(answer.status)
    .header('Content-Type', 'application/json; charset=utf-8')
    .send(JSON.stringify({ error: answer.error, error_description: description }));
}
