import { createHash, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { isPhoneNumber, maskPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { hmac128 } from '../../src/crypto/mac';
import { anyText } from '../support/any-text';

function phone(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error(`${text} is no phone number`);
  return text;
}

describe('isPhoneNumber', () => {
  test.each([
    '+919876543210',
    '+919113359472',
    '+918369661878',
    '+918866054562',
    '+917323159758',
    '+917012345678',
    '+916844037879',
    '+916383722654',
  ])('isPhoneNumber accepts the mobile number %s', (number) => {
    expect(isPhoneNumber(number)).toBe(true);
  });

  test.each(['+918371522788', '+918344539964', '+917738257566', '+917756509706'])(
    'isPhoneNumber accepts %s, which libphonenumber cannot tell from a landline',
    (number) => {
      expect(isPhoneNumber(number)).toBe(true);
    },
  );

  test.each(['+916473239844', '+917883587150', '+917925960663', '+918362344940', '+918033013958'])(
    'isPhoneNumber refuses the landline %s, although it begins like a mobile number',
    (number) => {
      expect(isPhoneNumber(number)).toBe(false);
    },
  );

  test.each(['+916747912345', '+917925960663'])(
    'isPhoneNumber accepts %s in a series of EXTRA_MOBILE_SERIES, and refuses it without the series',
    (number) => {
      expect(isPhoneNumber(number)).toBe(false);
      expect(isPhoneNumber(number, ['9999', number.slice(3, 8)])).toBe(true);
      expect(isPhoneNumber(number, [number.slice(4, 8)])).toBe(false);
    },
  );

  test.each([
    '+9167479',
    '+91674791234',
    '+9167479123456',
    '+91 6747912345',
    '916747912345',
    '+915747912345',
  ])('EXTRA_MOBILE_SERIES does not change the form of a number: %s is refused', (text) => {
    expect(isPhoneNumber(text, ['67479', '57479'])).toBe(false);
  });

  test.each([
    ['nothing', ''],
    ['no plus sign', '919876543210'],
    ['the national form', '9876543210'],
    ['a trunk prefix', '09876543210'],
    ['an international prefix', '00919876543210'],
    ['a trunk prefix behind the country code', '+910987654321'],
    ['a trunk prefix and a whole number behind it', '+9109876543210'],
    ['a first digit of 0', '+910876543210'],
    ['a first digit of 1', '+911123456789'],
    ['a first digit of 5', '+915876543210'],
    ['a landline of Delhi', '+911123456789'],
    ['a toll-free number', '+911800123456'],
    ['nine digits', '+91987654321'],
    ['eleven digits', '+9198765432100'],
    ['two plus signs', '++919876543210'],
    ['a full-width plus sign', '\uff0b919876543210'],
    ['spaces', '+91 98765 43210'],
    ['a space before it', ' +919876543210'],
    ['a space behind it', '+919876543210 '],
    ['a no-break space', '+91\u00a09876543210'],
    ['dashes', '+91-98765-43210'],
    ['dots', '+91.98765.43210'],
    ['brackets', '+91(98765)43210'],
    ['tel:', 'tel:+919876543210'],
    ['an RFC 3966 extension', '+919876543210;ext=5'],
    ['an extension', '+919876543210x5'],
    ['a pause', '+919876543210,,1'],
    ['a number inside text', 'call +919876543210'],
    ['two numbers', '+919876543210+919876543210'],
    ['a newline at the end', '+919876543210\n'],
    ['a carriage return at the end', '+919876543210\r\n'],
    ['a newline before it', '\n+919876543210'],
    ['a line separator at the end', '+919876543210\u2028'],
    ['a null byte at the end', '+919876543210\0'],
    ['a null byte within', '+91987654\x003210'],
    ['a zero-width space', '+91\u200b9876543210'],
    ['a zero-width joiner at the end', '+919876543210\u200d'],
    ['a byte order mark', '\ufeff+919876543210'],
    ['a right-to-left mark', '\u200f+919876543210'],
    ['a soft hyphen', '+9198765\u00ad43210'],
    ['Devanagari digits', '+९१९८७६५४३२१०'],
    ['one Devanagari digit', '+91987654321०'],
    ['Arabic digits', '+٩١٩٨٧٦٥٤٣٢١٠'],
    ['full-width digits', '+\uff19\uff11\uff19\uff18\uff17\uff16\uff15\uff14\uff13\uff12\uff11\uff10'],
    ['mathematical digits', '+91𝟗876543210'],
    ['letters of a keypad', '+91987654FLAT'],
    ['a percent-encoded plus', '%2B919876543210'],
  ])('isPhoneNumber refuses the text %s', (_, text) => {
    expect(isPhoneNumber(text)).toBe(false);
  });

  test.each([
    ['the United States', '+12015550123'],
    ['Pakistan', '+923012345678'],
    ['Bangladesh', '+8801812345678'],
    ['Great Britain', '+447400123456'],
    ['an Antarctic base', '+672101234567'],
    ['satellites', '+881612345678'],
  ])('isPhoneNumber refuses a number of %s', (_, text) => {
    expect(isPhoneNumber(text)).toBe(false);
  });

  test.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a number', 919876543210],
    ['a bigint', 919876543210n],
    ['true', true],
    ['an array of one number', ['+919876543210']],
    ['a nested array', [['+919876543210']]],
    ['an object with toString', { toString: () => '+919876543210' }],
    ['an object with a toString that is no function', { toString: '+919876543210' }],
    ['an object with toPrimitive', { [Symbol.toPrimitive]: () => '+919876543210' }],
    ['a String object', Object('+919876543210')],
    ['a buffer', Buffer.from('+919876543210')],
    ['a symbol', Symbol('+919876543210')],
    ['a function', () => '+919876543210'],
  ])('isPhoneNumber refuses a value that is %s', (_, value) => {
    expect(isPhoneNumber(value)).toBe(false);
  });

  test('isPhoneNumber accepts only a plus, 91, and ten ASCII digits from 6 on', () => {
    const digit = fc.oneof(
      { weight: 200, arbitrary: fc.constantFrom(...Array.from('0123456789')) },
      { weight: 1, arbitrary: fc.constantFrom(...Array.from('०९٣۴\uff19𝟗 -.()\t\n\0\u200b\u00a0x;,')) },
    );
    const nearly = fc
      .tuple(
        fc.constantFrom('', '', '', '', ' ', '\n', 'tel:', '\u200f'),
        fc.constantFrom('+91', '+91', '+91', '+91', '+91', '91', '+', '0091', '+९१', '', '+1', '+92'),
        fc.constantFrom('', '6', '7', '8', '9', '0'),
        fc.array(digit, { minLength: 8, maxLength: 11 }),
        fc.constantFrom('', '', '', '\n', ' ', '\0', ';ext=1', '\u200b'),
      )
      .map(([before, prefix, first, digits, after]) => before + prefix + first + digits.join('') + after);
    let accepted = 0;
    fc.assert(
      fc.property(fc.oneof({ weight: 20, arbitrary: nearly }, anyText()), (text) => {
        if (!isPhoneNumber(text)) return;
        accepted += 1;
        expect(text).toMatch(/^\+91[6-9][0-9]{9}$/);
        expect(Buffer.byteLength(text)).toBe(13);
      }),
      { numRuns: 2_000, seed: 91 },
    );
    // Else the property would hold of nothing.
    expect(accepted).toBeGreaterThan(10);
  });
});

describe('maskPhoneNumber', () => {
  test('a masked phone number keeps the country and the last four digits', () => {
    expect(maskPhoneNumber(phone('+919876543210'))).toBe('+91******3210');
  });

  test('a masked phone number is the same for numbers that differ only in hidden digits', () => {
    expect(maskPhoneNumber(phone('+919113353210'))).toBe(maskPhoneNumber(phone('+919876543210')));
  });
});

describe('a pseudonym', () => {
  const number = phone('+919876543210');
  const key = Buffer.alloc(32, 1);

  test('a phone pseudonym is 22 base64url characters, the same each time', () => {
    expect(hmac128(key, number)).toMatch(/^[\w-]{21}[AQgw]$/);
    expect(hmac128(key, number)).toBe(hmac128(Buffer.alloc(32, 1), number));
  });

  test('a phone pseudonym differs for every number and every key', () => {
    const numbers = Array.from({ length: 1_000 }, (_, i) => phone(`+9198765${String(i).padStart(5, '0')}`));
    const names = numbers.flatMap((each) => [hmac128(key, each), hmac128(Buffer.alloc(32, 2), each)]);
    expect(new Set(names).size).toBe(2_000);
  });

  test('a phone pseudonym is 128 bits of HMAC-SHA256, not a hash without a key', () => {
    const mac = createHmac('sha256', key).update('+919876543210').digest();
    expect(Buffer.from(hmac128(key, number), 'base64url')).toEqual(mac.subarray(0, 16));
    const hash = createHash('sha256').update('+919876543210').digest();
    expect(hmac128(key, number)).not.toBe(hash.subarray(0, 16).toString('base64url'));
  });
});
