import { Module } from '@nestjs/common';
import { GuardModule } from '../guard/guard.module';
import { LedgerModule } from '../ledger/ledger.module';
import { OtpModule } from '../otp/otp.module';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { AdminController } from './admin.controller';
import { AdminGuard } from './admin.guard';
import { AdminAudit } from './admin-audit';
import { Reports } from './reports';

/** What operators may see and do. Not part of an application without ADMIN_TOKENS: its routes are not found. */
@Module({
  imports: [GuardModule, LedgerModule, OtpModule, SessionsModule, ThrottlingModule],
  providers: [AdminAudit, AdminGuard, Reports],
  controllers: [AdminController],
})
export class AdminModule {}
