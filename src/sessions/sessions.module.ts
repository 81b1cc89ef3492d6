import { Module } from '@nestjs/common';
import { Revocations } from './revocations';
import { SessionEndings } from './session-endings';
import { SessionsService } from './sessions.service';

/** Opens, finds and ends sessions. */
@Module({
  providers: [SessionsService, SessionEndings, Revocations],
  exports: [SessionsService, Revocations],
})
export class SessionsModule {}
