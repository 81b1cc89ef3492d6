import { type Account, newCode, PRICE, type SentMessage } from './account';
import { type Answer, failure, success } from './responses';

/** An answer, and whether the call had its effect: an SMS accepted, a code found right, a record read. */
export interface Outcome {
  answer: Answer;
  accepted: boolean;
  message?: SentMessage;
}

type Fields = Record<string, unknown>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const KEPT_MS = 24 * 3600 * 1000;

/**
 * `POST /otp/send`. A body with `variables` speaks the `caller` contract (the customer makes the code, 201),
 * one without them the `provider` contract (StartMessaging does, 200).
 */
export function send(account: Account, body: Fields): Outcome {
  const { contract } = account.settings;
  const byCaller = contract === 'caller' || (contract === 'both' && body.variables !== undefined);
  const faults = [
    ...phoneFaults(body),
    ...templateFaults(body),
    ...(byCaller ? variableFaults(body) : keyFaults(body)),
  ];
  if (faults.length > 0) return refused(failure(400, 'VALIDATION_ERROR', 'Validation failed', faults));
  return byCaller ? sendTheirs(account, body) : sendOurs(account, body);
}

function sendTheirs(account: Account, body: Fields): Outcome {
  const variables = body.variables as Fields;
  const code = variables.otp as string;
  // Like the original, which texts what it was not given as "undefined".
  const text = `${code} is your code for ${String(variables.appName)}. Valid for ${String(variables.expiry)} minutes. Do not share it.`;
  // The key is documented, and ignored by the original: a repeat is a second SMS and a second charge.
  const sent = charge(account, body, { code, text, contract: 'caller' });
  if ('answer' in sent) return sent;
  const { requestId: otpRequestId, id: messageId, status, phoneNumber, createdAt } = sent;
  const answer = success(201, { otpRequestId, messageId, status, phoneNumber, createdAt });
  return { answer, accepted: true, message: sent };
}

function sendOurs(account: Account, body: Fields): Outcome {
  const key = body.idempotencyKey as string | undefined;
  const replay = key === undefined ? undefined : account.replays.get(key);
  if (replay && replay.at > Date.now() - KEPT_MS) {
    if (replay.phoneNumber === body.phoneNumber)
      return { answer: success(200, replay.data), accepted: false };
    return refused(failure(409, 'CONFLICT', 'The idempotency key was used for another phone number'));
  }
  const code = newCode();
  const minutes = Math.ceil(account.settings.otpTtlSeconds / 60);
  const text = `${code} is your verification code. Valid for ${minutes} minutes. Do not share it.`;
  const sent = charge(account, body, { code, text, contract: 'provider' });
  if ('answer' in sent) return sent;
  const { expiresAt, attemptsLeft } = account.openOtp(sent);
  const data = { requestId: sent.requestId, expiresAt: new Date(expiresAt).toISOString(), attemptsLeft };
  if (key !== undefined) account.replays.set(key, { phoneNumber: sent.phoneNumber, data, at: Date.now() });
  return { answer: success(200, data), accepted: true, message: sent };
}

function charge(
  account: Account,
  body: Fields,
  sms: Pick<SentMessage, 'code' | 'text' | 'contract'>,
): SentMessage | Outcome {
  const phoneNumber = body.phoneNumber as string;
  if (account.limits(phoneNumber)) {
    return refused(failure(400, 'RATE_LIMIT_EXCEEDED', 'Too many OTP requests for this phone number'));
  }
  if (account.settings.balance < PRICE) {
    return refused(failure(400, 'INSUFFICIENT_BALANCE', 'Insufficient wallet balance'));
  }
  const idempotencyKey = typeof body.idempotencyKey === 'string' ? body.idempotencyKey : undefined;
  return account.accept({ phoneNumber, idempotencyKey, ...sms });
}

/** `POST /otp/verify`, of the `provider` contract. */
export function verify(account: Account, body: Fields): Outcome {
  const { requestId, otpCode } = body;
  if (typeof requestId !== 'string' || typeof otpCode !== 'string') {
    const details = ['requestId must be a string', 'otpCode must be a string'];
    return refused(failure(400, 'VALIDATION_ERROR', 'Validation failed', details));
  }
  const otp = account.otpRequests.get(requestId);
  if (!otp) return refused(failure(404, 'NOT_FOUND', 'OTP request not found'));
  if (otp.used) return refused(failure(410, 'OTP_ALREADY_USED', 'This code was already used'));
  if (otp.expiresAt <= Date.now()) return refused(failure(410, 'OTP_EXPIRED', 'This code has expired'));
  if (otp.attemptsLeft <= 0) return refused(failure(400, 'OTP_ATTEMPTS_EXCEEDED', 'No attempts left'));
  otp.attemptsLeft -= 1;
  if (otp.code !== otpCode) return refused(failure(400, 'OTP_INVALID', 'Invalid OTP code'));
  otp.used = true;
  return { answer: success(200, { verified: true }), accepted: true };
}

/** `GET /messages/:id`. */
export function showMessage(account: Account, id: string): Outcome {
  const message = account.message(id);
  if (!message) return refused(failure(404, 'NOT_FOUND', 'Message not found'));
  const { phoneNumber, status, createdAt, failureReason } = message;
  const delivered = Date.parse(createdAt) + account.settings.deliveredAfterMs;
  const deliveredAt = status === 'delivered' ? new Date(delivered).toISOString() : null;
  const data = { id, phoneNumber, status, costAmount: PRICE.toFixed(4), createdAt, deliveredAt };
  return {
    answer: success(200, { ...data, ...(failureReason && { failureReason }) }),
    accepted: true,
    message,
  };
}

/** `GET /wallet`. */
export function showWallet(account: Account): Outcome {
  const { balance, walletUnit } = account.settings;
  const counted = walletUnit === 'rupees' ? balance : balance * 1_000_000;
  return { answer: success(200, { balance: counted, currency: 'INR' }), accepted: true };
}

export function refused(answer: Answer): Outcome {
  return { answer, accepted: false };
}

function phoneFaults({ phoneNumber }: Fields): string[] {
  const valid = typeof phoneNumber === 'string' && /^\+91[6-9][0-9]{9}$/.test(phoneNumber);
  return valid ? [] : ['phoneNumber must be an Indian mobile number in E.164 format'];
}

function templateFaults({ templateId }: Fields): string[] {
  const valid = templateId === undefined || (typeof templateId === 'string' && UUID.test(templateId));
  return valid ? [] : ['templateId must be a UUID'];
}

function keyFaults({ idempotencyKey }: Fields): string[] {
  const valid = idempotencyKey === undefined || typeof idempotencyKey === 'string';
  return valid ? [] : ['idempotencyKey must be a string'];
}

function variableFaults({ variables }: Fields): string[] {
  if (typeof variables !== 'object' || variables === null || Array.isArray(variables)) {
    return ['variables must be an object with otp'];
  }
  const faults = Object.entries(variables)
    .filter(([, value]) => typeof value !== 'string')
    .map(([name]) => `variables.${name} must be a string`);
  const { otp } = variables as Fields;
  if (typeof otp !== 'string' || !/^[0-9]{4,6}$/.test(otp))
    faults.push('variables.otp must be 4 to 6 digits');
  return faults;
}
