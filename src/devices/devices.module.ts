import { Module } from '@nestjs/common';
import { DeviceRevocations } from './device-revocations';
import { DeviceTokens } from './device-tokens';

/** Device tokens: a login leaves one on the device, and it gives the device an allowance that strangers cannot use up. */
@Module({ providers: [DeviceTokens, DeviceRevocations], exports: [DeviceTokens, DeviceRevocations] })
export class DevicesModule {}
