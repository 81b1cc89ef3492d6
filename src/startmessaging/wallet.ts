import { fields, shortText } from '../upstream/responses';

/** What StartMessaging says of the wallet. Either may be missing. */
export interface Wallet {
  /** A decimal number, as upstream wrote it: whether it counts rupees or millionths of one, nobody says. */
  balance?: string;
  currency?: string;
}

/** Reads the `data` of an answer about the wallet. What is no amount, or no currency, is as if it was missing. */
export function readBalance(body: unknown): Wallet {
  const { balance, currency } = fields(fields(body).data);
  const amount = typeof balance === 'number' ? String(balance) : shortText(balance);
  const wallet: Wallet = {};
  if (amount !== undefined && /^-?\d{1,15}(?:\.\d{1,9})?$/.test(amount)) wallet.balance = amount;
  if (typeof currency === 'string' && /^[A-Z]{3}$/.test(currency)) wallet.currency = currency;
  return wallet;
}
