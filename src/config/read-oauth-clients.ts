import { isLoopback } from '../net/addresses';
import { logoFile, type Logo } from './read-pages';
import type { Settings } from './settings';

/** An app that logs its users in at `/oauth/authorize`. */
export interface OAuthClient {
  readonly id: string;
  readonly name: string;
  readonly logo: Logo | undefined;
  /** SHA-256 of its secret. Undefined for a public client: an app in a browser or on a phone keeps no secret. */
  readonly secretDigest: Buffer | undefined;
  readonly redirectUris: readonly string[];
  readonly postLogoutRedirectUris: readonly string[];
  /** A confidential client may leave PKCE out. */
  readonly pkceOptional: boolean;
}

const FIELDS = ['id', 'name', 'logo', 'secret_sha256', 'redirect_uris', 'post_logout_redirect_uris', 'pkce'];
const MOST_URIS = 20;

/**
 * OAUTH_CLIENTS: a JSON array. Every fault of every client is a fault of the setting, with the place of the client in the
 * array and without a value.
 */
export function readOAuthClients(
  settings: Settings,
  { loginPage, audience }: { loginPage: boolean; audience: string },
): readonly OAuthClient[] {
  const entries = settings.optional('OAUTH_CLIENTS', {
    expected: 'a JSON array of clients, each an object with id, name and redirect_uris',
    read: readArray,
  });
  if (entries === undefined) return [];
  const faults: string[] = loginPage ? [] : ['needs LOGIN_PAGE=true: users of the clients log in there'];
  const clients = entries.map((entry, i) => readClient(entry, (fault) => faults.push(`[${i}] ${fault}`)));
  const ids = clients.map(({ id }) => id).filter((id) => id !== '');
  if (new Set(ids).size < ids.length) faults.push('must not name an id twice');
  // Access tokens of such a client would pass for tokens of the service's own client.
  if (ids.includes(audience)) faults.push('must not use the value of AUDIENCE as an id');
  settings.refuseAll('OAUTH_CLIENTS', faults);
  return clients;
}

function readArray(text: string): Record<string, unknown>[] | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.every((entry) => typeof entry === 'object' && entry !== null)
      ? (value as Record<string, unknown>[])
      : undefined;
  } catch {
    return undefined;
  }
}

function readClient(entry: Record<string, unknown>, fault: (fault: string) => void): OAuthClient {
  const text = (field: string, pattern: RegExp, expected: string): string => {
    const value = entry[field];
    if (typeof value === 'string' && pattern.test(value)) return value;
    fault(`${field} must be ${expected}`);
    return '';
  };
  // A misspelt field would be a rule that does not apply.
  if (!Object.keys(entry).every((field) => FIELDS.includes(field)))
    fault(`must have no other fields than ${FIELDS.join(', ')}`);
  const id = text('id', /^[\w.~-]{1,60}$/, '1 to 60 letters, digits and ._~-');
  const name = text('name', /^[^\p{C}\p{Zl}\p{Zp}]{1,40}$/u, '1 to 40 characters without control characters');
  const secret =
    entry.secret_sha256 === undefined
      ? undefined
      : text('secret_sha256', /^[\da-f]{64}$/i, 'the SHA-256 of the secret in hex: 64 digits');
  const uris = (field: string): readonly string[] => {
    const list: unknown = entry[field];
    if (Array.isArray(list) && list.length > 0 && list.length <= MOST_URIS && list.every(isRedirectUri))
      return list;
    fault(
      `${field} must be a list of 1 to ${MOST_URIS} URIs without fragment and user information: https, http on this machine, or the scheme of an app such as com.example.app:/callback`,
    );
    return [];
  };
  const redirectUris = uris('redirect_uris');
  const afterLogout = entry.post_logout_redirect_uris === undefined ? [] : uris('post_logout_redirect_uris');
  const { pkce = 'required' } = entry;
  if (pkce !== 'required' && pkce !== 'optional') fault('pkce must be "required" or "optional"');
  // PKCE is all that binds a code to a public client (RFC 9700 section 2.1.1).
  if (pkce === 'optional' && secret === undefined)
    fault('pkce may be "optional" only with secret_sha256: a public client needs PKCE');
  return {
    id,
    name,
    logo: readLogo(entry.logo, fault),
    secretDigest: secret === undefined ? undefined : Buffer.from(secret, 'hex'),
    redirectUris,
    postLogoutRedirectUris: afterLogout,
    pkceOptional: pkce === 'optional',
  };
}

function readLogo(path: unknown, fault: (fault: string) => void): Logo | undefined {
  if (path === undefined) return undefined;
  const logo = typeof path === 'string' ? logoFile.read(path) : undefined;
  if (logo === undefined) fault(`logo must be ${logoFile.expected}`);
  return logo;
}

/** A wildcard, a fragment or user information has no place in a URI that is compared as text (RFC 9700 section 4.1.3). */
function isRedirectUri(uri: unknown): uri is string {
  if (typeof uri !== 'string' || !/^[!-"$-)+-?A-~]{1,500}$/.test(uri) || !URL.canParse(uri)) return false;
  const { protocol, hostname, username, password } = new URL(uri);
  if (username !== '' || password !== '') return false;
  if (protocol === 'https:') return true;
  if (protocol === 'http:') return isLoopback(hostname);
  // RFC 8252 section 7.1: the name of an app has a dot, which `javascript:` and `data:` have not.
  return protocol.includes('.');
}
