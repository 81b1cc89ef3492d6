// `npm run demo`: the service with the embedded store, and the StartMessaging emulator with its phone inbox.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { build, checkNode, giveUp, installPackages, portTrouble, ready, ROOT } from './project.mjs';

const GRACE_MS = 10_000;
/** Lines of the service and the emulator that a newcomer need not read. */
const NOISE = /"type":"audit"|^StartMessaging emulator:/;

const host = process.env.HOST || '127.0.0.1';
const port = readPort('PORT', 3000);
const emulatorPort = readPort('EMULATOR_PORT', 3001);
/** The address that is opened: one name everywhere, because a page of 127.0.0.1 is another origin than one of localhost. */
const url = `http://${nameOf(host)}:${port}`;

checkNode();
if (port === emulatorPort) giveUp(`PORT and EMULATOR_PORT are both ${port}: each needs its own.`);
await checkPort('PORT', port);
await checkPort('EMULATOR_PORT', emulatorPort);
installPackages();
build();

// Everything that decides where the demo sends and stores is said here, so that no setting of the shell leads it to
// a real account; what is empty is unset.
const environment = {
  ...process.env,
  NODE_ENV: 'development',
  HOST: host,
  PORT: String(port),
  EMULATOR_PORT: String(emulatorPort),
  ISSUER: url,
  EMULATOR_SERVICE_URL: url,
  // Safari keeps no Secure cookie of http://localhost.
  COOKIE_INSECURE: 'true',
  REDIS_URL: '',
  STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
  STARTMESSAGING_BASE_URL: `http://127.0.0.1:${emulatorPort}`,
  SWAGGER: 'true',
  SHUTDOWN_DELAY_SECONDS: '0',
  LOG_LEVEL: process.env.LOG_LEVEL || 'error',
};
for (const name of Object.keys(environment)) delete environment[`${name}_FILE`];

/** The running processes by name. */
const running = new Map();
let ending = false;
let exitCode = 0;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    // A second Ctrl-C ends the demo at once.
    if (ending) killAll();
    else endAll();
  });
}
process.on('exit', killAll);
if (process.env.npm_lifecycle_event) endWithNpm();

start('emulator', 'dist/emulator/main.js');
start('service', 'dist/main.js');

if (await ready(url, () => ending)) {
  if (!ending) console.log(banner());
} else if (!ending) {
  console.error('The service did not become ready within a minute.');
  exitCode = 1;
  endAll();
}

function start(name, file) {
  const child = spawn(process.execPath, [join(ROOT, file)], {
    // Not in the checkout: the service would read a developer's .env there.
    cwd: join(ROOT, 'scripts'),
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
    // In a process group of its own, so that a Ctrl-C reaches it through us, once. (On Windows: a window of its own.)
    detached: process.platform !== 'win32',
  });
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (process.env.LOG_LEVEL || !NOISE.test(line)) console.log(line);
  });
  running.set(name, child);
  child.once('exit', (code, signal) => {
    running.delete(name);
    if (!ending) {
      console.error(`The ${name} ended by itself (${signal ?? `exit code ${code}`}).`);
      exitCode = code || 1;
      endAll();
    }
    if (running.size === 0) process.exit(exitCode);
  });
}

/** A signal to npm ends npm and the shell that it started, and never comes here: all we see is another parent. */
function endWithNpm() {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    endAll();
  }, 500);
  watch.unref();
}

function endAll() {
  ending = true;
  if (running.size === 0) process.exit(exitCode);
  for (const child of running.values()) child.kill('SIGTERM');
  setTimeout(killAll, GRACE_MS).unref();
}

function killAll() {
  for (const child of running.values()) child.kill('SIGKILL');
}

function nameOf(address) {
  if (['127.0.0.1', '0.0.0.0'].includes(address)) return 'localhost';
  if (address === '::') return '[::1]';
  return address.includes(':') ? `[${address}]` : address;
}

function readPort(name, otherwise) {
  const text = process.env[name] || String(otherwise);
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > 65_535) giveUp(`${name} must be a port: 1 to 65535.`);
  return number;
}

async function checkPort(name, number) {
  const trouble = await portTrouble(number);
  if (!trouble) return;
  const what = trouble === 'EACCES' ? `Port ${number} is not allowed here.` : `Port ${number} is taken.`;
  giveUp(`${what} Set ${name} to another one: ${name}=${number < 1_024 ? 3010 : number + 10} npm run demo`);
}

function banner() {
  return `
  otp-login is running. No account, no Redis, no SMS: everything happens on this machine.

    Swagger UI    ${url}/docs
    Phone inbox   http://localhost:${emulatorPort}

  Log in:

    1. Open the phone inbox. It shows what every phone in India receives.
    2. In Swagger UI, call POST /auth/send-otp with {"phoneNumber": "+919876543210"}.
    3. Read the code in the inbox; call POST /auth/verify-otp with it and the requestId of step 2.
    4. Press Authorize, paste the accessToken, and call GET /auth/me: you are logged in.

  Ctrl-C ends it. Nothing is kept.
`;
}
