import { createHash } from 'node:crypto';
import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Audit } from '../audit/audit';
import { SigningKeys, type SigningKey } from './signing-keys';

const POLL_EVERY_MS = 2_000;

/**
 * Tells the audit which signing keys this replica publishes, which of them signs, and which have gone, each when it is
 * seen, and at the start what is there. Every replica does: the stream takes the first.
 */
@Injectable()
export class KeyAudit implements OnModuleInit, OnModuleDestroy {
  /** By thumbprint: a key that takes another's name is another key. */
  private published = new Map<string, SigningKey>();
  private signing = '';
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly keys: SigningKeys,
    private readonly audit: Audit,
  ) {}

  onModuleInit(): void {
    this.poll();
    // A key also begins to sign by itself, when its time comes.
    this.timer = setInterval(() => {
      this.poll();
    }, POLL_EVERY_MS).unref();
  }

  onModuleDestroy(): void {
    clearInterval(this.timer);
  }

  /** Tells what has changed since the last poll. A timer does it every two seconds. */
  poll(): void {
    const now = new Map(this.keys.published.map((key) => [thumbprintOf(key), key]));
    const signs = this.keys.current();
    const signing = thumbprintOf(signs);
    for (const [thumbprint, { kid }] of now)
      if (!this.published.has(thumbprint)) this.audit.record({ audit: 'key.published', kid, thumbprint });
    if (signing !== this.signing)
      this.audit.record({ audit: 'key.signing', kid: signs.kid, thumbprint: signing });
    for (const [thumbprint, { kid }] of this.published)
      if (!now.has(thumbprint)) this.audit.record({ audit: 'key.removed', kid, thumbprint });
    this.published = now;
    this.signing = signing;
  }
}

const thumbprints = new WeakMap<SigningKey, string>();

/** SHA-256 of the public key, what `openssl pkey -pubout -outform DER` prints. In hex, some would look like phone numbers. */
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
