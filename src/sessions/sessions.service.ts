import { Injectable } from '@nestjs/common';
import { Audit } from '../audit/audit';
import type { Ending } from '../audit/audit-event';
import { Config } from '../config/config';
import { ENDS_MS } from '../config/magic-number';
import { deriveKey, Keyring } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { aboutNumber } from '../logging/request-context';
import type { VerifiedPhone } from '../otp/otp.service';
import { openPhoneNumber, sealedUnder, sealPhoneNumber } from '../phone-number/phone-cipher';
import { PhoneIdentities } from '../phone-number/phone-identity';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { SessionEndings } from './session-endings';
import { blockedKey, indexKey, sessionKey } from './session-keys';
import { listed, listedApp, type Client, type SessionRow, type SessionWithApps } from './session-list';
import { Subjects } from './subjects';

const OPEN = Script.load(__dirname, 'open');
const REFRESH = Script.load(__dirname, 'refresh');
const LIST = Script.load(__dirname, 'list');

const SESSION_ID = /^[\w-]{22}$/;

/**
 * A user's login on one device. Only {@link SessionsService} makes one, from a {@link VerifiedPhone} or from
 * the store: the class is exported as a type, so a token for anything else does not compile.
 */
class Session {
  readonly #opened = true;

  constructor(
    readonly id: string,
    /** `sub`: stable and opaque, the same again after the whole store is lost. */
    readonly subject: string,
    readonly phoneNumber: PhoneNumber,
    readonly authenticatedAt: Date,
    /** How often it was refreshed; part of its newest refresh token. */
    readonly counter: number,
    /** The id of the secret that it was opened under: it seals the record and signs its refresh tokens, all its life. */
    readonly secretId: string,
    readonly expiresInMs: number,
    /** Undefined for a session of the service's own client. */
    readonly app: App | undefined,
  ) {}

  get opened(): true {
    return this.#opened;
  }

  /** Opened with a test number. */
  get test(): boolean {
    return isTestNumber(this.phoneNumber);
  }
}
export type { Client, Session };

/** The app of a session that belongs to the session of the login page. */
export interface App {
  /** The id of its client. */
  readonly client: string;
  readonly scopes: readonly string[];
}

/** The context of a use of a refresh token. */
export interface RefreshContext {
  /** The client's address, cut to /24 or /48. */
  network: string;
  idempotencyKey?: string | undefined;
  /** The app's client; undefined for the service's own. The token of another client is refused. */
  client?: string | undefined;
}

/** `repeated elsewhere`: from another network than the rotation that it repeats. */
export type RefreshKind = 'rotated' | 'repeated' | 'repeated elsewhere';

const REFRESH_ERRORS = {
  reused: 'refresh_token_reused',
  revoked: 'session_revoked',
  expired: 'session_expired',
  unknown: 'refresh_token_invalid',
  'key reused': 'idempotency_key_reused',
} as const;

/** Sessions in Redis, on the user's own slot. The store holds nothing that a thief could replay. */
@Injectable()
export class SessionsService {
  private readonly sessionIdKey: Buffer;
  private readonly idempotencyKey: Buffer;
  private readonly phoneKeys: Keyring;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly subjects: Subjects,
    private readonly endings: SessionEndings,
    private readonly audit: Audit,
    private readonly phones: PhoneIdentities,
  ) {
    this.sessionIdKey = deriveKey(config.subjectSecret, 'session id');
    // Of SUBJECT_SECRET: a rotation of SECRET between a lost answer and its repeat must not end the session.
    this.idempotencyKey = deriveKey(config.subjectSecret, 'idempotency of refresh');
    this.phoneKeys = new Keyring(config, 'phone encryption');
  }

  /**
   * Opens the session of a verified number; past the highest number of a user's sessions the oldest ends. Idempotent:
   * the id is derived from the challenge, so two right answers at once, or a crash in between, still make one session.
   * Throws `otp_expired` when that one session has ended or was refreshed already: a repeat revives nothing.
   */
  async open({ phoneNumber, challengeId }: VerifiedPhone, client: Client): Promise<Session> {
    const { device, deviceName, address } = client;
    const subject = this.subjects.of(phoneNumber);
    const id = hmac128(this.sessionIdKey, challengeId);
    const key = sessionKey(subject, id);
    const fresh = sealPhoneNumber(phoneNumber, key, this.phoneKeys);
    const answer = (await this.store.run(
      OPEN,
      [key, indexKey(subject), `${KEY_PREFIX}{${subject}}:opened:${id}`, blockedKey(subject)],
      [
        id,
        sessionKey(subject, ''),
        ...this.limits(),
        this.config.sessionsPerUser,
        fresh,
        device,
        address,
        deviceName ?? '',
      ],
    )) as ['live', number, string, number, ...string[]] | ['ended'];
    if (answer[0] === 'ended') throw new ApiError('otp_expired');
    const [, authenticated, sealed, ttl, ...tooMany] = answer;
    const session = new Session(
      id,
      subject,
      phoneNumber,
      new Date(authenticated),
      0,
      sealedUnder(sealed),
      ttl,
      undefined,
    );
    const outcome = sealed === fresh ? 'opened' : 'repeated';
    const test = session.test ? { test: true as const } : {};
    this.audit.record({ audit: 'login', subject, session: id, device, network: address, outcome, ...test });
    await this.endings.endThese(subject, tooMany, 'too_many');
    // In this process only, because production has no magic numbers.
    if (this.config.magicState(phoneNumber) === 'ends') {
      setTimeout(() => void this.end(subject, id).catch(() => undefined), ENDS_MS).unref();
    }
    return session;
  }

  /**
   * Rotates a session after its refresh token was found authentic, or repeats its last rotation: for the immediate parent
   * within the grace interval, and under the Idempotency-Key of the parent's first use as long as the session lives and
   * the successor was not used. Throws `session_expired`, `session_revoked`, `refresh_token_invalid`,
   * `idempotency_key_reused`, and `refresh_token_reused` after it ended the session: the newer token may be a thief's.
   */
  async refresh(
    subject: string,
    id: string,
    counter: number,
    { network, idempotencyKey, client }: RefreshContext,
  ): Promise<{ session: Session; kind: RefreshKind }> {
    const key = sessionKey(subject, id);
    // The HMAC includes the session: a key that a client uses for several sessions must not connect them.
    const keyMac =
      idempotencyKey === undefined ? '' : hmac128(this.idempotencyKey, `${subject}.${id}.${idempotencyKey}`);
    const answer = (await this.store.run(
      REFRESH,
      [key],
      [
        counter,
        this.config.refreshGraceSeconds * 1_000,
        ...this.limits(),
        keyMac,
        network,
        client ?? '',
        sessionKey(subject, ''),
      ],
    )) as
      | ['live', number, number, string, number, RefreshKind, string]
      | ['reused' | 'revoked' | 'expired' | 'unknown' | 'key reused'];
    if (answer[0] === 'live') {
      const [, newest, authenticated, sealed, ttl, kind, scope] = answer;
      const app = client === undefined ? undefined : { client, scopes: scopesOf(scope) };
      const session = this.restore(subject, id, sealed, authenticated, newest, ttl, app);
      if (session === undefined) throw new ApiError('session_expired');
      if (kind === 'repeated elsewhere') {
        this.audit.record({ audit: 'token.repeated', subject, session: id, network });
      }
      return { session, kind };
    }
    if (answer[0] === 'reused') await this.endings.endReused(subject, id);
    throw new ApiError(REFRESH_ERRORS[answer[0]]);
  }

  /** The living session of this user and id; or how it ended, as far as that is known. */
  async find(subject: string, id: string): Promise<Session | 'revoked' | 'expired'> {
    const key = sessionKey(subject, id);
    const [sealed, authenticated, counter, revoked, client, scope] = await this.store.command(
      'find session',
      (client) => client.hmget(key, 'phone', 'authenticated', 'counter', 'revoked', 'client', 'scope'),
    );
    if (revoked) return 'revoked';
    if (!sealed || !authenticated) return 'expired';
    const app = client ? { client, scopes: scopesOf(scope) } : undefined;
    return this.restore(subject, id, sealed, Number(authenticated), Number(counter), 0, app) ?? 'expired';
  }

  /** The living sessions of a user, the newest first, each with those of its apps. */
  async list(subject: string): Promise<SessionWithApps[]> {
    const rows = await this.store.run(LIST, [indexKey(subject)], [sessionKey(subject, '')]);
    return (rows as SessionRow[]).map((row) => ({ ...listed(row), apps: row[8].map(listedApp) }));
  }

  /**
   * Ends one session of this user. False when there is no such living session of this user's. Throws `store_unavailable`
   * where it has ended and a failover might bring it back; a repeat makes that sure.
   */
  async end(subject: string, id: string, reason: Ending = 'logout'): Promise<boolean> {
    if (!SESSION_ID.test(id)) return false;
    const found = await this.find(subject, id);
    // Found first: what is published is believed by others, and must not be an id that a stranger made up.
    if (found === 'expired') return false;
    if (found !== 'revoked') await this.endings.endThese(subject, [id], reason);
    await this.endings.confirm(subject, [id]);
    return found !== 'revoked';
  }

  /** Ends every session of this user, but for the one that is kept. Throws as {@link end} does. */
  async endAll(subject: string, kept?: string): Promise<void> {
    await this.endings.confirm(subject, await this.endings.endAll(subject, 'logout_everywhere', kept));
  }

  private restore(
    subject: string,
    id: string,
    sealed: string,
    authenticated: number,
    counter: number,
    ttl: number,
    app: App | undefined,
  ): Session | undefined {
    const phoneNumber = openPhoneNumber(sealed, sessionKey(subject, id), this.phoneKeys);
    // The user follows from the number, never from the record: a record copied to another user's key is invalid.
    if (phoneNumber === undefined || this.subjects.of(phoneNumber) !== subject) return undefined;
    aboutNumber(this.phones.pseudonymOf(phoneNumber));
    // A test number ends with all that it opened.
    if (isTestNumber(phoneNumber) && this.config.testCode(phoneNumber) === undefined) return undefined;
    return new Session(
      id,
      subject,
      phoneNumber,
      new Date(authenticated),
      counter,
      sealedUnder(sealed),
      ttl,
      app,
    );
  }

  private limits(): [idleMs: number, absoluteMs: number] {
    return [this.config.sessionIdleTtlSeconds * 1_000, this.config.sessionMaxTtlSeconds * 1_000];
  }
}

const scopesOf = (scope: string | null | undefined): string[] => scope?.split(' ').filter(Boolean) ?? [];
