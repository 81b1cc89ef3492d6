import { Module } from '@nestjs/common';
import { ThrottlerModule, type ThrottlerOptions } from '@nestjs/throttler';
import { Config, type Limit } from '../config/config';
import { AbuseModule } from '../abuse/abuse.module';
import { Store } from '../redis/store';
import { AddressThrottlerGuard, type AddressLimit } from './address-throttler.guard';
import { AdmissionControl } from './admission';
import { BudgetGauges } from './budget-gauges';
import { ClientAddress } from '../http/client-address';
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
    AbuseModule,
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
  providers: [AddressThrottlerGuard, ClientAddress, AdmissionControl, BudgetGauges],
  exports: [ThrottlerModule, AddressThrottlerGuard, ClientAddress, AdmissionControl],
})
export class ThrottlingModule {}
