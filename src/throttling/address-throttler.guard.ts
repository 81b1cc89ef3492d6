import { Injectable, type ExecutionContext } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import {
  InjectThrottlerOptions,
  InjectThrottlerStorage,
  ThrottlerGuard,
  type ThrottlerModuleOptions,
  type ThrottlerStorage,
} from '@nestjs/throttler';
import type { FastifyRequest } from 'fastify';
import { AddressLimits } from './address-limits';

/**
 * Counts the status calls of a client address. It asks Redis once for all windows: five windows asked in turn are five
 * round trips, and a call that one window counts and the next one refuses would have cost a place. The routes with a body
 * count after their body was validated, by {@link AddressLimits}.
 */
@Injectable()
export class AddressThrottlerGuard extends ThrottlerGuard {
  constructor(
    @InjectThrottlerOptions() options: ThrottlerModuleOptions,
    @InjectThrottlerStorage() storage: ThrottlerStorage,
    reflector: Reflector,
    private readonly addressLimits: AddressLimits,
  ) {
    super(options, storage, reflector);
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    await this.addressLimits.admitStatus(context.switchToHttp().getRequest<FastifyRequest>());
    return true;
  }
}
