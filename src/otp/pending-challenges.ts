import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords, ownPart } from './challenge-records';
import { Codes } from './codes';
import type { OtpProvider } from './otp-provider';

const HAND_OVER = Script.load(__dirname, 'hand-over');
const RELEASE = Script.load(__dirname, 'release');

/** What becomes of a challenge whose SMS was not sent, or is not known to be. It verifies nothing. */
@Injectable()
export class PendingChallenges {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly codes: Codes,
    private readonly records: ChallengeRecords,
  ) {}

  /**
   * Hands a pending challenge of which certainly nothing was sent to another provider, in the store before that one is told
   * a byte. The code is a new one.
   */
  async handOver(
    requestId: string,
    sender: OtpProvider,
    record?: string,
  ): Promise<{ nonce: string; lifeSeconds: number }> {
    const keys = this.records.keys(requestId);
    const nonce = this.codes.nonceFor(sender);
    const lifeMs = (await this.store.run(
      HAND_OVER,
      [keys.challenge, keys.codes, ...this.records.sendRecord(requestId, record)],
      [sender.name, nonce, this.config.otpTtlSeconds * 1_000, ownPart(requestId)],
    )) as number;
    // The store was emptied, or somebody else's repeat has it in hand by now.
    if (lifeMs === 0) throw new ApiError('store_unavailable');
    return { nonce, lifeSeconds: lifeMs / 1_000 };
  }

  /**
   * Releases an Idempotency-Key for a repeat, which resumes this challenge: `counted` when it was admitted and may have been
   * sent under a key that upstream knows again, else it is admitted anew; and from the first provider on when it certainly
   * was not sent.
   */
  async release(
    requestId: string,
    record: string,
    { unsent, counted }: { unsent: boolean; counted?: { resendAfterMs: number; sms: string } | undefined },
  ): Promise<void> {
    await this.store.run(RELEASE, this.records.sendRecord(requestId, record), [
      ownPart(requestId),
      Math.floor(counted?.resendAfterMs ?? -1),
      counted?.sms ?? '',
      unsent ? 1 : 0,
    ]);
  }

  /** Forgets a pending challenge whose SMS was not sent. */
  async abandon(requestId: string): Promise<void> {
    await this.store.command('abandon', (client) => client.del(this.records.keys(requestId).challenge));
  }
}
