import type { Delivery } from '../../src/challenges/challenge';
import { codesWait, keptFor, type Failures } from './failed-codes';
import { forget, longestOf, mostOf, record, waitForAll, type Window } from './windows';

// The document of one phone number, and the steps of a send: begin, then activate or release. They keep the rules of the
// service's create.lua, activate.lua and release.lua; a test gives the same commands to both.

/** A code of the number, by its nonce. */
interface Code {
  nonce: string;
  issued: number;
  expires: number;
}

export interface Challenge {
  state: 'draft' | 'active' | 'used';
  created: number;
  /** Rises with each request that takes the lease. */
  token: number;
  /** The request that holds the lease, and until when; absent if no request does. */
  owner?: string | undefined;
  until?: number | undefined;
  sent: 'no' | 'maybe';
  /** The budget was charged for it, and the price was not given back. */
  charged: boolean;
  nonce: string;
  issued: number;
  expires: number;
  /** When the record ends; a used challenge outlives its code, because a repeat must find it. */
  kept: number;
  attempts: number;
  /** Encrypted. */
  phone: string;
  /** Its entry in `sends`. */
  place?: number | undefined;
  upstreamId: string;
  delivery: Delivery;
  resend: number;
  /** Answers of verifications under an Idempotency-Key, by keyed hashes. */
  keys: Record<string, string>;
}

export interface NumberDocument extends Failures {
  live?: Code | undefined;
  /** A code that was not sent yet, with the number of the drafts that have it. */
  next?: (Code & { drafts: number }) | undefined;
  /** When the last used code was issued: a code that is not younger is void. */
  used: number;
  codesKept: number;
  challenges: Record<string, Challenge>;
  sends: number[];
  /** When the document ends. */
  kept: number;
}

/** A document has a largest size. LIMIT_PHONE allows fewer challenges than this, unless an operator sets it very high. */
const MOST_CHALLENGES = 40;

/** The document as it is now: without the records that have ended. */
export function open(found: NumberDocument | undefined, now: number): NumberDocument {
  const empty = { used: -1, codesKept: 0, challenges: {}, sends: [], failed: [], cleared: 0, kept: 0 };
  const document: NumberDocument = found ?? empty;
  for (const [own, { kept }] of Object.entries(document.challenges)) {
    if (kept < now) delete document.challenges[own];
  }
  if (document.codesKept < now) Object.assign(document, { live: undefined, next: undefined, used: -1 });
  return document;
}

/** A changed document, kept for as long as any part of it counts. */
export function changed<Answer>(document: NumberDocument, answer: Answer) {
  const ends = [document.codesKept, ...Object.values(document.challenges).map(({ kept }) => kept)];
  document.kept = Math.max(document.kept, ...ends);
  return { answer, next: document, expires: document.kept };
}

export interface Begin {
  /** The part of the request id that names the challenge. */
  own: string;
  /** The mark of this request. */
  owner: string;
  leaseMs: number;
  /** A fresh nonce. */
  nonce: string;
  /** This service makes the code, so the same code can be sent again. */
  resend: boolean;
  /** The ids of the secrets that codes can be derived from. */
  secrets: readonly string[];
  ttlMs: number;
  /** A code's whole life, resends included. */
  lifeMs: number;
  attempts: number;
  /** Encrypted. */
  phone: string;
  /** False for a test number: it costs nothing, and counts for no limit. */
  counted: boolean;
  sends: readonly Window[];
  failed: readonly Window[];
}

export type Begun =
  | { kind: 'replay'; expiresAt: number; attemptsLeft: number; resendAt: number; delivery: Delivery }
  | { kind: 'in_progress' | 'locked' | 'limited'; ms: number }
  | {
      kind: 'new' | 'resumed';
      createdAt: number;
      fencingToken: number;
      /** An earlier request may have sent the code. */
      maybeSent: boolean;
      charged: boolean;
      nonce: string;
      lifeMs: number;
      /** Until the number may ask for the next SMS. */
      resendAfterMs: number;
    };

/**
 * Creates a challenge as a draft, counts its send, and gives the request the lease; or finds the challenge that an earlier
 * request under the same Idempotency-Key created. A draft voids no code: a stranger's send that fails must not void a
 * user's login. Two sends at once agree on one code, because the user would read the wrong one of two SMS.
 */
export function begin(found: NumberDocument | undefined, command: Begin, now: number) {
  const document = open(found, now);
  const before = document.challenges[command.own];
  if (before !== undefined && before.state !== 'draft') {
    const { expires, attempts, resend, delivery } = before;
    const kind = 'replay' as const;
    return { answer: { kind, expiresAt: expires, attemptsLeft: attempts, resendAt: resend, delivery } };
  }
  if (before?.until !== undefined && now < before.until) {
    return { answer: { kind: 'in_progress' as const, ms: before.until - now } };
  }
  const lockedMs = codesWait(document, now, command.failed);
  if (lockedMs > 0) return { answer: { kind: 'locked' as const, ms: lockedMs } };

  const maybeSent = before !== undefined && (before.until !== undefined || before.sent === 'maybe');
  // An SMS that may be on its way, at a provider that ignores idempotency keys, is not sent again.
  const sendsAgain = command.counted && !(maybeSent && command.resend && before.place !== undefined);
  // A repeat takes the place of its first try, so that it is counted once, and when it is sent.
  const sends = [...document.sends];
  if (sendsAgain) forget(sends, before?.place);
  const wait = sendsAgain ? waitForAll(sends, now, command.sends) : 0;
  if (wait > 0) return { answer: { kind: 'limited' as const, ms: wait } };
  const others = Object.entries(document.challenges).filter(([own]) => own !== command.own);
  const [oldest] = others.sort(([, a], [, b]) => a.created - b.created);
  if (oldest !== undefined && others.length >= MOST_CHALLENGES) {
    if (command.counted) return { answer: { kind: 'limited' as const, ms: oldest[1].kept + 1 - now } };
    delete document.challenges[oldest[0]];
  }

  const code = chooseCode(document, before, { ...command, maybeSent }, now);
  const created = before?.created ?? now;
  const expires = Math.min(now + command.ttlMs, code.issued + command.lifeMs, created + command.lifeMs);
  const place = sendsAgain ? record(sends, now, mostOf(command.sends)) : before?.place;
  document.sends = sends;
  const challenge: Challenge = {
    state: 'draft',
    created,
    token: (before?.token ?? 0) + 1,
    owner: command.owner,
    until: now + command.leaseMs,
    sent: maybeSent ? 'maybe' : 'no',
    charged: before?.charged ?? false,
    nonce: code.nonce,
    issued: code.issued,
    expires,
    kept: expires,
    attempts: command.attempts,
    phone: command.phone,
    place,
    upstreamId: '',
    delivery: 'unknown',
    resend: now,
    keys: {},
  };
  document.challenges[command.own] = challenge;
  if (code.slot !== undefined) {
    // The live code's life grows only when it is sent again. A provider's code is never sent again.
    if (code.slot === 'next' && command.resend) {
      const drafts = document.next?.nonce === code.nonce ? document.next.drafts : 0;
      document.next = { nonce: code.nonce, issued: code.issued, expires, drafts: drafts + 1 };
    }
    document.codesKept = now + command.lifeMs;
  }
  document.kept = Math.max(document.kept, now + longestOf(command.sends), now + keptFor(command.failed));
  return changed(document, {
    kind: before === undefined ? ('new' as const) : ('resumed' as const),
    createdAt: created,
    fencingToken: challenge.token,
    maybeSent,
    charged: challenge.charged,
    nonce: challenge.nonce,
    lifeMs: expires - now,
    resendAfterMs: command.counted ? waitForAll(sends, now, command.sends) : 0,
  });
}

/** The code to send: the draft's own, or the live or the next code of the number again, or a fresh one. */
function chooseCode(
  { live, next, used }: NumberDocument,
  before: Challenge | undefined,
  { resend, secrets, nonce, ttlMs, maybeSent }: Begin & { maybeSent: boolean },
  now: number,
): { nonce: string; issued: number; slot?: 'live' | 'next' } {
  // Younger than the code that was used, also within one millisecond: otherwise it would count as void.
  const afterUsed = used + 1;
  const derives = (of: string): boolean => secrets.includes(of.split('.')[0] ?? '');
  const isVoid = (issued: number): boolean => issued < Math.max(live?.issued ?? 0, afterUsed);
  if (before !== undefined) {
    const own = resend && derives(before.nonce) && !isVoid(before.issued);
    if (maybeSent || own) return { nonce: before.nonce, issued: before.issued };
  }
  // Again while at least half of its life remains, because SMS arrive out of order.
  const again = (code: Code | undefined): code is Code =>
    resend && code !== undefined && code.expires - now >= ttlMs / 2 && derives(code.nonce);
  if (again(live)) return { nonce: live.nonce, issued: live.issued, slot: 'live' };
  if (again(next) && !isVoid(next.issued)) return { nonce: next.nonce, issued: next.issued, slot: 'next' };
  return { nonce, issued: Math.max(now, afterUsed), slot: 'next' };
}

export interface Activate {
  own: string;
  owner: string;
  upstreamId: string;
  delivery: Delivery;
  /** Upstream's, or -1. */
  expiresAt: number;
  attempts: number;
  resendAfterMs: number;
  lifeMs: number;
}

/**
 * Activates a draft, once its SMS is accepted or may have been. From here on its code is the live one, and every challenge
 * of another code is void.
 */
export function activate(found: NumberDocument | undefined, command: Activate, now: number) {
  const document = open(found, now);
  const challenge = document.challenges[command.own];
  if (challenge === undefined) return { answer: { kind: 'gone' as const } };
  if (challenge.owner !== command.owner) return { answer: { kind: 'superseded' as const } };
  // Upstream may be stricter than this service, never more generous. An expiry in the past is the fault of a wrong clock.
  if (command.expiresAt > now) challenge.expires = Math.min(challenge.expires, command.expiresAt);
  if (command.attempts > 0) challenge.attempts = Math.min(challenge.attempts, command.attempts);
  const { nonce, issued, expires } = challenge;
  Object.assign(challenge, {
    state: 'active',
    upstreamId: command.upstreamId,
    delivery: command.delivery,
    resend: now + command.resendAfterMs,
    kept: expires,
    owner: undefined,
    until: undefined,
  });
  if (document.live?.nonce === nonce) document.live.expires = expires;
  // A code that was used, or is older than a used one, stays void if its SMS was still under way.
  else if (issued >= Math.max(document.live?.issued ?? 0, document.used + 1)) {
    document.live = { nonce, issued, expires };
    if (document.next?.nonce === nonce) document.next = undefined;
    document.codesKept = issued + command.lifeMs;
  }
  const { attempts, resend } = challenge;
  return changed(document, {
    kind: 'active' as const,
    expiresAt: expires,
    attemptsLeft: attempts,
    resendAt: resend,
  });
}

export interface Release {
  own: string;
  owner: string;
  /** `refused`: another limit refused the send. `no`: certainly nothing was sent. `maybe`: the code may have been sent. */
  sent: 'refused' | 'no' | 'maybe';
  charged: boolean;
}

/**
 * Releases the lease of a send that failed, so that a repeat under its Idempotency-Key may resume it. A send that another
 * limit refused counts no longer; a send that upstream refused still counts for the number.
 */
export function release(found: NumberDocument | undefined, command: Release, now: number) {
  const document = open(found, now);
  const challenge = document.challenges[command.own];
  if (challenge?.owner !== command.owner) return { answer: { released: false } };
  if (command.sent === 'refused' && challenge.sent === 'no') {
    forget(document.sends, challenge.place);
    challenge.place = undefined;
  }
  if (command.sent === 'refused' && challenge.token === 1) {
    delete document.challenges[command.own];
    const { next } = document;
    if (next?.nonce === challenge.nonce && (next.drafts -= 1) === 0) document.next = undefined;
  } else {
    Object.assign(challenge, { owner: undefined, until: undefined, charged: command.charged });
    if (command.sent === 'maybe') challenge.sent = 'maybe';
  }
  return changed(document, { released: true });
}
