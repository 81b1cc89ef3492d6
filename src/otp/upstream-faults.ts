import { Injectable } from '@nestjs/common';
import type { ProviderName } from '../config/config';
import { ApiError, type ErrorCode } from '../errors/api-error';
import { Logger, type Alert } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import type { UpstreamCall } from '../upstream/upstream';
import { UpstreamError, type UpstreamReason } from '../upstream/upstream.error';
import { ProviderError } from './otp-provider';

interface Fault {
  code: ErrorCode;
  alert?: Alert;
  retryAfterSeconds?: number;
  /** It is the provider's own, so that another one may be asked. A number's limit is not: that must not be gone round. */
  itsOwn?: true;
  /** After it the provider certainly did not look at a code. After any other it may have: who can make it fail in between
   * would guess for free. */
  notLooked?: true;
}

/**
 * What a caller is told of each fault of a provider, and what operations are. Its 401 and 403 are our fault (500): a caller
 * who read 401 would log people out. An empty wallet is ours too (503). None of these is "wrong code".
 */
const FAULTS: Record<UpstreamReason, Fault> = {
  phone_rejected: { code: 'phone_number_rejected' },
  request_malformed: { code: 'internal_error', alert: 'request_malformed' },
  wallet_empty: {
    code: 'sms_unavailable',
    alert: 'wallet_exhausted',
    retryAfterSeconds: 300,
    itsOwn: true,
    notLooked: true,
  },
  number_limited: { code: 'rate_limited', retryAfterSeconds: 300, notLooked: true },
  send_refused: { code: 'upstream_unavailable', itsOwn: true },
  credentials_refused: {
    code: 'internal_error',
    alert: 'upstream_credentials',
    itsOwn: true,
    notLooked: true,
  },
  contract_mismatch: {
    code: 'sms_unavailable',
    alert: 'contract_mismatch',
    retryAfterSeconds: 300,
    itsOwn: true,
    notLooked: true,
  },
  duplicate: { code: 'upstream_unavailable' },
  request_expired: { code: 'otp_expired' },
  throttled: { code: 'rate_limited', retryAfterSeconds: 60, itsOwn: true, notLooked: true },
  unconfirmed: { code: 'upstream_unavailable' },
  breaker_open: { code: 'upstream_unavailable', itsOwn: true, notLooked: true },
  unreachable: { code: 'upstream_unavailable', itsOwn: true, notLooked: true },
  failed: { code: 'upstream_unavailable' },
  timed_out: { code: 'upstream_timeout' },
};

/** Turns providers' errors into ours: one line in the log, an alert where somebody must act. */
@Injectable()
export class UpstreamFaults {
  constructor(
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {
    const alerts = Object.values(FAULTS).flatMap(({ alert }) => alert ?? []);
    startAtZero(metrics.alerts, 'alert', ['provider_down', ...alerts]);
  }

  /** What a client shall tell of its calls and its breaker. */
  watch(provider: ProviderName): {
    onCall: (call: UpstreamCall) => void;
    onBreaker: (open: boolean) => void;
  } {
    this.metrics.breakerOpen.set({ provider }, 0);
    this.metrics.walletExhausted.set({ provider }, 0);
    startAtZero(this.metrics.smsSent, 'provider', [provider]);
    startAtZero(this.metrics.smsVerified, 'provider', [provider]);
    return {
      onCall: ({ operation, outcome, seconds }) => {
        this.metrics.upstreamCalls.observe({ provider, operation, outcome }, seconds);
        if (outcome === 'wallet_empty') this.metrics.walletExhausted.set({ provider }, 1);
        if (operation === 'send' && outcome === 'accepted') {
          this.metrics.walletExhausted.set({ provider }, 0);
        }
      },
      onBreaker: (open) => {
        this.metrics.breakerOpen.set({ provider }, open ? 1 : 0);
        if (!open) {
          this.logger.info('The provider works again', { provider });
          return;
        }
        this.metrics.alerts.inc({ alert: 'provider_down' });
        this.logger.alert('provider_down', 'The provider does not work: it is asked once in five seconds', {
          provider,
        });
      },
    };
  }

  /** Of a send. Anything but an {@link UpstreamError} is a fault in our own code, and passes unchanged. */
  translate(error: unknown): unknown {
    if (!(error instanceof UpstreamError)) return error;
    const { code, alert, retryAfterSeconds, itsOwn = false } = FAULTS[error.reason];
    const fields = {
      provider: error.provider,
      reason: error.reason,
      upstreamStatus: error.status,
      upstreamRequestId: error.correlationId,
      upstreamMessage: error.upstreamMessage,
    };
    if (alert) {
      this.metrics.alerts.inc({ alert });
      this.logger.alert(alert, 'A provider needs attention', fields);
    } else {
      this.logger.warn('A provider refused or failed', fields);
    }
    const wait = error.retryAfterSeconds ?? retryAfterSeconds;
    const refusal = new ApiError(code, {
      cause: error,
      ...(wait === undefined ? {} : { retryAfterSeconds: wait }),
    });
    return new ProviderError(refusal, error.accepted, itsOwn && error.accepted === 'no');
  }

  /** Of a verification: `accepted` says whether the code may have been looked at. */
  translateLook(error: unknown): unknown {
    const failure = this.translate(error);
    if (!(error instanceof UpstreamError) || !(failure instanceof ProviderError)) return failure;
    const notLooked = error.accepted === 'no' && FAULTS[error.reason].notLooked === true;
    return new ProviderError(failure.refusal, notLooked ? 'no' : 'unknown');
  }
}
