import type { BlockList } from 'node:net';
import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { blockList, canonicalAddress, forwardedAddress, includes, PRIVATE } from '../net/addresses';

/** The client's address, and the reason for the choice. */
export interface FoundAddress {
  readonly address: string;
  readonly reason:
    'no_header' | 'peer_not_trusted' | 'no_address' | 'only_proxies' | 'private_hop' | 'named_by_proxy';
}

/** The warning, logged once for each reason, that many clients probably share one address. */
const WARNINGS: Partial<Record<FoundAddress['reason'], string>> = {
  peer_not_trusted:
    'A private address sends X-Forwarded-For but is not in TRUSTED_PROXIES: all clients behind it share its limits',
  no_address:
    'A proxy of TRUSTED_PROXIES sends an X-Forwarded-For entry that is not an address: all clients behind the proxy ' +
    'share its limits. Let the proxy write addresses, and check with GET /admin/address',
  private_hop:
    'X-Forwarded-For names a private address that is not in TRUSTED_PROXIES, behind another address: if it is a ' +
    'proxy, all clients behind it share its limits. Add it to TRUSTED_PROXIES',
};

/**
 * Finds the client's address. The search goes through X-Forwarded-For from the right and believes only the hops of
 * TRUSTED_PROXIES: every entry to the left of the first other hop was written by that hop. A client that could write it
 * would choose a new address for every request and so escape every limit.
 */
@Injectable()
export class ClientAddress {
  private readonly trusted: BlockList;
  private readonly warned = new Set<FoundAddress['reason']>();

  constructor(
    config: Config,
    private readonly logger: Logger,
  ) {
    this.trusted = blockList(config.trustedProxies);
  }

  /** IPv6 as eight groups of four hex digits; an IPv4 address mapped into IPv6 is an IPv4 address. */
  of(request: FastifyRequest): string {
    const forwarded = request.headers['x-forwarded-for'];
    const { address, reason } = this.find(request.socket.remoteAddress ?? '', forwarded && String(forwarded));
    this.warnOnce(reason, address);
    return address;
  }

  /** The same for a given peer and header, with the reason. */
  find(peer: string, forwarded: string | undefined): FoundAddress {
    let address = canonicalAddress(peer) ?? '0.0.0.0';
    if (forwarded === undefined) return { address, reason: 'no_header' };
    if (!includes(this.trusted, address)) return { address, reason: 'peer_not_trusted' };
    const hops = forwarded.split(',');
    while (hops.length > 0 && includes(this.trusted, address)) {
      const hop = forwardedAddress(hops.pop() ?? '');
      // An entry that is not an address ends the search: it cannot vouch for the entries to its left.
      if (hop === undefined) return { address, reason: 'no_address' };
      address = hop;
    }
    if (includes(this.trusted, address)) return { address, reason: 'only_proxies' };
    const isProxyPerhaps = includes(PRIVATE, address) && forwardedAddress(hops.pop() ?? '') !== undefined;
    return { address, reason: isProxyPerhaps ? 'private_hop' : 'named_by_proxy' };
  }

  /** A public peer that is not trusted is a client that invents the header, which needs no warning. */
  private warnOnce(reason: FoundAddress['reason'], address: string): void {
    const message = WARNINGS[reason];
    if (message === undefined || this.warned.has(reason)) return;
    if (reason === 'peer_not_trusted' && !includes(PRIVATE, address)) return;
    this.warned.add(reason);
    this.logger.warn(message);
  }
}
