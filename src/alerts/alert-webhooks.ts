import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { redact } from '../logging/redact';
import { requestContext } from '../logging/request-context';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { ALERT_TYPES, type Alert, type AlertType } from './alert-types';
import { Alerts } from './alerts';
import { Webhook } from './webhook';

const CLAIM = Script.load(__dirname, 'claim');
const RELEASE = Script.load(__dirname, 'release');
const KEY = `${KEY_PREFIX}{alerts}:`;

/** Longer than all tries of a webhook: none is still on its way when the next may be sent. */
const SPEAKS_FOR_ALL_MS = 600_000;
const COUNT_FOR_MS = 86_400_000;
const GATHER_MS = 200;
const LAST_TRIES_MS = 2_000;

/** The event, and the number of alerts of its type that it stands for. */
interface Incident {
  alert: Alert;
  message: string;
  at: Date;
  count: number;
}

/**
 * Sends alerts by a webhook: one of each type within ten minutes, by one replica for all of them. At most one alert of each
 * type waits or is under way, so a flood of alerts costs a counter.
 */
@Injectable()
export class AlertWebhooks implements OnApplicationShutdown {
  private waiting = new Map<AlertType, Incident>();
  /** Not yet arrived, with how many alerts each speaks for. */
  private readonly underWay = new Map<AlertType, number>();
  /** When this replica sent one without Redis, by the process's own clock. */
  private readonly sentAlone = new Map<AlertType, number>();
  private timer: NodeJS.Timeout | undefined;
  private readonly ending = new AbortController();

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly webhook: Webhook,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    alerts: Alerts,
  ) {
    startAtZero(metrics.alertWebhooks, 'outcome', ['delivered', 'failed', 'held_back']);
    alerts.onRaise((alert, message) => {
      this.take(alert, message);
    });
  }

  async onApplicationShutdown(): Promise<void> {
    clearTimeout(this.timer);
    // Now or never: what only begins to be sent is given a moment, what was tried in vain is left to other replicas.
    await Promise.race([this.flush(), sleep(LAST_TRIES_MS, undefined, { ref: false })]);
    this.ending.abort();
    for (const [type, count] of [...this.underWay]) await this.release(type, count);
  }

  private take(alert: Alert, message: string): void {
    if (this.config.alertWebhookUrl === undefined) return;
    const type = ALERT_TYPES[alert];
    const before = this.waiting.get(type);
    if (before) before.count += 1;
    else this.waiting.set(type, { alert, message, at: new Date(), count: 1 });
    // Outside of the request that raised it: what is logged of the webhook is not its own.
    this.timer ??= requestContext.exit(() => setTimeout(() => void this.flush(), GATHER_MS).unref());
  }

  private async flush(): Promise<void> {
    this.timer = undefined;
    const incidents = [...this.waiting];
    this.waiting = new Map();
    await Promise.all(incidents.map(([type, incident]) => this.send(type, incident)));
  }

  private async send(type: AlertType, { alert, message, at, count }: Incident): Promise<void> {
    const url = this.config.alertWebhookUrl;
    const more = await this.claim(type, count);
    if (url === undefined || more < 0) {
      this.metrics.alertWebhooks.inc({ outcome: 'held_back' }, count);
      return;
    }
    this.underWay.set(type, more + 1);
    const { issuer } = this.config;
    const data = { alert, message: redact(message), issuer, more };
    const event = { type: `alert.${type}`, timestamp: at.toISOString(), data };
    const arrived = await this.webhook.deliver(url, event, this.ending.signal);
    this.metrics.alertWebhooks.inc({ outcome: arrived ? 'delivered' : 'failed' });
    this.underWay.delete(type);
    if (arrived || this.ending.signal.aborted) return;
    this.logger.error('Webhook given up: its alert was not delivered', { undelivered: alert });
    await this.release(type, more + 1);
  }

  /** How many others it speaks for; -1 when another one does. */
  private async claim(type: AlertType, count: number): Promise<number> {
    const args = [count, SPEAKS_FOR_ALL_MS, COUNT_FOR_MS];
    try {
      const more = (await this.store.run(CLAIM, keysOf(type), args)) as number;
      return more;
    } catch {
      // A second webhook is better than none: without Redis each replica sends for itself.
      const before = this.sentAlone.get(type) ?? -Infinity;
      if (performance.now() - before < SPEAKS_FOR_ALL_MS) return -1;
      this.sentAlone.set(type, performance.now());
      return count - 1;
    }
  }

  private async release(type: AlertType, count: number): Promise<void> {
    this.sentAlone.delete(type);
    // Without Redis there is nothing to give back.
    await this.store.run(RELEASE, keysOf(type), [count, COUNT_FOR_MS]).catch(() => undefined);
  }
}

function keysOf(type: AlertType): string[] {
  return [`${KEY}${type}:sent`, `${KEY}${type}:held-back`];
}
