import { settings } from './settings';
import { PhoneIdentities, type PhoneIdentity } from '../../src/phone-number/phone-identity';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';

export function phoneNumber(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error('The number of a test is none');
  return text;
}

/** The number with the pseudonym that it has under the secrets of {@link settings}. */
export const identityOf = (number: PhoneNumber): PhoneIdentity => new PhoneIdentities(settings()).of(number);
