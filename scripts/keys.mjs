// `npm run keys [folder]`: makes the signing keys for JWT_KEYS_DIR (./keys unless given): one for access tokens (P-256) and
// one for ID tokens (RSA). Their names begin with the time from which they sign: now when they are the first, else in 15 minutes, so that every replica and every resource server
// has read their public halves by then.
import { chmodSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { newSigningKeys } from './signing-key.mjs';

const folder = resolve(process.argv[2] ?? process.env.JWT_KEYS_DIR ?? 'keys');
try {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  for (const { name, pem, from } of newSigningKeys(readdirSync(folder))) {
    // Written under a name that the service ignores, then renamed: the service must not read half a key.
    const draft = join(folder, `.${name}`);
    writeFileSync(draft, pem, { mode: 0o600, flag: 'wx' });
    chmodSync(draft, 0o600);
    renameSync(draft, join(folder, name));
    console.log(`${join(folder, name)}\nIt signs from ${from} on.`);
  }
} catch (error) {
  console.error(`No key was made: ${error.message}`);
  process.exit(1);
}
