import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords } from './challenge-records';
import { Claims, type Repeated } from './claims';
import { Codes } from './codes';
import type { OtpProvider } from './otp-provider';

const HAND_OVER = Script.load(__dirname, 'hand-over');

/** What becomes of a challenge whose SMS was not sent, or is not known to be. It verifies nothing. */
@Injectable()
export class PendingChallenges {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
    private readonly records: ChallengeRecords,
    private readonly claims: Claims,
  ) {}

  /**
   * Hands a pending challenge of which certainly nothing was sent to another provider, in the store before that one is told
   * a byte. The code is a new one.
   */
  async handOver(
    requestId: string,
    sender: OtpProvider,
    repeated?: Repeated,
  ): Promise<{ nonce: string; lifeSeconds: number }> {
    const keys = this.records.keys(requestId);
    const nonce = this.codes.nonceFor(sender);
    const lifeMs = (await this.store.run(
      HAND_OVER,
      [keys.challenge, keys.codes, ...this.records.sendRecord(requestId, repeated?.record)],
      [sender.name, nonce, this.config.otpTtlSeconds * 1_000, repeated?.owner ?? ''],
    )) as number;
    // The store was emptied, or somebody else's repeat has it in hand by now.
    if (lifeMs === 0) throw new ApiError('store_unavailable');
    return { nonce, lifeSeconds: lifeMs / 1_000 };
  }

  /**
   * Releases an Idempotency-Key for a repeat, which resumes this challenge; from the first provider on when certainly
   * nothing was sent.
   */
  async release(requestId: string, repeated: Repeated, unsent: boolean): Promise<void> {
    await this.claims.giveUp(this.claims.releasing(requestId, repeated, unsent));
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.records.keys(requestId).challenge));
  }
}
