import { Injectable } from '@nestjs/common';
import { OtpService, type ClientContext } from '../otp/otp.service';
import { SessionsService, type Client, type Session } from '../sessions/sessions.service';
import { TokensService, type TokenSet } from '../tokens/tokens.service';

export interface Login {
  session: Session;
  tokens: TokenSet;
  deviceToken: string;
}

/** The use case of verify-otp: a right code becomes a session with its tokens. */
@Injectable()
export class LoginService {
  constructor(
    private readonly otp: OtpService,
    private readonly sessions: SessionsService,
    private readonly tokens: TokensService,
  ) {}

  /**
   * Verifies the code, opens a session and issues its tokens. Under an Idempotency-Key `variant` is what else makes it the
   * same request, and `whenVerified` runs beside the opening of the session. Throws what {@link OtpService.verify} and {@link SessionsService.open} throw.
   */
  async verify(
    requestId: string,
    code: string,
    context: ClientContext,
    client: Client,
    variant: string,
    whenVerified: () => Promise<void>,
  ): Promise<Login> {
    const verified = await this.otp.verify(requestId, code, context, variant);
    const [session] = await Promise.all([this.sessions.open(verified, client), whenVerified()]);
    const tokens = await this.tokens.issue(session);
    return {
      session,
      tokens,
      deviceToken: this.otp.deviceToken(verified, session.id, session.authenticatedAt),
    };
  }

  /**
   * Ends the session of the cookie that a login overwrites. Its user could not end it any more, and a thief with a copy of the
   * old cookie could use it on. Never throws: the login has succeeded.
   */
  async endReplaced(token: string | undefined, by: Session): Promise<void> {
    const old = token === undefined ? undefined : await this.tokens.sessionOf(token);
    // A repeat under the Idempotency-Key brings the cookie of its own session.
    if (old === undefined || old.sessionId === by.id) return;
    // Where Redis does not say that it has ended, the metric of unconfirmed endings counts it.
    await this.sessions.end(old.subject, old.sessionId, 'replaced').catch(() => undefined);
  }
}
