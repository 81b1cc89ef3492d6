import { Global, Module } from '@nestjs/common';
import { Config } from '../config/config';
import { PhoneIdentities } from './phone-identity';

/** The pseudonyms of phone numbers, for every room. */
@Global()
@Module({
  providers: [
    {
      provide: PhoneIdentities,
      inject: [Config],
      useFactory: (config: Config) => new PhoneIdentities(config),
    },
  ],
  exports: [PhoneIdentities],
})
export class PhoneNumberModule {}
