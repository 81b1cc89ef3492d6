import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { JwtService, type JwtVerifyOptions } from '@nestjs/jwt';
import { Config } from '../config/config';
import type { Session } from '../sessions/sessions.service';
import { type SigningKey, SigningKeys } from './signing-keys';

/** The claims of a verified access token that this service uses. */
export interface AccessTokenClaims {
  subject: string;
  sessionId: string;
  /** All of it, as it stands in the token. */
  claims: Readonly<Record<string, unknown>>;
}

const TYPE = 'at+jwt';
// Each part in canonical base64url: a lenient decoder ignores the spare bits of the last character, so that sixteen
// texts would be the same signature.
const BASE64URL = /^[A-Za-z0-9_-]+$/;
const LONGEST = 4_096;
/** Some five megabytes. */
const MOST_VERIFIED = 2_000;

/** Access tokens: RFC 9068, signed with ES256 (RFC 7518 section 3.4). */
@Injectable()
export class AccessTokens {
  /**
   * The claims of tokens that were verified, by their exact text, the oldest first. A signature stays good until the token
   * expires or the keys change, so it is verified once. Only tokens of this service come in: a forger cannot push one out.
   */
  private readonly verified = new Map<string, AccessTokenClaims & { readonly expiresAt: number }>();
  /** The keys that these were verified with. */
  private keysOfVerified: readonly SigningKey[] = [];

  constructor(
    private readonly config: Config,
    private readonly jwt: JwtService,
    private readonly keys: SigningKeys,
  ) {}

  /** A token for a live session and an `aud` of {@link Config.audienceOf}. `expiresIn` is in seconds, counted from `iat`. */
  issue(
    session: Session,
    audience = this.config.audience,
  ): Promise<{ accessToken: string; expiresIn: number }> {
    const { kid, privateKey } = this.keys.current();
    const expiresIn = this.config.accessTokenTtlSeconds;
    const accessToken = this.jwt.sign(
      {
        sid: session.id,
        auth_time: authTime(session),
        amr: ['otp', 'sms'],
        client_id: session.app?.client ?? this.config.audience,
        ...(session.test ? { test: true } : {}),
        ...(this.config.tokenPhoneNumber ? { phone_number: session.phoneNumber } : {}),
      },
      {
        privateKey,
        algorithm: 'ES256',
        header: { alg: 'ES256', typ: TYPE, kid },
        issuer: this.config.issuer,
        audience,
        subject: session.subject,
        jwtid: randomBytes(16).toString('base64url'),
        // A number: jsonwebtoken would take the string '600' as milliseconds.
        expiresIn,
      },
    );
    return Promise.resolve({ accessToken, expiresIn });
  }

  /**
   * The claims of a token that this service signed for one of its audiences and that has not expired, else undefined. Its
   * holder may be a resource server: see {@link verifyOwn} before it allows anything here. The algorithm is pinned: a token's header must not choose how it is verified (RFC 8725 section 3.1).
   */
  verify(token: string): Promise<AccessTokenClaims | undefined> {
    return Promise.resolve(this.verifyOnce(token));
  }

  private verifyOnce(token: string): AccessTokenClaims | undefined {
    const { published } = this.keys;
    if (this.keysOfVerified !== published) {
      this.verified.clear();
      this.keysOfVerified = published;
    }
    const known = this.verified.get(token);
    if (known === undefined) return this.verifyAnew(token);
    // As jsonwebtoken compares: in whole seconds.
    if (Math.floor(Date.now() / 1_000) < known.expiresAt) return known;
    this.verified.delete(token);
    return undefined;
  }

  private verifyAnew(token: string): AccessTokenClaims | undefined {
    if (token.length > LONGEST || !token.split('.').every(isCanonical)) return undefined;
    const header = decodeHeader(token);
    const key = this.keys.find(header?.kid);
    // RFC 7515 section 4.1.11: what must be understood and is not, refuses the token.
    // An ID token proves to its app that a user logged in. It must not pass for an access token (RFC 9068 section 2.1).
    if (key?.alg !== 'ES256' || header?.typ !== TYPE || header.crit !== undefined) return undefined;
    try {
      const claims = this.jwt.verify<Record<string, unknown>>(token, {
        publicKey: key.publicKey,
        algorithms: ['ES256'],
        issuer: this.config.issuer,
        audience: [this.config.audience, ...this.config.resourceAudiences],
        // The type forgets KeyObject, which jsonwebtoken takes; a PEM string would be parsed anew at every call.
      } as unknown as JwtVerifyOptions);
      const { sub, sid, aud, exp } = claims;
      if (typeof aud !== 'string' || typeof exp !== 'number') return undefined;
      if (typeof sub !== 'string' || typeof sid !== 'string') return undefined;
      const found = { subject: sub, sessionId: sid, claims: Object.freeze(claims), expiresAt: exp };
      this.verified.set(token, found);
      const [oldest] = this.verified.keys();
      if (this.verified.size > MOST_VERIFIED && oldest !== undefined) this.verified.delete(oldest);
      return found;
    } catch {
      return undefined;
    }
  }

  /**
   * As {@link verify}, for a token of the user's own client. A resource server or an app that received a token for itself
   * must not read the user's number with it, or end the user's sessions.
   */
  async verifyOwn(token: string): Promise<AccessTokenClaims | undefined> {
    const found = await this.verify(token);
    const { audience } = this.config;
    return found?.claims.aud === audience && found.claims.client_id === audience ? found : undefined;
  }

  /** Whether a refused token says itself that it has expired. Its signature is not verified: for hints, never for access. */
  claimsToBeExpired(token: string): boolean {
    if (token.length > LONGEST) return false;
    const claims: unknown = this.jwt.decode(token);
    const exp = typeof claims === 'object' && claims !== null && 'exp' in claims ? claims.exp : undefined;
    return typeof exp === 'number' && exp * 1_000 <= Date.now();
  }
}

/** Seconds since 1970, as JWTs count. */
export function authTime(session: Session): number {
  return Math.floor(session.authenticatedAt.getTime() / 1_000);
}

function isCanonical(part: string): boolean {
  return BASE64URL.test(part) && Buffer.from(part, 'base64url').toString('base64url') === part;
}

function decodeHeader(token: string): Record<string, unknown> | undefined {
  try {
    const header: unknown = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString());
    return typeof header === 'object' && header !== null ? (header as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
