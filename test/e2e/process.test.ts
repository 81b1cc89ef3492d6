import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import type { Emulator } from '../../src/emulator/emulator';
import { ADMIN_TOKEN, WITH_ADMIN } from '../support/admin';
import { freePort } from '../support/free-port';
import { Build, type Line, type Run } from '../support/processes';
import { rawAnswer, type RawUpstream, startRawUpstream } from '../support/raw-upstream';
import { type RedisServer, startRedis } from '../support/redis-server';
import { service as inProcess } from '../support/service';
import {
  API_KEY,
  call,
  freshNumber,
  SECRET,
  sendOtp,
  startInstance,
  SUBJECT_SECRET,
  textedCode,
  until,
  type Variables,
  verifyOtp,
} from '../support/world';

const SERVICE = 'main.js';
const DOCTOR = 'doctor/main.js';

let build: Build;
let folder: string;
let redis: RedisServer;
let upstream: Emulator;

beforeAll(async () => {
  build = Build.make();
  folder = build.folder;
  // As production has it: there is nothing to warn of.
  [redis, upstream] = await Promise.all([
    startRedis({ args: ['--appendonly', 'yes'] }),
    inProcess().startEmulator(),
  ]);
});
afterAll(async () => {
  await build.remove();
  await Promise.all([upstream.close(), redis.stop()]);
});

/** Settings that hold in development; the port is a free one. */
const settings = (): Variables => ({
  HOST: '127.0.0.1',
  PORT: '0',
  REDIS_URL: redis.url,
  STARTMESSAGING_API_KEY: API_KEY,
  WALLET_ALERT_PAISE: '0',
  STARTMESSAGING_BASE_URL: upstream.url,
  SHUTDOWN_DELAY_SECONDS: '0',
});

const start = (variables: Variables = {}): Promise<{ service: Run; url: string }> =>
  build.serve({ ...settings(), ...variables });

function expectJsonLines(service: Run): void {
  expect(service.log.length).toBeGreaterThan(0);
  for (const line of service.log) {
    const { level, time, msg } = line;
    expect([typeof level, typeof time, typeof msg]).toEqual(['string', 'string', 'string']);
  }
}

/** A port that this process listens on. */
async function takenPort(): Promise<{ port: number; free: () => Promise<void> }> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    free: async () => {
      server.close();
      await once(server, 'close');
    },
  };
}

/** A folder with one signing key. */
function keysFolder(): string {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const keys = mkdtempSync(join(folder, 'keys-'));
  writeFileSync(join(keys, '20250101T0000Z-test.pem'), privateKey);
  return keys;
}

async function logIn(url: string): Promise<string> {
  const phoneNumber = freshNumber();
  const sent = await sendOtp(url, phoneNumber);
  const verified = await verifyOtp(url, sent.body.requestId, textedCode(upstream, phoneNumber));
  expect(verified.status).toBe(200);
  return verified.body.accessToken as string;
}

/** All that production asks for, and all that may be set. */
function forProduction(): Variables {
  const redisUrlFile = join(folder, 'redis-url');
  writeFileSync(redisUrlFile, `${redis.url}\n`);
  return {
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    PORT: '0',
    ISSUER: 'https://login.example.com',
    AUDIENCE: 'shop',
    REDIS_URL: '',
    REDIS_URL_FILE: redisUrlFile,
    STARTMESSAGING_API_KEY: API_KEY,
    WALLET_ALERT_PAISE: '0',
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    STARTMESSAGING_TEMPLATE_ID: '2f1c0f6e-8d0b-4a57-9b1e-0d6f6a3f5c11',
    STARTMESSAGING_APP_NAME: 'Shop',
    UPSTREAM_TIMEOUT_MS: '10000',
    UPSTREAM_CONNECT_TIMEOUT_MS: '3000',
    UPSTREAM_RETRY_DELAY_MS: '1000',
    UPSTREAM_DEADLINE_MS: '20000',
    SHUTDOWN_DELAY_SECONDS: '0',
    SECRET: `${SECRET},${SECRET.replace('test', 'older')}`,
    SUBJECT_SECRET,
    JWT_KEYS_DIR: keysFolder(),
    OTP_TTL_SECONDS: '300',
    OTP_LENGTH: '6',
    OTP_MAX_ATTEMPTS: '3',
    ACCESS_TOKEN_TTL_SECONDS: '600',
    SESSION_IDLE_TTL_SECONDS: '604800',
    SESSION_MAX_TTL_SECONDS: '2592000',
    SESSIONS_PER_USER: '10',
    REFRESH_GRACE_SECONDS: '60',
    TOKEN_PHONE_NUMBER: 'false',
    LIMIT_PHONE: '1/30,3/300,5/3600,10/86400',
    LIMIT_IP: '20/600,100/3600',
    LIMIT_VERIFY_IP: '60/600',
    LIMIT_GLOBAL: '15/1',
    LIMIT_FAILED_CODES: '10/3600,20/86400',
    BUDGET_PAISE_PER_HOUR: '10000',
    BUDGET_PAISE_PER_DAY: '100000',
    SMS_PRICE_PAISE: '25',
    TRUSTED_PROXIES: '10.0.0.0/8,fd00::/8',
    CORS_ORIGINS: 'https://shop.example.com',
    INTROSPECTION_CLIENTS: 'orders:0123456789-introspection-secret-1',
    SWAGGER: '',
    LOG_LEVEL: 'info',
  };
}

/** Has Node.js run a script before the service. */
function preloaded(script: string): Variables {
  const file = join(mkdtempSync(join(folder, 'preloaded-')), 'script.cjs');
  writeFileSync(file, script);
  return { NODE_OPTIONS: `--require=${file}` };
}

describe('the start', () => {
  let [development, production]: Awaited<ReturnType<typeof start>>[] = [];
  beforeAll(async () => {
    [development, production] = await Promise.all([start(), start(forProduction())]);
  });

  it('a service that was started says in JSON where it listens, and serves logins there', async () => {
    const { service, url } = development!;
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    expect(await service.logged('otp-login listens')).toMatchObject({
      level: 'info',
      issuer: 'http://localhost:3000',
      docs: '/docs',
    });
    await logIn(url);
    expect((await call('GET', `${url}/docs`)).status).toBe(200);
    expectJsonLines(service);
    expect(service.stderr).toBe('');
  });

  it('a service with all that production asks for starts in production, warns of nothing, and serves no documentation', async () => {
    const { service, url } = production!;
    const header = (await logIn(url)).split('.')[0] ?? '';
    const { kid, alg } = JSON.parse(Buffer.from(header, 'base64url').toString()) as Line;
    expect([kid, alg]).toEqual(['20250101T0000Z-test', 'ES256']);
    for (const path of ['/docs', '/docs-json', '/docs-yaml'])
      expect((await call('GET', url + path)).status).toBe(404);
    expect(service.log.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(service.stdout).not.toContain(redis.url);
    expect(service.stderr).toBe('');
  });

  it('a service that cannot reach Redis waits for it, and its readiness says no', async () => {
    const port = await freePort();
    const service = build.run(SERVICE, { ...settings(), REDIS_URL: `redis://127.0.0.1:${port}` });
    const url = await service.address();
    const ready = await call('GET', `${url}/health/ready`);
    expect([ready.status, ready.body]).toEqual([503, { status: 'starting' }]);
    expect((await call('GET', `${url}/health/live`)).status).toBe(200);

    const late = await startRedis({ port });
    try {
      await until(async () => (await call('GET', `${url}/health/ready`)).status === 200, 'readiness');
      await logIn(url);
    } finally {
      await service.kill();
      await late.stop();
    }
  });
});

describe('a start that fails', () => {
  const names = (service: Run): string[] => service.faults.map((fault) => fault.split(' ')[0] ?? '').sort();

  /** Settings of services that cannot start. */
  const starts = {
    invalid: () => ({
      NODE_ENV: 'development',
      PORT: 'canary-1',
      ISSUER: 'canary-2',
      REDIS_URL: 'canary-3://user:canary-4@host',
      SECRET_FILE: '/canary-5/secret',
      SUBJECT_SECRET: 'canary-6,canary-7',
      JWT_KEYS_DIR: '/canary-8',
      OTP_LENGTH: '1e1',
      LIMIT_PHONE: 'canary-9/60',
      TRUSTED_PROXIES: 'canary-10',
      SWAGGER: 'canary-11',
    }),
    portTaken: () => ({ ...settings(), PORT: String(taken.port) }),
    hostOfOthers: () => ({ ...settings(), HOST: '192.0.2.1' }),
    hostUnknown: () => ({ ...settings(), HOST: 'canary.invalid' }),
    badKey: () => {
      const keys = mkdtempSync(join(folder, 'keys-'));
      writeFileSync(join(keys, '20250101T0000Z-broken.pem'), 'canary');
      return { ...settings(), JWT_KEYS_DIR: keys };
    },
  } satisfies Record<string, () => Variables>;
  let taken: Awaited<ReturnType<typeof takenPort>>;
  let runs: Record<keyof typeof starts, Run>;

  beforeAll(async () => {
    taken = await takenPort();
    const started = Object.entries(starts).map(([name, variables]) => [
      name,
      build.run(SERVICE, variables()),
    ]);
    runs = Object.fromEntries(started) as typeof runs;
    for (const run of Object.values(runs)) await run.ended;
  });
  afterAll(() => taken.free());
  afterEach(async () => {
    // Of every one of them.
    for (const run of Object.values(runs)) expect(await run.ended).toEqual({ code: 1, signal: null });
  });

  it('a service whose settings are invalid names all of them at once, and no value', () => {
    expect(names(runs.invalid)).toEqual([
      'ISSUER',
      'JWT_KEYS_DIR',
      'LIMIT_PHONE',
      'OTP_LENGTH',
      'PORT',
      'REDIS_URL',
      'SECRET_FILE',
      'STARTMESSAGING_API_KEY',
      'SUBJECT_SECRET',
      'SWAGGER',
      'TRUSTED_PROXIES',
    ]);
    expect(runs.invalid.stderr).not.toMatch(/canary|1e1/);
    expect(runs.invalid.stdout).toBe('');
  });

  it('a service whose port is taken says so in one line', () => {
    expect(runs.portTaken.stderr).toBe(`Port ${taken.port} is taken. Set PORT to another one.\n`);
    expectJsonLines(runs.portTaken);
  });

  it.each(['hostOfOthers', 'hostUnknown'] as const)(
    'a service that cannot listen on its HOST names the setting in one line, and no value: %s',
    (name) => {
      expect(runs[name].stderr).toMatch(
        /^HOST is no address of this machine \([A-Z_]+\)\. Set HOST to .*\n$/,
      );
      expect(runs[name].stderr).not.toMatch(/192\.0\.2\.1|canary/);
      expectJsonLines(runs[name]);
    },
  );

  it('a service whose signing key cannot be read says so in one line, and logs only JSON', () => {
    expect(runs.badKey.faults).toEqual([
      expect.stringMatching(/^JWT_KEYS_DIR.* 20250101T0000Z-broken\.pem /),
    ]);
    expect(runs.badKey.stderr).not.toContain('canary');
    expect(() => runs.badKey.log).not.toThrow();
  });
});

it('a service with an uncaught error logs it in one line without the data of the error, and exits with 1', async () => {
  // As axios throws them.
  const { service } = await start(
    preloaded(`process.once('SIGUSR2', () => {
      const headers = { 'X-API-Key': '${API_KEY}' };
      void Promise.reject(Object.assign(new Error('no answer for +919876543210'), { config: { headers } }));
    });`),
  );
  service.signal('SIGUSR2');
  expect(await service.ended).toEqual({ code: 1, signal: null });
  expect(service.stderr).toBe('');
  expect(service.log.at(-1)).toMatchObject({
    level: 'fatal',
    error: { name: 'Error', message: 'no answer for +91******' },
  });
  expect(service.stdout).not.toMatch(/9876543210|(?:5e){6}/);
});

/** Every wait of more than five seconds ends when the test says so by a signal, and stands in the log when it begins. */
const CLOCK = `
  const timers = require('node:timers/promises');
  const { setTimeout } = timers;
  let waiting = [];
  timers.setTimeout = (ms, value, options) => {
    if (ms <= 5000) return setTimeout(ms, value, options);
    const time = new Date().toISOString();
    process.stdout.write(JSON.stringify({ level: 'debug', time, msg: 'waits for ' + ms }) + '\\n');
    return new Promise((resolve) => waiting.push(resolve));
  };
  process.on('SIGUSR2', () => {
    for (const resolve of waiting.splice(0)) resolve();
  });`;
const LET_TIME_PASS = 'SIGUSR2';
const waits = (service: Run): number[] =>
  service.log
    .map(({ msg }) => /^waits for (\d+)$/.exec(String(msg)))
    .flatMap((match) => (match ? [Number(match[1])] : []));

describe('the end', () => {
  const DELAY_MS = 20_000;
  let upstreamApi: RawUpstream;
  /** Upstream's answers to sends, which it gives when the test says so. */
  let held: (() => void)[] | undefined;
  let started: { service: Run; url: string }[];

  const startWithClock = (): ReturnType<typeof start> =>
    start({
      ...preloaded(CLOCK),
      STARTMESSAGING_BASE_URL: upstreamApi.url,
      STARTMESSAGING_CONTRACT: 'provider',
      SHUTDOWN_DELAY_SECONDS: String(DELAY_MS / 1_000),
      UPSTREAM_TIMEOUT_MS: '45000',
      UPSTREAM_DEADLINE_MS: '45000',
    });
  // The first try of each test finds a service that was started beside the others.
  const nextService = async (): ReturnType<typeof start> => started.pop() ?? (await startWithClock());

  beforeAll(async () => {
    const sent = { requestId: 'theirs', expiresAt: '2099-01-01T00:00:00Z', attemptsLeft: 3 };
    upstreamApi = await startRawUpstream((socket, { path }) => {
      const data = path.endsWith('/verify') ? { verified: true } : sent;
      const answer = (): void => {
        socket.write(rawAnswer(JSON.stringify({ success: true, data })));
      };
      if (held) held.push(answer);
      else answer();
    });
    started = await Promise.all(Array.from({ length: 5 }, startWithClock));
  });
  afterAll(() => upstreamApi.close());

  /** Sends an SMS, and resolves when upstream was asked and holds its answer back. */
  async function sendInFlight(url: string): Promise<{ outcome: Promise<unknown>; answer: () => void }> {
    held = [];
    const outcome = sendOtp(url, freshNumber()).then(
      ({ status }) => status,
      () => 'cut off',
    );
    await until(() => held?.length === 1, 'the call of upstream');
    const [answer = () => undefined] = held;
    held = undefined;
    return { outcome, answer };
  }

  it('a service serves during the delay after SIGTERM, then answers the requests in flight, and exits with 0', async () => {
    const { service, url } = await nextService();
    const { outcome, answer } = await sendInFlight(url);
    service.signal('SIGTERM');
    await service.logged(`waits for ${DELAY_MS}`);
    const ready = await call('GET', `${url}/health/ready`);
    expect([ready.status, ready.body]).toEqual([503, { status: 'ending' }]);
    expect(ready.headers.get('retry-after')).toMatch(/^\d+$/);
    expect(ready.headers.get('connection')).toBe('close');
    // As `timeout` and others do: once to the process, once to its group.
    service.signal('SIGTERM');
    for (let i = 0; i < 5; i++) {
      const answers = await Promise.all([
        call('GET', `${url}/health/live`),
        call('GET', `${url}/auth/me`),
        call('GET', `${url}/nowhere`),
      ]);
      expect(answers.map(({ status }) => status)).toEqual([200, 401, 404]);
      for (const { headers } of answers) expect(headers.get('connection')).toBe('close');
    }
    const login = await sendOtp(url, freshNumber());
    expect((await verifyOtp(url, login.body.requestId, '123456')).status).toBe(200);

    service.signal(LET_TIME_PASS);
    await until(
      () =>
        call('GET', `${url}/health/live`).then(
          () => false,
          () => true,
        ),
      'the end of listening',
    );
    answer();
    expect(await outcome).toBe(200);
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expectJsonLines(service);
    expect(service.log.filter(({ msg }) => msg === 'Ending')).toEqual([
      expect.objectContaining({ signal: 'SIGTERM' }),
    ]);
    expect(service.log.at(-1)).toMatchObject({ msg: 'Ended' });
    expect(service.log.filter(({ level }) => level === 'error')).toEqual([]);
    expect(service.stderr).toBe('');
  });

  it('a service that ends closes connections without a request at once', async () => {
    const { service, url } = await nextService();
    const port = Number(new URL(url).port);
    // One that never spoke, as browsers open in advance, and one that is kept alive.
    const silent = connect(port, '127.0.0.1');
    await once(silent, 'connect');
    const kept = connect(port, '127.0.0.1');
    kept.write('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(kept, 'data');
    for (const socket of [silent, kept]) socket.on('error', () => undefined);

    service.signal('SIGTERM');
    await service.logged(`waits for ${DELAY_MS}`);
    service.signal(LET_TIME_PASS);
    // The wait for requests in flight would never end.
    expect(await service.ended).toEqual({ code: 0, signal: null });
    // A connection that times out gets an answer first.
    expect(silent.bytesRead).toBe(0);
    silent.destroy();
    kept.destroy();
  });

  it('a service ends 29 seconds after SIGTERM although a request never ends', async () => {
    const { service, url } = await nextService();
    const { outcome } = await sendInFlight(url);
    service.signal('SIGTERM');
    await service.logged(`waits for ${DELAY_MS}`);
    service.signal(LET_TIME_PASS);
    await until(() => waits(service).length === 2, 'the wait for requests in flight');
    expect(waits(service)).toEqual([DELAY_MS, 29_000 - DELAY_MS]);
    service.signal(LET_TIME_PASS);
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(await outcome).toBe('cut off');
  });

  it('a service that gets SIGINT ends without the delay, and cuts off the requests in flight', async () => {
    const { service, url } = await nextService();
    const { outcome } = await sendInFlight(url);
    service.signal('SIGINT');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(await outcome).toBe('cut off');
    // It waited for the requests in flight only, and these were cut off.
    expect(waits(service)).toEqual([29_000 - DELAY_MS]);
    expectJsonLines(service);
    expect(service.stderr).toBe('');
  });

  it('a service that gets SIGINT during the delay of a SIGTERM exits at once with 130', async () => {
    const { service } = await nextService();
    service.signal('SIGTERM');
    await service.logged('Ending');
    service.signal('SIGINT');
    expect(await service.ended).toEqual({ code: 130, signal: null });
  });
});

describe('the doctor', () => {
  it('the doctor reads the environment and .env as the service does, prints a line for each check, and exits with 0', async () => {
    writeFileSync(
      join(folder, '.env'),
      `SECRET=${SECRET}\nSUBJECT_SECRET=${SUBJECT_SECRET}\nADMIN_TOKENS=ops:${'t'.repeat(32)}\n`,
    );
    const doctor = build.run(DOCTOR, settings());
    expect(await doctor.ended).toEqual({ code: 0, signal: null });
    const lines = doctor.stdout.trimEnd().split('\n');
    for (const line of lines) expect(line).toMatch(/^(ok {6}|warning ) \w+: \S/);
    // It stands in .env only.
    expect(doctor.stdout).toMatch(/^warning +secret: .*written by hand/m);
    expect(doctor.stdout).toMatch(/^ok +startmessaging_contract: /m);
    expect(doctor.stdout).toMatch(/^ok +redis_scripts: /m);
    for (const secret of [SECRET, SUBJECT_SECRET, API_KEY]) expect(doctor.stdout).not.toContain(secret);
    expect(doctor.stderr).toBe('');
  });

  it('the doctor takes arguments and a token, and exits with 1 when it finds a fault', async () => {
    const instance = await startInstance({ ...settings(), ...WITH_ADMIN });
    const asked = build.run(
      DOCTOR,
      { ...settings(), ADMIN_TOKEN },
      ...['--url', instance.url, '--peer', '10.0.3.7'],
    );
    const faulty = build.run(DOCTOR, { ...settings(), PORT: 'canary' });
    expect(await asked.ended).toEqual({ code: 0, signal: null });
    expect(asked.stdout).toMatch(/^ok +service_address: Asked from here, 127\.0\.0\.1 counts/m);
    expect(asked.stdout).toMatch(/^ok +client_address: 10\.0\.3\.7 counts/m);
    expect(await faulty.ended).toEqual({ code: 1, signal: null });
    expect(faulty.stdout).toMatch(/^FAULT +configuration: PORT must be [^\n]*\n$/);
    expect(faulty.stdout).not.toContain('canary');
    await instance.close();
  });
});
