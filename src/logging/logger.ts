import type { LoggerService } from '@nestjs/common';
import { pino, type DestinationStream, type Level } from 'pino';
import { describeError, redact } from './redact';
import { requestContext } from './request-context';

type Fields = Record<string, unknown>;

/** What operations must act on; each has a line in the README. */
export type Alert =
  | 'provider_down'
  | 'wallet_exhausted'
  | 'upstream_credentials'
  | 'contract_mismatch'
  | 'request_malformed'
  | 'budget_exhausted'
  | 'guard_conversion'
  | 'guard_wrong_codes'
  | 'sms_price'
  | 'token_reused';

/** JSON lines by pino, for ourselves and for Nest. A field named `error` is described without what it carries. */
export class Logger implements LoggerService {
  readonly #pino;
  readonly #audit;
  readonly #listeners: ((alert: Alert, message: string) => void)[] = [];

  constructor(level: string, destination: DestinationStream) {
    this.#pino = pino(
      {
        level,
        base: null,
        // A copy: pino writes each line's fields into it, and they would stand in the request's next line too.
        mixin: () => ({ ...requestContext.getStore() }),
        timestamp: pino.stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      destination,
    );
    this.#audit = this.#pino.child({}, { level: 'info' });
  }

  info(message: string, fields: Fields = {}): void {
    this.#write('info', message, fields);
  }

  /** For a fault that somebody must act on. Monitoring watches the `alert` field. */
  alert(alert: Alert, message: string, fields: Fields = {}): void {
    this.#write('error', message, { alert, ...fields });
    for (const listener of this.#listeners) listener(alert, message);
  }

  /** Tells of every alert, at every LOG_LEVEL, and of none of its fields. */
  onAlert(listener: (alert: Alert, message: string) => void): void {
    this.#listeners.push(listener);
  }

  /** An event of the audit. Written at every LOG_LEVEL: who may set that must not be able to hide. */
  audit(event: string, fields: object): void {
    this.#audit.info({ type: 'audit', audit: event, ...fields }, 'audit');
  }

  // The methods that Nest calls: (message, ...more), the last of them the context's name, an error's stack before it.
  log(message: unknown, ...more: unknown[]): void {
    this.#nest('debug', message, more);
  }
  debug(message: unknown, ...more: unknown[]): void {
    this.#nest('debug', message, more);
  }
  verbose(message: unknown, ...more: unknown[]): void {
    this.#nest('trace', message, more);
  }
  warn(message: unknown, ...more: unknown[]): void {
    this.#nest('warn', message, more);
  }
  error(message: unknown, ...more: unknown[]): void {
    this.#nest('error', message, more);
  }
  fatal(message: unknown, ...more: unknown[]): void {
    this.#nest('fatal', message, more);
  }

  #nest(level: Level, message: unknown, [first]: unknown[]): void {
    const fields: Fields = isFields(first)
      ? first
      : typeof first === 'string'
        ? { context: redact(first) }
        : {};
    if (message instanceof Error) this.#write(level, message.message, { ...fields, error: message });
    else this.#write(level, String(message), fields);
  }

  #write(level: Level, message: string, { error, ...fields }: Fields): void {
    this.#pino[level](
      error === undefined ? fields : { ...fields, error: describeError(error) },
      redact(message),
    );
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !(value instanceof Error);
}
