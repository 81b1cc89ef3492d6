import { Injectable } from '@nestjs/common';
import { ApiError } from '../errors/api-error';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { numberKeys } from './challenge-records';

const UNLOCK = Script.load(__dirname, 'unlock');

/** How many unlocks of a number are possible, so that each of them cannot become twenty guesses more. */
const UNLOCKS = { count: 3, ms: 30 * 86_400_000 };

/** Unlocks a number that saw too many wrong codes. A block is another matter: see `NumberBlocks`. */
@Injectable()
export class NumberUnlocks {
  constructor(private readonly store: Store) {}

  /**
   * Clears the wrong codes of the number in windows of a day or less, never its count of 30 days. Throws `rate_limited`
   * after three unlocks in 30 days.
   */
  async unlock(pseudonym: string): Promise<void> {
    const { unlocks } = numberKeys(pseudonym);
    const waitMs = (await this.store.run(UNLOCK, [unlocks], [UNLOCKS.count, UNLOCKS.ms])) as number;
    if (waitMs > 0) throw new ApiError('rate_limited', { retryAfterSeconds: waitMs / 1_000 });
  }
}
