import { Injectable } from '@nestjs/common';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];

/** What operations watch, in Prometheus conventions. Every label has a bounded set of values. */
@Injectable()
export class Metrics {
  readonly registry = new Registry();

  readonly requests = new Histogram({
    name: 'otp_login_http_request_duration_seconds',
    help: 'HTTP requests by method, route and status',
    labelNames: ['method', 'route', 'status'] as const,
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly inFlight = new Gauge({
    name: 'otp_login_http_requests_in_flight',
    help: 'HTTP requests that are not answered yet, probes and metrics apart',
    registers: [this.registry],
  });
  readonly sends = new Counter({
    name: 'otp_login_sends_total',
    help: 'OTP requests by outcome: the delivery that was answered, or the error code',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly verifications = new Counter({
    name: 'otp_login_verifications_total',
    help: 'Verifications by outcome: verified, or the error code',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly refreshes = new Counter({
    name: 'otp_login_refreshes_total',
    help: 'Uses of refresh tokens by outcome: rotated, repeated within the grace interval, or the error code',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly unconfirmedRevocations = new Counter({
    name: 'otp_login_unconfirmed_revocations_total',
    help: 'Sessions that were ended, and no replica of Redis said in time that it knows',
    registers: [this.registry],
  });
  readonly limitsHit = new Counter({
    name: 'otp_login_limits_hit_total',
    help: 'Requests refused by a limit, by its kind',
    labelNames: ['limit'] as const,
    registers: [this.registry],
  });
  readonly upstreamCalls = new Histogram({
    name: 'otp_login_upstream_call_duration_seconds',
    help: 'Calls of a provider by operation and outcome, each retry by itself',
    labelNames: ['provider', 'operation', 'outcome'] as const,
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly walletExhausted = new Gauge({
    name: 'otp_login_wallet_exhausted',
    help: '1 from an answer that the wallet of a provider is empty until it accepts an SMS again',
    labelNames: ['provider'] as const,
    registers: [this.registry],
  });
  readonly breakerOpen = new Gauge({
    name: 'otp_login_breaker_open',
    help: '1 while calls are kept from a provider that does not work',
    labelNames: ['provider'] as const,
    registers: [this.registry],
  });
  readonly guardDecisions = new Counter({
    name: 'otp_login_guard_decisions_total',
    help: 'Steps of the guard that changed, by the signal and the step that holds now',
    labelNames: ['signal', 'step'] as const,
    registers: [this.registry],
  });
  readonly deliveries = new Counter({
    name: 'otp_login_deliveries_total',
    help: 'What SMS were found to have become, as far as somebody asked',
    labelNames: ['delivery'] as const,
    registers: [this.registry],
  });
  readonly alerts = new Counter({
    name: 'otp_login_alerts_total',
    help: 'Faults that somebody must act on, by kind',
    labelNames: ['alert'] as const,
    registers: [this.registry],
  });
  readonly alertWebhooks = new Counter({
    name: 'otp_login_alert_webhooks_total',
    help: 'Webhooks by outcome: delivered, failed after all tries, or an alert held back by one sent before',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly auditDropped = new Counter({
    name: 'otp_login_audit_dropped_total',
    help: 'Audit events that stand in the log only: Redis was away for too long to wait with them',
    registers: [this.registry],
  });

  readonly checkFailed = new Gauge({
    name: 'otp_login_check_failed',
    help: '1 for each check of Redis that found something to mend when it was last reached, 0 for the others',
    labelNames: ['check'] as const,
    registers: [this.registry],
  });

  readonly secretsRead = new Gauge({
    name: 'otp_login_secrets_read_timestamp_seconds',
    help: 'When what is in use was read, of the files of secrets and of the folder of signing keys',
    labelNames: ['source'] as const,
    registers: [this.registry],
  });
  readonly secretsRefused = new Gauge({
    name: 'otp_login_secrets_refused',
    help: '1 while the files of secrets, or the folder of signing keys, hold something that is refused: what was in use stays',
    labelNames: ['source'] as const,
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'otp_login_' });
  }
}
