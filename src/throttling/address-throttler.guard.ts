import { Injectable, SetMetadata, type ExecutionContext } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import {
  InjectThrottlerOptions,
  InjectThrottlerStorage,
  ThrottlerGuard,
  type ThrottlerModuleOptions,
} from '@nestjs/throttler';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { Metrics, startAtZero } from '../metrics/metrics';
import { ClientAddress } from '../http/client-address';
import { RedisThrottlerStorage } from './redis-throttler-storage';

/** The named sets of limits per client address: LIMIT_IP, and LIMIT_VERIFY_IP for verifications and, by themselves, looks. */
export type AddressLimit = (typeof ADDRESS_LIMITS)[number];
const ADDRESS_LIMITS = ['send', 'verify', 'status'] as const;

const LIMITED_AS = 'throttling:limited-as';

/** Counts the route's calls by client address. The name is part of the key in Redis: renaming it resets live counters. */
export const LimitedByAddress = (limit: AddressLimit): MethodDecorator => SetMetadata(LIMITED_AS, limit);

/**
 * Asks Redis once for all windows of a route, before the body is validated: five windows asked in turn are five round
 * trips, and a call that one window counts and the next refuses would have cost a place. One plain `Retry-After`.
 */
@Injectable()
export class AddressThrottlerGuard extends ThrottlerGuard {
  constructor(
    @InjectThrottlerOptions() options: ThrottlerModuleOptions,
    @InjectThrottlerStorage() private readonly storage: RedisThrottlerStorage,
    reflector: Reflector,
    private readonly clientAddress: ClientAddress,
    private readonly metrics: Metrics,
  ) {
    super(options, storage, reflector);
    startAtZero(
      metrics.limitsHit,
      'limit',
      ADDRESS_LIMITS.map((name) => `address_${name}`),
    );
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const name = this.reflector.get<AddressLimit | undefined>(LIMITED_AS, context.getHandler());
    if (name === undefined) return true;
    const limits = this.throttlers
      .filter((throttler) => throttler.name?.startsWith(`${name}:`))
      .map(({ limit, ttl }) => ({ count: Number(limit), seconds: Number(ttl) / 1_000 }));
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const wait = await this.storage.admit(name, this.clientAddress.of(request), limits);
    if (wait === 0) return true;
    this.metrics.limitsHit.inc({ limit: `address_${name}` });
    // Which limit it was is not said: it would tell a botnet how many addresses it needs.
    throw new ApiError('rate_limited', { retryAfterSeconds: wait / 1_000 });
  }
}
