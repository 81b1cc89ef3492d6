import type { Config } from '../config/config';
import { isTestNumber, maskPhoneNumber } from '../phone-number/phone-number';
import { ok, warning, type Finding } from './finding';

const CHECK = 'test_numbers';

/** The numbers that can log in without an SMS, and until when. */
export function checkTestNumbers({ testNumbers }: Config, now = Date.now()): Finding[] {
  if (testNumbers.length === 0) return [ok(CHECK, 'There are no test numbers')];
  return testNumbers.map(({ phoneNumber, expiresAt }, i) => {
    const shown = isTestNumber(phoneNumber) ? maskPhoneNumber(phoneNumber) : 'a number';
    const name = `Test number ${i + 1} of ${testNumbers.length}, ${shown},`;
    if (expiresAt === undefined) return ok(CHECK, `${name} never expires`);
    const day = expiresAt.toISOString().slice(0, 10);
    if (expiresAt.getTime() > now) return ok(CHECK, `${name} works until ${day}`);
    return warning(CHECK, `${name} expired on ${day}: take it out of TEST_NUMBERS, or give it a later day.`);
  });
}
