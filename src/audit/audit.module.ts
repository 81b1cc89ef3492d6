import { Global, Module } from '@nestjs/common';
import { Audit } from './audit';

/** The audit, for every room that records its actions. */
@Global()
@Module({ providers: [Audit], exports: [Audit] })
export class AuditModule {}
