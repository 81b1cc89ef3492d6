import { Module } from '@nestjs/common';
import { AppSessions } from './app-sessions';
import { Revocations } from './revocations';
import { SessionEndings } from './session-endings';
import { SessionBlocks } from './session-blocks';
import { SessionsService } from './sessions.service';
import { Subjects } from './subjects';

/** Opens, finds and ends sessions. */
@Module({
  providers: [AppSessions, SessionsService, SessionEndings, SessionBlocks, Subjects, Revocations],
  exports: [AppSessions, SessionsService, SessionBlocks, Revocations],
})
export class SessionsModule {}
