import { fields, shortText } from '../upstream/responses';

/** StartMessaging's answer about the wallet. Either field may be missing. */
export interface Wallet {
  /** A decimal number, as upstream wrote it. Its documentation does not tell whether it counts rupees or millionths of one. */
  balance?: string;
  currency?: string;
}

/** Reads the `data` of an answer about the wallet. An invalid amount or currency counts as missing. */
export function readBalance(body: unknown): Wallet {
  const { balance, currency } = fields(fields(body).data);
  const amount = typeof balance === 'number' ? String(balance) : shortText(balance);
  const wallet: Wallet = {};
  if (amount !== undefined && /^-?\d{1,15}(?:\.\d{1,9})?$/.test(amount)) wallet.balance = amount;
  if (typeof currency === 'string' && /^[A-Z]{3}$/.test(currency)) wallet.currency = currency;
  return wallet;
}
