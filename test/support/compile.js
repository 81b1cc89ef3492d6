// How TypeScript becomes JavaScript in tests: for Jest, and for the copy of the service that Node.js loads by itself.
const { createHash } = require('node:crypto');
const {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { dirname, join } = require('node:path');
const { transformFileSync } = require('@swc/core');

const ROOT = join(__dirname, '../..');
const SOURCES = join(ROOT, 'src');
// Below the checkout, so that the service finds its packages.
const CACHE = join(ROOT, 'node_modules', '.cache', 'otp-login');
const KEPT_MS = 86_400_000;

/** For @swc/jest and @swc/core. */
const SWC = {
  jsc: {
    target: 'es2023',
    parser: { syntax: 'typescript', decorators: true },
    transform: { legacyDecorator: true, decoratorMetadata: true },
  },
  module: { type: 'commonjs' },
};

/**
 * Compiles `src/`, in about a second, and has every Jest worker load the result. The folder is named by what the sources hold: an
 * older checkout and a removed file find no stale copy, and runs of two checkouts do not meet.
 */
function compileService() {
  const files = readdirSync(SOURCES, { recursive: true }).filter((file) =>
    statSync(join(SOURCES, file)).isFile(),
  );
  const hash = createHash('sha256').update(JSON.stringify(SWC));
  for (const file of files.sort()) hash.update(`\0${file}\0`).update(readFileSync(join(SOURCES, file)));
  const folder = join(CACHE, hash.digest('hex').slice(0, 16));
  process.env.COMPILED_SERVICE = folder;
  if (existsSync(folder)) return;
  removeOld();
  const part = `${folder}.${process.pid}`;
  for (const file of files) {
    const target = join(part, file.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    const source = join(SOURCES, file);
    const text = file.endsWith('.ts')
      ? transformFileSync(source, { ...SWC, swcrc: false, sourceMaps: 'inline' }).code
      : readFileSync(source);
    writeFileSync(target, text);
  }
  // A rename, because another run of the tests may be compiling the same.
  if (existsSync(folder)) rmSync(part, { recursive: true });
  else renameSync(part, folder);
}

/** Copies that no run has made lately. */
function removeOld() {
  mkdirSync(CACHE, { recursive: true });
  for (const name of readdirSync(CACHE)) {
    const folder = join(CACHE, name);
    if (Date.now() - statSync(folder).mtimeMs > KEPT_MS) rmSync(folder, { recursive: true, force: true });
  }
}

/** The folder of the compiled service. */
const compiledService = () => process.env.COMPILED_SERVICE;

module.exports = { SWC, compileService, compiledService };
