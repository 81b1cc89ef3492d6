import { HttpModule } from '@nestjs/axios';
import { Module } from '@nestjs/common';
import { Alerts } from './alerts';
import { Webhook } from './webhook';

/** Alerts for somebody who does not read the log. Nobody calls it: it hears what the logger is told. */
@Module({ imports: [HttpModule], providers: [Alerts, Webhook] })
export class AlertsModule {}
