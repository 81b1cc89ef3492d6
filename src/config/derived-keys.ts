import { hkdfSync } from 'node:crypto';

/**
 * A key of 32 bytes for one purpose: HKDF-SHA256 (RFC 5869) with no salt and the label as its info. Keys of two
 * labels tell nothing of each other, so a purpose never needs a secret of its own, and never shares a key.
 */
export function deriveKey(secret: string, label: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', label, 32));
}

/** The keys of one purpose, one for each secret of a list: the first protects, all of them still open. */
export class Keyring {
  readonly current: { readonly id: string; readonly key: Buffer };
  private readonly keys = new Map<string, Buffer>();

  /** @throws Error when there is no secret. */
  constructor(secrets: readonly string[], label: string) {
    const [first] = secrets;
    if (first === undefined) throw new Error('a keyring needs a secret');
    for (const secret of secrets) this.keys.set(keyId(secret), deriveKey(secret, label));
    this.current = { id: keyId(first), key: deriveKey(first, label) };
  }

  /** The ids of all secrets of the list. */
  get ids(): string[] {
    return [...this.keys.keys()];
  }

  /** The key whose id a record carries; undefined once its secret has left the list. */
  find(id: string): Buffer | undefined {
    return this.keys.get(id);
  }
}

/**
 * Says which secret a record belongs to, the same under every label. Derived like a key, so that it reveals
 * nothing of the keys; six characters are enough to tell the secrets of one list apart.
 */
function keyId(secret: string): string {
  return deriveKey(secret, 'key-id').toString('base64url').slice(0, 6);
}
