import { Module } from '@nestjs/common';
import { Config } from '../config/config';
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
    IdempotencyLock,
    NumberBlocks,
    NumberUnlocks,
    // These two know nothing of Nest: the serverless edition makes the same codes and request ids.
    { provide: Codes, inject: [Config], useFactory: (config: Config) => new Codes(config) },
    { provide: RequestIds, inject: [Config], useFactory: (config: Config) => new RequestIds(config) },
  ],
  exports: [Attempts, Challenges, Codes, NumberBlocks, NumberUnlocks, RequestIds],
})
export class ChallengesModule {}
