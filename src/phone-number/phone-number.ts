import { parsePhoneNumberFromString } from 'libphonenumber-js/max';

declare const phoneNumber: unique symbol;

/** An Indian mobile number in E.164 form (`+91` and ten ASCII digits), known to be one: {@link isPhoneNumber} said so. */
export type PhoneNumber = string & { readonly [phoneNumber]: true };

// The ASCII form comes first: libphonenumber finds numbers inside text, and takes other scripts' digits, spaces
// and arrays (by their toString). Each spelling would be a bucket of its own to a limit per number.
const E164_INDIA = /^\+91[6-9][0-9]{9}$/;
// A national number of India never starts with 0: no subscriber holds one of these, and no landline.
const TEST_NUMBER = /^\+910[0-9]{9}$/;

/** The form alone: `+91` and ten ASCII digits, the first of them 6 to 9. */
export function hasPhoneNumberForm(value: unknown): value is PhoneNumber {
  return typeof value === 'string' && E164_INDIA.test(value);
}

/**
 * The one rule for phone numbers: the exact ASCII form, and a number that libphonenumber's full metadata calls valid and
 * mobile. To libphonenumber, a third of the real mobile numbers that start with 7 or 8 are FIXED_LINE_OR_MOBILE. Regulators
 * assign series faster than the metadata is released, so EXTRA_MOBILE_SERIES adds leading digits that count as mobile.
 */
export function isPhoneNumber(value: unknown, extraSeries: readonly string[] = []): value is PhoneNumber {
  if (!hasPhoneNumberForm(value)) return false;
  if (extraSeries.some((digits) => value.startsWith(digits, 3))) return true;
  const parsed = parsePhoneNumberFromString(value);
  if (parsed?.number !== value || parsed.country !== 'IN' || !parsed.isValid()) return false;
  const type = parsed.getType();
  return type === 'MOBILE' || type === 'FIXED_LINE_OR_MOBILE';
}

/** Why a value is no phone number, in words that complete "phoneNumber ..." and never repeat the value. */
export function phoneNumberFault(value: unknown): string {
  const rule = 'must be an Indian mobile number in E.164 form: +91 and ten digits';
  if (typeof value !== 'string') return `must be a string; it ${rule}`;
  if (/^\+91[1-9][0-9]{9}$/.test(value)) {
    const type = parsePhoneNumberFromString(value)?.getType();
    if (type === 'FIXED_LINE') return 'is a landline number, which receives no SMS: ask for a mobile number';
    return 'is not a mobile number: no operator in India has assigned numbers like it';
  }
  if (/^(0|91)?[6-9][0-9]{9}$/.test(value)) return `${rule}; put +91 before the ten digits`;
  if (/^\+?[0-9 ().-]+$/.test(value) && /[^+0-9]/.test(value))
    return `${rule}, without spaces, dots or hyphens`;
  if (/^\+(?!91)[0-9]+$/.test(value)) return `${rule}; numbers of other countries are not served`;
  if (/\p{Nd}/u.test(value.replace(/[0-9]/g, ''))) return `${rule}, and each digit one of 0 to 9`;
  return rule;
}

/**
 * The one exception: the form of a test number. No SMS can reach one; whether it may log in says the configuration.
 */
export function isTestNumber(value: unknown): value is PhoneNumber {
  return typeof value === 'string' && TEST_NUMBER.test(value);
}

/** The first six national digits: operators hand numbers out in such series, and SMS pumping runs through them. */
export function seriesOf(number: PhoneNumber): string {
  return number.slice(3, 9);
}

/** The number as it may be shown to an operator: `+91******3210`. */
export function maskPhoneNumber(number: PhoneNumber): string {
  return `${number.slice(0, 3)}******${number.slice(-4)}`;
}
