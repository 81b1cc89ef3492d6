import { Module } from '@nestjs/common';
import { AppSessions } from './app-sessions';
import { Config } from '../config/config';
import { Revocations } from './revocations';
import { SessionEndings } from './session-endings';
import { SessionBlocks } from './session-blocks';
import { SessionsService } from './sessions.service';
import { Subjects } from './subjects';

// Subjects knows nothing of Nest: the serverless edition makes the same ids.
const SUBJECTS = {
  provide: Subjects,
  inject: [Config],
  useFactory: (config: Config) => new Subjects(config),
};

/** Opens, finds and ends sessions. */
@Module({
  providers: [AppSessions, SessionsService, SessionEndings, SessionBlocks, Revocations, SUBJECTS],
  exports: [AppSessions, SessionsService, SessionBlocks, Revocations],
})
export class SessionsModule {}
