// Shared by `npm run keys` and the Kubernetes Job: new keys, and names with the time from which they sign.
import { generateKeyPairSync, randomBytes } from 'node:crypto';

const LEAD_MS = 15 * 60_000;
/** By the word in their names: a P-256 key signs access tokens, an RSA key signs ID tokens. */
const KINDS = { '': ['ec', { namedCurve: 'P-256' }], 'rsa-': ['rsa', { modulusLength: 2_048 }] };

/** Whether a name is that of a key, and not of a draft. */
export const isKeyName = (name) => name.endsWith('.pem') && !name.startsWith('.');

/**
 * A key of each kind beside those of the given names; `from` is when they sign: now when they are the first, else in 15
 * minutes.
 */
export function newSigningKeys(names) {
  const isFirst = !names.some(isKeyName);
  // A name says whole minutes: rounded up, or the lead would be short of its time.
  const from = new Date(isFirst ? Date.now() : Math.ceil((Date.now() + LEAD_MS) / 60_000) * 60_000);
  const minute = from.toISOString().slice(0, 16);
  return Object.entries(KINDS).map(([word, kind]) => ({
    name: `${minute.replace(/[-:]/g, '')}Z-${word}${randomBytes(4).toString('hex')}.pem`,
    pem: generateKeyPairSync(...kind).privateKey.export({ type: 'pkcs8', format: 'pem' }),
    from: `${minute}Z`,
  }));
}
