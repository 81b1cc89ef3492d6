import { createHmac } from 'node:crypto';
import { deriveKey, Keyring } from '../../src/crypto/derived-keys';

const hmac = (key: string | Buffer, data: string | Buffer) => createHmac('sha256', key).update(data).digest();

/** RFC 5869 by its own words: extract with a salt of 32 zeros (2.2), expand to one block (2.3). */
function hkdf(secret: string, info: string): Buffer {
  return hmac(hmac(Buffer.alloc(32), secret), Buffer.concat([Buffer.from(info), Buffer.of(1)]));
}

describe('deriveKey', () => {
  test.each([
    ['a secret of some length, and then some', 'codes'],
    ['geheimes Wörtchen ☂', 'phone encryption'],
    ['s', ''],
  ])('a derived key is HKDF-SHA256 of the secret %p and the label %p', (secret, label) => {
    expect(deriveKey(secret, label)).toEqual(hkdf(secret, label));
    expect(deriveKey(secret, label)).toHaveLength(32);
  });

  test('each label has a derived key of its own', () => {
    expect(deriveKey('secret', 'codes')).not.toEqual(deriveKey('secret', 'code'));
  });
});

describe('Keyring', () => {
  const keyring = new Keyring({ secrets: ['new', 'old'] }, 'codes');

  test('the keyring protects data with the first secret', () => {
    expect(keyring.current.key).toEqual(hkdf('new', 'codes'));
    expect(keyring.find(keyring.current.id)).toEqual(keyring.current.key);
  });

  test('the keyring opens data that another secret of the list protected', () => {
    const before = new Keyring({ secrets: ['old'] }, 'codes');
    expect(before.current.id).not.toBe(keyring.current.id);
    expect(keyring.find(before.current.id)).toEqual(before.current.key);
  });

  test('the keyring opens no data of a secret that has left the list', () => {
    expect(
      new Keyring({ secrets: ['new'] }, 'codes').find(new Keyring({ secrets: ['old'] }, 'codes').current.id),
    ).toBeUndefined();
    expect(keyring.find('')).toBeUndefined();
    expect(keyring.find('constructor')).toBeUndefined();
  });

  test('the keyring names a secret by six base64url characters, the same under every label', () => {
    expect(keyring.current.id).toMatch(/^[\w-]{6}$/);
    expect(keyring.current.id).toBe(hkdf('new', 'key-id').toString('base64url').slice(0, 6));
    expect(new Keyring({ secrets: ['new'] }, 'refresh tokens').current.id).toBe(keyring.current.id);
  });

  test('the keyring lists the ids of its secrets, the one that protects first', () => {
    expect(keyring.ids).toEqual([keyring.current.id, new Keyring({ secrets: ['old'] }, 'codes').current.id]);
  });

  test('a keyring without any secret is refused', () => {
    expect(() => new Keyring({ secrets: [] }, 'codes')).toThrow('a keyring needs a secret');
  });
});
