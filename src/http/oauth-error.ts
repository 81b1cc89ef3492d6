import { ApiError, type ErrorCode } from '../errors/api-error';

/** The error codes that occur here, of RFC 6749, RFC 6750, RFC 8707 and OpenID Connect Core. */
export type OAuthErrorCode =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_grant'
  | 'unsupported_grant_type'
  | 'invalid_scope'
  | 'invalid_target'
  | 'unsupported_response_type'
  | 'request_not_supported'
  | 'request_uri_not_supported'
  | 'login_required'
  | 'access_denied'
  | 'invalid_token'
  | 'insufficient_scope'
  | 'server_error'
  | 'temporarily_unavailable';

/** An error that only the OAuth endpoints know. */
export class OAuthError extends Error {
  constructor(
    readonly code: OAuthErrorCode,
    description: string,
    readonly status: 400 | 401 | 403 = 400,
  ) {
    super(description);
  }
}

const GRANTS: ErrorCode[] = [
  'refresh_token_invalid',
  'refresh_token_reused',
  'session_expired',
  'session_revoked',
];
// Statuses that say more than 400 does; RFC 6749 has no word for them.
const KEPT = [404, 405, 413];

/** The OAuth error code for an error of this service. */
export function oauthAnswer(error: ApiError | OAuthError): { status: number; error: OAuthErrorCode } {
  if (error instanceof OAuthError) return { status: error.status, error: error.code };
  if (error.code === 'origin_not_allowed') return { status: 403, error: 'access_denied' };
  if (GRANTS.includes(error.code)) return { status: 400, error: 'invalid_grant' };
  if (error.status === 503 || error.status === 429)
    return { status: error.status, error: 'temporarily_unavailable' };
  if (error.status >= 500) return { status: error.status, error: 'server_error' };
  return { status: KEPT.includes(error.status) ? error.status : 400, error: 'invalid_request' };
}
