import { Injectable } from '@nestjs/common';
import { NumberBlocks } from '../challenges/number-blocks';
import { DeviceRevocations } from '../devices/device-revocations';
import type { PhoneIdentity } from '../phone-number/phone-identity';
import { SessionBlocks } from '../sessions/session-blocks';

/** The use case of an operator: block a phone number everywhere, or let it in again. */
@Injectable()
export class NumberBlockService {
  constructor(
    private readonly numbers: NumberBlocks,
    private readonly sessions: SessionBlocks,
    private readonly devices: DeviceRevocations,
  ) {}

  /** Stops SMS, codes, sessions and device tokens of the number for this long. A repeat changes only the duration. */
  async block({ phoneNumber, pseudonym }: PhoneIdentity, forMs: number): Promise<void> {
    // The number first: a code that is verified in between is void, or its session is there to be ended.
    await this.numbers.block(pseudonym, forMs);
    await this.sessions.block(phoneNumber, forMs);
    // The devices once more: such a session left a token that is younger than the first revocation.
    await this.devices.revoke(pseudonym);
    // Another operator unblocked the number meanwhile: half a block would make people pay for codes that open nothing.
    if (!(await this.numbers.isBlocked(pseudonym))) await this.sessions.unblock(phoneNumber);
  }

  /** Lets the number in again. Sessions and device tokens that ended stay ended. */
  async unblock({ phoneNumber, pseudonym }: PhoneIdentity): Promise<void> {
    await this.numbers.unblock(pseudonym);
    await this.sessions.unblock(phoneNumber);
  }
}
