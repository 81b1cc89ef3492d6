import { BlockList, isIP, isIPv4 } from 'node:net';

/** Loopback, RFC 1918, RFC 6598 (carrier NAT, some clusters), RFC 4193, link-local: where the operator's own proxy runs. */
export const PRIVATE = blockList([
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
]);

/**
 * The scopes that an address is counted by, each with the factor of its limits. An IPv6 subscriber holds a whole /64
 * and often a /48: counted by single addresses it would have 2^64 of them.
 */
export function addressScopes(address: string): { scope: string; factor: number }[] {
  if (isIPv4(address)) return [{ scope: address, factor: 1 }];
  const groups = expandIPv6(address);
  return [
    { scope: `${groups.slice(0, 4).join(':')}::/64`, factor: 1 },
    { scope: `${groups.slice(0, 3).join(':')}::/48`, factor: 10 },
  ];
}

/** One client as far as an address tells: IPv4 itself, IPv6 its /64. */
export function originOf(address: string): string {
  return addressScopes(address)[0]?.scope ?? address;
}

/** The network of the address, cut to /24 or /48: its owner may recognise it, but it identifies no single user. */
export function networkOf(address: string): string {
  if (isIPv4(address)) return address.replace(/\d+$/, '0/24');
  const groups = expandIPv6(address).slice(0, 3);
  return `${groups.map((group) => parseInt(group, 16).toString(16)).join(':')}::/48`;
}

/** One spelling for one address; an IPv4 address mapped into IPv6 is an IPv4 address. Undefined for anything else. */
export function canonicalAddress(text: string): string | undefined {
  if (isIP(text) === 0) return undefined;
  const address = text.replace(/%.*$/, '');
  if (isIPv4(address)) return address;
  const groups = expandIPv6(address);
  const mapped = groups.slice(0, 6).join(':') === '0000:0000:0000:0000:0000:ffff';
  if (!mapped) return groups.join(':');
  const bytes = Buffer.from(groups.slice(6).join(''), 'hex');
  return bytes.join('.');
}

/** A port, also an obfuscated one (RFC 7239 section 6.3), behind an address. */
const PORT = /(?<!:):(?:\d{1,5}|_[\w.-]{1,64})$/;

/**
 * The address that one entry of X-Forwarded-For names, in the forms that proxies write: bare, with a port
 * (`203.0.113.7:41234`, `[2001:db8::1]:443`), in brackets, in double quotes, or as an element of RFC 7239
 * (`for="[2001:db8::1]:443";proto=https`). Undefined for an entry that names no address, such as `unknown`, `_hidden` or
 * a host name.
 */
export function forwardedAddress(entry: string): string | undefined {
  const text = entry.trim();
  const node = /(?:^|;)[ \t]*for=("[^"]*"|[^;"]*)/i.exec(text)?.[1] ?? text;
  const address = node.trim().replace(/^"(.*)"$/, '$1');
  // The whole text comes first: an IPv6 address without brackets may end in a group that looks like a port.
  return canonicalAddress(address) ?? canonicalAddress(address.replace(PORT, '').replace(/^\[(.*)\]$/, '$1'));
}

/** Eight groups of four hex digits. The URL parser (WHATWG) knows every notation, embedded IPv4 included. */
function expandIPv6(address: string): string[] {
  const short = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = '', tail] = short.split('::');
  const left = head ? head.split(':') : [];
  const right = tail ? tail.split(':') : [];
  const middle = tail === undefined ? [] : Array<string>(8 - left.length - right.length).fill('0');
  return [...left, ...middle, ...right].map((group) => group.padStart(4, '0'));
}

export function blockList(cidrs: readonly string[]): BlockList {
  const list = new BlockList();
  for (const cidr of cidrs) {
    const [address = '', bits] = cidr.split('/');
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    list.addSubnet(address, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
  }
  return list;
}

export function includes(list: BlockList, address: string): boolean {
  return list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

/** Whether a network holds every address of a family. IPv6 holds all of IPv4 once more, as ::ffff:0:0/96. */
export function isEverywhere(cidr: string): boolean {
  const [address = '', digits] = cidr.split('/');
  const prefix = Number(digits);
  if (prefix === 0 || isIP(address) === 4) return prefix === 0;
  const block = new BlockList();
  block.addSubnet(address, prefix, 'ipv6');
  return prefix <= 96 && block.check('::ffff:0:0', 'ipv6');
}

/** Whether the host of a URL is this machine, so that what is sent to it crosses no wire. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
