import fc from 'fast-check';

// Bodies of any shape: JSON of every kind, JSON that was written to do harm, and what nearly is JSON.

/** Stands in most of their texts and names, and nowhere else. */
export const MARK = 'qZ7xW';

const FIELDS = ['phoneNumber', 'requestId', 'otpCode', 'tokenDelivery', 'refreshToken'];
const DANGEROUS = ['__proto__', 'constructor', 'prototype', 'toString', 'valueOf', 'hasOwnProperty', 'then'];

/** Any UTF-16, halves of pairs included. */
export const utf16 = fc.string({
  unit: fc.nat(0xffff).map((unit) => String.fromCharCode(unit)),
  maxLength: 140,
});
const marked = fc
  .tuple(fc.constantFrom(MARK, MARK, ''), fc.oneof(fc.string({ unit: 'grapheme' }), utf16))
  .map((parts) => parts.join(''));
const names = fc.oneof(fc.constantFrom(...FIELDS, ...DANGEROUS, 'toJSON', 'length', '0', ''), marked);

const values = fc
  .anything({
    key: names,
    values: [marked, fc.double(), fc.integer(), fc.boolean(), fc.constant(null)],
    maxDepth: 3,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withNullPrototype: true,
    withSparseArray: true,
    withTypedArray: true,
  })
  .map((value) => (JSON.stringify(value) as string | undefined) ?? 'null');

/** As deep as 16 KB allow. */
const nests = fc
  .tuple(fc.constantFrom(['[', ']'], ['{"a":', '}'], ['{"__proto__":', '}']), fc.nat(14_000))
  .map(([[open = '', close = ''], bytes]) => {
    const levels = Math.floor(bytes / (open.length + close.length));
    return open.repeat(levels) + `"${MARK}"` + close.repeat(levels);
  });

const NUMBERS = ['1e999', '-1e999', '1e-999', '-0', '123456789012345678901234567890', '9'.repeat(4_000)];
const SURROGATES = ['"\\ud800"', '"\\udc00\\ud800"', `"\\ud83d${MARK}"`, `"\\u0000${MARK}"`];
/** These pass the first check, and meet the second. */
const NEARLY_RIGHT = ['"+919876543210"', '"123456"', '"cookie"', `"${'A'.repeat(44)}"`, '""', '[]', '{}'];

const literals = fc.oneof(
  { weight: 6, arbitrary: values },
  { weight: 2, arbitrary: fc.json({ maxDepth: 4, stringUnit: 'binary' }) },
  { weight: 1, arbitrary: nests },
  {
    weight: 3,
    arbitrary: fc.constantFrom(...NUMBERS, ...SURROGATES, ...NEARLY_RIGHT, `"${MARK.repeat(300)}"`),
  },
);
const keys = fc.oneof(
  fc.constantFrom(...FIELDS).map((name) => `"${name}"`),
  names.map((name) => JSON.stringify(name)),
  fc.constantFrom('"\\u005f_proto__"', '"__pr\\u006fto__"', '"c\\u006fnstructor"'),
);
/** Written by hand, because no object holds a key twice. */
const objects = fc
  .array(
    fc.tuple(keys, literals).map((pair) => pair.join(':')),
    { maxLength: 5 },
  )
  .map((pairs) => `{${pairs.join()}}`);

const DEBRIS = ['\ufeff', '\0', '//', ")]}',\n", '\xff', '}', '"'].map((text) => Buffer.from(text, 'latin1'));

/** JSON, or what a bad connection or a bad programmer has left of it. */
export const bodies: fc.Arbitrary<Buffer> = fc
  .oneof({ weight: 6, arbitrary: objects }, { weight: 1, arbitrary: literals })
  .chain((text) => {
    const bytes = Buffer.from(text);
    const place = fc.nat(bytes.length);
    const debris = fc.oneof(fc.constantFrom(...DEBRIS), fc.uint8Array({ minLength: 1, maxLength: 3 }));
    return fc.oneof(
      { weight: 6, arbitrary: fc.constant(bytes) },
      { weight: 1, arbitrary: place.map((end) => bytes.subarray(0, end)) },
      {
        weight: 1,
        arbitrary: fc
          .tuple(fc.oneof(place, fc.constant(0)), debris)
          .map(([at, piece]) => Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)])),
      },
    );
  });
