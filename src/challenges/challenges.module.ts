import { Module } from '@nestjs/common';
import { Attempts } from './attempts';
import { ChallengeRecords } from './challenge-records';
import { Challenges } from './challenges';
import { Codes } from './codes';
import { IdempotencyLock } from './idempotency-lock';
import { NumberBlocks } from './number-blocks';
import { NumberUnlocks } from './number-unlocks';
import { RequestIds } from './request-ids';

/** Where challenges are stored, their codes are made, and attempts are taken. */
@Module({
  providers: [
    Attempts,
    ChallengeRecords,
    Challenges,
    Codes,
    IdempotencyLock,
    NumberBlocks,
    NumberUnlocks,
    RequestIds,
  ],
  exports: [Attempts, Challenges, Codes, NumberBlocks, NumberUnlocks, RequestIds],
})
export class ChallengesModule {}
