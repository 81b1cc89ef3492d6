import { createHash } from 'node:crypto';
import { Injectable, type OnModuleInit } from '@nestjs/common';
import { Audit } from '../audit/audit';
import { SigningKeys, type SigningKey } from './signing-keys';

/**
 * Records in the audit which signing keys this replica publishes, which key signs, and which keys were removed: all keys at
 * the start, then each change. Every replica records it; the stream keeps the first event.
 */
@Injectable()
export class KeyAudit implements OnModuleInit {
  /** By thumbprint, because a new key may have the name of an old one. */
  private published = new Map<string, SigningKey>();
  private signing = new Set<string>();

  constructor(
    private readonly keys: SigningKeys,
    private readonly audit: Audit,
  ) {}

  onModuleInit(): void {
    this.poll();
    this.keys.onPoll(() => {
      this.poll();
    });
  }

  /** Records the changes since the last poll. Every poll of the signing keys calls it. */
  poll(): void {
    const now = new Map(this.keys.published.map((key) => [thumbprintOf(key), key]));
    // One of access tokens, and one of ID tokens.
    const signing = new Map(
      [this.keys.current(), this.keys.currentOfIdTokens()].map((key) => [thumbprintOf(key), key]),
    );
    for (const [thumbprint, { kid }] of now)
      if (!this.published.has(thumbprint)) this.audit.record({ audit: 'key.published', kid, thumbprint });
    for (const [thumbprint, { kid }] of signing)
      if (!this.signing.has(thumbprint)) this.audit.record({ audit: 'key.signing', kid, thumbprint });
    for (const [thumbprint, { kid }] of this.published)
      if (!now.has(thumbprint)) this.audit.record({ audit: 'key.removed', kid, thumbprint });
    this.published = now;
    this.signing = new Set(signing.keys());
  }
}

const thumbprints = new WeakMap<SigningKey, string>();

/** SHA-256 of the public key that `openssl pkey -pubout -outform DER` prints. In hex, some would look like phone numbers. */
function thumbprintOf(key: SigningKey): string {
  let known = thumbprints.get(key);
  if (known === undefined) {
    known = createHash('sha256')
      .update(key.publicKey.export({ type: 'spki', format: 'der' }))
      .digest('base64url');
    thumbprints.set(key, known);
  }
  return known;
}
