/** What came back over HTTP. `body` is what the JSON says; for anything else it is the text, or `undefined`. */
export interface Answer {
  status: number;
  retryAfter: unknown;
  body: unknown;
}

/** What StartMessaging says of a send. Every field may be missing, and `status` is an open set. */
export interface SentOtp {
  id?: string;
  messageId?: string;
  status?: string;
  expiresAt?: Date;
  attemptsLeft?: number;
  correlationId?: string;
}

export function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

type Fields = Record<string, unknown>;

const LONGEST_FIELD = 256;

/** The fields of an object; of anything else, none. */
export function fields(value: unknown): Fields {
  return isFields(value) ? value : {};
}

/** Whether it is an object with fields, and no list. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A text field. One of the wrong type, or of an absurd length, is as if it was missing. */
export function shortText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= LONGEST_FIELD ? value : undefined;
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

/** Whether the envelope itself speaks of a failure, whatever the status says. */
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

/** Every text in which an error answer explains itself, the main one first: the envelope's, then a tutorial's. */
export function readMessages(body: unknown): string[] {
  if (typeof body === 'string') return [body];
  const { error, message } = fields(body);
  const { message: own, details } = fields(error);
  // A detail may name the field beside its message.
  const detailMessages = list(details).flatMap((detail) =>
    isFields(detail) ? Object.values(detail) : detail,
  );
  return [...list(own), ...list(message), ...list(error), ...detailMessages].filter(
    (text) => typeof text === 'string',
  );
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [value];
}

/** The envelope's name for this call, unless one of the secrets was echoed in its place. */
export function readCorrelationId(body: unknown, secrets: readonly string[]): string | undefined {
  const id = fields(body).requestId;
  if (typeof id !== 'string' || !/^[A-Za-z0-9_-]{1,64}$/.test(id)) return undefined;
  // A verification and a look-up do not know the number that upstream may repeat.
  if (/(?<!\d)(?:91)?[6-9]\d{9}(?!\d)/.test(id)) return undefined;
  return secrets.some((secret) => secret !== '' && id.includes(secret)) ? undefined : id;
}
