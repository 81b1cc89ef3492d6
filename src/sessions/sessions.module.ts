import { Module } from '@nestjs/common';
import { SessionsService } from './sessions.service';

/** Opens, finds and ends sessions. */
@Module({ providers: [SessionsService], exports: [SessionsService] })
export class SessionsModule {}
