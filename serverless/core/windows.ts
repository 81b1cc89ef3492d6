import type { Limit } from '../../src/config/read-limits';

// Sliding windows over lists of timestamps (ms), oldest first: the same arithmetic as the Lua scripts of the service.

/** At most `count` in any window of `ms`. */
export interface Window {
  readonly count: number;
  readonly ms: number;
}

/** A document has a largest size, so a list has one too. A higher limit counts as this one, which refuses early. */
const LONGEST_LIST = 2_000;

/** The limits of a setting as windows, each `factor` times as wide. */
export function windowsOf(limits: readonly Limit[], factor = 1): Window[] {
  return limits.map(({ count, seconds }) => ({
    count: Math.min(count * factor, LONGEST_LIST),
    ms: seconds * 1_000,
  }));
}

/**
 * Milliseconds until the list admits one more under this window; 0 if it does now. The list is in order of time, so its
 * count-th newest entry decides alone. A window includes both of its edges. Entries up to `since` do not count.
 */
export function waitFor(list: readonly number[], now: number, { count, ms }: Window, since = 0): number {
  const entry = list.at(-count);
  if (entry === undefined || entry <= since) return 0;
  return Math.max(0, entry + ms + 1 - now);
}

/** Milliseconds until the list admits one more under every window. */
export function waitForAll(list: readonly number[], now: number, windows: readonly Window[]): number {
  return Math.max(0, ...windows.map((window) => waitFor(list, now, window)));
}

/** Appends an entry and keeps the newest `keep`. Returns the entry: a clock that stepped back must not break the order. */
export function record(list: number[], now: number, keep: number): number {
  const entry = Math.max(now, list.at(-1) ?? 0);
  list.push(entry);
  if (list.length > keep) list.splice(0, list.length - keep);
  return entry;
}

/** Removes the newest entry with this time, if there is one. */
export function forget(list: number[], entry: number | undefined): boolean {
  const at = entry === undefined ? -1 : list.lastIndexOf(entry);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}

export const mostOf = (windows: readonly Window[]): number =>
  Math.max(0, ...windows.map(({ count }) => count));
export const longestOf = (windows: readonly Window[]): number => Math.max(0, ...windows.map(({ ms }) => ms));
