import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/config';
import { JWKS_CACHE_SECONDS, readSigningKeys, signingKey, type SigningKey } from '../tokens/signing-keys';
import { fault, ok, warning, type Finding } from './finding';

const CHECK = 'signing_keys';
const OLD_DAYS = 90;

/** Which key signs, which will, and which is of no use any more. */
export function checkSigningKeys(
  { jwtKeysDir: folder, accessTokenTtlSeconds }: Config,
  now = Date.now(),
): Finding[] {
  if (folder === undefined) return [ok(CHECK, 'JWT_KEYS_DIR is not set: the key ends with the process')];
  let keys: readonly SigningKey[];
  try {
    keys = readSigningKeys(folder);
  } catch (error) {
    return [fault(CHECK, `${error instanceof Error ? error.message : 'The keys cannot be read'}.`)];
  }
  const current = signingKey(keys, now);
  const goneBefore = now - accessTokenTtlSeconds * 1_000;
  return keys.map((key) => {
    if (key === current) return signing(key, keys, now);
    if (key.activeFrom > now) return toCome(key, folder, now);
    if (current.activeFrom < goneBefore) {
      return ok(CHECK, `${key.kid} signs no more, and no token of it lives: its file can be removed`);
    }
    return ok(CHECK, `${key.kid} signs no more, and verifies the tokens that it signed: leave it for now`);
  });
}

function signing({ kid, activeFrom }: SigningKey, keys: readonly SigningKey[], now: number): Finding {
  if (activeFrom > now) {
    return warning(
      CHECK,
      `${kid} signs, although its time has not come (${at(activeFrom)}): there is no other.`,
    );
  }
  const days = Math.floor((now - activeFrom) / 86_400_000);
  const successor = keys.some((key) => key.activeFrom > now);
  if (days < OLD_DAYS || successor) return ok(CHECK, `${kid} signs, since ${at(activeFrom)}`);
  return warning(CHECK, `${kid} signs for ${days} days: make a successor (npm run keys -- folder).`);
}

/** Judged by the time of its file: a key that signs soon may have been published for long. */
function toCome({ kid, activeFrom }: SigningKey, folder: string, now: number): Finding {
  const message = `${kid} will sign from ${at(activeFrom)} on`;
  const cached = JWKS_CACHE_SECONDS * 1_000;
  const late = activeFrom - now < cached && activeFrom - cameAt(folder, kid, now) < cached;
  if (!late) return ok(CHECK, message);
  return warning(
    CHECK,
    `${message}, but it came less than ${JWKS_CACHE_SECONDS / 60} minutes before: resource servers that keep the ` +
      'older keys for so long refuse its tokens at first. Give it a later time (npm run keys -- folder does).',
  );
}

function cameAt(folder: string, kid: string, now: number): number {
  try {
    return statSync(join(folder, `${kid}.pem`)).mtimeMs;
  } catch {
    // Taken away just now.
    return now;
  }
}

function at(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16)}Z`;
}
