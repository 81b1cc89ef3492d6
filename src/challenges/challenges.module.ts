import { Module } from '@nestjs/common';
import { Attempts } from './attempts';
import { ChallengeRecords } from './challenge-records';
import { Challenges } from './challenges';
import { Codes } from './codes';
import { IdempotencyLock } from './idempotency-lock';
import { NumberBlocks } from './number-blocks';
import { RequestIds } from './request-ids';

/** Where challenges are stored, their codes are made, and attempts are taken. */
@Module({
  providers: [Attempts, ChallengeRecords, Challenges, Codes, IdempotencyLock, NumberBlocks, RequestIds],
  exports: [Attempts, Challenges, Codes, NumberBlocks, RequestIds],
})
export class ChallengesModule {}
