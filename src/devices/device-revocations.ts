import { Injectable } from '@nestjs/common';
import { KEY_PREFIX, Store } from '../redis/store';
import { Script } from '../redis/script';
import { DEVICE_TOKEN_TTL_MS } from './device-tokens';

/** The Lua functions of devices, for scripts of a number. */
export const DEVICE_FUNCTIONS = Script.library(__dirname, 'device_lives');
const REVOKE = Script.load(__dirname, 'revoke-devices', DEVICE_FUNCTIONS);

/** When the device tokens of a number were revoked last, and which device was kept. Its slot is the number's own. */
export const deviceRevocationsKey = (pseudonym: string): string =>
  `${KEY_PREFIX}{${pseudonym}}:devices-ended`;

/** Revokes the device tokens of a phone number. */
@Injectable()
export class DeviceRevocations {
  constructor(private readonly store: Store) {}

  /** Revokes every device token of the number, except the token of one session while that token is valid. */
  async revoke(pseudonym: string, kept?: { id: string; authenticatedAt: Date }): Promise<void> {
    await this.store.run(
      REVOKE,
      [deviceRevocationsKey(pseudonym)],
      [kept?.id ?? '', kept?.authenticatedAt.getTime() ?? 0, DEVICE_TOKEN_TTL_MS],
    );
  }
}
