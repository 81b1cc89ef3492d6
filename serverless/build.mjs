// Bundles both targets: dist/worker.js (ES module, for Cloudflare Workers) and dist/lambda.js (CommonJS, for AWS Lambda).
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const HERE = dirname(fileURLToPath(import.meta.url));
const SOURCE = join(HERE, '..', 'src');

/**
 * The edition shares files with the service, which is not installed here. Their packages come from this folder's lock, so a
 * bundle is the same on every machine.
 */
const ownPackages = {
  name: 'own-packages',
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^[^.]/ }, ({ path, kind, importer, pluginData }) => {
      const shared = !relative(SOURCE, importer).startsWith('..');
      if (!shared || path.startsWith('node:') || pluginData === 'own') return undefined;
      return resolve(path, { kind, resolveDir: HERE, pluginData: 'own' });
    });
  },
};

const shared = {
  bundle: true,
  minify: true,
  sourcemap: false,
  target: 'es2023',
  legalComments: 'none',
  logLevel: 'warning',
  absWorkingDir: HERE,
  plugins: [ownPackages],
  tsconfig: join(HERE, 'tsconfig.json'),
};

await build({
  ...shared,
  entryPoints: ['worker/worker.ts'],
  outfile: 'dist/worker.js',
  format: 'esm',
  conditions: ['workerd', 'worker', 'browser'],
  external: ['node:*', 'cloudflare:*'],
});
await build({
  ...shared,
  entryPoints: ['lambda/lambda.ts'],
  outfile: 'dist/lambda.js',
  format: 'cjs',
  platform: 'node',
  conditions: ['node'],
});
