import { randomBytes } from 'node:crypto';
import { signText, verifyText } from './keys';
import type { EditionSettings } from './settings';

const TYPE = 'at+jwt';
// Each part in canonical base64url: a lenient decoder ignores the spare bits of the last character, so that sixteen texts
// would be the same signature.
const BASE64URL = /^[A-Za-z0-9_-]+$/;
const LONGEST = 4_096;

/** Access tokens: RFC 9068, signed with ES256, with the claims of the service. */
export class AccessTokens {
  constructor(private readonly settings: EditionSettings) {}

  async issue(session: {
    subject: string;
    id: string;
    authenticatedAt: number;
    test: boolean;
  }): Promise<{ accessToken: string; expiresIn: number }> {
    const { keys, issuer, audience, accessTokenTtlSeconds: expiresIn } = this.settings;
    const iat = Math.floor(Date.now() / 1_000);
    const claims = {
      sid: session.id,
      auth_time: Math.floor(session.authenticatedAt / 1_000),
      amr: ['otp', 'sms'],
      client_id: audience,
      ...(session.test ? { test: true } : {}),
      iat,
      exp: iat + expiresIn,
      aud: audience,
      iss: issuer,
      sub: session.subject,
      jti: randomBytes(16).toString('base64url'),
    };
    const body = [{ alg: 'ES256', typ: TYPE, kid: keys.kid }, claims].map(encode).join('.');
    return { accessToken: `${body}.${await signText(keys, body)}`, expiresIn };
  }

  /**
   * The session of a token that this edition signed for this audience and that has not expired, else undefined. The
   * algorithm is pinned: a token's header must not choose how it is verified (RFC 8725 section 3.1).
   */
  async verify(token: string): Promise<{ subject: string; sessionId: string } | undefined> {
    const parts = token.split('.');
    const [head = '', body = '', signature = ''] = parts;
    if (token.length > LONGEST || parts.length !== 3 || !parts.every(isCanonical)) return undefined;
    const header = decode(head);
    // RFC 7515 section 4.1.11: an extension that must be understood and is not, refuses the token.
    if (header?.alg !== 'ES256' || header.typ !== TYPE || header.crit !== undefined) return undefined;
    const { keys, issuer, audience } = this.settings;
    if (!(await verifyText(keys, header.kid, `${head}.${body}`, signature))) return undefined;
    const { sub, sid, aud, client_id: client, iss, exp } = decode(body) ?? {};
    // A token for a resource server, or of another client, is no login here.
    if (aud !== audience || client !== audience || iss !== issuer || typeof exp !== 'number')
      return undefined;
    if (exp * 1_000 <= Date.now() || typeof sub !== 'string' || typeof sid !== 'string') return undefined;
    return { subject: sub, sessionId: sid };
  }
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function isCanonical(part: string): boolean {
  return BASE64URL.test(part) && Buffer.from(part, 'base64url').toString('base64url') === part;
}

function decode(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
