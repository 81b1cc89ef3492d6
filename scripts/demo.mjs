// `npm run demo`: the service with the embedded store, and the StartMessaging emulator with its phone inbox.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { readableLine } from './demo-log.mjs';
import { build, checkNode, giveUp, installPackages, portTrouble, ready, ROOT } from './project.mjs';

const GRACE_MS = 10_000;

const host = process.env.HOST || '127.0.0.1';
const port = readPort('PORT', 3000);
const emulatorPort = readPort('EMULATOR_PORT', 3001);
/** The address that is opened: one name everywhere, because a page of 127.0.0.1 is another origin than one of localhost. */
const url = `http://${nameOf(host)}:${port}`;
const inboxUrl = `http://localhost:${emulatorPort}`;

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
  SERVICE_URL: url,
  PHONE_INBOX_URL: inboxUrl,
  // Safari keeps no Secure cookie of http://localhost.
  COOKIE_INSECURE: 'true',
  REDIS_URL: '',
  STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
  STARTMESSAGING_BASE_URL: `http://127.0.0.1:${emulatorPort}`,
  SWAGGER: 'true',
  // A developer sends often, and from one address.
  LIMIT_IP: '1000/600',
  LIMIT_VERIFY_IP: '1000/600',
  LIMIT_PHONE: '1/5,20/300',
  MAGIC_NUMBERS: 'true',
  SHUTDOWN_DELAY_SECONDS: '0',
  LOG_LEVEL: process.env.LOG_LEVEL || 'info',
};
for (const name of Object.keys(environment)) delete environment[`${name}_FILE`];

/** The running processes by name. */
const running = new Map();
let ending = false;
let exitCode = 0;
/** The service ends and starts again, because the inbox starts over. */
let restarting = false;

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
    // The emulator tells when a visitor of the inbox starts over.
    stdio: ['ignore', 'pipe', 'inherit', ...(name === 'emulator' ? ['ipc'] : [])],
    // In a process group of its own, so that a Ctrl-C reaches it through us, once. (On Windows: a window of its own.)
    detached: process.platform !== 'win32',
  });
  createInterface({ input: child.stdout }).on('line', (line) => {
    const shown = process.env.LOG_LEVEL ? line : readableLine(line);
    if (shown !== undefined && !restarting) console.log(shown);
  });
  running.set(name, child);
  child.on('message', (message) => {
    if (message === 'start over') void startOver(child);
  });
  child.once('exit', (code, signal) => {
    running.delete(name);
    if (restarting && name === 'service' && !ending) return;
    if (!ending) {
      console.error(`The ${name} ended by itself (${signal ?? `exit code ${code}`}).`);
      exitCode = code || 1;
      endAll();
    }
    if (running.size === 0) process.exit(exitCode);
  });
}

/**
 * Everything that the service knows is in its embedded store, so a new process has no limits used up, no locks and no sessions.
 * Answers the emulator when the service is ready again.
 */
async function startOver(emulator) {
  const service = running.get('service');
  if (!restarting && service !== undefined && !ending) {
    restarting = true;
    const gone = new Promise((resolve) => service.once('exit', resolve));
    service.kill('SIGKILL');
    await gone;
    start('service', 'dist/main.js');
    await ready(url, () => ending);
    restarting = false;
  }
  if (emulator.connected) emulator.send('started over');
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

    Login page    ${url}/login
    Swagger UI    ${url}/docs
    Phone inbox   ${inboxUrl}

  Log in:

    1. Open the login page, and type 98765 43210 or any other Indian mobile number.
    2. Read the code in the phone inbox, which shows what every phone in India receives, and type it in.
    3. Open ${url}/account: it shows where you are logged in.

  Ctrl-C ends it. Nothing is kept.
`;
}
