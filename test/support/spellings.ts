import fc from 'fast-check';

// What becomes of a phone number or a code in the hands of people, forms, libraries and attackers.

/** Digits of other scripts, by their zero: Arabic-Indic, Persian, Devanagari, Bengali, Tamil, full-width, bold. */
const ZEROS = [0x660, 0x6f0, 0x966, 0x9e6, 0xbe6, 0xff10, 0x1d7ce];
const LOOKALIKES: Record<string, string[]> = {
  '+': ['＋', '﹢', '⁺', '➕', '᛭', '%2B', '%2b', '&plus;', '\\u002b', '++', ' +', ''],
  0: ['O', 'o', 'О', '〇', '⁰', '߀'],
  1: ['l', 'I', '|', '¹', '①'],
  2: ['Z', '²', '②'],
  3: ['З', '³', '③'],
  5: ['S', '⁵'],
  6: ['б', '⁶'],
  8: ['B', '⁸'],
  9: ['g', '⁹'],
};
const SEEN = Array.from(' \t\n\r\v\f\0\b\u0085\u00a0\u2003\u2028\u2029\u3000-‐–−.()/,;_\'"\\*#:{}');
const UNSEEN = Array.from(
  '\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202e\u180e\u034f\ufe0f\u{e0031}\ud800',
);
const COMBINING = Array.from('\u0301\u20e3\u0651\u093c');
const ENCODED = ['\r\n', '%00', '%20', '%0a', '&#8203;', ';ext=1', 'x1', 'e0'];
/** What may come between the digits; none of it is a digit or a plus by itself. */
export const NOISE = [...SEEN, ...UNSEEN, ...COMBINING, ...ENCODED];

/** A text with something put in at one place, both ends included. */
export const inserted = (text: string, ...pieces: string[]): fc.Arbitrary<string> =>
  fc
    .tuple(fc.nat(text.length), fc.constantFrom(...pieces))
    .map(([at, piece]) => text.slice(0, at) + piece + text.slice(at));

/** Some characters of the text, at least one, each replaced. */
function replaced(text: string, by: (character: string) => string[]): fc.Arbitrary<string> {
  const places = Array.from(text, (_, at) => at);
  return fc
    .tuple(
      fc.subarray(places, { minLength: 1 }),
      fc.tuple(...Array.from(text, (character) => fc.constantFrom(...by(character)))),
    )
    .map(([at, others]) => Array.from(text, (c, i) => (at.includes(i) ? others[i] : c)).join(''));
}
const inOtherDigits = (text: string): fc.Arbitrary<string> =>
  replaced(text, (c) =>
    c === '+' ? ['＋', '﹢'] : ZEROS.map((zero) => String.fromCodePoint(zero + Number(c))),
  );

/** Other types that some language takes for the text. */
const asOtherTypes = (text: string): fc.Arbitrary<unknown> =>
  fc.constantFrom<unknown>(
    ...[Number(text), Number(text.slice(1)), null, true],
    ...[[text], [[text]], [text, text], Array.from(text)],
    ...[{ value: text }, { 0: text, length: 1 }, Object.fromEntries(Array.from(text).entries())],
    ...[
      { toString: text, valueOf: text },
      { toJSON: text, constructor: { name: 'String' } },
    ],
  );

/** Valid numbers of a series that is mobile from its first to its last. */
export const phones = fc.nat(99_999_999).map((digits) => `+9198${String(digits).padStart(8, '0')}`);

const PREFIXES = ['', '0', '00', '0091', '91', '+', '+0', '++91', '+910', '011 91', '+91 0', 'tel:+91', '+1'];
/** Every way to give a number but the exact one. */
export const misspeltPhones = phones.chain((phone) =>
  fc
    .oneof(
      inserted(phone, ...NOISE, '0', '9', '+', '+91'),
      inserted(phone, ...NOISE).chain((text) => inserted(text, ...NOISE)),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 3 }).chain((noise) => inserted(phone, noise)),
      fc.constantFrom(...PREFIXES).map((prefix) => prefix + phone.slice(3)),
      inOtherDigits(phone),
      replaced(phone, (c) => LOOKALIKES[c] ?? [`${c}\u0301`, `${c}\u200b`]),
      replaced(phone, (c) => [`%${c.charCodeAt(0).toString(16)}`, `&#${c.charCodeAt(0)};`]),
      fc.nat(phone.length - 1).map((length) => phone.slice(0, length)),
      fc.constantFrom(phone + phone, `${phone},${phone}`, `<${phone}>`, `"${phone}"`, phone.slice(1) + '+'),
      asOtherTypes(phone),
      fc.jsonValue({ maxDepth: 3 }),
    )
    // A digit that is put in or left out may make another exact number of it.
    .filter((spelling) => typeof spelling !== 'string' || !/^\+91\d{10}$/.test(spelling)),
);

/** Every way to give a code but the exact one. */
export const miswrittenCodes = (code: string): fc.Arbitrary<unknown> =>
  fc
    .oneof(
      inserted(code, ...NOISE, '+', '-', '.0'),
      inOtherDigits(code),
      asOtherTypes(code),
      fc.constantFrom(code.slice(0, 3), code.repeat(2), `0x${code}`, `${code}n`, `${code}.0`, ''),
      fc.string({ unit: 'binary', maxLength: 10 }),
      fc.jsonValue({ maxDepth: 3 }),
    )
    .filter((spelling) => typeof spelling !== 'string' || !/^[0-9]{4,8}$/.test(spelling));

/** A JSON string of the same text, of which any character may stand there as an escape. */
function jsonSpelling(text: string): fc.Arbitrary<string> {
  const escape = (c: string): string => c.charCodeAt(0).toString(16).padStart(4, '0');
  const each = Array.from(text, (c) =>
    fc.constantFrom(c, `\\u${escape(c)}`, `\\u${escape(c).toUpperCase()}`),
  );
  return fc.tuple(...each).map((letters) => `"${letters.join('')}"`);
}
const blanks = fc.string({ unit: fc.constantFrom(' ', '\t', '\n', '\r'), maxLength: 3 });

/** A body with the exact number, as freely as JSON allows. */
export const exactBodies = (phone: string): fc.Arbitrary<string> =>
  fc
    .tuple(
      jsonSpelling('phoneNumber'),
      jsonSpelling(phone),
      blanks,
      // Of a key that is given twice the last counts, as everywhere in JavaScript.
      fc.constantFrom('', '"phoneNumber":"+919999999999",', '"phonenumber":1,', '"a":{"phoneNumber":1},'),
      fc.constantFrom('', ',"PhoneNumber":"+919999999999"', ',"phone":[]', ',"__proto__":{"phoneNumber":1}'),
    )
    .map(([key, value, blank, before, after]) =>
      ['{', before, key, ':', value, after, '}'].map((part) => blank + part).join(''),
    );
