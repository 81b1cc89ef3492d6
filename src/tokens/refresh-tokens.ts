import { Keyring } from '../crypto/derived-keys';
import { constantTimeEqual, tokenMac } from '../crypto/mac';

/** The facts of a session that its refresh tokens carry. */
export interface SignedSession {
  readonly subject: string;
  readonly id: string;
  /** How often the session was refreshed. */
  readonly counter: number;
  /** The id of the secret that the session was opened under. */
  readonly secretId: string;
}

/** The claims of an authentic refresh token. */
export interface RefreshTokenClaims {
  subject: string;
  sessionId: string;
  counter: number;
}

// Canonical decimals only: '007' would be a second spelling of 7.
const FORM = /^([\w-]{22})\.([\w-]{22})\.(0|[1-9]\d{0,14})\.([\w-]{6})\.([\w-]{43})$/;

/**
 * Refresh tokens are signed (session, counter) pairs: `subject.session.counter.secret id.MAC`. The successor of a token
 * is always the same text, so a repeat needs no stored token, and the store holds nothing that a thief could replay.
 */
export class RefreshTokens {
  private readonly keys: Keyring;

  constructor(config: { readonly secrets: readonly string[] }) {
    this.keys = new Keyring(config, 'refresh token');
  }

  /** The newest refresh token of a session. Undefined once the secret that it was opened under is dropped. */
  issue({ subject, id, counter, secretId }: SignedSession): string | undefined {
    const key = this.keys.find(secretId);
    const body = `${subject}.${id}.${counter}.${secretId}`;
    return key === undefined ? undefined : `${body}.${tokenMac(key, body)}`;
  }

  /** The claims of a token that was signed here, else undefined. The store is not asked: a forger costs it nothing. */
  read(token: string): RefreshTokenClaims | undefined {
    const [, subject, sessionId, counter, secretId] = FORM.exec(token) ?? [];
    if (subject === undefined || sessionId === undefined || secretId === undefined) return undefined;
    const key = this.keys.find(secretId);
    if (key === undefined) return undefined;
    const body = token.slice(0, -44);
    // As exact text: decoded bytes would have several spellings. In constant time: a forger learns no prefix.
    return constantTimeEqual(token.slice(-43), tokenMac(key, body))
      ? { subject, sessionId, counter: Number(counter) }
      : undefined;
  }
}
