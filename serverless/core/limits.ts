import { forget, longestOf, mostOf, record, waitForAll, type Window } from './windows';

// The documents of a client address and of the whole service, and their steps.

/** The times of the requests of one client address. */
export type AddressDocument = Partial<Record<AddressBucket, number[]>>;
export type AddressBucket = 'send' | 'verify' | 'status';

export interface CountAddress {
  bucket: AddressBucket;
  windows: readonly Window[];
}

/** Counts one request of the address, or refuses it: a refusal costs nothing. */
export function countAddress(
  found: AddressDocument | undefined,
  { bucket, windows }: CountAddress,
  now: number,
): { answer: { waitMs: number; entry: number }; next?: AddressDocument; expires?: number } {
  const document = found ?? {};
  const list = document[bucket] ?? [];
  const waitMs = waitForAll(list, now, windows);
  if (waitMs > 0) return { answer: { waitMs, entry: 0 } };
  const longest = longestOf(windows);
  while (list[0] !== undefined && list[0] + longest < now) list.shift();
  const entry = record(list, now, mostOf(windows));
  // The other buckets of the address have windows of their own: none is longer than 30 days.
  return { answer: { waitMs, entry }, next: { ...document, [bucket]: list }, expires: now + 2_592_000_000 };
}

/** Gives the place of a verification with a right code back. */
export function giveAddressBack(
  found: AddressDocument | undefined,
  { bucket, entry }: { bucket: AddressBucket; entry: number },
  now: number,
) {
  const list = found?.[bucket];
  if (found === undefined || list === undefined || !forget(list, entry)) return { answer: { given: false } };
  return { answer: { given: true }, next: found, expires: now + 2_592_000_000 };
}

const QUARTER_MS = 900_000;
const QUARTERS_OF_A_DAY = 96;

/** The sends of the whole service, and what they cost in each quarter of an hour. */
export interface ServiceDocument {
  sends: number[];
  /** Paise by the number of the quarter. */
  spent: Record<string, number>;
}

export interface Admit {
  windows: readonly Window[];
  pricePaise: number;
  budgetPaisePerDay: number;
}

/**
 * Admits one SMS under the limit of the whole service and the budget of the day, and charges it. Both are checked before one
 * is counted. A quarter counts until all of it has left the day: spending never exceeds the budget in any 24 hours.
 */
export function admit(
  found: ServiceDocument | undefined,
  { windows, pricePaise, budgetPaisePerDay }: Admit,
  now: number,
): {
  answer: { kind: 'admitted'; quarter: number } | { kind: 'service' | 'budget'; ms: number };
  next?: ServiceDocument;
  expires?: number;
} {
  const { sends, spent } = found ?? { sends: [], spent: {} };
  const serviceMs = waitForAll(sends, now, windows);
  if (serviceMs > 0) return { answer: { kind: 'service', ms: serviceMs } };
  const quarter = Math.floor(now / QUARTER_MS);
  const counted = Object.entries(spent)
    .map(([at, paise]) => [Number(at), paise] as const)
    .filter(([at]) => at >= quarter - QUARTERS_OF_A_DAY)
    .sort(([a], [b]) => a - b);
  let sum = counted.reduce((total, [, paise]) => total + paise, 0);
  if (sum + pricePaise > budgetPaisePerDay) {
    for (const [at, paise] of counted) {
      sum -= paise;
      const ms = (at + QUARTERS_OF_A_DAY + 1) * QUARTER_MS - now;
      if (sum + pricePaise <= budgetPaisePerDay) return { answer: { kind: 'budget', ms } };
    }
    return { answer: { kind: 'budget', ms: QUARTERS_OF_A_DAY * QUARTER_MS } };
  }
  record(sends, now, mostOf(windows));
  const next = Object.fromEntries(counted);
  next[quarter] = (next[quarter] ?? 0) + pricePaise;
  const kept = Math.max(longestOf(windows), (QUARTERS_OF_A_DAY + 1) * QUARTER_MS);
  return { answer: { kind: 'admitted', quarter }, next: { sends, spent: next }, expires: now + kept };
}

/** Gives the price back, for an SMS that upstream certainly did not accept. */
export function refund(
  found: ServiceDocument | undefined,
  { quarter, pricePaise }: { quarter: number; pricePaise: number },
  now: number,
) {
  const paise = found?.spent[quarter];
  if (found === undefined || paise === undefined) return { answer: { refunded: false } };
  found.spent[quarter] = Math.max(0, paise - pricePaise);
  return {
    answer: { refunded: true },
    next: found,
    expires: now + (QUARTERS_OF_A_DAY + 1) * QUARTER_MS,
  };
}
