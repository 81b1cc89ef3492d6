import { Module } from '@nestjs/common';
import { Attempts } from './attempts';
import { ChallengeRecords } from './challenge-records';
import { Challenges } from './challenges';
import { Codes } from './codes';
import { IdempotencyLock } from './idempotency-lock';
import { NumberBlocks } from './number-blocks';

/** Where challenges are stored, their codes are made, and attempts are taken. */
@Module({
  providers: [Attempts, ChallengeRecords, Challenges, Codes, IdempotencyLock, NumberBlocks],
  exports: [Attempts, ChallengeRecords, Challenges, Codes, NumberBlocks],
})
export class ChallengesModule {}
