import { Module } from '@nestjs/common';
import { AbuseControl } from './abuse-control';
import { ProofOfWork } from './proof-of-work';

/** How far senders are trusted, and the proof of work for those that are trusted less. */
@Module({ providers: [AbuseControl, ProofOfWork], exports: [AbuseControl, ProofOfWork] })
export class AbuseModule {}
