// `npm run keys [folder]`: makes a signing key for JWT_KEYS_DIR (./keys unless given). Its name begins with the time
// from which it signs: now when it is the first, else in 15 minutes, so that every replica and every resource server
// has read its public half by then.
import { chmodSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { newSigningKey } from './signing-key.mjs';

const folder = resolve(process.argv[2] ?? process.env.JWT_KEYS_DIR ?? 'keys');
try {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { name, pem, from } = newSigningKey(readdirSync(folder));
  // Written under a name that the service ignores, then renamed: the service must not read half a key.
  const draft = join(folder, `.${name}`);
  writeFileSync(draft, pem, { mode: 0o600, flag: 'wx' });
  chmodSync(draft, 0o600);
  renameSync(draft, join(folder, name));

  console.log(`${join(folder, name)}\nIt signs from ${from} on.`);
} catch (error) {
  console.error(`No key was made: ${error.message}`);
  process.exit(1);
}
