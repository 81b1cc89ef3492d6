// Checks what `npm ci` on this machine cannot see: that it works on every other one too, and always the same.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { giveUp, ROOT } from './project.mjs';

const EXACT = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/;
const REGISTRY = 'https://registry.npmjs.org/';

const faults = [];
let manifest;
let packages;
let file;

for (const folder of ['', 'serverless/']) {
  manifest = read(`${folder}package.json`);
  ({ packages } = read(`${folder}package-lock.json`));
  file = `${folder}package-lock.json`;
  checkFolder(folder);
}

for (const fault of faults) console.error(fault);
if (faults.length > 0) giveUp(`The lock file check found ${faults.length} fault(s).`);
console.log('The lock files are complete.');

function read(name) {
  return JSON.parse(readFileSync(join(ROOT, name), 'utf8'));
}

function checkFolder(folder) {
  for (const group of ['dependencies', 'devDependencies', 'optionalDependencies', 'overrides']) {
    // An override may stand inside another: of the packages that one package needs.
    for (const [name, version] of Object.entries(manifest[group] ?? {}).flatMap(flatten)) {
      if (!EXACT.test(version))
        faults.push(`${folder}package.json: ${group}: ${name} has no exact version: ${version}`);
    }
  }

  for (const [path, entry] of Object.entries(packages)) {
    if (path !== '' && !entry.link) checkOrigin(path, entry);
    // A lock file made where a build of another system could not be had lacks that build, and `npm ci` fails there.
    for (const group of ['dependencies', 'optionalDependencies']) {
      for (const [name, version] of Object.entries(entry[group] ?? {})) {
        const locked = resolve(path, name);
        if (!locked) faults.push(`${file}: ${path} needs ${name}, which is missing`);
        else if (EXACT.test(version) && locked.version !== version && !(name in (manifest.overrides ?? {}))) {
          faults.push(`${file}: ${path} needs ${name} ${version}, and ${locked.version} is locked`);
        }
      }
    }
  }
}

function flatten([name, version]) {
  return typeof version === 'object' ? Object.entries(version).flatMap(flatten) : [[name, version]];
}

function checkOrigin(path, { version, integrity, resolved }) {
  if (!EXACT.test(version ?? '')) faults.push(`${file}: ${path} has no version`);
  if (!integrity) faults.push(`${file}: ${path} has no integrity hash`);
  if (resolved && !resolved.startsWith(REGISTRY)) faults.push(`${file}: ${path} is not from ${REGISTRY}`);
}

/** As Node.js looks: in the package's own node_modules, then outwards. */
function resolve(path, name) {
  for (let folder = path; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('node_modules') - 1))) {
    const entry = packages[`${folder}${folder && '/'}node_modules/${name}`];
    if (entry || folder === '') return entry;
  }
}
