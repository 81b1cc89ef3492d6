import { randomBytes } from 'node:crypto';
import { serviceModule } from './service';
import { API_KEY, SECRET, SUBJECT_SECRET } from './world';

/** A device token as the service would have issued it for this phone number at that time. */
export function deviceTokenOf(phoneNumber: string, issuedAt: number, secret = SECRET): string {
  const { readConfig } = serviceModule<typeof import('../../src/config/read-config')>('config/read-config');
  const { PhoneIdentities } = serviceModule<typeof import('../../src/phone-number/phone-identity')>(
    'phone-number/phone-identity',
  );
  const { DeviceTokens } =
    serviceModule<typeof import('../../src/devices/device-tokens')>('devices/device-tokens');
  const { isPhoneNumber } =
    serviceModule<typeof import('../../src/phone-number/phone-number')>('phone-number/phone-number');
  if (!isPhoneNumber(phoneNumber)) throw new Error('This is no phone number');
  const config = readConfig({ STARTMESSAGING_API_KEY: API_KEY, SECRET: secret, SUBJECT_SECRET });
  const pseudonym = new PhoneIdentities(config).pseudonymOf(phoneNumber);
  const id = randomBytes(16).toString('base64url');
  return new DeviceTokens(config).issue(pseudonym, { id, issuedAt });
}
