import { Alerts } from '../../src/alerts/alerts';
import type { Config } from '../../src/config/config';
import { AbuseControl } from '../../src/abuse/abuse-control';
import type { Logger } from '../../src/logging/logger';
import type { Metrics } from '../../src/metrics/metrics';
import type { Store } from '../../src/redis/store';
import { AdmissionControl } from '../../src/throttling/admission';
import type { AdmissionRequest } from '../../src/throttling/admission';

export const admissionOver = (
  config: Config,
  store: Store,
  metrics: Metrics,
  logger: Logger,
): AdmissionControl => {
  const alerts = new Alerts(metrics, logger);
  const abuse = new AbuseControl(config, store, metrics, logger, alerts);
  return new AdmissionControl(config, store, abuse, metrics, alerts);
};

/** Somebody new who asks for an SMS. */
export const admissionRequest = (
  pseudonym: string,
  more: Partial<AdmissionRequest> = {},
): AdmissionRequest => ({
  pseudonym,
  byDevice: false,
  returning: false,
  needsProof: false,
  scopes: ['series:987654', 'network:203.0.113.0/24', 'service'],
  clients: [pseudonym, pseudonym],
  network: '203.0.113.0/24',
  provider: 'startmessaging',
  ...more,
});
