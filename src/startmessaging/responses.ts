import { fields, isFields, isSuccess, shortText } from '../upstream/responses';

/** StartMessaging's answer to a send. Every field may be missing, and `status` is an open set. */
export interface SentOtp {
  id?: string;
  messageId?: string;
  status?: string;
  expiresAt?: Date;
  attemptsLeft?: number;
  correlationId?: string;
}

function dateTime(value: unknown): Date | undefined {
  const text = shortText(value);
  if (text === undefined || !/^\d{4}-\d{2}-\d{2}T/.test(text)) return undefined;
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** Whether the envelope carries the `data` that every success has. */
export function hasData(body: unknown): boolean {
  return isFields(fields(body).data);
}

/** Reads the `data` of a send. The envelope's own `requestId` names the call, not the OTP. */
export function readSentOtp(body: unknown): SentOtp {
  const data = fields(fields(body).data);
  const sent: SentOtp = {};
  const id = shortText(data.otpRequestId) ?? shortText(data.requestId);
  if (id !== undefined) sent.id = id;
  const messageId = shortText(data.messageId);
  if (messageId !== undefined) sent.messageId = messageId;
  const status = shortText(data.status);
  if (status !== undefined) sent.status = status;
  const expiresAt = dateTime(data.expiresAt);
  if (expiresAt !== undefined) sent.expiresAt = expiresAt;
  const attempts = data.attemptsLeft;
  if (typeof attempts === 'number' && Number.isSafeInteger(attempts) && attempts >= 0) {
    sent.attemptsLeft = attempts;
  }
  return sent;
}

/** Whether a send is named by one of the secrets. */
export function namesRepeat(body: unknown, secrets: readonly string[]): boolean {
  const { id, messageId } = readSentOtp(body);
  return secrets.some((secret) => [id, messageId].some((name) => name?.includes(secret)));
}

/** `data.verified` when it is a boolean. A string `"true"`, a 1, or a `verified` anywhere else is not. */
export function readVerified(body: unknown): boolean | undefined {
  const verified = fields(fields(body).data).verified;
  return typeof verified === 'boolean' ? verified : undefined;
}

/** Whether the envelope tells of a failure. It counts more than the status. */
export function saysFailure(body: unknown): boolean {
  const { success, error, statusCode } = fields(body);
  return (success ?? true) !== true || Boolean(error) || !isSuccess(Number(statusCode ?? 200));
}

/** Whether a verification says beside `data.verified` that it was none. */
export function takesBack(body: unknown): boolean {
  const { verified, data } = fields(body);
  const { success, error } = fields(data);
  return (verified ?? true) !== true || (success ?? true) !== true || Boolean(error);
}

/** `error.code`, if there is one. */
export function readErrorCode(body: unknown): string | undefined {
  return shortText(fields(fields(body).error).code);
}

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
