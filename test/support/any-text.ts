import fc from 'fast-check';

/** Text of any characters; `unit: 'binary'` of fast-check takes two seconds to set up. */
export const anyText = (maxLength = 20): fc.Arbitrary<string> =>
  fc
    .array(fc.oneof(fc.integer({ min: 0, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff })), {
      maxLength,
    })
    .map((points) => String.fromCodePoint(...points));
