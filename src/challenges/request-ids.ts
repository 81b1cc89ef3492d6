import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { deriveKey } from '../crypto/derived-keys';
import { ApiError } from '../errors/api-error';
import { aboutNumber } from '../logging/request-context';
import type { PhoneIdentity } from '../phone-number/phone-identity';

/** `own part`, `encrypted pseudonym` and `authentication tag`, 16 bytes each: 64 base64url characters without spare bits. */
const REQUEST_ID = /^[\w-]{64}$/;
const PART_BYTES = 16;

/** A request id that this service issued, with the parts that are hidden in it. */
export interface RequestId {
  /** The id for the client: opaque, and the same again for a repeat under the same Idempotency-Key. */
  readonly text: string;
  /** The number that it is bound to; it routes the request to the number's slot. */
  readonly pseudonym: string;
  /** The part that names the challenge among those of the number: 128 bits. */
  readonly own: string;
}

/**
 * Issues request ids and reads them back. The pseudonym in an id is encrypted under a nonce of its own, so two ids of one
 * number have nothing visible in common. The tag lets the service refuse a forged id before Redis is asked. All keys come
 * from SUBJECT_SECRET: a rotation of SECRET must not turn a retry into a second SMS.
 */
export class RequestIds {
  private readonly cipherKey: Buffer;
  private readonly retryKey: Buffer;

  constructor({ subjectSecret }: { readonly subjectSecret: string }) {
    this.cipherKey = deriveKey(subjectSecret, 'request id');
    this.retryKey = deriveKey(subjectSecret, 'request id of an idempotency key');
  }

  /** A random id; under an Idempotency-Key the id of this number and this key, the same at each call. */
  issue({ pseudonym }: PhoneIdentity, idempotencyKey?: string): RequestId {
    const own =
      idempotencyKey === undefined
        ? randomBytes(PART_BYTES)
        : createHmac('sha256', this.retryKey).update(`${pseudonym}:${idempotencyKey}`).digest();
    const nonce = own.subarray(0, PART_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.cipherKey, nonce);
    const sealed = [cipher.update(pseudonym, 'base64url'), cipher.final(), cipher.getAuthTag()];
    const text = Buffer.concat([nonce, ...sealed]).toString('base64url');
    return { text, pseudonym, own: nonce.toString('base64url') };
  }

  /**
   * Reads the id that a client sent; from here on, the log names its number. Throws `otp_expired` for an id that this
   * service did not issue.
   */
  read(text: string): RequestId {
    const id = this.open(text);
    if (id === undefined) throw new ApiError('otp_expired');
    aboutNumber(id.pseudonym);
    return id;
  }

  /** Undefined for an id that this service did not issue. */
  open(text: string): RequestId | undefined {
    if (!REQUEST_ID.test(text)) return undefined;
    const bytes = Buffer.from(text, 'base64url');
    const own = bytes.subarray(0, PART_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', this.cipherKey, own, { authTagLength: PART_BYTES });
    decipher.setAuthTag(bytes.subarray(2 * PART_BYTES));
    const opened = decipher.update(bytes.subarray(PART_BYTES, 2 * PART_BYTES));
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    return { text, pseudonym: opened.toString('base64url'), own: own.toString('base64url') };
  }
}
