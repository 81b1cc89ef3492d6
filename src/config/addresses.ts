import { isIP } from 'node:net';
import { isLoopback } from '../net/addresses';
import type { Rule } from './rules';
import type { SettingName, Settings } from './settings';

/**
 * An http or https URL without credentials, query or fragment (what RFC 8414, section 2 wants of an issuer), kept
 * to the letter.
 */
export const webAddress: Rule<string> = {
  expected: 'an http or https URL without credentials, query and fragment',
  read(text) {
    if (!/^https?:\/\/[^/@?#\\\s][^@?#\\\s]*$/.test(text)) return undefined;
    return URL.canParse(text) ? text : undefined;
  },
};

/** An absolute URI without a fragment (RFC 8707 section 2), kept to the letter: it is compared as text. */
export const absoluteUri: Rule<string> = {
  expected: 'an absolute URI without a fragment, such as https://orders.example.com',
  read: (text) =>
    /^[a-z][a-z\d+.-]*:[!-"$-+\--~]{1,255}$/i.test(text) && URL.canParse(text) ? text : undefined,
};

/**
 * An origin exactly as a browser sends it: `scheme://host` or `scheme://host:port`, without a path, a default port or
 * capitals. App shells have schemes of their own, such as `capacitor://localhost`. `*`, also within a host, and `null` are
 * refused: each page of the web could send `null`.
 */
export const webOrigin: Rule<string> = {
  expected: 'an exact origin such as https://app.example.com or capacitor://localhost',
  read(text) {
    if (
      !/^[a-z][a-z\d+.-]*:\/\/(?:\[[\da-f:.]+\]|[\w.~-]+)(?::\d{1,5})?$/i.test(text) ||
      !URL.canParse(text)
    ) {
      return undefined;
    }
    const { protocol, host, origin } = new URL(text);
    // The URL standard gives schemes that it does not know the origin "null"; a WebView sends scheme and host.
    return (origin === 'null' ? `${protocol}//${host}` : origin) === text ? text : undefined;
  },
};

/** A network as `address/prefix`; a bare address is a network of one. */
export const network: Rule<string> = {
  expected: 'an IP address or a CIDR',
  read(text) {
    const [address = '', prefix, ...rest] = text.split('/');
    const family = isIP(address);
    // isIP takes a zone (fe80::1%eth0), which no network has.
    if (family === 0 || address.includes('%') || rest.length > 0) return undefined;
    const bits = family === 4 ? 32 : 128;
    if (prefix === undefined) return `${address}/${bits}`;
    return /^(0|[1-9]\d{0,2})$/.test(prefix) && Number(prefix) <= bits ? text : undefined;
  },
};

/** The address of a provider, without a slash at its end. Its key and people's codes would be readable on the way. */
export function upstreamAddress(settings: Settings, name: SettingName, defaultValue: string): string {
  const address = settings.withDefault(name, webAddress, defaultValue);
  settings.require(
    !settings.production || address.startsWith('https:') || isLoopback(new URL(address).hostname),
    name,
    'must be https in production, except to a loopback address',
  );
  return address.replace(/\/+$/, '');
}
