import bowser from 'bowser';
import type { FastifyRequest } from 'fastify';
import type { Client } from '../sessions/sessions.service';
import { networkOf } from '../net/addresses';

const LONGEST_USER_AGENT = 512;
const LONGEST_DEVICE = 40;

// Names that the library may return; its own list lacks the last three. For an unknown agent it returns
// the caller's own words, and a thief's would be "your own phone".
const KNOWN = new Set<string | undefined>([
  ...Object.values(bowser.BROWSER_MAP),
  ...Object.values(bowser.OS_MAP),
  'Miui',
  'Opera Touch',
  'PlayStation 4',
]);

/** The client's name in a list of sessions: names that the library found, never the caller's own text. */
export function describeClient(request: Pick<FastifyRequest, 'headers'>, address: string): Client {
  return { device: deviceOf(request.headers['user-agent'] ?? ''), address: networkOf(address) };
}

/** HTTP libraries of apps, which the library does not know. */
const APPS: readonly [RegExp, string][] = [
  [/\bokhttp\//i, 'Android app'],
  [/\bCFNetwork\//i, 'iOS app'],
  [/\bDart\//i, 'Dart app'],
];

/** Names by user agent, the oldest first: most clients have one of a few user agents, and a search costs hundreds of patterns. */
const names = new Map<string, string>();
const MOST_NAMES = 500;

function deviceOf(given: string): string {
  const userAgent = given.slice(0, LONGEST_USER_AGENT);
  let name = names.get(userAgent);
  if (name === undefined) {
    name = findName(userAgent);
    names.set(userAgent, name);
    const [oldest] = names.keys();
    if (names.size > MOST_NAMES && oldest !== undefined) names.delete(oldest);
  }
  return name;
}

function findName(userAgent: string): string {
  if (userAgent === '') return 'Unknown device';
  const app = APPS.find(([pattern]) => pattern.test(userAgent));
  if (app !== undefined) return app[1];
  // The library runs regular expressions over it.
  const { browser, os } = bowser.parse(userAgent);
  const found = [browser.name, os.name].filter((name) => KNOWN.has(name)).join(' on ');
  return found === '' ? 'Unknown device' : found.slice(0, LONGEST_DEVICE);
}

// Combining marks, because Indian scripts need them. No controls, bidi characters or fillers: a name that shows as another
// text would pass for another device.
const DEVICE_NAME = /^(?:(?!\p{Default_Ignorable_Code_Point})[\p{L}\p{M}\p{Nd} '._-]){1,40}$/u;

/**
 * Whether a client may call its device by this name. It has at most 64 bytes: Redis keeps larger fields in a costlier form.
 */
export function isDeviceName(value: unknown): value is string {
  return (
    typeof value === 'string' && DEVICE_NAME.test(value) && Buffer.byteLength(value) <= 64 && /\S/.test(value)
  );
}
