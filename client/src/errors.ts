import type { ErrorCode } from './types.js';

/**
 * Every error that the client throws. Decide by `code`; `requestId` is for the support ticket.
 *
 * @example
 * catch (error) {
 *   if (error instanceof OtpLoginError && error.code === 'otp_incorrect') show(error.attemptsLeft);
 * }
 */
export class OtpLoginError extends Error {
  declare readonly code: ErrorCode;
  /** The HTTP status; 0 if there was no response. */
  declare readonly status: number;
  /** `X-Request-Id` of the response. */
  declare readonly requestId?: string;
  declare readonly attemptsLeft?: number;
  declare readonly retryAfterSeconds?: number;
  declare readonly errors?: { field: string; message: string }[];

  /** `details`: the fields of the service's problem body. */
  constructor(code: ErrorCode, status = 0, details: { detail?: string } = {}) {
    super(details.detail ?? code);
    Object.assign(this, details, { name: 'OtpLoginError', code, status });
  }
}
