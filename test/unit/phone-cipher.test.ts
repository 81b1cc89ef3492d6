import { createCipheriv } from 'node:crypto';
import { Keyring } from '../../src/crypto/derived-keys';
import { openPhoneNumber, sealPhoneNumber } from '../../src/phone-number/phone-cipher';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';

const RECORD = 'otp-login:{person}:challenge:1';
const keys = new Keyring({ secrets: ['a secret of this test'] }, 'phone encryption');

function phone(text: string): PhoneNumber {
  if (!isPhoneNumber(text)) throw new Error(`${text} is no phone number`);
  return text;
}
const NUMBER = phone('+919876543210');

/** The id of the key, and the bytes: a nonce of 12, the number's 13, a tag of 16. */
function partsOf(sealed: string): { id: string; bytes: Buffer } {
  const [id = '', text = ''] = sealed.split('.');
  return { id, bytes: Buffer.from(text, 'base64url') };
}
const sealedFrom = (id: string, bytes: Buffer): string => `${id}.${bytes.toString('base64url')}`;

describe('a sealed phone number', () => {
  test('a sealed phone number opens for the record that it was sealed for', () => {
    expect(openPhoneNumber(sealPhoneNumber(NUMBER, RECORD, keys), RECORD, keys)).toBe(NUMBER);
  });

  test.each([
    ['another', 'otp-login:{person}:challenge:2'],
    ['another person’s', 'otp-login:{nosrep}:challenge:1'],
    ['a longer', `${RECORD} `],
    ['a shorter', RECORD.slice(0, -1)],
    ['an empty', ''],
  ])('a sealed phone number does not open for %s record name', (_, record) => {
    expect(openPhoneNumber(sealPhoneNumber(NUMBER, RECORD, keys), record, keys)).toBeUndefined();
  });

  test('a sealed phone number shows nothing of the number', () => {
    const { bytes } = partsOf(sealPhoneNumber(NUMBER, RECORD, keys));
    expect(bytes).toHaveLength(12 + 13 + 16);
    expect(bytes.toString('latin1')).not.toContain('9876');
  });

  test('a sealed phone number is different each time, with another nonce', () => {
    const sealed = Array.from({ length: 2_000 }, () => sealPhoneNumber(NUMBER, RECORD, keys));
    expect(new Set(sealed).size).toBe(2_000);
    const nonces = sealed.map((each) => partsOf(each).bytes.subarray(0, 12).toString('hex'));
    expect(new Set(nonces).size).toBe(2_000);
  });

  test('a sealed phone number does not open when any one of its bits was turned', () => {
    const { id, bytes } = partsOf(sealPhoneNumber(NUMBER, RECORD, keys));
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const tampered = Buffer.from(bytes);
      tampered[bit >> 3]! ^= 1 << (bit & 7);
      expect(openPhoneNumber(sealedFrom(id, tampered), RECORD, keys)).toBeUndefined();
    }
    expect(openPhoneNumber(sealedFrom(id, bytes), RECORD, keys)).toBe(NUMBER);
  });

  test('a sealed phone number does not open with a shortened tag, of which four bytes can be guessed', () => {
    const { id, bytes } = partsOf(sealPhoneNumber(NUMBER, RECORD, keys));
    for (let length = 0; length < bytes.length; length++) {
      expect(openPhoneNumber(sealedFrom(id, bytes.subarray(0, length)), RECORD, keys)).toBeUndefined();
    }
  });

  test('a sealed phone number does not open with bytes before it or behind it', () => {
    const { id, bytes } = partsOf(sealPhoneNumber(NUMBER, RECORD, keys));
    for (const more of [Buffer.alloc(1), Buffer.alloc(16), bytes]) {
      expect(openPhoneNumber(sealedFrom(id, Buffer.concat([bytes, more])), RECORD, keys)).toBeUndefined();
      expect(openPhoneNumber(sealedFrom(id, Buffer.concat([more, bytes])), RECORD, keys)).toBeUndefined();
    }
  });

  test('halves of two sealed phone numbers do not open together', () => {
    const one = partsOf(sealPhoneNumber(NUMBER, RECORD, keys));
    const other = partsOf(sealPhoneNumber(phone('+919113359472'), RECORD, keys));
    for (const at of [12, 25]) {
      const mixed = Buffer.concat([one.bytes.subarray(0, at), other.bytes.subarray(at)]);
      expect(openPhoneNumber(sealedFrom(one.id, mixed), RECORD, keys)).toBeUndefined();
    }
  });

  test.each(['', '.', '..', 'x', '+919876543210', 'null', '.AAAA', keys.current.id, `${keys.current.id}.`])(
    'a sealed phone number is not %p, and reading that does not throw',
    (text) => {
      expect(openPhoneNumber(text, RECORD, keys)).toBeUndefined();
    },
  );

  test('a sealed text that is no phone number is refused although it is authentic', () => {
    const iv = Buffer.alloc(12, 7);
    const cipher = createCipheriv('aes-256-gcm', keys.current.key, iv).setAAD(Buffer.from(RECORD));
    const seal = (text: string): string =>
      sealedFrom(
        keys.current.id,
        Buffer.concat([iv, cipher.update(text), cipher.final(), cipher.getAuthTag()]),
      );
    expect(openPhoneNumber(seal('+919876543210\n'), RECORD, keys)).toBeUndefined();
  });

  test('a sealed phone number is AES-256-GCM with the nonce first and the tag last', () => {
    const iv = Buffer.alloc(12, 7);
    const cipher = createCipheriv('aes-256-gcm', keys.current.key, iv).setAAD(Buffer.from(RECORD));
    const bytes = Buffer.concat([iv, cipher.update(NUMBER), cipher.final(), cipher.getAuthTag()]);
    expect(openPhoneNumber(sealedFrom(keys.current.id, bytes), RECORD, keys)).toBe(NUMBER);
  });
});

describe('the rotation of secrets', () => {
  const before = new Keyring({ secrets: ['old'] }, 'phone encryption');
  const during = new Keyring({ secrets: ['new', 'old'] }, 'phone encryption');
  const after = new Keyring({ secrets: ['new'] }, 'phone encryption');

  test('a number sealed by an old secret opens as long as that secret is in the list', () => {
    const sealed = sealPhoneNumber(NUMBER, RECORD, before);
    expect(openPhoneNumber(sealed, RECORD, during)).toBe(NUMBER);
    expect(openPhoneNumber(sealed, RECORD, after)).toBeUndefined();
  });

  test('phone numbers are sealed with the first secret of the list', () => {
    const sealed = sealPhoneNumber(NUMBER, RECORD, during);
    expect(openPhoneNumber(sealed, RECORD, after)).toBe(NUMBER);
    expect(openPhoneNumber(sealed, RECORD, before)).toBeUndefined();
  });

  test('a sealed phone number does not open under the id of another key', () => {
    const { bytes } = partsOf(sealPhoneNumber(NUMBER, RECORD, before));
    expect(openPhoneNumber(sealedFrom(after.current.id, bytes), RECORD, during)).toBeUndefined();
  });

  test('a sealed phone number does not open with a key that was derived for another purpose', () => {
    const codes = new Keyring({ secrets: ['old'] }, 'code');
    expect(openPhoneNumber(sealPhoneNumber(NUMBER, RECORD, before), RECORD, codes)).toBeUndefined();
  });
});
