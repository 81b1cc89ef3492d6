import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { as, under } from '../support/crowd';
import { KeptClient } from '../support/kept-client';
import { Build, type Run } from '../support/processes';
import { redisOfWorker } from '../support/redis-of-worker';
import { figures, full } from '../support/scale';
import { service as serviceUnderTest } from '../support/service';
import { API_KEY, call, freshNumber, textedCode, until, wrongCode } from '../support/world';

const SECONDS = full ? 1_800 : 20;
const CLIENTS = 8;
/** So that 30 minutes fit into what the emulator remembers. */
const PAUSE_MS = full ? 150 : 5;
const POINTS = 8;
/**
 * What the heap may rise by from the first third to the last, by the median of each. Before a sample its garbage is
 * collected, so what is left is in use: by what is under way (some MB, up and down), in twenty
 * seconds also by code that is still being compiled. In half an hour a leak of 300 bytes a login would be seen.
 */
const MARGIN_MB = full ? 12 : 16;

let build: Build;
let redis: { url: string };
let upstream: Emulator;

beforeAll(async () => {
  build = Build.make();
  [redis, upstream] = await Promise.all([redisOfWorker(), serviceUnderTest().startEmulator()]);
  upstream.settings.balance = 1_000_000;
}, 180_000);
afterAll(async () => {
  await upstream.close();
  await build.remove();
});

interface Sample {
  heapMb: number;
  rssMb: number;
  sockets: number;
}

async function sample(url: string, service: Run): Promise<Sample> {
  const before = service.stderr.length;
  service.signal('SIGUSR2');
  await until(() => service.stderr.length > before, 'the collection of garbage');
  const { body } = await call('GET', `${url}/metrics`);
  const figure = (name: string): number => {
    const line = (body as string).split('\n').find((text) => text.startsWith(`${name} `));
    return Number(line?.split(' ')[1] ?? 0);
  };
  const rssKb = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))?.[1];
  return {
    heapMb: figure('otp_login_nodejs_heap_size_used_bytes') / 1_048_576,
    rssMb: Number(rssKb) / 1_024,
    sockets: figure('otp_login_nodejs_active_handles{type="Socket"}'),
  };
}

const FAULTS = [
  { kind: 'reset' },
  { kind: 'timeout' },
  { kind: 'html' },
  { kind: 'huge' },
  { kind: 'cut' },
  { kind: 'error', status: 500, code: 'INTERNAL_ERROR' },
  { kind: 'error', status: 429, code: 'TOO_MANY_REQUESTS' },
] as const;

it(`memory and sockets of the service stay level during ${SECONDS} s of logins with faults`, async () => {
  const collect = join(build.folder, 'collect.cjs');
  const exposed = "require('node:v8').setFlagsFromString('--expose-gc')";
  writeFileSync(
    collect,
    `${exposed}; const gc = require('node:vm').runInNewContext('gc'); process.on('SIGUSR2', () => { gc(); process.stderr.write('.'); });`,
  );
  const { service, url } = await build.serve({
    NODE_OPTIONS: `--require ${collect}`,
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: redis.url,
    STARTMESSAGING_API_KEY: API_KEY,
    WALLET_ALERT_PAISE: '0',
    STARTMESSAGING_BASE_URL: upstream.url,
    // Only what is told to hang takes so long, also on a machine that is busy for half an hour.
    UPSTREAM_TIMEOUT_MS: '5000',
    UPSTREAM_DEADLINE_MS: '5000',
    UPSTREAM_RETRY_DELAY_MS: '20',
    SHUTDOWN_DELAY_SECONDS: '0',
    LIMIT_PHONE: '1000/60',
    LIMIT_IP: '1000000/60',
    LIMIT_VERIFY_IP: '1000000/60',
    LIMIT_GLOBAL: '1000000/1',
    // Many numbers see a wrong code here.
    ABUSE_WRONG_CODES: 'off',
  });
  const idle = await sample(url, service);
  let [logins, faults, busy] = [0, 0, 0];
  const course = { done: false };
  const surprises: string[] = [];
  const expectOneOf = (statuses: number[], what: string, status: number): boolean => {
    if (status === 503 && !statuses.includes(status)) busy += 1;
    else if (!statuses.includes(status)) surprises.push(`${what}: ${status}`);
    return status === 200;
  };

  const live = async (): Promise<void> => {
    const client = new KeptClient(url);
    for (let turn = 0; !course.done; turn++) {
      const phoneNumber = freshNumber();
      const befallen = turn % 10 === 9;
      const fault = FAULTS[Math.floor(turn / 10) % FAULTS.length];
      if (befallen && fault) {
        faults += 1;
        upstream.fault({ on: turn % 20 === 9 ? 'send' : 'verify', phoneNumber, fault });
      }
      const trouble = befallen ? [429, 500, 502, 503, 504] : [];
      const key = under(`turn-${turn}`);
      const sent = await client.call('POST', '/auth/send-otp', { phoneNumber }, key);
      if (!expectOneOf([200, ...trouble], 'send', sent.status)) continue;
      const code = textedCode(upstream, phoneNumber);
      const { requestId } = sent.body as { requestId: string };
      const wrong = { requestId, otpCode: wrongCode(code) };
      const refused = await client.call('POST', '/auth/verify-otp', wrong);
      expectOneOf([400, ...trouble], 'wrong code', refused.status);
      const right = { requestId, otpCode: code };
      const verified = await client.call('POST', '/auth/verify-otp', right, key);
      if (!expectOneOf([200, ...(befallen ? [400, 410] : []), ...trouble], 'verify', verified.status))
        continue;
      logins += 1;
      const { refreshToken } = verified.body as { refreshToken: string };
      const refreshed = await client.call('POST', '/auth/refresh', { refreshToken });
      if (!expectOneOf([200], 'refresh', refreshed.status)) continue;
      const next = refreshed.body as { accessToken: string; refreshToken: string };
      const me = await client.call('GET', '/auth/me', undefined, as(next.accessToken));
      expectOneOf([200], 'me', me.status);
      const out = await client.call('POST', '/auth/logout', { refreshToken: next.refreshToken });
      expectOneOf([204], 'logout', out.status);
      await sleep(PAUSE_MS);
    }
    client.close();
  };

  const lives = Promise.all(Array.from({ length: CLIENTS }, live));
  const samples: Sample[] = [];
  const end = Date.now() + SECONDS * 1_000;
  while (Date.now() < end) {
    await sleep(full ? 5_000 : 400);
    samples.push(await sample(url, service));
  }
  course.done = true;
  await lives;

  const third = Math.floor(samples.length / 3);
  const level = (part: Sample[]): number =>
    part.map(({ heapMb }) => heapMb).sort((a, b) => a - b)[Math.floor(part.length / 2)] ?? 0;
  const [first, last] = [level(samples.slice(0, third)), level(samples.slice(-third))];
  const part = samples.length / POINTS;
  const curve = Array.from({ length: POINTS }, (_, i) =>
    level(samples.slice(Math.floor(i * part), Math.floor((i + 1) * part))).toFixed(1),
  );
  const at = Array.from({ length: POINTS }, (_, i) => Math.round(((i + 1) * SECONDS) / POINTS)).join(' ');
  const [most, rss] = [Math.max(...samples.map(({ sockets }) => sockets)), samples.at(-1)?.rssMb ?? 0];
  // The clients have closed theirs, and those to upstream carry one call each.
  let after = await sample(url, service);
  await until(async () => {
    after = await sample(url, service);
    return after.sockets <= idle.sockets;
  }, 'the end of every socket');
  figures(
    `soak ${SECONDS} s: logins ${logins}, faults ${faults}, 503 without one ${busy}, heap MB at ${at} s: ${curve.join(' ')}, ` +
      `RSS ${rss.toFixed(0)} MB, sockets idle ${idle.sockets}, at most ${most}, after ${after.sockets}`,
  );
  expect(surprises).toEqual([]);
  // A starved machine is too late for a step now and then, and says so.
  expect(busy).toBeLessThanOrEqual(logins / 4);
  expect(logins).toBeGreaterThan(SECONDS);
  expect(last).toBeLessThan(first + MARGIN_MB);
  // Each client has one connection, and one to upstream for it; earlier ones end late on a busy machine.
  expect(most).toBeLessThanOrEqual(idle.sockets + CLIENTS * 6);
  service.signal('SIGTERM');
  expect(await service.ended).toEqual({ code: 0, signal: null });
}, 2_100_000);
