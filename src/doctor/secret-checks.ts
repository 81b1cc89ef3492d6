import type { Config } from '../config/config';
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
