import { Injectable } from '@nestjs/common';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
/** A Redis command takes a millisecond, and is given up after 750. */
const REDIS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.75];

/** All metrics for operations, in Prometheus conventions. Every label has a bounded set of values. */
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
    help: 'HTTP requests whose body has arrived and that are not answered yet, probes and metrics apart',
    registers: [this.registry],
  });
  readonly unread = new Gauge({
    name: 'otp_login_http_requests_unread',
    help: 'HTTP requests whose body has not arrived yet',
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
  readonly smsSent = new Counter({
    name: 'otp_login_sms_sent_total',
    help: 'SMS that a provider took, or may have taken: what is paid for. No repeats, no test numbers',
    labelNames: ['provider'] as const,
    registers: [this.registry],
  });
  readonly smsVerified = new Counter({
    name: 'otp_login_sms_verified_total',
    help: 'SMS with a verified code. Divided by otp_login_sms_sent_total it is the conversion',
    labelNames: ['provider'] as const,
    registers: [this.registry],
  });
  readonly refreshes = new Counter({
    name: 'otp_login_refreshes_total',
    help:
      'Uses of refresh tokens by outcome: rotated, repeated (the same successor again), repeated_elsewhere (the first repeat ' +
      'from another network), or the error code',
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
  readonly addresses = new Gauge({
    name: 'otp_login_client_addresses',
    help:
      'Client addresses (IPv6: /64) with a request in the current or the previous window, by the limit and by whether ' +
      'each is counted exactly or shares a counter with others. The same of every replica: take their maximum',
    labelNames: ['limit', 'counted'] as const,
    registers: [this.registry],
  });
  readonly budget = new Gauge({
    name: 'otp_login_budget_paise',
    help: 'The budget of each rolling window that has one',
    labelNames: ['window'] as const,
    registers: [this.registry],
  });
  readonly budgetLeft = new Gauge({
    name: 'otp_login_budget_left_paise',
    help:
      'Rest of the budget for new numbers and for returning numbers, as Redis has it at the scrape. ' +
      'The same of every replica: take their maximum, never their sum',
    labelNames: ['window', 'numbers'] as const,
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
  readonly walletBalance = new Gauge({
    name: 'otp_login_wallet_balance_paise',
    help:
      'Balance at StartMessaging as last read or, where it cannot be read, as the ledger estimates it. Absent until it is ' +
      'known. The same of every replica: take their maximum',
    registers: [this.registry],
  });
  readonly walletAlert = new Gauge({
    name: 'otp_login_wallet_alert_paise',
    help: 'The balance below which the alert wallet_low is raised. Absent where the wallet is not read',
    registers: [this.registry],
  });
  readonly breakerOpen = new Gauge({
    name: 'otp_login_breaker_open',
    help: '1 while calls are kept from a provider that does not work',
    labelNames: ['provider'] as const,
    registers: [this.registry],
  });
  readonly abuseDecisions = new Counter({
    name: 'otp_login_abuse_decisions_total',
    help: 'Abuse levels that changed, by signal and by the level that holds now',
    labelNames: ['signal', 'level'] as const,
    registers: [this.registry],
  });
  readonly deliveries = new Counter({
    name: 'otp_login_deliveries_total',
    help: 'Delivery states of SMS, as far as login pages asked for them',
    labelNames: ['delivery'] as const,
    registers: [this.registry],
  });
  readonly alerts = new Counter({
    name: 'otp_login_alerts_total',
    help: 'Faults that an operator must act on, by kind',
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

  readonly redisCommands = new Histogram({
    name: 'otp_login_redis_command_duration_seconds',
    help: 'Round trips to Redis by command (a script or a plain command) and outcome: answered or failed',
    labelNames: ['command', 'outcome'] as const,
    buckets: REDIS_SECONDS,
    registers: [this.registry],
  });
  readonly redisAvailable = new Gauge({
    name: 'otp_login_redis_available',
    help: '1 while there is a connection to Redis, of a cluster to the primary of every slot',
    registers: [this.registry],
  });
  readonly redisMemory = new Gauge({
    name: 'otp_login_redis_memory_bytes',
    help:
      'Memory of each primary of Redis: what it uses, and its maxmemory (0: no limit), as Redis has them at the scrape. ' +
      'The same of every replica: take their maximum',
    labelNames: ['node', 'memory'] as const,
    registers: [this.registry],
  });
  readonly signingKeys = new Gauge({
    name: 'otp_login_signing_keys',
    help: 'Keys that are published: the one that signs, those that will, those that did',
    labelNames: ['state'] as const,
    registers: [this.registry],
  });
  readonly signingSince = new Gauge({
    name: 'otp_login_signing_key_active_timestamp_seconds',
    help: 'The time from which the key signs that signs now',
    registers: [this.registry],
  });
  readonly signingNext = new Gauge({
    name: 'otp_login_signing_key_next_timestamp_seconds',
    help: 'The time from which the next key will sign; 0 while there is none',
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
    help: '1 while the files of secrets or the folder of signing keys hold what is refused, or Redis its new user or password: what was in use stays',
    labelNames: ['source'] as const,
    registers: [this.registry],
  });
  private readonly lookedUp: (() => void | Promise<void>)[] = [];

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'otp_login_' });
  }

  /** Registers a function that sets a gauge at each scrape. A call to Redis in it has a deadline like any other. */
  onScrape(lookUp: () => void | Promise<void>): void {
    this.lookedUp.push(lookUp);
  }

  /** The page for Prometheus. A gauge that cannot be set does not hide the others. */
  async read(): Promise<string> {
    await Promise.allSettled(this.lookedUp.map(async (lookUp) => lookUp()));
    return this.registry.metrics();
  }
}

/** Counts nothing yet: a value that is first seen as 1 has not risen, and no alert would come of it. */
export function startAtZero<Label extends string>(
  counter: Counter<Label>,
  label: Label,
  values: Iterable<string>,
): void {
  for (const value of values) counter.inc({ [label]: value } as Record<Label, string>, 0);
}
