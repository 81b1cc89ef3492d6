import { Injectable } from '@nestjs/common';
import { deviceRevocationsKey } from '../devices/device-revocations';
import { DEVICE_TOKEN_TTL_MS } from '../devices/device-tokens';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { numberKeys } from './challenge-records';
import { CODE_LIFE_MS } from './challenges';

const BLOCK = Script.load(__dirname, 'block');

/** Whether a phone number is blocked: then it gets no SMS, and none of its codes is right. Sessions are another room's. */
@Injectable()
export class NumberBlocks {
  constructor(private readonly store: Store) {}

  /** Blocks the number and revokes its device tokens. */
  async block(pseudonym: string, forMs: number): Promise<void> {
    await this.runBlock(pseudonym, forMs);
  }

  async unblock(pseudonym: string): Promise<void> {
    await this.runBlock(pseudonym, 0);
  }

  async isBlocked(pseudonym: string): Promise<boolean> {
    const { blocked } = numberKeys(pseudonym);
    return (await this.store.command('is blocked', (client) => client.get(blocked))) === 'blocked';
  }

  private async runBlock(pseudonym: string, forMs: number): Promise<void> {
    const { blocked, codes } = numberKeys(pseudonym);
    await this.store.run(
      BLOCK,
      [blocked, codes, deviceRevocationsKey(pseudonym)],
      [forMs, DEVICE_TOKEN_TTL_MS, CODE_LIFE_MS],
    );
  }
}
