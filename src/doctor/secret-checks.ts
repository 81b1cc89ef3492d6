import type { Config } from '../config/config';
import { isTestNumber, maskPhoneNumber } from '../phone-number/phone-number';
import { ok, warning, type Finding } from './finding';

const FEWEST_DISTINCT = 8;
/** Words that people type instead of random characters, and examples of documentation. */
const WRITTEN = /secret|passw|change|replace|example|default|qwerty|letmein|123456|abcdef|otp.?login/i;

/** The rules for a secret beyond its length, which the configuration checks. Never repeats its value. */
export function checkSecrets({ secrets, subjectSecret }: Config): Finding[] {
  const named: [string, string, string][] = [
    ...secrets.map((secret, i): [string, string, string] => [
      'secret',
      secrets.length > 1 ? `SECRET, the ${i + 1}. of its list,` : 'SECRET',
      secret,
    ]),
    ['subject_secret', 'SUBJECT_SECRET', subjectSecret],
  ];
  return named.map(([check, name, secret]) => {
    const weakness = weaknessOf(secret);
    if (weakness === undefined) return ok(check, `${name} looks random`);
    const remedy =
      check === 'secret'
        ? 'Put a random one in front of it: openssl rand -base64 32.'
        : 'Use a random one before the first login (openssl rand -base64 32): a later change gives every user another id.';
    return warning(check, `${name} ${weakness}: an attacker with a dump of Redis may guess it. ${remedy}`);
  });
}

function weaknessOf(secret: string): string | undefined {
  if (/^(.{1,16})\1+.{0,15}$/.test(secret)) return 'repeats itself';
  if (new Set(secret).size < FEWEST_DISTINCT) return 'is made of few different characters';
  if (WRITTEN.test(secret)) return 'looks written by hand, or copied from a page';
  return undefined;
}

const TEST_NUMBERS_CHECK = 'test_numbers';

/** The numbers that can log in without an SMS, and until when. */
export function checkTestNumbers({ testNumbers }: Config, now = Date.now()): Finding[] {
  if (testNumbers.length === 0) return [ok(TEST_NUMBERS_CHECK, 'There are no test numbers')];
  return testNumbers.map(({ phoneNumber, expiresAt }, i) => {
    const shown = isTestNumber(phoneNumber) ? maskPhoneNumber(phoneNumber) : 'a number';
    const name = `Test number ${i + 1} of ${testNumbers.length}, ${shown},`;
    if (expiresAt === undefined) return ok(TEST_NUMBERS_CHECK, `${name} never expires`);
    const day = expiresAt.toISOString().slice(0, 10);
    if (expiresAt.getTime() > now) return ok(TEST_NUMBERS_CHECK, `${name} works until ${day}`);
    return warning(
      TEST_NUMBERS_CHECK,
      `${name} expired on ${day}: take it out of TEST_NUMBERS, or give it a later day.`,
    );
  });
}
