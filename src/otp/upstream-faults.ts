import { Injectable } from '@nestjs/common';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { Logger, type Alert } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { StartMessagingError, type StartMessagingReason } from '../startmessaging/startmessaging.error';
import { ProviderError } from './otp-provider';

/**
 * What a caller is told of each fault of StartMessaging, and what operations are. Its 401 and 403 are our fault (500):
 * a caller who read 401 would log people out. An empty wallet is ours too (503). None of these is "wrong code".
 */
const FAULTS: Record<StartMessagingReason, { code: ErrorCode; alert?: Alert; retryAfterSeconds?: number }> = {
  phone_rejected: { code: 'phone_number_rejected' },
  request_malformed: { code: 'internal_error', alert: 'request_malformed' },
  wallet_empty: { code: 'sms_unavailable', alert: 'wallet_exhausted', retryAfterSeconds: 300 },
  number_limited: { code: 'rate_limited', retryAfterSeconds: 300 },
  send_refused: { code: 'upstream_unavailable' },
  credentials_refused: { code: 'internal_error', alert: 'upstream_credentials' },
  contract_mismatch: { code: 'sms_unavailable', alert: 'contract_mismatch', retryAfterSeconds: 300 },
  duplicate: { code: 'upstream_unavailable' },
  request_expired: { code: 'otp_expired' },
  throttled: { code: 'rate_limited', retryAfterSeconds: 60 },
  unreachable: { code: 'upstream_unavailable' },
  failed: { code: 'upstream_unavailable' },
  timed_out: { code: 'upstream_timeout' },
};

/** Turns StartMessaging's errors into ours: one line in the log, an alert where somebody must act. */
@Injectable()
export class UpstreamFaults {
  constructor(
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {}

  /** Anything but a {@link StartMessagingError} is a fault in our own code, and passes unchanged. */
  translate(error: unknown): unknown {
    if (!(error instanceof StartMessagingError)) return error;
    const { code, alert, retryAfterSeconds } = FAULTS[error.reason];
    const fields = {
      reason: error.reason,
      upstreamStatus: error.status,
      upstreamRequestId: error.correlationId,
      upstreamMessage: error.upstreamMessage,
    };
    if (alert) {
      this.metrics.alerts.inc({ alert });
      this.logger.alert(alert, 'StartMessaging needs attention', fields);
    } else {
      this.logger.warn('StartMessaging refused or failed', fields);
    }
    if (error.reason === 'wallet_empty') this.metrics.walletExhausted.set(1);
    const wait = error.retryAfterSeconds ?? retryAfterSeconds;
    const refusal = new ApiError(code, {
      cause: error,
      ...(wait === undefined ? {} : { retryAfterSeconds: wait }),
    });
    return new ProviderError(refusal, error.accepted);
  }
}
