import { Module } from '@nestjs/common';
import { Guard } from './guard';
import { ProofOfWork } from './proof-of-work';

/** How far senders are trusted, and the proof of work for those that are trusted less. */
@Module({ providers: [Guard, ProofOfWork], exports: [Guard, ProofOfWork] })
export class GuardModule {}
