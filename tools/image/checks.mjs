// Checks of an image's files: the files that it must have and those that it must not have.
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// A key, and not a text that speaks of one.
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[\w+/=]{40}/;

/** The faults of the image, each a line. `decoy` is a text that stands in files which must not get in. */
export function faultsOf({ image, base, lock, decoy, app }) {
  const files = filesIn(join(image.root, app));
  const faults = [
    ...packageFaults(join(image.root, app), lock),
    ...emulatorFaults(join(image.root, app)),
    ...files.flatMap((file) => secretFaults(file, decoy)),
    ...files.filter(writable).map(({ path }) => `${path} can be written by the service`),
    ...changesOf(base.root, image.root, app),
    ...configFaults(image.config, base.config),
  ];
  return faults.map((fault) => fault.replaceAll(image.root, ''));
}

/** Bytes of all files in the folder. */
export function sizeOf(folder) {
  return filesIn(folder).reduce((sum, { stat }) => sum + (stat.isFile() ? stat.size : 0), 0);
}

function packageFaults(app, lock) {
  const faults = [];
  for (const [path, { dev, devOptional, version }] of Object.entries(lock.packages)) {
    if (path === '') continue;
    const manifest = join(app, path, 'package.json');
    const found = existsSync(manifest) ? JSON.parse(readFileSync(manifest, 'utf8')).version : undefined;
    const wanted = dev || devOptional ? undefined : version;
    if (found === wanted) continue;
    faults.push(wanted ? `${path} ${wanted} is missing: ${found}` : `${path} is for development alone`);
  }
  return faults;
}

function emulatorFaults(app) {
  const faults = existsSync(join(app, 'dist', 'main.js')) ? [] : ['dist/main.js is missing'];
  for (const { path, stat } of filesIn(join(app, 'dist'))) {
    if (/emulator/i.test(path.slice(app.length))) faults.push(`${path} is of the emulator`);
    else if (stat.isFile() && /require\(".*emulator/.test(readFileSync(path, 'utf8')))
      faults.push(`${path} asks for the emulator`);
  }
  return faults;
}

function secretFaults({ path, stat }, decoy) {
  if (/(^|\/)(\.env[^/]*|\.npmrc|[^/]*\.pem)$/.test(path)) return [`${path} looks like a secret`];
  if (!stat.isFile()) return [];
  const text = readFileSync(path, 'latin1');
  if (PRIVATE_KEY.test(text)) return [`${path} holds a private key`];
  return text.includes(decoy) ? [`${path} was planted, and kept out by nothing`] : [];
}

function writable({ stat }) {
  return stat.uid !== 0 || stat.gid !== 0 || (!stat.isSymbolicLink() && (stat.mode & 0o022) !== 0);
}

/** Outside the app the image is its base: no npm settings, no cache, nothing that a build left behind. */
function changesOf(base, image, app) {
  const list = (root) =>
    new Map(
      filesIn(root, join(root, app)).map(({ path, stat }) => [
        path.slice(root.length),
        stat.isDirectory() ? stat.mode : `${stat.mode} ${stat.size} ${Math.floor(stat.mtimeMs / 1_000)}`,
      ]),
    );
  const [before, after] = [list(base), list(image)];
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((path) => before.get(path) !== after.get(path))
    .map((path) => `${path} is not as in the base`);
}

function configFaults(config, base) {
  const faults = [];
  if (!/^[1-9]\d*:[1-9]\d*$/.test(config.User)) faults.push(`its user is ${config.User || 'root'}`);
  const added = (config.Env ?? []).filter((variable) => !base.Env?.includes(variable));
  if (added.join() !== 'NODE_ENV=production') faults.push(`it sets ${added.map((v) => v.split('=')[0])}`);
  return faults;
}

/** Everything below the folder, folders too, without what `but` names. */
function filesIn(folder, but) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (path === but) return [];
    const stat = lstatSync(path);
    return [{ path, stat }, ...(stat.isDirectory() ? filesIn(path, but) : [])];
  });
}
