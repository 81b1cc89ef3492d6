import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Audit } from '../audit/audit';
import { Config } from '../config/config';
import { deriveKey, Keyring } from '../crypto/derived-keys';
import { constantTimeEqual, hmac128, tokenMac } from '../crypto/mac';
import { sealPhoneNumber } from '../phone-number/phone-cipher';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { SessionEndings } from './session-endings';
import { SessionsService, type Session } from './sessions.service';
import { sessionKey } from './session-keys';

const ISSUE = Script.load(__dirname, 'issue-code');
const EXCHANGE = Script.load(__dirname, 'exchange-code');

/** RFC 6749 section 4.1.2 recommends ten minutes at most. A browser and a backend need seconds. */
const CODE_LIFE_MS = 60_000;
const CODES_A_MINUTE = 100;
const CODE = /^([\w-]{22})\.([\w-]{22})\.([\w-]{6})\.([\w-]{43})$/;

/** The values that a code is bound to. An exchange must name the same ones. */
export interface CodeBinding {
  client: string;
  redirectUri: string;
  /** PKCE, S256 (RFC 7636). Undefined where the client may leave it out and did. */
  challenge: string | undefined;
}

export interface CodeRequest extends CodeBinding {
  scopes: readonly string[];
  nonce: string | undefined;
  /** Seconds since the login, after which the user must log in again. */
  maxAge: number | undefined;
  /** A login at this time or later counts as new, also beyond `maxAge`. */
  newFrom: Date;
}

export type CodeAnswer = { kind: 'issued'; code: string } | { kind: 'ended' | 'stale' | 'too many' };

/**
 * The sessions of apps. Each one belongs to a session of the login page, and ends with it. An authorization code opens it:
 * `subject.id.secret id.MAC`, so that a forged code is refused without Redis.
 */
@Injectable()
export class AppSessions {
  private readonly codeKeys: Keyring;
  private readonly phoneKeys: Keyring;
  private readonly idKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly sessions: SessionsService,
    private readonly endings: SessionEndings,
    private readonly audit: Audit,
  ) {
    this.codeKeys = new Keyring(config, 'authorization code');
    this.phoneKeys = new Keyring(config, 'phone encryption');
    this.idKey = deriveKey(config.subjectSecret, 'session id of an app');
  }

  /** Issues a code for the login of which this is the refresh token. */
  async issueCode(
    token: { subject: string; sessionId: string; counter: number },
    { client, redirectUri, challenge, scopes, nonce, maxAge, newFrom }: CodeRequest,
  ): Promise<CodeAnswer> {
    const { subject, sessionId, counter } = token;
    const parent = await this.sessions.find(subject, sessionId);
    if (typeof parent === 'string') return { kind: 'ended' };
    const id = randomBytes(16).toString('base64url');
    const fields = {
      client,
      redirect: this.hash(redirectUri),
      challenge: challenge ?? '',
      nonce: nonce ?? '',
      scope: scopes.join(' '),
      parent: sessionId,
      // Sealed for the session that the code opens: the exchange is one script, which cannot seal.
      phone: sealPhoneNumber(parent.phoneNumber, sessionKey(subject, this.childId(id)), this.phoneKeys),
    };
    const kind = (await this.store.run(
      ISSUE,
      [sessionKey(subject, sessionId), codeKey(subject, id), `${KEY_PREFIX}{${subject}}:codes`],
      [
        counter,
        this.config.refreshGraceSeconds * 1_000,
        maxAge === undefined ? '' : maxAge * 1_000,
        newFrom.getTime(),
        CODE_LIFE_MS,
        CODES_A_MINUTE,
        ...Object.entries(fields).flat(),
      ],
    )) as CodeAnswer['kind'];
    if (kind !== 'issued') return { kind };
    const { id: secretId, key } = this.codeKeys.current;
    const body = `${subject}.${id}.${secretId}`;
    return { kind, code: `${body}.${tokenMac(key, body)}` };
  }

  /**
   * The session that the code opens, with the nonce of its request; undefined for a code that is unknown, expired, used, or
   * bound to other values. A second use ends the session that the first use opened (RFC 6749 section 4.1.2): one of the two
   * may be a thief's.
   */
  async exchangeCode(
    code: string,
    { client, redirectUri, challenge }: CodeBinding,
    network: string,
  ): Promise<{ session: Session; nonce: string | undefined } | undefined> {
    const read = this.readCode(code);
    if (read === undefined) return undefined;
    const { subject, id } = read;
    const child = this.childId(id);
    const [kind, second = '', earlier = ''] = (await this.store.run(
      EXCHANGE,
      [codeKey(subject, id), sessionKey(subject, child)],
      [
        sessionKey(subject, ''),
        child,
        client,
        this.hash(redirectUri),
        challenge ?? '',
        this.config.sessionIdleTtlSeconds * 1_000,
        this.config.sessionMaxTtlSeconds * 1_000,
      ],
    )) as [kind: 'opened' | 'used' | 'mismatch' | 'unknown', second?: string, earlier?: string];
    if (kind === 'used') {
      this.audit.record({ audit: 'code.reused', subject, session: second, client });
      await this.endings.endThese(subject, [second], 'code_reused');
    }
    if (kind !== 'opened') return undefined;
    // A login has one session for each app, so that a list of them stays short.
    if (earlier !== '') await this.endings.endThese(subject, [earlier], 'replaced');
    const session = await this.sessions.find(subject, child);
    if (typeof session === 'string') return undefined;
    this.audit.record({ audit: 'app.login', subject, session: child, client, network });
    return { session, nonce: second === '' ? undefined : second };
  }

  private readCode(code: string): { subject: string; id: string } | undefined {
    const [, subject, id, secretId, mac] = CODE.exec(code) ?? [];
    if (subject === undefined || id === undefined || secretId === undefined) return undefined;
    const key = this.codeKeys.find(secretId);
    // In constant time: a forger learns no prefix.
    return key !== undefined && constantTimeEqual(mac ?? '', tokenMac(key, `${subject}.${id}.${secretId}`))
      ? { subject, id }
      : undefined;
  }

  /** Derived from the code, so that a second use finds the session of the first. */
  private childId(codeId: string): string {
    return hmac128(this.idKey, codeId);
  }

  private hash(text: string): string {
    return hmac128(this.idKey, `redirect uri:${text}`);
  }
}

const codeKey = (subject: string, id: string): string => `${KEY_PREFIX}{${subject}}:code:${id}`;
