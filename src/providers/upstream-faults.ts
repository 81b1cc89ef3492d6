import { Injectable } from '@nestjs/common';
import type { ProviderName } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Alerts } from '../alerts/alerts';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import type { UpstreamCall } from '../upstream/upstream';
import { UpstreamError } from '../upstream/upstream.error';
import { FAILURES } from './failures';
import { ProviderError } from './otp-provider';

/** Turns providers' errors into public errors: one log line each, and an alert if an operator must act. */
@Injectable()
export class UpstreamFaults {
  constructor(
    private readonly logger: Logger,
    private readonly metrics: Metrics,
    private readonly alerts: Alerts,
  ) {}

  /** The callbacks for a client's calls and its breaker. */
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
        this.alerts.raise('provider_down', 'The provider does not work: it is asked once in five seconds', {
          provider,
        });
      },
    };
  }

  /** Translates an error of a send. An error other than {@link UpstreamError} is a fault of our code, and passes unchanged. */
  translate(error: unknown): unknown {
    if (!(error instanceof UpstreamError)) return error;
    const { code, alert, retryAfterSeconds, itsOwn = false } = FAILURES[error.reason];
    const fields = {
      provider: error.provider,
      reason: error.reason,
      upstreamStatus: error.status,
      upstreamRequestId: error.correlationId,
      upstreamMessage: error.upstreamMessage,
    };
    if (alert) {
      this.alerts.raise(alert, 'A provider needs attention', fields);
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

  /** Translates an error of a verification: `accepted` tells whether the code may have been checked. */
  translateVerification(error: unknown): unknown {
    const failure = this.translate(error);
    if (!(error instanceof UpstreamError) || !(failure instanceof ProviderError)) return failure;
    const notChecked = error.accepted === 'no' && FAILURES[error.reason].notChecked === true;
    return new ProviderError(failure.refusal, notChecked ? 'no' : 'unknown');
  }
}
