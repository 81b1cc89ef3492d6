import { Module } from '@nestjs/common';
import { AbuseModule } from '../abuse/abuse.module';
import { ChallengesModule } from '../challenges/challenges.module';
import { DevicesModule } from '../devices/devices.module';
import { LedgerModule } from '../ledger/ledger.module';
import { ProvidersModule } from '../providers/providers.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { Deliveries } from './deliveries';
import { OtpService } from './otp.service';
import { Sends } from './sends';

/** The two operations: request a code, and verify the code. Wraps the StartMessaging client as an injectable provider. */
@Module({
  imports: [ThrottlingModule, AbuseModule, LedgerModule, ChallengesModule, DevicesModule, ProvidersModule],
  providers: [Deliveries, Sends, OtpService],
  exports: [OtpService],
})
export class OtpModule {}
