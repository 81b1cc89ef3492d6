import type { BlockList } from 'node:net';
import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { blockList, canonicalAddress, includes, PRIVATE } from '../net/addresses';

/** The client's address, and what decided it. */
export interface FoundAddress {
  readonly address: string;
  readonly reason: 'no_header' | 'peer_not_trusted' | 'no_address' | 'only_proxies' | 'named_by_proxy';
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
    const { address, reason } = this.find(request.socket.remoteAddress ?? '', forwarded && String(forwarded));
    if (reason === 'peer_not_trusted') this.warnOnce(address);
    return address;
  }

  /** The same for a peer and a header that are given, and why it is that one. */
  find(peer: string, forwarded: string | undefined): FoundAddress {
    let address = canonicalAddress(peer) ?? '0.0.0.0';
    if (forwarded === undefined) return { address, reason: 'no_header' };
    if (!includes(this.trusted, address)) return { address, reason: 'peer_not_trusted' };
    const hops = forwarded.split(',');
    while (hops.length > 0 && includes(this.trusted, address)) {
      const hop = canonicalAddress(hops.pop()?.trim() ?? '');
      // Garbage ends the walk: what stands further left cannot be vouched for by it.
      if (hop === undefined) return { address, reason: 'no_address' };
      address = hop;
    }
    return { address, reason: includes(this.trusted, address) ? 'only_proxies' : 'named_by_proxy' };
  }

  private warnOnce(address: string): void {
    if (this.warned || !includes(PRIVATE, address)) return;
    this.warned = true;
    this.logger.warn(
      'A private address sends X-Forwarded-For but is not in TRUSTED_PROXIES: all clients behind it share its limits',
    );
  }
}
