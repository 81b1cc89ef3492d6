import { randomBytes } from 'node:crypto';
import { accessSync, constants, statSync } from 'node:fs';
import { isWeak, listOf, matching, type Rule, SECRET_LENGTH, WEAK } from './rules';
import type { SettingName, Settings } from './settings';

/** Placeholders of secrets in .env.example and in many tutorials. */
const PLACEHOLDER = /^(change|replace|your|insert)[-_ ]?(me|it|this|with|secret)/i;

const secret = matching(/^[^,\p{Cc}]+$/u, 'text without commas and control characters');
const folder: Rule<string> = {
  expected: 'a readable folder',
  read: (path) => (isReadableFolder(path) ? path : undefined),
};

/** The secrets, and the folder of the signing keys. */
export function readKeys(settings: Settings) {
  return {
    ...readSecrets(settings),
    jwtKeysDir: settings.requiredInProduction('JWT_KEYS_DIR', folder),
  };
}

/** The secrets that keys are derived from. Outside production, a missing secret is random and ends with the process. */
export function readSecrets(settings: Settings) {
  const secrets = settings.requiredInProduction('SECRET', listOf(secret));
  const subjectSecret = settings.requiredInProduction('SUBJECT_SECRET', secret);
  check(settings, 'SECRET', secrets ?? []);
  check(settings, 'SUBJECT_SECRET', subjectSecret === undefined ? [] : [subjectSecret]);
  settings.require(
    secrets === undefined || new Set(secrets).size === secrets.length,
    'SECRET',
    'must not hold a secret twice',
  );
  if (subjectSecret !== undefined && secrets?.includes(subjectSecret)) {
    settings.warn('SUBJECT_SECRET', 'is in SECRET too: SECRET is rotated, SUBJECT_SECRET never is');
  }

  if (!settings.production && secrets === undefined) {
    settings.warn('SECRET', 'is unset and random: sessions end when this process does');
  }
  if (!settings.production && subjectSecret === undefined) {
    settings.warn('SUBJECT_SECRET', 'is unset and random: every user gets a new id when this process ends');
  }
  return {
    secrets: secrets ?? [randomSecret()],
    subjectSecret: subjectSecret ?? randomSecret(),
  };
}

function check(settings: Settings, name: SettingName, secrets: readonly string[]): void {
  const short = secrets.some((value) => value.length < SECRET_LENGTH);
  if (settings.production) {
    const placeholder = secrets.some((value) => PLACEHOLDER.test(value));
    settings.require(!placeholder, name, 'must not be a placeholder in production');
    settings.require(!short, name, `must have ${SECRET_LENGTH} characters or more in production`);
    settings.require(!secrets.some(isWeak), name, WEAK);
  } else if (short) {
    settings.warn(name, `has fewer than ${SECRET_LENGTH} characters, which production refuses`);
  }
}

function randomSecret(): string {
  return randomBytes(32).toString('base64url');
}

function isReadableFolder(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.X_OK);
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
