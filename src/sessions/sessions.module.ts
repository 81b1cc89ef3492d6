import { Module } from '@nestjs/common';
import { Revocations } from './revocations';
import { SessionsService } from './sessions.service';

/** Opens, finds and ends sessions. */
@Module({ providers: [SessionsService, Revocations], exports: [SessionsService, Revocations] })
export class SessionsModule {}
