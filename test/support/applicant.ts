import type { Config } from '../../src/config/config';
import { Guard } from '../../src/guard/guard';
import type { Logger } from '../../src/logging/logger';
import type { Metrics } from '../../src/metrics/metrics';
import type { Store } from '../../src/redis/store';
import { Admission } from '../../src/throttling/admission';
import type { Applicant } from '../../src/throttling/applicant';

export const admissionOver = (config: Config, store: Store, metrics: Metrics, logger: Logger): Admission =>
  new Admission(config, store, new Guard(config, store, metrics, logger), metrics, logger);

/** Somebody new who asks for an SMS. */
export const applicant = (pseudonym: string, more: Partial<Applicant> = {}): Applicant => ({
  pseudonym,
  byDevice: false,
  returning: false,
  scopes: ['series:987654', 'network:203.0.113.0/24', 'service'],
  network: '203.0.113.0/24',
  provider: 'startmessaging',
  ...more,
});
