// Shared by the scripts: the checkout, its packages and its build. Plain Node, because nothing is installed yet.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Ends the script with one line that says what to do. */
export function giveUp(message) {
  console.error(message);
  process.exit(1);
}

/** NestJS 12 is made of ES modules that CommonJS code requires; Node.js 20.19 and 22.12 are the first that allow it. */
export function checkNode() {
  if (process.features.require_module) return;
  giveUp(`Node.js ${process.versions.node} is too old: 24 is recommended, 20.19 and 22.12 work.`);
}

/** `npm ci`, unless node_modules holds exactly what package-lock.json asks for. */
export function installPackages(folder = '') {
  if (packagesAreInstalled(folder)) return;
  console.log(`Installing packages (npm ci${folder && ` in ${folder}`}) ...`);
  // One string for the shell, because npm is a .cmd file on Windows. Warnings of npm are shown only when it fails.
  const { status, stdout, stderr, error } = spawnSync('npm ci --include=dev --no-audit --no-fund', {
    cwd: join(ROOT, folder),
    shell: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) giveUp(`${error?.message ?? `${stdout}${stderr}`}\nnpm ci failed: see above.`);
}

// By content and not by age: git gives every file that it writes the time of the checkout.
export function packagesAreInstalled(folder = '') {
  const read = (...path) => JSON.parse(readFileSync(join(ROOT, folder, ...path), 'utf8')).packages;
  let wanted;
  let installed;
  try {
    [wanted, installed] = [read('package-lock.json'), read('node_modules', '.package-lock.json')];
  } catch {
    return false;
  }
  delete wanted[''];
  // npm leaves out optional packages that are for other systems.
  const asWanted = ([path, { version, integrity, optional }]) =>
    path in installed
      ? installed[path].version === version && installed[path].integrity === integrity
      : optional === true;
  return Object.entries(wanted).every(asWanted) && Object.keys(installed).every((path) => path in wanted);
}

/** Packages and a build that are up to date, under a Node.js that can run them. */
export function prepare() {
  checkNode();
  installPackages();
  build();
}

/** `npm run build`, unless dist is newer than everything that it is made from. */
export function build() {
  const built = newest(join(ROOT, 'dist', 'main.js'));
  const sources = [
    'src',
    'client/src',
    'client/tsconfig.json',
    'package-lock.json',
    'nest-cli.json',
    'tsconfig.json',
    'tsconfig.build.json',
  ];
  if (sources.every((source) => newest(join(ROOT, source)) < built)) return;
  console.log('Building ...');
  const nest = join(ROOT, 'node_modules', '@nestjs', 'cli', 'bin', 'nest.js');
  const run = (...command) =>
    spawnSync(process.execPath, command, { cwd: ROOT, stdio: 'inherit' }).status === 0;
  if (run(nest, 'build') && run(join(ROOT, 'scripts', 'build-frontend.mjs'))) return;
  // The compiler writes files in spite of errors; the next run would take them for a finished build.
  rmSync(join(ROOT, 'dist'), { recursive: true, force: true });
  giveUp('The build failed: see above.');
}

/** The packages and the bundles of the serverless edition: `serverless/dist/worker.js` and `serverless/dist/lambda.js`. */
export function buildServerless() {
  installPackages('serverless');
  const script = join(ROOT, 'serverless', 'build.mjs');
  const { status } = spawnSync(process.execPath, [script], { stdio: 'inherit' });
  if (status !== 0) giveUp('The build of the serverless edition failed: see above.');
}

/** When the file, or the folder or anything in it, last changed; 0 when there is none. A deletion changes its folder. */
function newest(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return 0;
  const inside = stat.isDirectory() ? readdirSync(path).map((name) => newest(join(path, name))) : [];
  return Math.max(stat.mtimeMs, ...inside);
}

/** Undefined when the port can be listened on, else the code of the error, such as EADDRINUSE. */
export async function portTrouble(port) {
  // Each by itself: some systems allow the wildcard address while another program has the loopback one.
  for (const host of ['127.0.0.1', '0.0.0.0', '::1', '::']) {
    const code = await new Promise((resolve) => {
      const server = createServer().once('error', (error) => resolve(error.code));
      server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(undefined)));
    });
    if (code === 'EADDRINUSE' || code === 'EACCES') return code;
  }
  return undefined;
}

/** A free port of the loopback address. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves to true when the service takes traffic, and to false when `gone` says that it no longer can. */
export async function ready(url, gone, timeoutMs = 60_000) {
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline && !gone();) {
    const answer = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(1_000) }).catch(
      () => undefined,
    );
    if (answer?.ok) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}
