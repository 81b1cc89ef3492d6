// The list of what the image holds (SBOM, CycloneDX), made by `npm sbom` and checked against the lock file. By itself, this
// script prints the SBOM of the checkout; `--check FILE` checks another one.
// `npm sbom --omit dev` of npm 11 leaves out each runtime package that a development package needs, too: 84 of 179 were
// missing, @nestjs/core among them. So it gets a manifest and a lock file that hold the runtime packages and nothing else.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { giveUp, ROOT } from '../../scripts/project.mjs';

const read = (name) => JSON.parse(readFileSync(join(ROOT, name), 'utf8'));

/** The packages of the lock file that the image holds: `name@version`, each once. */
export function runtimePackages(lock) {
  const kept = Object.entries(lock.packages).filter(([path, entry]) => path !== '' && isRuntime(entry));
  const names = kept.map(([path, { version }]) => `${path.split('node_modules/').at(-1)}@${version}`);
  return [...new Set(names)].sort();
}

/** The SBOM of the checkout, as text. */
export function makeSbom() {
  const { devDependencies: _, ...manifest } = read('package.json');
  const lock = read('package-lock.json');
  delete lock.packages[''].devDependencies;
  for (const [path, entry] of Object.entries(lock.packages))
    if (path !== '' && !isRuntime(entry)) delete lock.packages[path];
  const folder = mkdtempSync(join(tmpdir(), 'otp-login-sbom-'));
  try {
    writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
    writeFileSync(join(folder, 'package-lock.json'), JSON.stringify(lock));
    const args = ['sbom', '--sbom-format', 'cyclonedx', '--package-lock-only', '--loglevel=error'];
    const { status, stdout, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) giveUp(`npm sbom failed:\n${stderr}`);
    return stdout;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The faults of an SBOM, each a line: it names each runtime package with its hash and licence, and no other package. */
export function sbomFaults(sbom, lock) {
  if (sbom.bomFormat !== 'CycloneDX') return ['it is not of CycloneDX'];
  const components = new Map(
    sbom.components.map((component) => [
      decodeURIComponent(component.purl).replace('pkg:npm/', ''),
      component,
    ]),
  );
  const wanted = runtimePackages(lock);
  const faults = wanted.filter((name) => !components.has(name)).map((name) => `${name} is missing`);
  for (const [name, { hashes = [], licenses = [] }] of components) {
    if (!wanted.includes(name)) faults.push(`${name} is not in the image`);
    if (hashes.length === 0) faults.push(`${name} has no hash`);
    if (licenses.length === 0) faults.push(`${name} has no licence`);
  }
  return faults;
}

function isRuntime({ dev, devOptional, optional }) {
  return !dev && !devOptional && !optional;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { check: { type: 'string' } } });
  const text = values.check === undefined ? makeSbom() : readFileSync(values.check, 'utf8');
  const faults = sbomFaults(JSON.parse(text), read('package-lock.json'));
  if (faults.length > 0) giveUp(faults.join('\n'));
  console.log(values.check === undefined ? text : 'The SBOM names each package of the image.');
}
