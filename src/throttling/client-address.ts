import { BlockList, isIP, isIPv4 } from 'node:net';
import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';

/** Loopback, RFC 1918, RFC 6598 (carrier NAT, some clusters), RFC 4193: where a proxy of ours would stand. */
const PRIVATE = blockList([
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '::1/128',
  'fc00::/7',
]);

/** The client's address, and what decided it. */
export interface FoundAddress {
  readonly address: string;
  readonly because: 'no_header' | 'peer_not_trusted' | 'no_address' | 'only_proxies' | 'named_by_proxy';
}

/**
 * Finds the client's address. Only hops that TRUSTED_PROXIES names are believed, from the right: everything left of
 * the first stranger in X-Forwarded-For was written by that stranger, who would mint an address for every request.
 */
@Injectable()
export class ClientAddress {
  private readonly trusted: BlockList;
  private warned = false;

  constructor(
    config: Config,
    private readonly logger: Logger,
  ) {
    this.trusted = blockList(config.trustedProxies);
  }

  /** IPv6 as eight groups of four hex digits; an IPv4 address that came mapped into IPv6 is an IPv4 address. */
  of(request: FastifyRequest): string {
    const forwarded = request.headers['x-forwarded-for'];
    const { address, because } = this.find(
      request.socket.remoteAddress ?? '',
      forwarded && String(forwarded),
    );
    if (because === 'peer_not_trusted') this.warnOnce(address);
    return address;
  }

  /** The same for a peer and a header that are given, and why it is that one. */
  find(peer: string, forwarded: string | undefined): FoundAddress {
    let address = canonical(peer) ?? '0.0.0.0';
    if (forwarded === undefined) return { address, because: 'no_header' };
    if (!includes(this.trusted, address)) return { address, because: 'peer_not_trusted' };
    const hops = forwarded.split(',');
    while (hops.length > 0 && includes(this.trusted, address)) {
      const hop = canonical(hops.pop()?.trim() ?? '');
      // Garbage ends the walk: what stands further left cannot be vouched for by it.
      if (hop === undefined) return { address, because: 'no_address' };
      address = hop;
    }
    return { address, because: includes(this.trusted, address) ? 'only_proxies' : 'named_by_proxy' };
  }

  private warnOnce(address: string): void {
    if (this.warned || !includes(PRIVATE, address)) return;
    this.warned = true;
    this.logger.warn(
      'A private address sends X-Forwarded-For but is not in TRUSTED_PROXIES: all clients behind it share its limits',
    );
  }
}

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

/** The address as its owner may recognise it and nobody else be found by it: cut to /24 or /48. */
export function networkOf(address: string): string {
  if (isIPv4(address)) return address.replace(/\d+$/, '0/24');
  const groups = expandIPv6(address).slice(0, 3);
  return `${groups.map((group) => parseInt(group, 16).toString(16)).join(':')}::/48`;
}

function canonical(text: string): string | undefined {
  if (isIP(text) === 0) return undefined;
  const address = text.replace(/%.*$/, '');
  if (isIPv4(address)) return address;
  const groups = expandIPv6(address);
  const mapped = groups.slice(0, 6).join(':') === '0000:0000:0000:0000:0000:ffff';
  if (!mapped) return groups.join(':');
  const bytes = Buffer.from(groups.slice(6).join(''), 'hex');
  return bytes.join('.');
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

function blockList(cidrs: readonly string[]): BlockList {
  const list = new BlockList();
  for (const cidr of cidrs) {
    const [address = '', bits] = cidr.split('/');
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    list.addSubnet(address, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
  }
  return list;
}

function includes(list: BlockList, address: string): boolean {
  return list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}
