/** The rule of a setting: `read` answers undefined for an invalid text, and `expected` completes "NAME must be". */
export interface Rule<T> {
  readonly expected: string;
  read(text: string): T | undefined;
}

/** A decimal number without sign, point, exponent, spaces or leading zeros, which `Number()` would all take. */
export function wholeNumber(minimum: number, maximum: number): Rule<number> {
  return {
    expected: `a whole number from ${minimum} to ${maximum}`,
    read: (text) => decimal(text, minimum, maximum),
  };
}

/** The number that the digits spell when it lies within the bounds. */
export function decimal(text: string, minimum: number, maximum: number): number | undefined {
  if (!/^(0|[1-9]\d{0,14})$/.test(text)) return undefined;
  const value = Number(text);
  return value >= minimum && value <= maximum ? value : undefined;
}

export function oneOf<T extends string>(...values: readonly T[]): Rule<T> {
  return {
    expected: values.join(' or '),
    read: (text) => values.find((value) => value === text),
  };
}

export const trueOrFalse: Rule<boolean> = {
  expected: 'true or false',
  read: (text) => (text === 'true' ? true : text === 'false' ? false : undefined),
};

/** Text of which the whole matches the pattern: anchor it. */
export function matching(pattern: RegExp, expected: string): Rule<string> {
  return { expected, read: (text) => (pattern.test(text) ? text : undefined) };
}

/** At least one entry between commas, with spaces around them or not; no entry may be empty. */
export function listOf<T>(entry: Rule<T>): Rule<readonly T[]> {
  return {
    expected: `a comma-separated list, each entry ${entry.expected}`,
    read(text) {
      const entries = text.split(',').map((part) => entry.read(part.trim()));
      return entries.every((value) => value !== undefined) ? entries : undefined;
    },
  };
}

/** Below this length a secret can be guessed offline. */
export const SECRET_LENGTH = 32;

/** The fault of a secret that {@link isWeak}. */
export const WEAK =
  'must not be a shorter text repeated, and must have 8 different characters or more, in production';

/** Whether a secret is easy to guess despite its length: a shorter text repeated, or fewer than 8 different characters. */
export function isWeak(secret: string): boolean {
  return isRepeated(secret) || new Set(secret).size < 8;
}

/** The last repetition may be cut off: `abcabcab` is `abc` repeated. */
function isRepeated(text: string): boolean {
  for (let period = 1; period <= text.length / 2; period++) {
    if (text.startsWith(text.slice(period))) return true;
  }
  return false;
}
