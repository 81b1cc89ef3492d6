import { Module } from '@nestjs/common';
import { ThrottlerModule, type ThrottlerOptions } from '@nestjs/throttler';
import { Config, type Limit } from '../config/config';
import { GuardModule } from '../guard/guard.module';
import { Store } from '../redis/store';
import { AddressThrottlerGuard, type AddressLimit } from './address-throttler.guard';
import { Admission } from './admission';
import { BudgetGauges } from './budget-gauges';
import { ClientAddress } from './client-address';
import { RedisThrottlerStorage } from './redis-throttler-storage';

function named(name: AddressLimit, limits: readonly Limit[]): ThrottlerOptions[] {
  return limits.map(({ count, seconds }) => ({
    name: `${name}:${seconds}`,
    limit: count,
    ttl: seconds * 1_000,
  }));
}

/** Every limit: by client address in front of a route, by phone number, service and budget in front of an SMS. */
@Module({
  imports: [
    GuardModule,
    ThrottlerModule.forRootAsync({
      inject: [Config, Store],
      useFactory: (config: Config, store: Store) => ({
        throttlers: [
          ...named('send', config.limitIp),
          ...named('verify', config.limitVerifyIp),
          ...named('status', config.limitVerifyIp),
        ],
        storage: new RedisThrottlerStorage(config, store),
      }),
    }),
  ],
  providers: [AddressThrottlerGuard, ClientAddress, Admission, BudgetGauges],
  exports: [ThrottlerModule, AddressThrottlerGuard, ClientAddress, Admission],
})
export class ThrottlingModule {}
