import { Global, Module } from '@nestjs/common';
import { Audit } from './audit';

/** For every room that does what somebody will ask about. */
@Global()
@Module({ providers: [Audit], exports: [Audit] })
export class AuditModule {}
