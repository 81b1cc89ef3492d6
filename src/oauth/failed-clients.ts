import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Audit } from '../audit/audit';
import { ApiError } from '../errors/api-error';
import { ClientAddress } from '../http/client-address';
import { networkOf, originOf } from '../net/addresses';
import { AddressLimits } from '../throttling/address-limits';

const AUDIT_EVERY_MS = 60_000;
/** More than one attacker has; the oldest is forgotten for a new one, and Redis still counts it. */
const MOST_REFUSED = 10_000;

/**
 * Limits guesses of client secrets, per client address and never per client: a stranger could otherwise lock a resource server
 * out by its id. The limit costs a client with the right secret nothing, because Redis is asked after a failure only.
 */
@Injectable()
export class FailedClients {
  /** Until when (ms since 1970) an address is refused. */
  private readonly refusedUntil = new Map<string, number>();
  private failures = 0;
  private auditedAt = -Infinity;

  constructor(
    private readonly limits: AddressLimits,
    private readonly clientAddress: ClientAddress,
    private readonly audit: Audit,
  ) {}

  /**
   * Throws `rate_limited` for an address with too many failures. It comes before the secret is compared: an answer after the
   * comparison would tell a guesser which secret is right.
   */
  check(request: FastifyRequest): void {
    const until = this.refusedUntil.get(this.originOf(request)) ?? 0;
    const waitMs = until - Date.now();
    if (waitMs > 0) throw new ApiError('rate_limited', { retryAfterSeconds: waitMs / 1_000 });
  }

  /** Counts a failure, and tells the audit once a minute. Throws `rate_limited` with the failure that is one too many. */
  async count(request: FastifyRequest): Promise<void> {
    this.tell(request);
    const waitMs = await this.limits.countFailedClient(request);
    if (waitMs === 0) return;
    const origin = this.originOf(request);
    this.refusedUntil.delete(origin);
    this.refusedUntil.set(origin, Date.now() + waitMs);
    const [oldest] = this.refusedUntil.keys();
    if (this.refusedUntil.size > MOST_REFUSED && oldest !== undefined) this.refusedUntil.delete(oldest);
    this.check(request);
  }

  /** The number of failures since the last event stands in the event: a guesser must not fill the audit. */
  private tell(request: FastifyRequest): void {
    this.failures += 1;
    if (performance.now() - this.auditedAt < AUDIT_EVERY_MS) return;
    const network = networkOf(this.clientAddress.of(request));
    this.audit.record({ audit: 'client.refused', network, failures: this.failures });
    this.auditedAt = performance.now();
    this.failures = 0;
  }

  private originOf(request: FastifyRequest): string {
    return originOf(this.clientAddress.of(request));
  }
}
