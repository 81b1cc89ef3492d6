import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../..');
const read = (name: string): string => readFileSync(join(ROOT, name), 'utf8');

interface Entry {
  version: string;
  license?: string;
  hasInstallScript?: boolean;
  dev?: boolean;
  devOptional?: boolean;
  optional?: boolean;
}
const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, Entry> };
/** What the image installs. */
const runtime = Object.entries(packages).filter(
  ([path, { dev, devOptional, optional }]) => path !== '' && !dev && !devOptional && !optional,
);

/** Licences that ask for no more than their notice: the service may be sold, changed and kept closed. */
const LICENCES = [
  'MIT',
  'ISC',
  '0BSD',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'Apache-2.0',
  'BlueOak-1.0.0',
  // Of argparse; as permissive as the others.
  'Python-2.0',
];

test('each package of the production tree has a licence that allows every use', () => {
  expect(runtime.length).toBeGreaterThan(100);
  const others = runtime.filter(([, { license }]) => !LICENCES.includes(license ?? 'none'));
  expect(others.map(([path, { license }]) => `${path}: ${license}`)).toEqual([]);
});

test('the licence in the lock file is the one of each installed package', () => {
  for (const [path, { license }] of runtime) {
    const manifest = JSON.parse(read(`${path}/package.json`)) as { license?: unknown };
    expect([path, manifest.license]).toEqual([path, license]);
  }
});

test('npm runs no install script of a package, neither here nor in the image', () => {
  expect(read('.npmrc')).toMatch(/^ignore-scripts=true$/m);
  const installs = read('Dockerfile').match(/^RUN npm (ci|install).*$/gm) ?? [];
  expect(installs.length).toBeGreaterThan(0);
  for (const line of installs) expect(line).toContain('npm ci --');
  for (const line of installs) expect(line).toContain('--ignore-scripts');
  // @scarf/scarf reports each installation to its maker. It comes with Swagger UI, and does nothing without its script.
  const scripts = runtime.filter(([, { hasInstallScript }]) => hasInstallScript);
  expect(scripts.map(([path]) => path)).toEqual(['node_modules/@scarf/scarf']);
});

test('each stage of the image stands on the base of the build argument', () => {
  const dockerfile = read('Dockerfile');
  expect(dockerfile).toMatch(/^ARG BASE_IMAGE=node:[\w.-]+(@sha256:[0-9a-f]{64})?$/m);
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1]);
  expect(bases.length).toBeGreaterThan(2);
  expect(new Set(bases)).toEqual(new Set(['${BASE_IMAGE}']));
});
