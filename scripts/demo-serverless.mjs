// `npm run demo:worker` and `npm run demo:lambda`: the serverless edition on this machine, and the StartMessaging emulator with its
// phone inbox. Needs no account.
import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { build, buildServerless, checkNode, giveUp, installPackages, portTrouble, ROOT } from './project.mjs';

const target = process.argv[2];
const port = Number(process.env.PORT || 8787);
const emulatorPort = Number(process.env.EMULATOR_PORT || 3001);
const url = `http://localhost:${port}`;

checkNode();
for (const [name, number] of Object.entries({ PORT: port, EMULATOR_PORT: emulatorPort })) {
  if (await portTrouble(number)) giveUp(`Port ${number} is taken: set ${name} to another one.`);
}
installPackages();
build();
buildServerless();

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const secret = () => randomBytes(32).toString('base64url');
const settings = {
  ISSUER: url,
  STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
  STARTMESSAGING_BASE_URL: `http://127.0.0.1:${emulatorPort}`,
  STARTMESSAGING_CONTRACT: 'caller',
  SECRET: secret(),
  SUBJECT_SECRET: secret(),
  JWT_KEY: privateKey.export({ type: 'pkcs8', format: 'pem' }),
};
const [major] = process.versions.node.split('.').map(Number);
const desk = join(ROOT, 'serverless', 'desk', `${target}.mjs`);
// The edition needs Node.js 22.12 or newer.
const node24 = ['npx', '--yes', '--ignore-scripts=false', 'node@24', desk];
const children = [
  start([process.execPath, join(ROOT, 'dist', 'emulator', 'main.js')], {
    EMULATOR_PORT: String(emulatorPort),
    EMULATOR_SERVICE_URL: url,
  }),
  start(major >= 23 ? [process.execPath, desk] : node24, {
    DESK_SETTINGS: JSON.stringify(settings),
    DESK_PORT: String(port),
  }),
];
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, endAll);

createInterface({ input: children[1].stdout }).on('line', (line) => {
  console.log(line.startsWith('{"url":') ? banner() : line);
});

function start([program, ...args], variables) {
  const child = spawn(program, args, {
    env: { ...process.env, ...variables },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.once('exit', endAll);
  return child;
}

function endAll() {
  for (const child of children) {
    child.stdin.end();
    child.kill('SIGTERM');
  }
  setTimeout(() => process.exit(), 1_000);
}

function banner() {
  return `
  The serverless edition (${target}) is running. No account, no SMS: everything happens on this machine.

    API           ${url}/auth/send-otp
    Phone inbox   http://localhost:${emulatorPort}

  Log in:

    curl -X POST ${url}/auth/send-otp -H 'content-type: application/json' -d '{"phoneNumber":"+919876543210"}'
    curl -X POST ${url}/auth/verify-otp -H 'content-type: application/json' -d '{"requestId":"…","otpCode":"…"}'

  Ctrl-C ends it. Nothing is kept.
`;
}
