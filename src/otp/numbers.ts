import { Injectable } from '@nestjs/common';
import { aboutNumber } from '../logging/request-context';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { ChallengeRecords, type NumberKeys } from './challenge-records';
import { CODE_LIFE_MS, NUMBER_FUNCTIONS } from './challenges';
import { DEVICE_TOKEN_TTL_MS } from './device-tokens';

const BLOCK = Script.load(__dirname, 'block');
const END_DEVICES = Script.load(__dirname, 'end-devices', NUMBER_FUNCTIONS);

/** What outlives a challenge: whether a number is blocked, and which of its devices are known. */
@Injectable()
export class Numbers {
  constructor(
    private readonly store: Store,
    private readonly records: ChallengeRecords,
  ) {}

  /** The number's stable name, for a log. */
  pseudonymOf(phone: PhoneNumber): string {
    return this.records.pseudonymOf(phone);
  }

  /** Ends every device token of the number, but for that of one session while it lives. */
  async endDevices(phone: PhoneNumber, kept?: { id: string; authenticatedAt: Date }): Promise<void> {
    await this.store.run(
      END_DEVICES,
      [this.keys(phone).devicesEnded],
      [kept?.id ?? '', kept?.authenticatedAt.getTime() ?? 0, DEVICE_TOKEN_TTL_MS],
    );
  }

  /** From now on no SMS goes to the number, and no code of it is right; its device tokens end. Sessions are not ours. */
  async block(phone: PhoneNumber, forMs: number): Promise<void> {
    await this.runBlock(phone, forMs);
  }

  async unblock(phone: PhoneNumber): Promise<void> {
    await this.runBlock(phone, 0);
  }

  async isBlocked(phone: PhoneNumber): Promise<boolean> {
    const { blocked } = this.keys(phone);
    return (await this.store.command('is blocked', (client) => client.get(blocked))) === 'blocked';
  }

  private async runBlock(phone: PhoneNumber, forMs: number): Promise<void> {
    aboutNumber(this.pseudonymOf(phone));
    const { blocked, codes, devicesEnded } = this.keys(phone);
    await this.store.run(BLOCK, [blocked, codes, devicesEnded], [forMs, DEVICE_TOKEN_TTL_MS, CODE_LIFE_MS]);
  }

  private keys(phone: PhoneNumber): NumberKeys {
    return this.records.numberKeys(this.records.pseudonymOf(phone));
  }
}
