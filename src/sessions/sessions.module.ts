import { Module } from '@nestjs/common';
import { Revocations } from './revocations';
import { SessionEndings } from './session-endings';
import { SessionBlocks } from './session-blocks';
import { SessionsService } from './sessions.service';
import { Subjects } from './subjects';

/** Opens, finds and ends sessions. */
@Module({
  providers: [SessionsService, SessionEndings, SessionBlocks, Subjects, Revocations],
  exports: [SessionsService, SessionBlocks, Revocations],
})
export class SessionsModule {}
