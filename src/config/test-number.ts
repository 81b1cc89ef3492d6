import type { Rule } from './rules';
import type { Settings } from './settings';
import { listOf } from './rules';

/** The digits of a code that this service makes, or is configured with: StartMessaging takes no longer one. */
export const CODE_LENGTH = 6;

const DAY_MS = 86_400_000;
const LONGEST_DAYS = 90;

/** A number that no subscriber holds, with a code of its own: for app-store review and end-to-end tests. */
export interface TestNumber {
  readonly phoneNumber: string;
  readonly code: string;
  /** Undefined: it never expires; production refuses that. */
  readonly expiresAt: Date | undefined;
}

const testNumber: Rule<TestNumber> = {
  expected:
    'number:code:date or number:code, the number +910 and nine digits, the code 4 to 8 digits, the date as 2027-01-31',
  read(text) {
    const [, phoneNumber, code, date] =
      /^(\+910[0-9]{9}):([0-9]{4,8})(?::([0-9]{4}-[0-9]{2}-[0-9]{2}))?$/.exec(text) ?? [];
    if (phoneNumber === undefined || code === undefined) return undefined;
    if (date === undefined) return { phoneNumber, code, expiresAt: undefined };
    const expiresAt = new Date(`${date}T00:00:00.000Z`);
    // A parser reads 2027-02-31 as the third of March.
    const real = !Number.isNaN(expiresAt.getTime()) && expiresAt.toISOString().startsWith(date);
    return real ? { phoneNumber, code, expiresAt } : undefined;
  },
};

/** The test numbers, those that have expired included: they are refused when they are used. */
export function readTestNumbers(settings: Settings): readonly TestNumber[] {
  const numbers = settings.withDefault('TEST_NUMBERS', listOf(testNumber), []);
  settings.require(
    new Set(numbers.map(({ phoneNumber }) => phoneNumber)).size === numbers.length,
    'TEST_NUMBERS',
    'must not name a number twice',
  );
  settings.require(
    numbers.every(({ code }) => code.length === CODE_LENGTH),
    'TEST_NUMBERS',
    `must have codes of ${CODE_LENGTH} digits`,
  );
  // A code that many people know and that never ends would be a forgotten back door.
  const latest = Date.now() + LONGEST_DAYS * DAY_MS;
  settings.require(
    !settings.production ||
      numbers.every(({ expiresAt }) => expiresAt !== undefined && expiresAt.getTime() <= latest),
    'TEST_NUMBERS',
    `must expire within ${LONGEST_DAYS} days in production`,
  );
  if (settings.production && numbers.length > 0)
    settings.warn('TEST_NUMBERS', 'allows a login to every person with a code of the list');
  // No fault: a pod that restarts on the day after must not fail for it.
  if (numbers.some(({ expiresAt }) => expiresAt !== undefined && expiresAt.getTime() <= Date.now())) {
    settings.warn('TEST_NUMBERS', 'holds a number that has expired');
  }
  return numbers;
}
