import { Injectable } from '@nestjs/common';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { ALERT_TYPES, type Alert } from './alert-types';

type Listener = (alert: Alert, message: string) => void;

/** The one way to raise an alert: a counter, a line of the log, and the webhooks. */
@Injectable()
export class Alerts {
  private readonly listeners: Listener[] = [];

  constructor(
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {
    startAtZero(metrics.alerts, 'alert', Object.keys(ALERT_TYPES));
  }

  /**
   * Reports a fault that an operator must act on. Monitoring watches `otp_login_alerts_total` and the field `alert` of the
   * log. Never throws.
   */
  raise(alert: Alert, message: string, fields: Record<string, unknown> = {}): void {
    this.metrics.alerts.inc({ alert });
    this.logger.error(message, { alert, ...fields });
    for (const listener of this.listeners) listener(alert, message);
  }

  /** Calls the listener at every alert from now on, without the alert's fields. */
  onRaise(listener: Listener): void {
    this.listeners.push(listener);
  }
}
