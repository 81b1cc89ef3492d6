import { toUSVString, types } from 'node:util';
import { isCode, isSecretName, redact } from './redact';

type Hide = (text: string) => string;

/**
 * Fields that only this service's own code fills, with ids of its own making. Some ids look like a phone number: they are not put
 * through the patterns, and appear unchanged. Known secrets are hidden in them all the same.
 */
const TYPED: ReadonlySet<string> = new Set([
  'id',
  'phone',
  'subject',
  'session',
  'kid',
  'thumbprint',
  'webhook',
]);
type Described = Record<string, unknown>;

const DEEPEST = 6;
const DEEPEST_CAUSE = 3;
const MOST_OBJECTS = 300;
const MOST_ENTRIES = 50;
const MOST_ERRORS = 5;
const LONGEST_TEXT = 4_000;

/**
 * A value as a log line may hold it. Secrets are hidden in every text of any depth, names included, and values under the name
 * of a secret are left out. An object's own `toJSON` is not called, because that of an axios error contains the API key. Never
 * throws: an unreadable value is marked as unreadable.
 */
export function describe(value: unknown, hide: Hide = redact, hideKnown: Hide = (text) => text): unknown {
  return new Description(hide, hideKnown).of(value, 0);
}

/**
 * An error as a log line may hold it: name, message, code, stack, its causes and the errors that it gathers. Nothing else of
 * the object: a Redis error carries its command's arguments, an axios error the API key.
 */
export function describeError(error: unknown, hide: Hide = redact): Described {
  return new Description(hide).ofError(error, 0);
}

/** Detects errors of another realm, too: Node's own errors come from one when code runs in a vm. */
export function isError(value: unknown): value is Error {
  return types.isNativeError(value) || value instanceof Error;
}

/** Something that was described, as one text. */
export function asText(described: unknown): string {
  if (described === undefined) return 'undefined';
  return typeof described === 'string' ? described : JSON.stringify(described);
}

class Description {
  private readonly seen = new Set<object>();

  constructor(
    private readonly hide: Hide,
    /** Hides known secrets only. */
    private readonly hideKnown: Hide = hide,
  ) {}

  of(value: unknown, depth: number): unknown {
    if (typeof value === 'string') return this.text(value);
    if (typeof value === 'number' || typeof value === 'bigint') return this.figure(value);
    if (typeof value === 'symbol') return this.text(String(value));
    if (typeof value === 'function') return '[function]';
    if (typeof value !== 'object' || value === null) return value;
    return readable(() => this.ofObject(value, depth));
  }

  ofError(error: unknown, depth: number): Described {
    if (!isError(error)) {
      const told = this.of(error, 1);
      return { message: toUSVString(asText(told).slice(0, 500)) };
    }
    this.seen.add(error);
    // A library may have made a getter of any of these.
    const read = (name: string): unknown => readable(() => (error as unknown as Described)[name]);
    const [code, reason, stack, cause, errors] = ['code', 'reason', 'stack', 'cause', 'errors'].map(read);
    const deeper = depth < DEEPEST_CAUSE;
    return {
      name: this.text(String(read('name'))),
      message: this.text(String(read('message')), 1_000),
      ...(typeof code === 'string' ? { code: isCode('code', code) ? '***' : this.text(code) } : {}),
      ...(typeof reason === 'string' ? { reason: this.text(reason) } : {}),
      ...(depth === 0 && typeof stack === 'string' ? { stack: this.text(stack) } : {}),
      ...(deeper && cause !== undefined ? { cause: this.ofCause(cause, depth) } : {}),
      // As Node reports a host of several addresses of which none answered: the message is empty, the reasons are here.
      ...(deeper && Array.isArray(errors)
        ? { errors: errors.slice(0, MOST_ERRORS).map((each: unknown) => this.ofCause(each, depth)) }
        : {}),
    };
  }

  private ofCause(cause: unknown, depth: number): unknown {
    const circular = typeof cause === 'object' && cause !== null && this.seen.has(cause);
    return circular ? '[circular]' : this.ofError(cause, depth + 1);
  }

  private ofObject(value: object, depth: number): unknown {
    if (this.seen.has(value)) return '[circular]';
    if (depth >= DEEPEST || this.seen.size >= MOST_OBJECTS) return '[more]';
    if (isError(value)) return this.ofError(value, depth);
    this.seen.add(value);
    if (types.isDate(value)) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
    // Bytes may spell anything, in any encoding.
    if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) return `[${value.byteLength} bytes]`;
    if (value instanceof URL || types.isRegExp(value)) return this.text(String(value));
    if (Array.isArray(value) || types.isSet(value))
      return [...value].slice(0, MOST_ENTRIES).map((each) => this.of(each, depth + 1));
    return this.ofEntries(value, depth);
  }

  private ofEntries(value: object, depth: number): Described {
    const isMap = types.isMap(value);
    const keys: unknown[] = isMap ? [...value.keys()] : Object.keys(value);
    const entries = keys.slice(0, MOST_ENTRIES).map((key): [string, unknown] => {
      const name = typeof key === 'string' ? key : asText(this.of(key, depth + 1));
      const entry = readable(() => (isMap ? value.get(key) : (value as Described)[name]));
      return [this.text(name, 200), this.ofEntry(name, entry, depth)];
    });
    return Object.fromEntries(entries);
  }

  private ofEntry(name: string, value: unknown, depth: number): unknown {
    if (value === undefined || value === null || typeof value === 'boolean') return value;
    if (isSecretName(name) || isCode(name, value)) return '***';
    if (depth === 0 && typeof value === 'string' && TYPED.has(name))
      return toUSVString(this.hideKnown(value).slice(0, LONGEST_TEXT));
    return depth === 0 && name === 'error' ? this.ofError(value, 0) : this.of(value, depth + 1);
  }

  /** Hidden first and cut then, so that no half of a secret is left. Half a character is not written: not every reader of JSON bears it. */
  private text(text: string, longest = LONGEST_TEXT): string {
    return toUSVString(this.hide(text).slice(0, longest));
  }

  /** A phone number or a code may have been read as a number. */
  private figure(value: number | bigint): unknown {
    const text = String(value);
    const hidden = text.length < 4 ? text : this.hide(text);
    return hidden === text && typeof value === 'number' ? value : hidden;
  }
}

/** A getter or a proxy that throws must not cost the line. */
function readable(read: () => unknown): unknown {
  try {
    return read();
  } catch {
    return '[unreadable]';
  }
}
