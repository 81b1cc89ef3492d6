import { Module } from '@nestjs/common';
import { AbuseModule } from '../abuse/abuse.module';
import { ChallengesModule } from '../challenges/challenges.module';
import { DevicesModule } from '../devices/devices.module';
import { LedgerModule } from '../ledger/ledger.module';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { WalletModule } from '../wallet/wallet.module';
import { AdminController } from './admin.controller';
import { AdminGuard } from './admin.guard';
import { AdminAudit } from './admin-audit';
import { NumberBlockService } from './number-block.service';
import { Reports } from './reports';

/** The routes of operators. An application without ADMIN_TOKENS leaves this module out: its routes answer 404. */
@Module({
  imports: [
    AbuseModule,
    ChallengesModule,
    DevicesModule,
    LedgerModule,
    SessionsModule,
    ThrottlingModule,
    WalletModule,
  ],
  providers: [AdminAudit, AdminGuard, NumberBlockService, Reports],
  controllers: [AdminController],
})
export class AdminModule {}
