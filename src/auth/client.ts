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

function deviceOf(userAgent: string): string {
  if (userAgent === '') return 'Unknown device';
  // The library runs regular expressions over it.
  const { browser, os } = bowser.parse(userAgent.slice(0, LONGEST_USER_AGENT));
  const names = [browser.name, os.name].filter((name) => KNOWN.has(name)).join(' on ');
  return names === '' ? 'Unknown device' : names.slice(0, LONGEST_DEVICE);
}
