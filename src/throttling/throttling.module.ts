import { Module } from '@nestjs/common';
import { ThrottlerModule } from '@nestjs/throttler';
import { Config } from '../config/config';
import { AbuseModule } from '../abuse/abuse.module';
import { DevicesModule } from '../devices/devices.module';
import { Store } from '../redis/store';
import { AddressLimits } from './address-limits';
import { AddressThrottlerGuard } from './address-throttler.guard';
import { AdmissionControl } from './admission';
import { BudgetGauges } from './budget-gauges';
import { ClientAddress } from '../http/client-address';
import { RedisThrottlerStorage } from './redis-throttler-storage';

/** Every limit: by client address in front of a route, by phone number, service and budget in front of an SMS. */
@Module({
  imports: [
    AbuseModule,
    DevicesModule,
    ThrottlerModule.forRootAsync({
      inject: [Config, Store],
      useFactory: (config: Config, store: Store) => ({
        throttlers: config.limitVerifyIp.map(({ count, seconds }) => ({
          name: `status:${seconds}`,
          limit: count,
          ttl: seconds * 1_000,
        })),
        storage: new RedisThrottlerStorage(config, store),
      }),
    }),
  ],
  providers: [AddressLimits, AddressThrottlerGuard, ClientAddress, AdmissionControl, BudgetGauges],
  exports: [ThrottlerModule, AddressLimits, AddressThrottlerGuard, ClientAddress, AdmissionControl],
})
export class ThrottlingModule {}
