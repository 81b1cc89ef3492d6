/** An HTTP answer. `body` is the JSON value; for anything else it is the text, or `undefined`. */
export interface UpstreamResponse {
  status: number;
  retryAfter: unknown;
  body: unknown;
}

export function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

export type Fields = Record<string, unknown>;

const LONGEST_FIELD = 256;

/** The fields of an object; of anything else, none. */
export function fields(value: unknown): Fields {
  return isFields(value) ? value : {};
}

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A text field. One of the wrong type, or of an absurd length, is as if it was missing. */
export function shortText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= LONGEST_FIELD ? value : undefined;
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
