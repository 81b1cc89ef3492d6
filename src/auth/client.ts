import bowser from 'bowser';
import type { FastifyRequest } from 'fastify';
import type { Client } from '../sessions/sessions.service';
import { networkOf } from '../throttling/client-address';

const LONGEST_USER_AGENT = 512;
const LONGEST_DEVICE = 40;

/** What a session list will show of this client: names that a library found, never the caller's own text. */
export function describeClient(request: FastifyRequest, address: string): Client {
  return { device: deviceOf(request.headers['user-agent'] ?? ''), address: networkOf(address) };
}

function deviceOf(userAgent: string): string {
  if (userAgent === '') return 'Unknown device';
  // The library runs regular expressions over it.
  const { browser, os } = bowser.parse(userAgent.slice(0, LONGEST_USER_AGENT));
  const names = [browser.name, os.name].filter(Boolean).join(' on ');
  return names === '' ? 'Unknown device' : names.slice(0, LONGEST_DEVICE);
}
