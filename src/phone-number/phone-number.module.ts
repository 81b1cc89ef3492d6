import { Global, Module } from '@nestjs/common';
import { PhoneIdentities } from './phone-identity';

/** The pseudonyms of phone numbers, for every room. */
@Global()
@Module({ providers: [PhoneIdentities], exports: [PhoneIdentities] })
export class PhoneNumberModule {}
