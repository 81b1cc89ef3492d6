// Shared by `npm run keys` and the Kubernetes Job: a new key, and a name with the time from which it signs.
import { generateKeyPairSync, randomBytes } from 'node:crypto';

const LEAD_MS = 15 * 60_000;

/** Whether a name is that of a key, and not of a draft. */
export const isKeyName = (name) => name.endsWith('.pem') && !name.startsWith('.');

/** A key beside those of the given names; `from` is when it signs: now when it is the first, else in 15 minutes. */
export function newSigningKey(names) {
  const isFirst = !names.some(isKeyName);
  // A name says whole minutes: rounded up, or the lead would be short of its time.
  const from = new Date(isFirst ? Date.now() : Math.ceil((Date.now() + LEAD_MS) / 60_000) * 60_000);
  const minute = from.toISOString().slice(0, 16);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    name: `${minute.replace(/[-:]/g, '')}Z-${randomBytes(4).toString('hex')}.pem`,
    pem: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    from: `${minute}Z`,
  };
}
