// `npm run keys [folder]`: makes a signing key for JWT_KEYS_DIR (./keys unless given). Its name begins with the time
// from which it signs: now when it is the first, else in 15 minutes, so that every replica and every resource server
// has read its public half by then.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const LEAD_MS = 15 * 60_000;

const folder = resolve(process.argv[2] ?? process.env.JWT_KEYS_DIR ?? 'keys');
try {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const isFirst = !readdirSync(folder).some((name) => name.endsWith('.pem') && !name.startsWith('.'));
  // A name says whole minutes: rounded up, or the lead would be short of its time.
  const from = new Date(isFirst ? Date.now() : Math.ceil((Date.now() + LEAD_MS) / 60_000) * 60_000);
  const time = from.toISOString().slice(0, 16).replace(/[-:]/g, '');
  const name = `${time}Z-${randomBytes(4).toString('hex')}.pem`;

  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  // Written under a name that nobody reads, then renamed: a service that looks in between must not see half a key.
  const draft = join(folder, `.${name}`);
  writeFileSync(draft, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600, flag: 'wx' });
  chmodSync(draft, 0o600);
  renameSync(draft, join(folder, name));

  console.log(`${join(folder, name)}\nIt signs from ${from.toISOString().slice(0, 16)}Z on.`);
} catch (error) {
  console.error(`No key was made: ${error.message}`);
  process.exit(1);
}
