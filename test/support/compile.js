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
const { compilePageModule } = require('../../scripts/page-modules.mjs');

const ROOT = join(__dirname, '../..');
const SOURCES = join(ROOT, 'src');
const CLIENT = join(ROOT, 'client', 'src');
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

/** Modules of the pages, which are compiled as for production: their size is tested. */
const PAGE = /^pages[\\/]static[\\/]/;
/** For the client, which runs in browsers: modules as they are written. */
const SWC_MODULES = { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' } };

/**
 * Compiles `src/` and, into `client/` beside it, the client, in about a second, and has every Jest worker load the result. The
 * folder is named by what the sources hold: an older checkout and a removed file find no stale copy, and runs of two checkouts
 * do not meet.
 */
function compileService() {
  const files = [
    ...filesOf(SOURCES, '', SWC).map((file) =>
      PAGE.test(file.target) ? { ...file, options: undefined } : file,
    ),
    ...filesOf(CLIENT, 'client', SWC_MODULES),
    // The pages are served with the client beside their own modules.
    ...filesOf(CLIENT, 'pages/static/client', undefined),
  ];
  const hash = createHash('sha256').update(JSON.stringify([SWC, SWC_MODULES, String(compilePageModule)]));
  for (const { source, target } of files) hash.update(`\0${target}\0`).update(readFileSync(source));
  const folder = join(CACHE, hash.digest('hex').slice(0, 16));
  process.env.COMPILED_SERVICE = folder;
  if (existsSync(folder)) return;
  removeOld();
  const part = `${folder}.${process.pid}`;
  for (const { source, target, options } of files) {
    const file = join(part, target.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(file), { recursive: true });
    const text = !source.endsWith('.ts')
      ? readFileSync(source)
      : options
        ? transformFileSync(source, { ...options, swcrc: false, sourceMaps: 'inline' }).code
        : compilePageModule(readFileSync(source, 'utf8'));
    writeFileSync(file, text);
  }
  writeFileSync(join(part, 'client', 'package.json'), '{ "type": "module" }');
  // A rename, because another run of the tests may be compiling the same.
  if (existsSync(folder)) rmSync(part, { recursive: true });
  else renameSync(part, folder);
}

/** The files of a folder in a fixed order, with where each goes. */
function filesOf(from, to, options) {
  return readdirSync(from, { recursive: true })
    .filter((file) => statSync(join(from, file)).isFile())
    .sort()
    .map((file) => ({ source: join(from, file), target: join(to, file), options }));
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
