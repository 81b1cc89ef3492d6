import { Injectable } from '@nestjs/common';
import { DeviceRevocations } from '../devices/device-revocations';
import { PhoneIdentities } from '../phone-number/phone-identity';
import { SessionsService, type Session } from '../sessions/sessions.service';

/** The use case of a user: log out on every device, or on every other device. */
@Injectable()
export class AccountService {
  constructor(
    private readonly sessions: SessionsService,
    private readonly devices: DeviceRevocations,
    private readonly phones: PhoneIdentities,
  ) {}

  /** Ends the user's sessions and revokes their device tokens, except those of `kept`. Throws `store_unavailable`. */
  async endEverywhere({ subject, phoneNumber }: Session, kept?: Session): Promise<void> {
    const { pseudonym } = this.phones.of(phoneNumber);
    // The devices first: if Redis fails in between, this access token can still repeat the call.
    await this.devices.revoke(pseudonym, kept);
    await this.sessions.endAll(subject, kept?.id);
    // And once more: a session that was opened in between has ended, but its device token is younger than the first revocation.
    await this.devices.revoke(pseudonym, kept);
  }
}
