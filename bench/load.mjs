// `node bench/load.mjs`: what a request costs the service and Redis in CPU time, what a login leaves in Redis, and what
// follows for a replica and a shard. CPU time, not seconds on the wall: a busy machine moves it less. Linux only.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createRequire } from 'node:module';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { kill, launch, startRedis } from '../scripts/children.mjs';
import { freePort, giveUp, prepare, ready, ROOT } from '../scripts/project.mjs';
import { report } from './load-report.mjs';
import { cpuMs, median, part } from './parts.mjs';

const PEOPLE = part(1_500);
/** Before anything is measured: code that runs the first thousand times is slower, and no replica's life is made of that. */
const WARM_UP = part(1_000);
const IDLE_SECONDS = part(5);
const AT_ONCE = 8;
/** People come in as many turns, and the median of them is told: one that the machine spoilt says nothing. */
const TURNS = 5;

if (process.platform !== 'linux') giveUp('CPU times are read from /proc: run it on Linux.');
prepare();

const require = createRequire(import.meta.url);
const { startEmulator } = require(join(ROOT, 'dist', 'emulator', 'emulator.js'));
const { Redis } = require('ioredis');

const folder = mkdtempSync(join(tmpdir(), 'otp-login-load-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
writeFileSync(join(folder, '20250101T0000Z-bench.pem'), pem, { mode: 0o600 });
const emulator = await startEmulator();
emulator.settings.balance = 1e9;
const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
const CLIENT = { id: 'bench', secret: randomBytes(20).toString('hex') };

const measured = {};
for (const contract of ['caller', 'provider']) measured[contract] = await measure(contract);
console.log(
  `\nNode.js ${process.versions.node}, ${cpus().length} x ${cpus()[0]?.model.trim()}, ${PEOPLE} people\n`,
);
report(measured);
process.exit(0);

/** Runs one Redis and one service for a contract, and drives each kind of request by itself. */
async function measure(contract) {
  // As production has it: what is written goes to the append-only file, too.
  const log = ['--appendonly', 'yes', '--appendfilename', `${contract}.aof`];
  const { redis, port: redisPort } = await startRedis(
    ...['--dir', folder, ...log, '--maxmemory-policy', 'noeviction'],
  );
  const client = new Redis(redisPort, '127.0.0.1');
  await client.ping();
  const port = await freePort();
  const service = launch(process.execPath, [join(ROOT, 'dist', 'main.js')], {
    // Not in the checkout: the service would read a developer's .env there.
    cwd: folder,
    env: settings(port, redisPort, contract),
  });
  const url = `http://127.0.0.1:${port}`;
  if (!(await ready(url, () => service.exitCode !== null)))
    giveUp(`The service did not start:\n${service.printed}`);
  const world = { client, service, port, redisPid: redis.pid };

  console.log(`${contract}: ${WARM_UP} people before anything is measured`);
  await phases(world, crowd(0, WARM_UP));
  await sleep(1_000);
  await client.flushall();
  const before = await usedMemory(client);
  const idle = await costOf(world, IDLE_SECONDS, () => sleep(IDLE_SECONDS * 1_000));
  const people = crowd(WARM_UP, PEOPLE);
  const turns = [];
  for (let turn = 0; turn < TURNS; turn++) {
    console.log(`${contract}: turn ${turn + 1} of ${TURNS}`);
    turns.push(await phases(world, people.slice((turn * PEOPLE) / TURNS, ((turn + 1) * PEOPLE) / TURNS)));
  }
  const kinds = Object.fromEntries(
    Object.keys(turns[0]).map((kind) => [kind, medians(turns.map((turn) => turn[kind]))]),
  );
  const kept = await leftBehind(client, people.length, before);
  const residentMb = Number(/^VmRSS:\s+(\d+)/m.exec(procFile(service.pid, 'status'))[1]) / 1_024;
  client.disconnect();
  await Promise.all([service, redis].map(kill));
  return { kinds, idle, kept, residentMb };
}

function settings(port, redisPort, contract) {
  return {
    PATH: process.env.PATH,
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    PORT: String(port),
    ISSUER: 'https://login.example.com',
    REDIS_URL: `redis://127.0.0.1:${redisPort}`,
    STARTMESSAGING_API_KEY: `sm_live_${randomBytes(20).toString('hex')}`,
    STARTMESSAGING_BASE_URL: emulator.url,
    STARTMESSAGING_CONTRACT: contract,
    SECRET: randomBytes(32).toString('hex'),
    SUBJECT_SECRET: randomBytes(32).toString('hex'),
    JWT_KEYS_DIR: folder,
    BUDGET_PAISE_PER_DAY: '100000000',
    // Every person has an address; the bench is their proxy. Limits stand, but for the whole service's.
    TRUSTED_PROXIES: '127.0.0.1/32',
    LIMIT_GLOBAL: '2000/1',
    INTROSPECTION_CLIENTS: `${CLIENT.id}:${CLIENT.secret}`,
  };
}

/** Numbers of many series and addresses of many networks, as they come; nobody comes twice. */
function crowd(from, count) {
  return Array.from({ length: count }, (_, at) => {
    const i = from + at;
    const line = String((i * 7_919) % 100_000_000).padStart(8, '0');
    return {
      phoneNumber: `+91${['98', '99', '97', '94', '90'][i % 5]}${line}`,
      address: `10.${i % 250}.${Math.floor(i / 250) % 250}.7`,
    };
  });
}

/** Each kind of request once for each person: the cost of one. */
async function phases(world, people) {
  const send = async (person) => {
    const { requestId } = await call(world, person, '/auth/send-otp', { phoneNumber: person.phoneNumber });
    person.requestId = requestId;
  };
  const verify = async (person) => {
    const otpCode = emulator.lastMessageTo(person.phoneNumber).code;
    const { accessToken, refreshToken } = await call(world, person, '/auth/verify-otp', {
      requestId: person.requestId,
      otpCode,
    });
    Object.assign(person, { accessToken, refreshToken });
  };
  const refresh = async (person) => {
    const { accessToken, refreshToken } = await call(world, person, '/auth/refresh', {
      refreshToken: person.refreshToken,
    });
    Object.assign(person, { accessToken, refreshToken });
  };
  const me = (person) =>
    call(world, person, '/auth/me', undefined, { authorization: `Bearer ${person.accessToken}` });
  const basic = `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`;
  const introspect = (person) =>
    call(world, person, '/oauth/introspect', new URLSearchParams({ token: person.accessToken }), {
      authorization: basic,
    });
  const costs = {};
  for (const [name, one] of Object.entries({ send, verify, refresh, me, introspect })) {
    costs[name] = await costOf(world, people.length, async () => {
      const waiting = [...people];
      const worker = async () => {
        for (let person = waiting.pop(); person; person = waiting.pop()) await one(person);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      // What is written behind the answers belongs to them.
      await sleep(300);
    });
  }
  return costs;
}

/** What `work` costs, divided by `count`. */
async function costOf(world, count, work) {
  const before = await look(world);
  await work();
  const after = await look(world);
  return Object.fromEntries(Object.keys(after).map((key) => [key, (after[key] - before[key]) / count]));
}

function medians(costs) {
  return Object.fromEntries(
    Object.keys(costs[0]).map((key) => [key, median(costs.map((cost) => cost[key]))]),
  );
}

async function look({ client, service, port, redisPid }) {
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const steps = [...metrics.matchAll(/^otp_login_redis_command_duration_seconds_count\{.*\} (\d+)$/gm)];
  const stats = await client.info('stats');
  const figure = (name) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(stats)[1]);
  return {
    serviceMs: cpuMs(service.pid),
    mainMs: cpuMs(service.pid, { mainOnly: true }),
    redisMs: cpuMs(redisPid, { mainOnly: true }),
    steps: steps.reduce((sum, [, count]) => sum + Number(count), 0),
    toRedis: figure('total_net_input_bytes'),
    fromRedis: figure('total_net_output_bytes'),
  };
}

function procFile(pid, name) {
  return readFileSync(`/proc/${pid}/${name}`, 'utf8');
}

/** One call, which must be answered by 200. */
function call({ port }, { address }, path, body, headers = {}) {
  const form = body instanceof URLSearchParams;
  const text = form ? body.toString() : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        ...{ agent, port, host: '127.0.0.1', path, method: body === undefined ? 'GET' : 'POST' },
        headers: {
          'x-forwarded-for': address,
          'user-agent':
            'Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile Safari/537.36',
          ...(text && {
            'content-type': form ? 'application/x-www-form-urlencoded' : 'application/json',
            'content-length': Buffer.byteLength(text),
          }),
          ...headers,
        },
      },
      (answer) => {
        let read = '';
        answer.setEncoding('utf8').on('data', (chunk) => (read += chunk));
        answer.once('end', () =>
          answer.statusCode === 200
            ? resolve(JSON.parse(read))
            : reject(new Error(`${path}: ${answer.statusCode} ${read}`)),
        );
        answer.once('error', reject);
      },
    );
    outgoing.once('error', reject).end(text);
  });
}

async function usedMemory(client) {
  return Number(/used_memory:(\d+)/.exec(await client.info('memory'))[1]);
}

/** What is in Redis by now, of each kind of key: how many a login, how large, and for how long. */
async function leftBehind(client, logins, before) {
  const grown = (await usedMemory(client)) - before;
  const kinds = new Map();
  for (const key of await client.keys('*')) {
    const kind = key
      .replace(/^otp-login:\{[\w-]{16,}\}/, '{…}')
      .replace(/^otp-login:/, '')
      .replace(/:written:.*/, ':written:…')
      .replace(/:scope:(\w+):.*/, ':scope:$1:…')
      .replace(/:[\w-]{16,}/g, ':…')
      .replace(/:\d+$/, ':…');
    const entry = kinds.get(kind) ?? { kind, keys: 0, bytes: 0, ttlMs: 0, entries: 0 };
    entry.keys += 1;
    entry.bytes += await client.memory('USAGE', key, 'SAMPLES', 0);
    entry.ttlMs = Math.max(entry.ttlMs, await client.pttl(key));
    if ((await client.type(key)) === 'stream') entry.entries += await client.xlen(key);
    kinds.set(kind, entry);
  }
  const all = [...kinds.values()].sort((a, b) => b.ttlMs - a.ttlMs || b.bytes - a.bytes);
  return { kinds: all, logins, grown };
}
