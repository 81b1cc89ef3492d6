import { absoluteUri, webAddress } from './addresses';
import { isLoopback } from '../net/addresses';
import { parseRedisUrl, redisUrl } from './redis-url';
import { listOf, matching, oneOf, trueOrFalse, wholeNumber } from './rules';
import type { Settings } from './settings';

const logLevel = oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent');
export type LogLevel = NonNullable<ReturnType<typeof logLevel.read>>;

const listenAddress = matching(/^[A-Za-z0-9.:_-]{1,253}$/, 'an address or a host name');
const audienceName = matching(/^[!-~]{1,255}$/, '1 to 255 visible ASCII characters');

/** The process itself: where it listens, what it calls itself, where its store is. */
export function readService(settings: Settings) {
  // Without it, tokens of every deployment would name localhost, and one deployment would accept those of another.
  const issuer = settings.requiredInProduction('ISSUER', webAddress) ?? 'http://localhost:3000';
  if (settings.production && issuer.startsWith('http:') && !isLoopback(new URL(issuer).hostname)) {
    settings.warn(
      'ISSUER',
      'is not https: an attacker on the way could replace the keys that are fetched by it',
    );
  }

  const redis = settings.requiredInProduction('REDIS_URL', redisUrl);
  const target = redis === undefined ? undefined : parseRedisUrl(redis);
  if (settings.production && target?.nodes.every((node) => isLoopback(node.host)) === false) {
    if (target.password === '') settings.warn('REDIS_URL', 'has no password');
    // On the way, an attacker could read the password of Redis, and write sessions and counters.
    if (!target.tls)
      settings.warn('REDIS_URL', 'reaches another host without TLS: use the scheme with rediss');
  }

  const port = settings.withDefault('PORT', wholeNumber(0, 65_535), 3000);
  const managementPort = settings.optional('MANAGEMENT_PORT', wholeNumber(1, 65_535));
  settings.require(managementPort !== port, 'MANAGEMENT_PORT', 'must not be the value of PORT', 'PORT');

  const phoneInboxUrl = settings.optional('PHONE_INBOX_URL', webAddress);

  return {
    // The emulator shows every code: production has none.
    phoneInboxUrl: settings.production ? undefined : phoneInboxUrl,
    nodeEnv: settings.nodeEnv,
    host: settings.withDefault('HOST', listenAddress, '0.0.0.0'),
    port,
    managementPort,
    issuer,
    audience: settings.withDefault('AUDIENCE', audienceName, 'otp-login'),
    resourceAudiences: settings.withDefault('RESOURCE_AUDIENCES', listOf(absoluteUri), []),
    redisUrl: redis,
    swagger: settings.withDefault('SWAGGER', trueOrFalse, !settings.production),
    logLevel: settings.withDefault('LOG_LEVEL', logLevel, 'info'),
    // Node.js takes 0 for no limit at all.
    keepAliveSeconds: settings.withDefault('KEEP_ALIVE_SECONDS', wholeNumber(1, 3_600), 75),
    // The process is to be gone 30 s after SIGTERM, and draining needs its share of them.
    shutdownDelaySeconds: settings.withDefault('SHUTDOWN_DELAY_SECONDS', wholeNumber(0, 20), 5),
  };
}
