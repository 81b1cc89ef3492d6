import { redact } from '../../src/upstream/redact';
import { readRetryAfter } from '../../src/upstream/retry-after';

const NOW = Date.parse('2026-11-20T10:00:00Z');

describe('Retry-After', () => {
  test.each([
    ['7', 7],
    [' 7 ', 7],
    ['0', 1],
    ['86401', 86_400],
    ['9'.repeat(400), 86_400],
    ['Fri, 20 Nov 2026 10:00:30 GMT', 30],
    ['Friday, 20-Nov-26 10:00:30 GMT', 30],
    ['Fri Nov 20 10:00:30 2026', 30],
    ['Fri Nov  6 10:00:30 2026', 1],
    ['Wed, 21 Oct 2015 07:28:00 GMT', 1],
    ['Sat, 20 Nov 2027 10:00:00 GMT', 86_400],
  ])('the Retry-After %p means %i seconds', (header, seconds) => {
    expect(readRetryAfter(header, NOW)).toBe(seconds);
  });

  test.each([
    undefined,
    null,
    7,
    ['7'],
    '',
    '-5',
    '+5',
    '1.5',
    '1e3',
    '0x10',
    '٣',
    'soon',
    '2026-11-20T10:00:30Z',
    'Fri, 99 Nov 2026 10:00:30 GMT',
    'Fri, 20 Nov 2026 10:00:30 +0530',
  ])('the Retry-After %p is treated as missing', (header) => {
    expect(readRetryAfter(header, NOW)).toBeUndefined();
  });
});

describe('redaction', () => {
  test.each([
    ['a plain sentence, 3 in 300 s', 'a plain sentence, 3 in 300 s'],
    ['code 1234', 'code ***'],
    ['+91 98765-43210!', '+*** !'.replace(' ', '')],
    ['(987) 654 3210', '(***'],
    ['१२३४५६', '***'],
    ['12\u000034', '***'],
    ['12\u200b34', '***'],
    ['sm_live_abc\u0007def', '***'],
    ['SM_TEST_abc', '***'],
    ['the secret word', 'the *** word'],
    ['two\r\nlines\u2028\tand \u001b[31mred', 'two lines and [31mred'],
    ['x'.repeat(400), 'x'.repeat(300)],
    [`${'x'.repeat(299)}😀`, 'x'.repeat(299)],
  ])('the upstream text %p is logged as %p', (text, logged) => {
    expect(redact(text, ['secret', ''])).toBe(logged);
  });
});
