import type { WalletUnit } from '../config/config';

const UNITS_PER_RUPEE: Record<WalletUnit, number> = { rupees: 1, paise: 100, micro_rupees: 1_000_000 };

/** A whole number from here on would be a million rupees, and is more probably one rupee in millionths. */
const IMPROBABLE_RUPEES = 1_000_000;

/** Whole paise. */
export function paiseOf(balance: string, unit: WalletUnit): number {
  return Math.round((Number(balance) * 100) / UNITS_PER_RUPEE[unit]);
}

/**
 * The unit in which accepted SMS took `taken` from the balance, while the ledger counted `spentRupees`. The two units that the
 * vendor's sources name are a million apart, so SMS under way, a wrong price or another service on the same wallet do not
 * lead from one to the other. Undefined while the figures fit neither unit, as after a recharge.
 *
 * @example inferUnit(250_000, 0.25) // 'micro_rupees'
 */
export function inferUnit(taken: number, spentRupees: number): WalletUnit | undefined {
  if (spentRupees <= 0 || taken <= 0) return undefined;
  const perRupee = taken / spentRupees;
  if (perRupee >= 0.1 && perRupee <= 100) return 'rupees';
  if (perRupee >= 100_000 && perRupee <= 100_000_000) return 'micro_rupees';
  return undefined;
}

/** The probable unit before any SMS was accepted: a balance with a fraction, or below a million, counts rupees. */
export function assumedUnit(balance: string): WalletUnit {
  return balance.includes('.') || Math.abs(Number(balance)) < IMPROBABLE_RUPEES ? 'rupees' : 'micro_rupees';
}
