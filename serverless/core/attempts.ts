import type { OtpState } from '../../src/challenges/challenge';
import { codesWait, countFailure, keptFor, uncountFailure } from './failed-codes';
import { changed, open, type Challenge, type NumberDocument } from './number';
import type { Window } from './windows';

// The steps of a verification over the document of a number: take an attempt, then consume the challenge, give the attempt
// back, or keep the outcome. They keep the rules of the service's take-attempt.lua, consume.lua and their like.

/** A right code is replayed for a minute. */
const REPLAY_MS = 60_000;
/** A 410 takes no attempt, so nothing else bounds how many are kept. */
const MOST_KEPT = 32;

/** A verification under an Idempotency-Key: its field, its body and its mark, the first two as keyed hashes. */
export interface VerifyKey {
  field: string;
  fingerprint: string;
  owner: string;
}

export interface Take {
  own: string;
  key?: VerifyKey | undefined;
  leaseMs: number;
  failed: readonly Window[];
}

export type Taken =
  | {
      kind: 'taken';
      attemptsLeft: number;
      /** The time under which it counts as a failure, until its code turns out right. */
      failure: number;
      phone: string;
      nonce: string;
      upstreamId: string;
      createdAt: number;
    }
  | { kind: 'replay'; phone: string; createdAt: number }
  | { kind: 'expired' | 'exhausted' | 'other_body' }
  | { kind: 'in_progress' | 'locked'; ms: number }
  | { kind: 'incorrect'; attemptsLeft: number };

/**
 * Takes one attempt, before the code is checked: of two hundred guesses at once, three are checked, and a crash between the
 * check and the count gives none back.
 */
export function take(
  found: NumberDocument | undefined,
  command: Take,
  now: number,
): { answer: Taken; next?: NumberDocument; expires?: number } {
  const document = open(found, now);
  const challenge = document.challenges[command.own];
  const { key } = command;
  const record = key && challenge?.keys[key.field];
  if (record !== undefined && challenge !== undefined) {
    const repeated = repeat(record, key?.fingerprint ?? '', challenge, now);
    if (repeated !== undefined) return { answer: repeated };
  }

  const gone = (kind: 'expired' | 'exhausted') => {
    const keeps = key !== undefined && challenge !== undefined && challenge.state !== 'draft';
    if (!keeps || Object.keys(challenge.keys).length >= MOST_KEPT) return { answer: { kind } };
    challenge.keys[key.field] = `${key.fingerprint}:${kind === 'expired' ? '410' : 'exhausted'}:0`;
    return changed(document, { kind });
  };
  if (challenge?.state !== 'active' || now >= challenge.expires) return gone('expired');
  // A code that a newer code replaced, or that another request id has used, is void.
  if (document.live?.nonce !== challenge.nonce) return gone('expired');
  if (challenge.attempts <= 0) return gone('exhausted');
  const lockedMs = codesWait(document, now, command.failed);
  if (lockedMs > 0) return { answer: { kind: 'locked', ms: lockedMs } };

  // Counted as failed until it turns out right: the count survives a crash in between.
  const failure = countFailure(document, now, command.failed);
  challenge.attempts -= 1;
  if (key !== undefined) {
    challenge.keys[key.field] = `${key.fingerprint}:flight/${key.owner}:${now + command.leaseMs}`;
  }
  document.kept = Math.max(document.kept, now + keptFor(command.failed));
  const { attempts, phone, nonce, upstreamId, created } = challenge;
  const answer = { attemptsLeft: attempts, failure, phone, nonce, upstreamId, createdAt: created };
  return changed(document, { kind: 'taken' as const, ...answer });
}

/** The answer of the first request under the key; undefined if its lease ran out without an answer. */
function repeat(record: string, fingerprint: string, challenge: Challenge, now: number): Taken | undefined {
  const [print, outcome, text] = record.split(':');
  const value = Number(text);
  if (print !== fingerprint) return { kind: 'other_body' };
  if (outcome === '400') return { kind: 'incorrect', attemptsLeft: value };
  if (outcome === '410') return { kind: 'expired' };
  if (outcome === 'exhausted') return { kind: 'exhausted' };
  if (outcome === '200') {
    if (now - value > REPLAY_MS) return { kind: 'expired' };
    return { kind: 'replay', phone: challenge.phone, createdAt: challenge.created };
  }
  return now < value ? { kind: 'in_progress', ms: value - now } : undefined;
}

export interface Consume {
  own: string;
  createdAt: number;
  failure: number;
  key?: VerifyKey | undefined;
}

/**
 * Uses a challenge up, once: of two right answers at once, one gets the session. The code is void from then on, for every
 * request id that carried it, and the failures of the number are cleared from windows of an hour or less.
 */
export function consume(found: NumberDocument | undefined, command: Consume, now: number) {
  const document = open(found, now);
  const challenge = document.challenges[command.own];
  // The code was right in both cases, so this attempt was no failure.
  const uncounted = uncountFailure(document, command.failure);
  const isVoid =
    challenge?.state !== 'active' ||
    // An Idempotency-Key that is used again after its challenge expired gives a new challenge the same name.
    challenge.created !== command.createdAt ||
    document.live?.nonce !== challenge.nonce;
  if (isVoid) {
    return uncounted ? changed(document, { consumed: false }) : { answer: { consumed: false } };
  }
  challenge.state = 'used';
  if (command.key !== undefined) {
    challenge.keys[command.key.field] = `${command.key.fingerprint}:200:${now}`;
    // The repeat of a code that came at its last moment must find it.
    challenge.kept = Math.max(challenge.kept, now + REPLAY_MS + 1_000);
  }
  document.used = challenge.issued;
  document.live = undefined;
  if (document.failed.length > 0) document.cleared = now;
  return changed(document, { consumed: true });
}

export interface GiveBack {
  own: string;
  createdAt: number;
  failure: number;
}

/** Gives an attempt back if upstream certainly did not check the code. */
export function giveBack(found: NumberDocument | undefined, command: GiveBack, now: number) {
  const document = open(found, now);
  if (!uncountFailure(document, command.failure)) return { answer: { given: false } };
  const challenge = document.challenges[command.own];
  const given = challenge?.state === 'active' && challenge.created === command.createdAt;
  if (given) challenge.attempts += 1;
  return changed(document, { given });
}

export interface StoreOutcome {
  own: string;
  key: VerifyKey;
  /** `400`, `410` or `exhausted` with a number; absent to release the key. */
  outcome?: string | undefined;
}

/** Keeps the answer of a verification for repeats under its Idempotency-Key, or releases the key. */
export function storeOutcome(found: NumberDocument | undefined, command: StoreOutcome, now: number) {
  const document = open(found, now);
  const keys = document.challenges[command.own]?.keys;
  const { field, fingerprint, owner } = command.key;
  // The step that used the code up may have run, and only its answer been lost: the repeat must find that answer.
  if (keys?.[field]?.split(':')[1] !== `flight/${owner}`) return { answer: { stored: false } };
  if (command.outcome === undefined) delete keys[field];
  else keys[field] = `${fingerprint}:${command.outcome}`;
  return changed(document, { stored: true });
}

export interface StatusAnswer {
  state: OtpState;
  attemptsLeft: number;
  expiresAt: number;
  resendAt: number;
  delivery: Challenge['delivery'];
}

/** The state of a challenge, for the page that waits for its code. */
export function status(
  found: NumberDocument | undefined,
  { own }: { own: string },
  now: number,
): { answer: StatusAnswer | { state: 'unknown' } } {
  const document = open(found, now);
  const challenge = document.challenges[own];
  if (challenge === undefined || challenge.state === 'draft') return { answer: { state: 'unknown' } };
  const { attempts, expires, resend, delivery } = challenge;
  const isVoid = now >= expires || document.live?.nonce !== challenge.nonce;
  const usable = attempts > 0 ? 'pending' : 'exhausted';
  const state = challenge.state === 'used' ? 'verified' : isVoid ? 'expired' : usable;
  return { answer: { state, attemptsLeft: attempts, expiresAt: expires, resendAt: resend, delivery } };
}
