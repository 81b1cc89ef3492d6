// The document of one user, and the steps of sessions. They keep the rules of the service's open.lua, refresh.lua, end.lua and
// list.lua.

interface Session {
  authenticated: number;
  /** How often it was refreshed. */
  counter: number;
  rotated?: number | undefined;
  /** When it ends unless it is refreshed. */
  expires: number;
  /** Encrypted. */
  phone: string;
  device: string;
  deviceName?: string | undefined;
  address: string;
  /** HMAC of the Idempotency-Key of the last refresh. */
  key?: string | undefined;
}

export interface UserDocument {
  /** In the order of their opening. */
  sessions: [id: string, session: Session][];
  /** Sessions that were opened, until no repeat of their login can come. */
  opened: Record<string, number>;
  /** Sessions that were ended, for the life of an access token. */
  revoked: Record<string, number>;
}

/** How long a repeat of a login may come. */
const REPEAT_MS = 90_000;

function open(found: UserDocument | undefined, now: number): UserDocument {
  const living = (record: Record<string, number>) =>
    Object.fromEntries(Object.entries(record).filter(([, until]) => until >= now));
  const { sessions, opened, revoked } = found ?? { sessions: [], opened: {}, revoked: {} };
  return {
    sessions: sessions.filter(([, { expires }]) => expires >= now),
    opened: living(opened),
    revoked: living(revoked),
  };
}

function changed<Answer>(document: UserDocument, answer: Answer) {
  const ends = [...Object.values(document.opened), ...Object.values(document.revoked)];
  const expires = Math.max(0, ...ends, ...document.sessions.map(([, session]) => session.expires));
  return { answer, next: document, expires };
}

const sessionOf = ({ sessions }: UserDocument, id: string) => sessions.find(([each]) => each === id)?.[1];

function end(document: UserDocument, ids: readonly string[], until: number): string[] {
  const ended = document.sessions.map(([id]) => id).filter((id) => ids.includes(id));
  document.sessions = document.sessions.filter(([id]) => !ids.includes(id));
  for (const id of ended) document.revoked[id] = until;
  return ended;
}

export interface Open {
  id: string;
  idleMs: number;
  maxMs: number;
  mostSessions: number;
  /** For how long an ended session is reported as revoked. */
  tellMs: number;
  phone: string;
  device: string;
  deviceName?: string | undefined;
  address: string;
}

export type Opened =
  | { kind: 'ended' }
  | { kind: 'live'; authenticatedAt: number; phone: string; counter: number; ttlMs: number };

/**
 * Opens a session, or finds it open already: its id is derived from the challenge, so a repeat opens no second session and
 * revives none that has ended. Past the highest number of sessions the oldest ends.
 */
export function openSession(
  found: UserDocument | undefined,
  command: Open,
  now: number,
): { answer: Opened; next?: UserDocument; expires?: number } {
  const document = open(found, now);
  const { id, phone, device, deviceName, address } = command;
  const session = sessionOf(document, id);
  const ended: Opened = { kind: 'ended' };
  if (document.revoked[id] !== undefined || (session !== undefined && session.counter > 0)) {
    return { answer: ended };
  }
  if (session !== undefined) {
    const { authenticated, phone: sealed, expires } = session;
    const ttlMs = expires - now;
    const live = { kind: 'live' as const, authenticatedAt: authenticated, phone: sealed, counter: 0, ttlMs };
    return { answer: live };
  }
  if (document.opened[id] !== undefined) return { answer: ended };
  const ttlMs = Math.min(command.idleMs, command.maxMs);
  const opened = { authenticated: now, counter: 0, expires: now + ttlMs, phone, device, deviceName, address };
  document.sessions.push([id, opened]);
  document.opened[id] = now + REPEAT_MS;
  const over = document.sessions.slice(0, -command.mostSessions).map(([each]) => each);
  end(document, over, now + command.tellMs);
  return changed(document, { kind: 'live' as const, authenticatedAt: now, phone, counter: 0, ttlMs });
}

export interface Refresh {
  id: string;
  /** The counter of the refresh token. */
  counter: number;
  graceMs: number;
  idleMs: number;
  maxMs: number;
  tellMs: number;
  /** HMAC of the Idempotency-Key, or empty. */
  key: string;
}

export type Refreshed =
  | { kind: 'reused' | 'revoked' | 'expired' | 'unknown' | 'key reused' }
  | { kind: 'live'; authenticatedAt: number; phone: string; counter: number; ttlMs: number };

/** Uses a refresh token with an authentic signature: rotates the session, or repeats the successor of the last rotation. */
export function refresh(
  found: UserDocument | undefined,
  command: Refresh,
  now: number,
): { answer: Refreshed; next?: UserDocument; expires?: number } {
  const document = open(found, now);
  const session = sessionOf(document, command.id);
  if (document.revoked[command.id] !== undefined) return { answer: { kind: 'revoked' } };
  if (session === undefined) return { answer: { kind: 'expired' } };
  const { counter, authenticated, phone } = session;
  const live = (newest: number, ttlMs: number) => ({
    kind: 'live' as const,
    authenticatedAt: authenticated,
    phone,
    counter: newest,
    ttlMs,
  });
  const sameKey = command.key !== '' && command.key === session.key;
  // The immediate parent, while its successor is unused: a lost response or a second tab. Without the key of its first use,
  // after the grace interval, it may be a thief's, or the owner's behind a thief.
  const repeats = sameKey || now - (session.rotated ?? 0) <= command.graceMs;
  if (command.counter === counter - 1 && repeats) return { answer: live(counter, session.expires - now) };
  if (command.counter < counter) {
    end(document, [command.id], now + command.tellMs);
    return changed(document, { kind: 'reused' as const });
  }
  // One ahead: the store lost the last rotation, and catches up. A higher counter was never signed.
  if (command.counter > counter + 1) return { answer: { kind: 'unknown' } };
  // One key for two rotations: of two repeats under it, the store could not tell which successor each one lost.
  if (command.counter === counter && sameKey) return { answer: { kind: 'key reused' } };
  const ttlMs = Math.min(command.idleMs, authenticated + command.maxMs - now);
  if (ttlMs <= 0) return { answer: { kind: 'expired' } };
  Object.assign(session, {
    counter: command.counter + 1,
    rotated: now,
    expires: now + ttlMs,
    key: command.key === '' ? undefined : command.key,
  });
  return changed(document, live(command.counter + 1, ttlMs));
}

export interface Find {
  id: string;
}

/** The living session of this id, or how it ended, as far as that is known. */
export function findSession(found: UserDocument | undefined, { id }: Find, now: number) {
  const document = open(found, now);
  const session = sessionOf(document, id);
  if (document.revoked[id] !== undefined) return { answer: { kind: 'revoked' as const } };
  if (session === undefined) return { answer: { kind: 'expired' as const } };
  const { authenticated, phone } = session;
  return { answer: { kind: 'live' as const, authenticatedAt: authenticated, phone } };
}

export interface Listed {
  id: string;
  createdAt: number;
  lastUsedAt: number;
  expiresAt: number;
  device: string;
  deviceName?: string | undefined;
  address: string;
}

/** The living sessions of the user, the newest first. */
export function listSessions(found: UserDocument | undefined, _command: object, now: number) {
  const answer = open(found, now)
    .sessions.map(([id, session]): Listed => {
      const { authenticated, rotated, expires, device, deviceName, address } = session;
      const lastUsedAt = rotated ?? authenticated;
      return { id, createdAt: authenticated, lastUsedAt, expiresAt: expires, device, deviceName, address };
    })
    .reverse();
  return { answer };
}

export interface End {
  /** The session to end; absent for all sessions. */
  id?: string | undefined;
  /** The session that is kept. */
  kept?: string | undefined;
  tellMs: number;
}

/** Ends one session of the user, or all of them but one. Answers the ids that were alive. */
export function endSessions(found: UserDocument | undefined, { id, kept, tellMs }: End, now: number) {
  const document = open(found, now);
  const ids = id === undefined ? document.sessions.map(([each]) => each) : [id];
  const ended = end(
    document,
    ids.filter((each) => each !== kept),
    now + tellMs,
  );
  return ended.length > 0 ? changed(document, { ended }) : { answer: { ended } };
}
