// `npm run bench`: how long a replica takes from its start to ready, and what it weighs when nobody calls it.
// A real Redis and production settings where redis-server is installed, otherwise the embedded store.
import { spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, checkNode, freePort, giveUp, installPackages, ready, ROOT } from '../scripts/project.mjs';

const RUNS = 7;
const IDLE_MS = 5_000;

checkNode();
installPackages();
build();

const folder = mkdtempSync(join(tmpdir(), 'otp-login-bench-'));
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

const redisUrl = await startRedis();
const environment = settings(redisUrl);
const starts = [];
const weights = [];
for (let run = 1; run <= RUNS; run++) {
  const { readyMs, idleMb } = await measure();
  starts.push(readyMs);
  weights.push(idleMb);
  console.log(`run ${run} of ${RUNS}: ready after ${readyMs.toFixed(0)} ms, ${idleMb.toFixed(1)} MB idle`);
}
console.log(`
Node.js ${process.versions.node}, ${cpus().length} x ${cpus()[0]?.model.trim()}, ${redisUrl ? 'Redis' : 'embedded store'}

                             min   median      max
cold start to ready, ms ${row(starts, 0)}
resident after ${IDLE_MS / 1_000} s, MB  ${row(weights, 1)}`);
process.exit(0);

async function measure() {
  const port = await freePort();
  const begin = performance.now();
  const child = launch(process.execPath, [join(ROOT, 'dist', 'main.js')], {
    // Not in the checkout: the service would read a developer's .env there.
    cwd: folder,
    env: { ...environment, PORT: String(port) },
  });
  if (!(await ready(`http://127.0.0.1:${port}`, () => child.exitCode !== null))) {
    giveUp(`The service did not become ready:\n${child.printed}`);
  }
  const readyMs = performance.now() - begin;
  await sleep(IDLE_MS);
  const idleMb = residentMb(child.pid);
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
  return { readyMs, idleMb };
}

function settings(redis) {
  const common = {
    PATH: process.env.PATH,
    HOST: '127.0.0.1',
    LOG_LEVEL: 'warn',
    STARTMESSAGING_API_KEY: `sm_live_${randomBytes(20).toString('hex')}`,
    // Nobody listens on the discard port, and nothing is sent: a start does not call upstream.
    STARTMESSAGING_BASE_URL: 'http://127.0.0.1:9',
    STARTMESSAGING_CONTRACT: 'caller',
  };
  if (!redis) return { ...common, NODE_ENV: 'development' };
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  writeFileSync(join(folder, '20250101T0000Z-bench.pem'), pem, { mode: 0o600 });
  return {
    ...common,
    NODE_ENV: 'production',
    ISSUER: 'https://login.example.com',
    REDIS_URL: redis,
    SECRET: randomBytes(32).toString('hex'),
    SUBJECT_SECRET: randomBytes(32).toString('hex'),
    JWT_KEYS_DIR: folder,
    BUDGET_PAISE_PER_DAY: '100000',
  };
}

/** Undefined where there is no redis-server. */
async function startRedis() {
  const binary = process.env.REDIS_SERVER_BIN || 'redis-server';
  if (spawnSync(binary, ['--version']).status !== 0) return undefined;
  const port = await freePort();
  const redis = launch(
    binary,
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', folder],
    {},
  );
  while (!(await connects(port))) {
    if (redis.exitCode !== null) giveUp(`redis-server ended:\n${redis.printed}`);
    await sleep(20);
  }
  return `redis://127.0.0.1:${port}/0`;
}

/** Keeps what the process prints, for the case that it fails. */
function launch(file, args, options) {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  child.printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (child.printed += text));
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

function residentMb(pid) {
  try {
    const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(kilobytes) / 1_024;
  } catch {
    const { stdout } = spawnSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' });
    return Number(stdout) / 1_024;
  }
}

async function connects(port) {
  const socket = createConnection(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

function row(numbers, digits) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const three = [sorted[0], sorted[Math.floor(sorted.length / 2)], sorted.at(-1)];
  return three.map((number) => number.toFixed(digits).padStart(8)).join(' ');
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
