import { Config } from './config';
import { readAccess } from './read-access';
import { readAlerts } from './read-alerts';
import { readKeys } from './read-keys';
import { readLimits } from './read-limits';
import { readLogin } from './read-login';
import { readOAuthClients } from './read-oauth-clients';
import { readPages } from './read-pages';
import { readProviders } from './read-providers';
import { readSendWithSes } from './read-sendwithses';
import { readService } from './read-service';
import { readStartMessaging } from './read-startmessaging';
import { type Environment, type ReadFile, Settings } from './settings';

/**
 * Reads and validates every setting. Impure in two ways only: it reads the files that `NAME_FILE`
 * settings and `JWT_KEYS_DIR` name, and makes random secrets where development left them out.
 * @param readFile how the file of a `NAME_FILE` is read; from the disk by default.
 * @throws ConfigError with all faults at once.
 */
export function readConfig(environment: Environment, readFile?: ReadFile): Config {
  const settings = new Settings(environment, readFile);
  const service = readService(settings);
  const upstream = readProviders(settings);
  const listed = upstream.providers.includes('startmessaging');
  const startMessaging = readStartMessaging(settings, listed);
  const access = readAccess(settings, service.issuer);
  const pages = readPages(settings, access.corsOrigins);
  const values = {
    ...service,
    ...upstream,
    ...startMessaging,
    sendWithSes: readSendWithSes(settings, upstream.providers.includes('sendwithses')),
    ...readKeys(settings),
    ...readLogin(settings, listed ? startMessaging.startMessagingContract : undefined),
    ...readLimits(settings),
    ...access,
    ...pages,
    oauthClients: readOAuthClients(settings, { ...service, ...pages }),
    ...readAlerts(settings),
  };
  settings.throwFaults();
  return new Config({ ...values, production: settings.production, warnings: settings.warnings });
}
