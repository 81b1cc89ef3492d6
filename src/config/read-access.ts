import { network, webOrigin } from './addresses';
import { isEverywhere, isLoopback } from '../net/addresses';
import { adminToken } from './admin-token';
import { isWeak, listOf, matching, SECRET_LENGTH, trueOrFalse, type Rule, WEAK } from './rules';
import type { Settings } from './settings';

/** A resource server that may ask what a token is worth (RFC 7662, section 2.1). */
export interface IntrospectionClient {
  readonly id: string;
  readonly secret: string;
}

const introspectionClient: Rule<IntrospectionClient> = {
  expected:
    `id:secret, the id of 1 to 64 letters, digits and ._~-, the secret of ${SECRET_LENGTH} to 256 visible ASCII ` +
    'characters without commas',
  read(text) {
    const [, id, secret = ''] = /^([\w.~-]{1,64}):([!-+\--~]{1,256})$/.exec(text) ?? [];
    return id === undefined || secret.length < SECRET_LENGTH ? undefined : { id, secret };
  },
};

// A number of one digit would call a tenth of India's landlines mobile.
const mobileSeries = matching(/^[6-9][0-9]{1,9}$/, '2 to 10 digits that begin with 6 to 9');

/** Trusted proxies, origins with cookies, and clients of introspection. */
export function readAccess(settings: Settings, issuer: string) {
  const trustedProxies = settings.withDefault('TRUSTED_PROXIES', listOf(network), []);
  // A trusted proxy chooses the address that the limits count. If every address were trusted, no caller would be limited.
  settings.require(
    !settings.production || !trustedProxies.some(isEverywhere),
    'TRUSTED_PROXIES',
    'must not hold every address (0.0.0.0/0 or ::/0) in production',
  );

  const corsOrigins = settings.withDefault('CORS_ORIGINS', listOf(webOrigin), []);
  if (settings.production && corsOrigins.some((origin) => origin.startsWith('http:'))) {
    settings.warn('CORS_ORIGINS', 'holds an origin that is not https');
  }

  const cookieInsecure = settings.withDefault('COOKIE_INSECURE', trueOrFalse, false);
  settings.require(
    !settings.production || !cookieInsecure,
    'COOKIE_INSECURE',
    'must not be true in production: the refresh token would travel without TLS',
  );
  const { protocol, hostname } = new URL(issuer);
  // A page without TLS on another host could set or read such a cookie on the way.
  const issuerIsLocal = protocol === 'http:' && isLoopback(hostname);
  if (cookieInsecure && !issuerIsLocal) {
    settings.warn('COOKIE_INSECURE', 'has no effect: ISSUER is not an http address of this machine');
  }

  const introspectionClients = settings.withDefault('INTROSPECTION_CLIENTS', listOf(introspectionClient), []);
  settings.require(
    new Set(introspectionClients.map((client) => client.id)).size === introspectionClients.length,
    'INTROSPECTION_CLIENTS',
    'must not name an id twice',
  );
  settings.require(
    !settings.production || !introspectionClients.some((client) => isWeak(client.secret)),
    'INTROSPECTION_CLIENTS',
    WEAK,
  );

  const adminTokens = settings.withDefault('ADMIN_TOKENS', listOf(adminToken), []);
  settings.require(
    new Set(adminTokens.map(({ name }) => name)).size === adminTokens.length,
    'ADMIN_TOKENS',
    'must not name a client twice',
  );
  // Readers of the pod's description see a variable, but not a mounted secret.
  settings.require(
    !settings.production || settings.isFile('ADMIN_TOKENS') || !adminTokens.some(({ plain }) => plain),
    'ADMIN_TOKENS',
    'must be hashed (name:sha256:hex) in production, or come from ADMIN_TOKENS_FILE',
  );

  settings.require(!settings.production || !adminTokens.some(({ weak }) => weak), 'ADMIN_TOKENS', WEAK);

  const extraMobileSeries = settings.withDefault('EXTRA_MOBILE_SERIES', listOf(mobileSeries), []);

  return {
    trustedProxies,
    corsOrigins,
    cookieInsecure: cookieInsecure && issuerIsLocal,
    introspectionClients,
    adminTokens,
    extraMobileSeries,
  };
}
