import { Module } from '@nestjs/common';
import { HealthController } from './health.controller';
import { Lifecycle } from './lifecycle';

@Module({ providers: [Lifecycle], controllers: [HealthController], exports: [Lifecycle] })
export class HealthModule {}
