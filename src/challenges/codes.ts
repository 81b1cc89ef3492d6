import { createHmac, randomBytes } from 'node:crypto';
import type { StartMessagingContract } from '../config/read-startmessaging';
import { CODE_LENGTH } from '../config/test-number';
import { Keyring } from '../crypto/derived-keys';
import { constantTimeEqual } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { conceal } from '../logging/request-context';
import type { PhoneNumber } from '../phone-number/phone-number';
import type { Sender } from './challenge';

/** In the place of a secret's id, and longer than any: no code can be derived from such a nonce. */
const UPSTREAM = 'upstream';

/** Whether a provider made the code, and this service cannot derive it. */
export function madeUpstream(nonce: string): boolean {
  return nonce.startsWith(`${UPSTREAM}.`);
}

/**
 * Codes are derived, not stored: an HMAC of the phone number and a random nonce. Redis holds the nonce, so the same
 * code can be sent again, and a dump of Redis holds no code and nothing to guess one from.
 */
export class Codes {
  private readonly keys: Keyring;
  private readonly length: number;

  constructor(config: {
    readonly secrets: readonly string[];
    readonly startMessagingContract: StartMessagingContract;
    readonly otpLength: number;
  }) {
    this.keys = new Keyring(config, 'code');
    this.length = config.startMessagingContract === 'caller' ? CODE_LENGTH : config.otpLength;
  }

  /**
   * A nonce for a new code: `secret id.digits.128 random bits`. It says which secret it belongs to: trying them all
   * would give a guesser one more code with every secret. One that a provider makes has a nonce, too, which tells it from
   * others; to derive from that would give the number two live codes.
   */
  nonceFor({ resendsCode }: Pick<Sender, 'resendsCode'>): string {
    const maker = resendsCode ? `${this.keys.current.id}.${this.length}` : `${UPSTREAM}.0`;
    return `${maker}.${randomBytes(16).toString('base64url')}`;
  }

  /** The ids of the secrets that codes can be derived from. */
  get knownSecrets(): string {
    return this.keys.ids.join(',');
  }

  /** The code of a nonce for this phone number: HMAC-SHA256 as a 256-bit number modulo 10^digits, a bias below 2^-200. */
  derive(phone: PhoneNumber, nonce: string): string {
    const [id = '', digits = '0'] = nonce.split('.');
    const key = this.keys.find(id);
    // Its secret has been removed from SECRET, so the code can no longer be derived.
    if (key === undefined) throw new ApiError('otp_expired');
    const mac = createHmac('sha256', key).update(`${phone}:${nonce}`).digest('hex');
    const code = (BigInt(`0x${mac}`) % 10n ** BigInt(digits)).toString().padStart(Number(digits), '0');
    conceal(code);
    return code;
  }

  /** Compares in constant time: an answer's timing must not tell how many digits are right. */
  matches(phone: PhoneNumber, nonce: string, code: string): boolean {
    return constantTimeEqual(code, this.derive(phone, nonce));
  }
}
