import type { LoggerService } from '@nestjs/common';
import { pino, type DestinationStream, type Level } from 'pino';
import { asText, describe, describeError, isError } from './describe';
import { redact, replacing } from './redact';
import { requestContext } from './request-context';

type Fields = Record<string, unknown>;

/** The fields of a request's line, beside the ids of its context. */
export interface RequestLine {
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly durationMs: number;
  readonly code?: string;
}

/**
 * JSON lines by pino, for ourselves and for Nest. Every text of any depth is redacted, by what it looks like and by the
 * name of its field; errors are described without what they carry. No line is lost by it, and no call throws.
 */
export class Logger implements LoggerService {
  readonly #pino;
  readonly #audit;
  readonly #secrets: Set<string>;
  #hideSecrets;

  /** @param secrets texts that no line may contain */
  constructor(level: string, destination: DestinationStream, secrets: readonly string[] = []) {
    this.#secrets = new Set(secrets);
    this.#hideSecrets = replacing(secrets);
    this.#pino = pino(
      {
        level,
        base: null,
        // A copy: pino writes each line's fields into it, and they would stand in the request's next line too.
        mixin: (line) => {
          const { requestId: id, traceId, phone, hideSecrets } = requestContext.getStore() ?? {};
          // A caller's own may be the code that its body brings.
          const requestId = id === undefined ? undefined : (hideSecrets?.(id) ?? id);
          // Other lines of the request name the number by its pseudonym. Under one id, readers of the log would learn which
          // number belongs to which user.
          if ('subject' in line) return {};
          return 'audit' in line ? { requestId, traceId } : { requestId, traceId, phone };
        },
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

  /**
   * The line of a request that was answered. Its fields are a closed set of our own values (a route's pattern, never a URL), so
   * they are not searched for secrets: the search would cost as much as the rest of the line.
   */
  request(level: 'info' | 'debug', line: RequestLine): void {
    if (!this.#pino.isLevelEnabled(level)) return;
    // The id may be the caller's own text, from which the mixin takes the secrets of this request.
    this.#hideKnown('');
    this.#pino[level](line, level === 'info' ? 'request' : 'probe');
  }

  /** An event of the audit. Written at every LOG_LEVEL, so that an attacker with access to this setting cannot hide. */
  audit(event: string, fields: object): void {
    this.#audit.info(this.#describe({ type: 'audit', audit: event, ...fields }), 'audit');
  }

  /** No line from now on holds these texts either: secrets change while the service runs. */
  hide(secrets: readonly string[]): void {
    for (const secret of secrets) this.#secrets.add(secret);
    this.#hideSecrets = replacing(this.#secrets);
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
    const fields: Fields = isFields(first) ? first : typeof first === 'string' ? { context: first } : {};
    this.#write(level, message, fields);
  }

  #write(level: Level, message: unknown, fields: Fields): void {
    if (!this.#pino.isLevelEnabled(level)) return;
    const line = this.#describe(fields);
    if (isError(message)) {
      const error = describeError(message, this.#hide);
      this.#pino[level]({ ...line, error }, String(error.message));
    } else {
      this.#pino[level](line, asText(describe(message, this.#hide)));
    }
  }

  #describe(fields: Fields): Fields {
    const described = describe(fields, this.#hide, this.#hideKnown);
    return isFields(described) ? described : { fields: described };
  }

  /** First the known secrets, by their whole text; then texts with the form of a secret. */
  readonly #hide = (text: string): string => redact(this.#hideKnown(text));

  readonly #hideKnown = (text: string): string => {
    const context = requestContext.getStore();
    const clean = this.#hideSecrets(text);
    if (!context?.secrets?.size) return clean;
    context.hideSecrets ??= replacing(context.secrets);
    return context.hideSecrets(clean);
  };
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !isError(value);
}
