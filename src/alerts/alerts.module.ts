import { HttpModule } from '@nestjs/axios';
import { Global, Module } from '@nestjs/common';
import { AlertWebhooks } from './alert-webhooks';
import { Alerts } from './alerts';
import { Webhook } from './webhook';

/** Alerts for operators, for every room: in the metrics, in the log and by webhook. */
@Global()
@Module({ imports: [HttpModule], providers: [Alerts, AlertWebhooks, Webhook], exports: [Alerts] })
export class AlertsModule {}
