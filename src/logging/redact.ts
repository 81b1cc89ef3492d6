import { inspect } from 'node:util';

/**
 * What must never stand in a log, wherever it came from: phone numbers, StartMessaging keys, JWTs. Text of libraries
 * and of upstream is put through this; our own lines name fields that hold none of these.
 */
const SECRETS: [RegExp, string][] = [
  [/sm_(live|test)_[A-Za-z0-9]+/g, 'sm_$1_***'],
  [/(?<![A-Za-z0-9])eyJ[\w-]*\.[\w-]*\.?[\w-]*/g, 'eyJ***'],
  [/(?:\+|%2B)?91[6-9]\d{9}(?!\d)/gi, '+91******'],
  [/(?<!\d)[6-9]\d{9}(?!\d)/g, '******'],
  // Redis repeats the arguments of a command that it does not know or allow.
  [/, with args beginning with: .*/g, ''],
  [/(rediss?(?:\+\w+)?:\/\/)[^@/\s]*@/g, '$1***@'],
];

export function redact(text: string): string {
  return SECRETS.reduce((clean, [pattern, replacement]) => clean.replace(pattern, replacement), text);
}

/** What a person wrote: numbers as people write them, too, with spaces, dashes, brackets and a leading 0. */
export function redactWritten(text: string): string {
  return redact(text.replace(/(?<!\d)(?:\+?91|0)?[\s().-]*[6-9](?:[\s().-]*\d){9}(?!\d)/g, ' ******').trim());
}

/**
 * An error as a log line may hold it: name, message, code, stack, and its causes, each redacted. Nothing else of the
 * object: a Redis error carries its command's arguments, an axios error the API key.
 */
export function describeError(error: unknown, depth = 0): Record<string, unknown> {
  if (!(error instanceof Error)) {
    const text = typeof error === 'string' ? error : inspect(error, { depth: 0 });
    return { message: redact(text).slice(0, 500) };
  }
  const { code, reason } = error as { code?: unknown; reason?: unknown };
  return {
    name: error.name,
    message: redact(error.message).slice(0, 1_000),
    ...(typeof code === 'string' ? { code } : {}),
    ...(typeof reason === 'string' ? { reason } : {}),
    ...(depth === 0 && error.stack ? { stack: redact(error.stack).slice(0, 4_000) } : {}),
    ...(error.cause !== undefined && depth < 3 ? { cause: describeError(error.cause, depth + 1) } : {}),
  };
}
