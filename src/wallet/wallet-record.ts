import type { WalletUnit } from '../config/config';
import { KEY_PREFIX } from '../redis/store';
import { assumedUnit, inferUnit, paiseOf } from './wallet-unit';

/** The last readings of the wallet, for every replica and for the doctor. */
export const WALLET_KEY = `${KEY_PREFIX}{wallet}`;

/** A balance as upstream wrote it, and what the ledger had counted until then in that day of Asia/Kolkata. */
export interface WalletReading {
  /** Milliseconds since 1970. */
  at: number;
  balance: string;
  day: string;
  /** Ten-thousandths of a rupee. */
  cost: number;
}

export interface WalletRecord {
  /** The newest reading. Undefined until the first. */
  reading?: WalletReading;
  /** The reading from which the unit is inferred. */
  base?: WalletReading;
  /** The unit in which accepted SMS reduced the balance. */
  inferred?: WalletUnit;
  /** The API does not let this key read the wallet. */
  refused?: boolean;
  /** When `wallet_low` was raised, while the balance is still low. */
  alertedAt?: number;
}

/** The unit of a balance, and the source of this knowledge. */
export interface KnownUnit {
  unit: WalletUnit;
  from: 'setting' | 'inferred' | 'assumed';
}

/** An invalid text counts as no record: the next reading replaces it. */
export function parseRecord(text: string | null): WalletRecord {
  try {
    return (JSON.parse(text ?? '{}') ?? {}) as WalletRecord;
  } catch {
    return {};
  }
}

export function unitOf(
  balance: string,
  setting: WalletUnit | undefined,
  { inferred }: WalletRecord,
): KnownUnit {
  if (setting !== undefined) return { unit: setting, from: 'setting' };
  if (inferred !== undefined) return { unit: inferred, from: 'inferred' };
  return { unit: assumedUnit(balance), from: 'assumed' };
}

/** The balance of the newest reading in paise; undefined without one. */
export function paiseOfRecord(record: WalletRecord, setting: WalletUnit | undefined): number | undefined {
  const balance = record.reading?.balance;
  return balance === undefined ? undefined : paiseOf(balance, unitOf(balance, setting, record).unit);
}

/** Adds a reading. `spent` is what the ledger counted since `base`, in ten-thousandths of a rupee. */
export function withReading(record: WalletRecord, reading: WalletReading, spent: number): WalletRecord {
  const { base = reading } = record;
  const taken = Number(base.balance) - Number(reading.balance);
  const inferred = inferUnit(taken, spent / 10_000);
  const next: WalletRecord = {
    ...record,
    reading,
    refused: false,
    // After a recharge, the difference says nothing about the price of an SMS.
    base: inferred !== undefined || taken < 0 ? reading : base,
  };
  if (inferred !== undefined) next.inferred = inferred;
  return next;
}
