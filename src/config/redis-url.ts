import { isIP } from 'node:net';
import { decimal, type Rule } from './rules';

/** The parts of a Redis URL of any of the six schemes. Ports and the database are filled in. */
interface RedisTarget {
  readonly kind: 'standalone' | 'cluster' | 'sentinel';
  readonly tls: boolean;
  /** Empty when there is none, and so is the password. */
  readonly username: string;
  readonly password: string;
  /** An IPv6 address stands without its brackets. */
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly db: number;
  /** The name that the sentinels know the primary by; undefined elsewhere. */
  readonly masterName: string | undefined;
}

// Not `new URL`: it knows neither a list of hosts nor the path of a scheme like redis+sentinel.
const SHAPE = /^redis(s?)(?:\+(cluster|sentinel))?:\/\/(?:([^@/?#\s]*)@)?([^/?#@\s]+)(?:\/([^/?#\s]*))?$/;

/**
 * Reads `redis[s]://[user:password@]host[:port][/db]`, `redis[s]+cluster://…h1:p1,h2:p2` and
 * `redis[s]+sentinel://…h1:p1,h2:p2/master-name`. User and password are percent-decoded.
 * @returns undefined for anything else.
 */
export function parseRedisUrl(text: string): RedisTarget | undefined {
  const parts = SHAPE.exec(text);
  if (!parts) return undefined;
  const [, s, scheme, userinfo, hosts = '', path = ''] = parts;
  const kind = scheme === 'cluster' || scheme === 'sentinel' ? scheme : 'standalone';

  const nodes = hosts.split(',').map((host) => parseNode(host, kind === 'sentinel' ? 26_379 : 6379));
  if (!nodes.every((node) => node !== undefined)) return undefined;
  if (kind === 'standalone' && nodes.length > 1) return undefined;

  const [username, password] = parseCredentials(userinfo) ?? [];
  if (username === undefined || password === undefined) return undefined;

  const masterName = kind === 'sentinel' ? path : undefined;
  if (masterName !== undefined && !/^[\w.-]+$/.test(masterName)) return undefined;
  // A cluster has no other database than 0.
  const db = kind === 'sentinel' ? 0 : decimal(path || '0', 0, kind === 'cluster' ? 0 : 65_535);
  if (db === undefined) return undefined;

  return { kind, tls: s === 's', username, password, nodes, db, masterName };
}

export const redisUrl: Rule<string> = {
  expected:
    'redis://user:password@host:port/db, redis+cluster://user:password@host:port,host:port or ' +
    'redis+sentinel://user:password@host:port,host:port/master-name, or the same with rediss for TLS; ' +
    'reserved characters of a password are percent-encoded',
  read: (text) => (parseRedisUrl(text) ? text : undefined),
};

function parseNode(text: string, defaultPort: number) {
  const [, bracketed, name, digits] = /^(?:\[([^\]]+)\]|([A-Za-z0-9._-]+))(?::(\d+))?$/.exec(text) ?? [];
  const host = bracketed ?? name;
  const port = digits === undefined ? defaultPort : decimal(digits, 1, 65_535);
  if (host === undefined || port === undefined) return undefined;
  if (bracketed !== undefined && isIP(bracketed) !== 6) return undefined;
  return { host, port };
}

/** A user without a password is refused: it is a password in the wrong place, and Redis would be sent none. */
function parseCredentials(userinfo: string | undefined): [string, string] | undefined {
  if (userinfo === undefined) return ['', ''];
  const colon = userinfo.indexOf(':');
  const username = decode(userinfo.slice(0, colon));
  const password = decode(userinfo.slice(colon + 1));
  return colon < 0 || username === undefined || !password ? undefined : [username, password];
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
