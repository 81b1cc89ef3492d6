import { readConfig } from '../../src/config/read-config';
import { Codes } from '../../src/challenges/codes';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { MADE_HERE } from '../support/senders';

const OLD = 'the-old-secret-0123456789-abcdefghij';
const NEW = 'the-new-secret-0123456789-abcdefghij';

function codes(secrets = OLD, length = 6): Codes {
  return new Codes(
    readConfig({
      NODE_ENV: 'test',
      STARTMESSAGING_API_KEY: 'sm_live_x',
      SECRET: secrets,
      OTP_LENGTH: String(length),
    }),
  );
}

function phone(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error(`${text} is no phone number`);
  return text;
}
const NUMBER = phone('+919876543210');
const OTHER = phone('+919876543211');

/** The i-th of a fixed row of nonces. */
const nonceOf = (from: Codes, length: number, i: number): string =>
  `${from.knownSecrets.split(',')[0]!}.${length}.${Buffer.from(String(i).padStart(16, '0')).toString('base64url')}`;

describe('a nonce', () => {
  test('a nonce names its secret and the number of digits, and carries 128 random bits', () => {
    const from = codes(`${NEW},${OLD}`, 7);
    const [id, digits, random] = from.nonceFor(MADE_HERE).split('.');
    expect(from.knownSecrets.split(',')[0]).toBe(id);
    expect(digits).toBe('7');
    expect(Buffer.from(random!, 'base64url')).toHaveLength(16);
  });

  test('a nonce is different each time', () => {
    const from = codes();
    expect(new Set(Array.from({ length: 5_000 }, () => from.nonceFor(MADE_HERE))).size).toBe(5_000);
  });
});

describe('a code', () => {
  const from = codes();

  test('a code is the same again for the same number and nonce, also in another process', () => {
    const nonce = from.nonceFor(MADE_HERE);
    expect(codes().derive(NUMBER, nonce)).toBe(from.derive(NUMBER, nonce));
    expect(from.derive(NUMBER, nonce)).toMatch(/^\d{6}$/);
  });

  test('a code differs by phone number, by nonce and by secret', () => {
    const differing = (count: number, of: (i: number) => [string, string]): number =>
      Array.from({ length: count }, (_, i) => of(i)).filter(([a, b]) => a !== b).length;
    const nonce = (i: number): string => nonceOf(from, 6, i);
    expect(
      differing(200, (i) => [from.derive(NUMBER, nonce(i)), from.derive(OTHER, nonce(i))]),
    ).toBeGreaterThan(197);
    expect(
      differing(200, (i) => [from.derive(NUMBER, nonce(i)), from.derive(NUMBER, nonce(i + 1))]),
    ).toBeGreaterThan(197);
    const next = codes(NEW);
    expect(
      differing(200, (i) => [from.derive(NUMBER, nonce(i)), next.derive(NUMBER, nonceOf(next, 6, i))]),
    ).toBeGreaterThan(197);
  });

  test('a code does not depend on how number and nonce are joined', () => {
    // Everything that a nonce says goes into its code: its digits too, or a code of 4 would be the end of one of 6.
    const short = from.derive(NUMBER, nonceOf(from, 4, 1));
    const long = from.derive(NUMBER, nonceOf(from, 6, 1));
    expect(long.endsWith(short)).toBe(false);
  });

  test('a code has as many digits as its nonce says, whatever the setting is now', () => {
    for (const length of [4, 5, 6, 7, 8]) {
      const nonce = codes(OLD, length).nonceFor(MADE_HERE);
      expect(from.derive(NUMBER, nonce)).toMatch(new RegExp(`^\\d{${length}}$`));
    }
  });

  test('a code keeps its leading zeros', () => {
    const made = Array.from({ length: 2_000 }, (_, i) => from.derive(NUMBER, nonceOf(from, 4, i)));
    expect(made.every((code) => /^\d{4}$/.test(code))).toBe(true);
    const zeros = made.filter((code) => code.startsWith('0')).length;
    expect(zeros).toBeGreaterThan(140);
    expect(zeros).toBeLessThan(260);
    expect(made.some((code) => code.startsWith('00'))).toBe(true);
  });

  test('codes are evenly distributed: every digit in every place, and all codes of a range', () => {
    const count = 20_000;
    const made = Array.from({ length: count }, (_, i) => from.derive(NUMBER, nonceOf(from, 6, i)));
    const chiSquare = (bins: number, binOf: (code: string) => number): number => {
      const hits = Array<number>(bins).fill(0);
      for (const code of made) hits[binOf(code)]! += 1;
      const expected = count / bins;
      return hits.reduce((sum, each) => sum + (each - expected) ** 2 / expected, 0);
    };
    // One in a million of fair rows lies above these bounds, and this row is always the same.
    for (let place = 0; place < 6; place++) {
      expect(chiSquare(10, (code) => Number(code[place]))).toBeLessThan(45);
    }
    expect(chiSquare(1_000, (code) => Number(code.slice(0, 3)))).toBeLessThan(1_225);
    expect(chiSquare(1_000, (code) => Number(code.slice(3)))).toBeLessThan(1_225);
    // A generator of few codes would pass the above: 20,000 fair draws of a million leave about 198 twins.
    expect(new Set(made).size).toBeGreaterThan(count - 300);
  });
});

describe('matches', () => {
  const from = codes();
  const nonce = nonceOf(from, 6, 42);
  const code = from.derive(NUMBER, nonce);

  test('a code matches itself and no other code of the same length', () => {
    expect(from.matches(NUMBER, nonce, code)).toBe(true);
    let right = 0;
    for (let i = 0; i < 20_000; i++) {
      if (from.matches(NUMBER, nonce, String((Number(code) + i) % 1_000_000).padStart(6, '0'))) right += 1;
    }
    expect(right).toBe(1);
  });

  test('a code does not match text of another length, and the comparison does not throw', () => {
    const others = [
      '',
      code.slice(1),
      code.slice(0, -1),
      `0${code}`,
      `${code}0`,
      `${code}\0`,
      ` ${code}`,
      `${code}\n`,
    ];
    for (const other of others) expect(from.matches(NUMBER, nonce, other)).toBe(false);
  });

  test('a code does not match the same digits in another script', () => {
    const devanagari = Array.from(code)
      .map((digit) => String.fromCodePoint(0x966 + Number(digit)))
      .join('');
    const fullWidth = Array.from(code)
      .map((digit) => String.fromCodePoint(0xff10 + Number(digit)))
      .join('');
    expect(from.matches(NUMBER, nonce, devanagari)).toBe(false);
    expect(from.matches(NUMBER, nonce, fullWidth)).toBe(false);
  });

  test('a code does not match for another phone number', () => {
    expect(from.matches(OTHER, nonce, code)).toBe(false);
  });
});

describe('the rotation of secrets', () => {
  test('a code is derived the same after its secret has moved back in the list', () => {
    const nonce = codes(OLD).nonceFor(MADE_HERE);
    expect(codes(`${NEW},${OLD}`).derive(NUMBER, nonce)).toBe(codes(OLD).derive(NUMBER, nonce));
  });

  test('new codes are made with the first secret, and codes of every listed secret are known', () => {
    const during = codes(`${NEW},${OLD}`);
    const [first, second] = during.knownSecrets.split(',');
    expect([first, second]).toEqual([codes(NEW).knownSecrets, codes(OLD).knownSecrets]);
    expect(during.nonceFor(MADE_HERE).startsWith(`${first!}.`)).toBe(true);
  });

  test('a code of a secret that left the list is an error, and is not called wrong', () => {
    const nonce = codes(OLD).nonceFor(MADE_HERE);
    expect(() => codes(NEW).derive(NUMBER, nonce)).toThrow('expired');
    expect(() => codes(NEW).matches(NUMBER, nonce, '123456')).toThrow('expired');
    expect(() => codes(NEW).derive(NUMBER, '')).toThrow('expired');
  });
});
