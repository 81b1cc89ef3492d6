import { Injectable } from '@nestjs/common';
import { JwtService, type JwtSignOptions, type JwtVerifyOptions } from '@nestjs/jwt';
import { Config } from '../config/config';
import type { App, Session } from '../sessions/sessions.service';
import { authTime } from './access-tokens';
import { SigningKeys } from './signing-keys';

const LONGEST = 4_096;

/** ID tokens (OpenID Connect Core section 2): RS256 where there is an RSA key, else ES256. */
@Injectable()
export class IdTokens {
  constructor(
    private readonly config: Config,
    private readonly jwt: JwtService,
    private readonly keys: SigningKeys,
  ) {}

  /** The algorithm of the next ID token. */
  get algorithm(): 'RS256' | 'ES256' {
    return this.keys.currentOfIdTokens().alg;
  }

  /** An ID token for the app of this session. `typ` is JWT: as an access token it is refused everywhere. */
  async issue(session: Session, { client, scopes }: App, nonce?: string): Promise<string> {
    const { kid, alg, privateKey } = this.keys.currentOfIdTokens();
    const claims = {
      sid: session.id,
      auth_time: authTime(session),
      amr: ['otp', 'sms'],
      ...(nonce === undefined ? {} : { nonce }),
      ...phoneClaims(session, scopes),
      ...(session.test ? { test: true } : {}),
    };
    const options: JwtSignOptions = {
      algorithm: alg,
      header: { alg, typ: 'JWT', kid },
      issuer: this.config.issuer,
      // The app checks that it is for itself: a token of another app, put in its place, is refused (mix-up).
      audience: client,
      subject: session.subject,
      expiresIn: this.config.accessTokenTtlSeconds,
    };
    return this.jwt.signAsync(claims, { ...options, privateKey });
  }

  /** User and client of an `id_token_hint`, which may have expired (RP-Initiated Logout section 2); undefined for another text. */
  async readHint(token: string): Promise<{ subject: string; client: string } | undefined> {
    const decoded: unknown = token.length > LONGEST ? null : this.jwt.decode(token, { complete: true });
    const { header } = (decoded ?? {}) as { header?: { kid?: unknown; typ?: unknown } };
    const key = this.keys.find(header?.kid);
    if (key === undefined || header?.typ !== 'JWT') return undefined;
    try {
      const claims = await this.jwt.verifyAsync<Record<string, unknown>>(token, {
        publicKey: key.publicKey,
        algorithms: [key.alg],
        issuer: this.config.issuer,
        ignoreExpiration: true,
      } as unknown as JwtVerifyOptions);
      const { sub, aud } = claims;
      return typeof sub === 'string' && typeof aud === 'string' ? { subject: sub, client: aud } : undefined;
    } catch {
      return undefined;
    }
  }
}

/** The claims of the scope `phone` (OpenID Connect Core section 5.4). */
export function phoneClaims({ phoneNumber }: Session, scopes: readonly string[]): Record<string, unknown> {
  return scopes.includes('phone') ? { phone_number: phoneNumber, phone_number_verified: true } : {};
}
