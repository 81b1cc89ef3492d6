import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { hasPhoneNumberForm, isTestNumber, type PhoneNumber } from './phone-number';

/** Keys of 32 bytes by their id: the current one seals, every one opens. */
interface CipherKeys {
  readonly current: { id: string; key: Buffer };
  find(id: string): Buffer | undefined;
}

const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts a phone number for the record of this name: AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D) and
 * the name as associated data, so that a ciphertext copied into another record does not open.
 */
export function sealPhoneNumber(number: PhoneNumber, record: string, keys: CipherKeys): string {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keys.current.key, iv).setAAD(Buffer.from(record));
  const sealed = Buffer.concat([iv, cipher.update(number, 'ascii'), cipher.final(), cipher.getAuthTag()]);
  return `${keys.current.id}.${sealed.toString('base64url')}`;
}

/** The id of the key that sealed it. */
export function sealedUnder(sealed: string): string {
  return sealed.split('.')[0] ?? '';
}

/** Opens what {@link sealPhoneNumber} sealed for the same record; undefined for anything else. */
export function openPhoneNumber(sealed: string, record: string, keys: CipherKeys): PhoneNumber | undefined {
  const [id = '', text = '', more] = sealed.split('.');
  const key = keys.find(id);
  const bytes = Buffer.from(text, 'base64url');
  // base64url has several spellings of the same bytes: one of them is ours.
  if (more !== undefined || bytes.toString('base64url') !== text) return undefined;
  if (key === undefined || bytes.length <= IV_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, IV_BYTES), {
    authTagLength: TAG_BYTES,
  })
    .setAAD(Buffer.from(record))
    .setAuthTag(bytes.subarray(-TAG_BYTES));
  try {
    const opened =
      decipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES), undefined, 'ascii') + decipher.final('ascii');
    // Only a phone number was sealed, and the tag proves that it is unchanged.
    return hasPhoneNumberForm(opened) || isTestNumber(opened) ? opened : undefined;
  } catch {
    return undefined;
  }
}
