// `npm run bench`: how long a replica takes from its start to ready, and what it weighs when nobody calls it.
// A real Redis and production settings.
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { kill, launch, startRedis } from '../scripts/children.mjs';
import { freePort, giveUp, prepare, ready, ROOT } from '../scripts/project.mjs';
import { part } from './parts.mjs';

const RUNS = part(7);
const IDLE_MS = part(5_000);

prepare();
const folder = mkdtempSync(join(tmpdir(), 'otp-login-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const { port: redisPort } = await startRedis('--dir', folder);
const environment = settings();
const starts = [];
const weights = [];
for (let run = 1; run <= RUNS; run++) {
  const { readyMs, idleMb } = await measure();
  starts.push(readyMs);
  weights.push(idleMb);
  console.log(`run ${run} of ${RUNS}: ready after ${readyMs.toFixed(0)} ms, ${idleMb.toFixed(1)} MB idle`);
}
console.log(`
Node.js ${process.versions.node}, ${cpus().length} x ${cpus()[0]?.model.trim()}

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
  await kill(child);
  return { readyMs, idleMb };
}

function settings() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  writeFileSync(join(folder, '20250101T0000Z-bench.pem'), pem, { mode: 0o600 });
  return {
    PATH: process.env.PATH,
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    LOG_LEVEL: 'warn',
    ISSUER: 'https://login.example.com',
    REDIS_URL: `redis://127.0.0.1:${redisPort}/0`,
    STARTMESSAGING_API_KEY: `sm_live_${randomBytes(20).toString('hex')}`,
    // Nobody listens on the discard port, and nothing is sent: a start does not call upstream.
    STARTMESSAGING_BASE_URL: 'http://127.0.0.1:9',
    STARTMESSAGING_CONTRACT: 'caller',
    SECRET: randomBytes(32).toString('hex'),
    SUBJECT_SECRET: randomBytes(32).toString('hex'),
    JWT_KEYS_DIR: folder,
    BUDGET_PAISE_PER_DAY: '100000',
  };
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

function row(numbers, digits) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const three = [sorted[0], sorted[Math.floor(sorted.length / 2)], sorted.at(-1)];
  return three.map((number) => number.toFixed(digits).padStart(8)).join(' ');
}
