import { hkdfSync } from 'node:crypto';

/**
 * A key of 32 bytes for one purpose: HKDF-SHA256 (RFC 5869) with no salt and the label as its info. Keys of two
 * labels tell nothing of each other, so a purpose never needs a secret of its own, and never shares a key.
 */
export function deriveKey(secret: string, label: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', label, 32));
}

interface Key {
  readonly id: string;
  readonly key: Buffer;
}

/**
 * The keys of one purpose, one for each secret of SECRET's list: the first protects, all of them still open. It follows
 * the list when that is replaced.
 */
export class Keyring {
  private derived: { secrets: readonly string[]; current: Key; keys: ReadonlyMap<string, Buffer> };

  /**
   * @param config the owner of the list of secrets; changes of the list are followed
   * @throws Error when there is no secret.
   */
  constructor(
    private readonly config: { readonly secrets: readonly string[] },
    private readonly label: string,
  ) {
    this.derived = derive(config.secrets, label);
  }

  get current(): Key {
    return this.now.current;
  }

  /** The ids of all secrets of the list. */
  get ids(): string[] {
    return [...this.now.keys.keys()];
  }

  /** The key with the id that a record carries; undefined after its secret has left the list. */
  find(id: string): Buffer | undefined {
    return this.now.keys.get(id);
  }

  private get now(): typeof this.derived {
    const { secrets } = this.config;
    if (secrets !== this.derived.secrets) this.derived = derive(secrets, this.label);
    return this.derived;
  }
}

function derive(secrets: readonly string[], label: string) {
  const all = secrets.map((secret): Key => ({ id: keyId(secret), key: deriveKey(secret, label) }));
  const [current] = all;
  if (current === undefined) throw new Error('a keyring needs a secret');
  return { secrets, current, keys: new Map(all.map(({ id, key }) => [id, key])) };
}

/**
 * Says which secret a record belongs to, the same under every label. Derived like a key, so that it reveals
 * nothing of the keys; six characters are enough to tell the secrets of one list apart.
 */
function keyId(secret: string): string {
  return deriveKey(secret, 'key-id').toString('base64url').slice(0, 6);
}
