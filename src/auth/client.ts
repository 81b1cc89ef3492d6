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
export function describeClient(request: FastifyRequest, address: string): Client {
  return { device: deviceOf(request.headers['user-agent'] ?? ''), address: networkOf(address) };
}

/** HTTP libraries of apps, which the library does not know. */
const APPS: readonly [RegExp, string][] = [
  [/\bokhttp\//i, 'Android app'],
  [/\bCFNetwork\//i, 'iOS app'],
  [/\bDart\//i, 'Dart app'],
];

function deviceOf(given: string): string {
  const userAgent = given.slice(0, LONGEST_USER_AGENT);
  if (userAgent === '') return 'Unknown device';
  const app = APPS.find(([pattern]) => pattern.test(userAgent));
  if (app !== undefined) return app[1];
  // The library runs regular expressions over it.
  const { browser, os } = bowser.parse(userAgent);
  const names = [browser.name, os.name].filter((name) => KNOWN.has(name)).join(' on ');
  return names === '' ? 'Unknown device' : names.slice(0, LONGEST_DEVICE);
}
