import { forget, longestOf, mostOf, record, waitFor, type Window } from './windows';

// The failed codes of one number: LIMIT_FAILED_CODES and, beyond it, the slope of the service's challenges/functions.lua. The
// edition has no device tokens, so every client of a number shares its failures.

const HOUR = 3_600_000;
const DAY = 86_400_000;
const MONTH = 2_592_000_000;
/** From 60 failures in 30 days on, two wrong codes a day remain. */
const SLOPE_FROM: Window = { count: 60, ms: MONTH };
const SLOPE: Window = { count: 2, ms: DAY };
/** From 100 failures without a success on, one wrong code a day remains. */
const CONSECUTIVE_FROM = 100;
const CONSECUTIVE: Window = { count: 1, ms: DAY };

export interface Failures {
  /** The times of the failures, oldest first. */
  failed: number[];
  /** The time of the last success. It clears windows of an hour or less: a guesser could wait for the owner's login. */
  cleared: number;
}

const clearedIn = ({ cleared }: Failures, window: Window): number => (window.ms <= HOUR ? cleared : 0);

function waitIn(failures: Failures, now: number, window: Window): number {
  return waitFor(failures.failed, now, window, clearedIn(failures, window));
}

/** Milliseconds until a code of the number may be tried; 0 if it may be tried now. */
export function codesWait(failures: Failures, now: number, limits: readonly Window[]): number {
  const waits = limits.map((limit) => waitIn(failures, now, limit));
  const slope = waitFor(failures.failed, now, SLOPE_FROM);
  if (slope > 0) waits.push(Math.min(slope, waitIn(failures, now, SLOPE)));
  const hundredth = failures.failed.at(-CONSECUTIVE_FROM);
  if (hundredth !== undefined && hundredth > failures.cleared) {
    waits.push(waitIn(failures, now, CONSECUTIVE));
  }
  return Math.max(0, ...waits);
}

/** Counts a failure until its code turns out right. Returns its time. */
export function countFailure(failures: Failures, now: number, limits: readonly Window[]): number {
  const { failed, cleared } = failures;
  const keptSince = now - keptFor(limits);
  while (failed[0] !== undefined && failed[0] < keptSince) failed.shift();
  // Later than a success within the same millisecond, which would clear it.
  return record(failed, Math.max(now, cleared + 1), Math.max(mostOf(limits), CONSECUTIVE_FROM));
}

export const uncountFailure = (failures: Failures, failure: number): boolean =>
  forget(failures.failed, failure);

/** For how long a failure is kept. */
export const keptFor = (limits: readonly Window[]): number => Math.max(longestOf(limits), MONTH);
