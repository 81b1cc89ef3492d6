// `npm run image`: builds the Dockerfile as it stands with Debian's buildah, looks at what is in the image, and runs it as the
// manifests for Kubernetes do: its own user, no rights, a root that cannot be written, secrets as files. Redis is real and
// StartMessaging is the emulator of the checkout. Prints the image's size and how long it takes to be ready.
// It needs Linux, root, mounts, and a registry of images or else Debian's packages and the npm registry. Where one of them is
// missing it says so and ends with 0, with `--required` with 1.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { Buildah } from './buildah.mjs';
import { launch, prints, startRedis } from '../../scripts/children.mjs';
import { Container, containerTrouble } from './container.mjs';
import { bringBase } from './base.mjs';
import { faultsOf, sizeOf } from './checks.mjs';
import { makeSbom, sbomFaults } from './sbom.mjs';
import { obtainProgram } from '../../scripts/programs.mjs';
import { freePort, giveUp, prepare, ready, ROOT } from '../../scripts/project.mjs';

const TAG = 'localhost/otp-login';
const APP = '/app';
const STARTS = 5;
const SECRETS = '/etc/otp-login/secrets';
const KEYS = '/etc/otp-login/signing-keys';
const PHONE = '+919876543210';
/** In files that the build must not see. */
const DECOY = `decoy-${randomBytes(12).toString('hex')}`;

const trouble = containerTrouble();
if (trouble) skip(trouble);
const buildahProgram = obtainProgram(['buildah'], 'buildah');
if (!buildahProgram) skip('there is no buildah (on Debian: apt-get install buildah)');
// The emulator is no part of the image: it comes from the checkout.
prepare();

const folder = mkdtempSync(join(tmpdir(), 'otp-login-image-'));
const running = new Set();
process.on('exit', () => {
  for (const container of running) container.kill('SIGKILL');
  // One file system: should a mount of a command that was killed be left in there, what it shows stays.
  spawnSync('rm', ['-rf', '--one-file-system', folder]);
});

const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
const [, baseName, digest] = /^ARG BASE_IMAGE=([^@\s]+)(?:@(\S+))?$/m.exec(dockerfile);
const buildah = new Buildah(buildahProgram, folder);
const { standIn, missing } = bringBase(buildah, baseName, folder, digest);
if (missing) skip(`there is no base to build on: ${missing}`);

await buildImage();
const image = { root: buildah.open(TAG), config: buildah.configOf(TAG) };
const base = { root: buildah.open(`docker.io/library/${baseName}`), config: buildah.configOf(baseName) };
const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'));
const faults = faultsOf({ image, base, lock, decoy: DECOY, app: APP });
if (faults.length > 0) giveUp(`The image is not as it must be:\n${faults.slice(0, 50).join('\n')}`);
console.log(
  'In it: the service and what it needs. Not in it: the emulator, development packages, keys, what was planted.',
);
const sbom = makeSbom();
const sbomTrouble = sbomFaults(JSON.parse(sbom), lock);
if (sbomTrouble.length > 0) giveUp(`The SBOM is not as it must be:\n${sbomTrouble.join('\n')}`);
writeFileSync(join(ROOT, 'dist', 'sbom.cdx.json'), sbom);
console.log('Its SBOM is dist/sbom.cdx.json (CycloneDX): it names each package in the image.');
const [appBytes, wholeBytes] = [sizeOf(join(image.root, APP)), sizeOf(image.root)];

const redisUrl = await startRedisWithPassword();
const emulatorUrl = await startEmulator();
await makeSigningKey();
const service = writeSettings();
const starts = [];
for (let start = 1; start <= STARTS; start++) {
  console.log(`Start ${start} of ${STARTS} ...`);
  const { container, url, readyMs } = await startService();
  starts.push(readyMs);
  if (start === 1) {
    await login(url);
    lookAtProcess(container);
    console.log(
      'It runs as its user, can write nothing, and logs in; its health check and its doctor find nothing wrong.',
    );
  }
  await endService(container);
}
console.log('SIGTERM ends it with 0.');
await lookAtPages();

const mb = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
const [fastest, median, slowest] = [0, STARTS >> 1, STARTS - 1].map((index) =>
  starts.toSorted((a, b) => a - b)[index].toFixed(0),
);
console.log(`
base    ${standIn ? `a stand-in for ${baseName}` : baseName}, ${mb(wholeBytes - appBytes)}
size    ${mb(appBytes)} on top of the base, ${mb(wholeBytes)} in all, not compressed
start   ready after ${median} ms (${fastest} to ${slowest}, ${STARTS} starts, ${cpus().length} x ${cpus()[0]?.model.trim()})`);
process.exit(0);

function skip(reason) {
  console.log(`Skipped, because ${reason}.`);
  process.exit(process.argv.includes('--required') ? 1 : 0);
}

async function buildImage() {
  const context = join(folder, 'context');
  mkdirSync(context);
  // The files that .dockerignore lets in, and beside them decoys that it must keep out.
  const ignore = readFileSync(join(ROOT, '.dockerignore'), 'utf8');
  const wanted = [...ignore.matchAll(/^!(.+)$/gm)].map(([, path]) => path);
  for (const path of [...wanted, 'Dockerfile', '.dockerignore'])
    cpSync(join(ROOT, path), join(context, path), { recursive: true });
  const decoys = [
    '.env',
    '.npmrc',
    'keys/20250101T0000Z-decoy.pem',
    'dist/decoy.js',
    'node_modules/decoy/index.js',
  ];
  for (const path of [...decoys, 'dist/emulator/decoy.js', 'scripts/decoy.mjs', 'test/decoy.test.ts']) {
    mkdirSync(dirname(join(context, path)), { recursive: true });
    writeFileSync(join(context, path), `// ${DECOY}\n`);
  }
  console.log('Building the image (some minutes) ...');
  await buildah.build(
    // Docker's format knows HEALTHCHECK.
    ...['--isolation', 'chroot', '--format', 'docker', '--pull-never', '--tag', TAG],
    // By its tag in the store of this script, where the base is the one of the digest or a stand-in.
    ...['--build-arg', `BASE_IMAGE=${baseName}`],
    ...npmSettings().flatMap((mount) => ['--volume', mount]),
    context,
  );
}

/** How this machine reaches the npm registry, for the time of the build only: mounted, and no part of any layer. */
function npmSettings() {
  const get = (name) => {
    const { stdout } = spawnSync('npm', ['config', 'get', name, '--loglevel=error'], {
      cwd: folder,
      encoding: 'utf8',
    });
    return ['null', 'undefined', ''].includes(stdout.trim()) ? undefined : stdout.trim();
  };
  const values = ['registry', 'https-proxy', 'proxy', 'noproxy', 'strict-ssl'].map((name) => [
    name,
    get(name),
  ]);
  const authorities = [get('cafile'), process.env.NODE_EXTRA_CA_CERTS].filter(Boolean);
  const bundle = [...rootCertificates, ...authorities.map((file) => readFileSync(file, 'utf8'))].join('\n');
  const lines = [...values.filter(([, value]) => value), ['cafile', '/root/.npm-authorities.pem']];
  const [npmrc, authoritiesFile] = [join(folder, 'npmrc'), join(folder, 'authorities.pem')];
  writeFileSync(npmrc, lines.map((line) => `${line.join('=')}\n`).join(''));
  writeFileSync(authoritiesFile, bundle);
  return [`${npmrc}:/root/.npmrc:ro`, `${authoritiesFile}:/root/.npm-authorities.pem:ro`];
}

async function startRedisWithPassword() {
  const password = randomBytes(16).toString('hex');
  const kept = ['--dir', folder, '--appendonly', 'yes', '--maxmemory-policy', 'noeviction'];
  const { port } = await startRedis('--requirepass', password, ...kept);
  return `redis://:${password}@127.0.0.1:${port}/0`;
}

async function startEmulator() {
  const env = { ...process.env, NODE_ENV: 'development', EMULATOR_PORT: '0', EMULATOR_HOST: '' };
  const emulator = launch(process.execPath, [join(ROOT, 'dist', 'emulator', 'main.js')], { env });
  return (await prints(emulator, /(http:\S+)\/$/m))[1];
}

/** By the script in the image, as the Job for Kubernetes makes it: no key lies in the checkout. */
async function makeSigningKey() {
  const keys = join(folder, 'signing-keys');
  const [user, group] = image.config.User.split(':').map(Number);
  mkdirSync(keys, { mode: 0o700 });
  chownSync(keys, user, group);
  const command = ['node', 'scripts/keys.mjs', KEYS];
  const container = new Container(image, { mounts: [`rw:${keys}:${KEYS}`], command });
  running.add(container);
  const ending = await container.end();
  running.delete(container);
  if (ending !== 0) giveUp(`No signing key was made:\n${container.printed}`);
}

/** The settings of the manifests, and what they mount. */
function writeSettings() {
  const read = (path) => readFileSync(join(ROOT, 'deploy', 'kubernetes', path, 'settings.env'), 'utf8');
  const lines = ['base', 'overlays/small'].flatMap((path) => [...read(path).matchAll(/^([A-Z_]+)=(.*)$/gm)]);
  const variables = Object.fromEntries(lines.map(([, name, value]) => [name, value]));
  // The network is the machine's, and other machines must not reach it. The end need not wait for a load balancer.
  Object.assign(variables, {
    HOST: '127.0.0.1',
    SHUTDOWN_DELAY_SECONDS: '1',
    STARTMESSAGING_BASE_URL: emulatorUrl,
  });
  const secrets = {
    SECRET: randomBytes(32).toString('hex'),
    SUBJECT_SECRET: randomBytes(32).toString('hex'),
    STARTMESSAGING_API_KEY: `sm_live_${randomBytes(20).toString('hex')}`,
    REDIS_URL: redisUrl,
  };
  mkdirSync(join(folder, 'secrets'));
  for (const [name, value] of Object.entries(secrets)) {
    const file = join(folder, 'secrets', name);
    writeFileSync(file, value);
    // Root's, and readable to the group of the service.
    chownSync(file, 0, Number(image.config.User.split(':')[1]));
    chmodSync(file, 0o440);
    variables[`${name}_FILE`] = `${SECRETS}/${name}`;
  }
  variables.JWT_KEYS_DIR = KEYS;
  return { variables, mounts: [`ro:${folder}/secrets:${SECRETS}`, `ro:${folder}/signing-keys:${KEYS}`] };
}

async function startService(more = {}) {
  const [port, management] = [await freePort(), await freePort()];
  // As in Kubernetes: the health check of the image must find the probes on their own port.
  const ports = { PORT: String(port), MANAGEMENT_PORT: String(management) };
  const variables = { ...service.variables, ...more, ...ports };
  const begin = performance.now();
  const container = new Container(image, { variables, mounts: service.mounts });
  running.add(container);
  const url = `http://127.0.0.1:${port}`;
  if (!(await ready(`http://127.0.0.1:${management}`, () => container.ended)))
    giveUp(`It did not become ready:\n${container.printed}`);
  return { container, url, readyMs: performance.now() - begin };
}

async function endService(container) {
  container.kill('SIGTERM');
  const ending = await container.end();
  running.delete(container);
  if (ending !== 0) giveUp(`SIGTERM ended it with ${ending} and not with 0:\n${container.printed}`);
}

/** Off in production, and allowed there: it must not need what only the checkout has. */
async function lookAtPages() {
  const { container, url } = await startService({ SWAGGER: 'true', LOGIN_PAGE: 'true' });
  const get = async (path) => {
    const answer = await fetch(`${url}${path}`);
    if (answer.status !== 200) giveUp(`${path} answered ${answer.status}:\n${container.printed}`);
    return answer.text();
  };
  for (const path of ['/docs', '/docs-json', '/account']) await get(path);
  const files = [...(await get('/login')).matchAll(/"(pages\/[^"]+)"/g)];
  if (files.length === 0) giveUp('The login page has no files.');
  for (const [, file] of files) await get(`/${file}`);
  await endService(container);
}

async function login(url) {
  const call = async (path, body, token) => {
    const answer = await fetch(`${url}${path}`, {
      method: body ? 'POST' : 'GET',
      headers: {
        ...(body && { 'Content-Type': 'application/json' }),
        ...(token && { Authorization: `Bearer ${token}` }),
      },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) giveUp(`${path} answered ${answer.status}: ${text}`);
    return JSON.parse(text);
  };
  const { requestId } = await call('/auth/send-otp', { phoneNumber: PHONE });
  const { messages } = await (await fetch(`${emulatorUrl}/_emulator/messages`)).json();
  const { accessToken, user } = await call('/auth/verify-otp', { requestId, otpCode: messages.at(-1)?.code });
  const me = await call('/auth/me', undefined, accessToken);
  if (!user.id || me.id !== user.id) giveUp('/auth/me does not return the user of the login.');
}

function lookAtProcess(container) {
  const [user, group] = image.config.User.split(':');
  const expected = {
    Uid: Array(4).fill(user).join('\t'),
    Gid: Array(4).fill(group).join('\t'),
    Groups: undefined,
    CapEff: '0'.repeat(16),
    CapBnd: '0'.repeat(16),
    NoNewPrivs: '1',
  };
  for (const [field, value] of Object.entries(expected)) {
    const found = container.status(field)?.trim() || undefined;
    if (found !== value) giveUp(`The process has ${field} ${found}, and not ${value}.`);
  }
  for (const path of [APP, `${APP}/dist`, '/tmp', '/dev', KEYS, SECRETS]) {
    const { status, stderr } = container.exec('touch', `${path}/written`);
    if (status === 0 || !stderr.includes('Read-only file system'))
      giveUp(`It can write to ${path}. ${stderr}`);
  }
  const checks = {
    'health check': image.config.Healthcheck.Test.slice(1),
    doctor: ['node', 'dist/doctor/main.js'],
  };
  for (const [name, command] of Object.entries(checks)) {
    const { status, stdout, stderr } = container.exec(...command);
    if (status !== 0) giveUp(`Its ${name} ended with ${status}:\n${stdout}${stderr}`);
  }
}
