import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';

export function phoneNumber(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error('The number of a test is none');
  return text;
}
