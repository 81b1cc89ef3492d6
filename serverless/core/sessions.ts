import type { Client } from '../../src/sessions/sessions.service';
import { hmac128 } from '../../src/crypto/mac';
import { ApiError } from '../../src/errors/api-error';
import { sealedUnder } from '../../src/phone-number/phone-cipher';
import { isTestNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { userKey, type Edition } from './edition';
import { log } from './log';
import type { Listed } from './user';
import type { VerifiedNumber } from './verify';

const SESSION_ID = /^[\w-]{22}$/;
const REFRESH_ERRORS = {
  reused: 'refresh_token_reused',
  revoked: 'session_revoked',
  expired: 'session_expired',
  unknown: 'refresh_token_invalid',
  'key reused': 'idempotency_key_reused',
} as const;

/** A user's login on one device. */
export interface Session {
  id: string;
  subject: string;
  phoneNumber: PhoneNumber;
  authenticatedAt: number;
  counter: number;
  secretId: string;
  ttlMs: number;
}

/** The tokens of a session. Lifetimes are in seconds. */
export interface TokenSet {
  accessToken: string;
  expiresIn: number;
  refreshToken: string;
  refreshExpiresIn: number;
}

/** What the store tells of a living session. */
interface Living {
  authenticatedAt: number;
  phone: string;
  counter?: number;
  ttlMs?: number;
}

/** Opens, refreshes, finds and ends sessions. The store holds nothing that a thief could replay. */
export class Sessions {
  private readonly idKey: Buffer;
  private readonly idempotencyKey: Buffer;
  private readonly lives: { idleMs: number; maxMs: number; tellMs: number };

  constructor(private readonly edition: Edition) {
    this.idKey = edition.key('session id');
    this.idempotencyKey = edition.key('idempotency of refresh');
    const { sessionIdleTtlSeconds, sessionMaxTtlSeconds, accessTokenTtlSeconds } = edition.settings;
    this.lives = {
      idleMs: sessionIdleTtlSeconds * 1_000,
      maxMs: sessionMaxTtlSeconds * 1_000,
      tellMs: accessTokenTtlSeconds * 1_000,
    };
  }

  /** Opens the session of a verified number; a repeat finds it. Throws `otp_expired` if it has ended or was refreshed. */
  async open({ phoneNumber, challengeId }: VerifiedNumber, client: Client): Promise<Session> {
    const subject = this.edition.subjects.of(phoneNumber);
    const id = hmac128(this.idKey, challengeId);
    const opened = await this.edition.run(userKey(subject), 'openSession', {
      ...{ id, ...this.lives, ...client, mostSessions: this.edition.settings.sessionsPerUser },
      phone: this.edition.seal(phoneNumber, recordOf(subject, id)),
    });
    const session = opened.kind === 'live' ? this.restore(subject, id, opened) : undefined;
    if (session === undefined) throw new ApiError('otp_expired');
    return session;
  }

  /** A new access token, and the newest refresh token of the session. */
  async issue(session: Session): Promise<TokenSet> {
    const refreshToken = this.edition.refreshTokens.issue(session);
    // Its secret was removed from SECRET: no token for this session can be signed any more.
    if (refreshToken === undefined) throw new ApiError('session_expired');
    const test = isTestNumber(session.phoneNumber);
    const access = await this.edition.accessTokens.issue({ ...session, test });
    const refreshExpiresIn = Math.max(0, Math.floor(session.ttlMs / 1_000));
    return { ...access, refreshToken, refreshExpiresIn };
  }

  /** Exchanges a refresh token. Garbage and forgeries are refused without asking the store. */
  async refresh(token: string, idempotencyKey: string | undefined): Promise<TokenSet> {
    const claims = this.edition.refreshTokens.read(token);
    if (claims === undefined) throw new ApiError('refresh_token_invalid');
    const { subject, sessionId: id, counter } = claims;
    const key =
      idempotencyKey === undefined ? '' : hmac128(this.idempotencyKey, `${subject}.${id}.${idempotencyKey}`);
    const graceMs = this.edition.settings.refreshGraceSeconds * 1_000;
    const command = { id, counter, graceMs, key, ...this.lives };
    const refreshed = await this.edition.run(userKey(subject), 'refresh', command);
    if (refreshed.kind !== 'live') {
      if (refreshed.kind === 'reused') {
        const fields = { alert: 'token_reused', subject, session: id };
        log('error', 'A refresh token was used again: its session has ended', fields);
      }
      throw new ApiError(REFRESH_ERRORS[refreshed.kind]);
    }
    const session = this.restore(subject, id, refreshed);
    if (session === undefined) throw new ApiError('session_expired');
    return this.issue(session);
  }

  /** The session of a bearer token. The token alone would go on working after its session has ended. */
  async current(token: string | undefined): Promise<Session> {
    const claims = token === undefined ? undefined : await this.edition.accessTokens.verify(token);
    if (claims === undefined) throw new ApiError('unauthenticated');
    const { subject, sessionId: id } = claims;
    const found = await this.edition.run(userKey(subject), 'findSession', { id });
    if (found.kind === 'revoked') throw new ApiError('session_revoked');
    const session = found.kind === 'live' ? this.restore(subject, id, found) : undefined;
    if (session === undefined) throw new ApiError('session_expired');
    return session;
  }

  /** The sessions of these tokens of either kind, each of them once. Does not ask the store. */
  async sessionsOf(tokens: readonly string[]): Promise<{ subject: string; sessionId: string }[]> {
    const { refreshTokens, accessTokens } = this.edition;
    const owners = await Promise.all(
      tokens.map(async (token) => refreshTokens.read(token) ?? (await accessTokens.verify(token))),
    );
    const byId = new Map(owners.flatMap((owner) => (owner ? [[owner.sessionId, owner] as const] : [])));
    return [...byId.values()];
  }

  async list(subject: string): Promise<Listed[]> {
    return this.edition.run(userKey(subject), 'listSessions', {});
  }

  /** Ends one session of this user. False if there is no such living session of this user. */
  async end(subject: string, id: string): Promise<boolean> {
    if (!SESSION_ID.test(id)) return false;
    const { tellMs } = this.lives;
    const { ended } = await this.edition.run(userKey(subject), 'endSessions', { id, tellMs });
    return ended.length > 0;
  }

  /** Ends every session of this user, except `kept`. */
  async endAll(subject: string, kept: string | undefined): Promise<void> {
    await this.edition.run(userKey(subject), 'endSessions', { kept, tellMs: this.lives.tellMs });
  }

  /** Undefined for a record that is not this user's: the user follows from the number, never from the record. */
  private restore(subject: string, id: string, living: Living): Session | undefined {
    const { authenticatedAt, phone, counter = 0, ttlMs = 0 } = living;
    const phoneNumber = this.edition.unseal(phone, recordOf(subject, id));
    if (phoneNumber === undefined || this.edition.subjects.of(phoneNumber) !== subject) return undefined;
    // A test number ends with all sessions that it opened.
    if (isTestNumber(phoneNumber) && this.edition.testCode(phoneNumber) === undefined) return undefined;
    const secretId = sealedUnder(phone);
    return { id, subject, phoneNumber, authenticatedAt, counter, secretId, ttlMs };
  }
}

const recordOf = (subject: string, id: string): string => `${userKey(subject)}:session:${id}`;
