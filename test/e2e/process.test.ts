import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Emulator, startEmulator } from '../../src/emulator/emulator';
import { Build, type Line, type Run } from '../support/processes';
import { type RedisServer, startRedis } from '../support/redis-server';
import {
  API_KEY,
  call,
  freshNumber,
  SECRET,
  sendOtp,
  SUBJECT_SECRET,
  textedCode,
  until,
  type Variables,
  verifyOtp,
} from '../support/world';

const SERVICE = 'main.js';
const EMULATOR = 'emulator/main.js';
const DOCTOR = 'doctor/main.js';

let build: Build;
let folder: string;
let redis: RedisServer;
let upstream: Emulator;

beforeAll(async () => {
  build = Build.make();
  folder = build.folder;
  // As production has it: there is nothing to warn of.
  [redis, upstream] = await Promise.all([startRedis({ args: ['--appendonly', 'yes'] }), startEmulator()]);
}, 180_000);
afterEach(async () => {
  await build.killAll();
  upstream.reset();
});
afterAll(async () => {
  await Promise.all([upstream.close(), redis.stop()]);
  await build.remove();
});

/** Settings that hold in development; the port is a free one. */
const settings = (): Variables => ({
  HOST: '127.0.0.1',
  PORT: '0',
  REDIS_URL: redis.url,
  STARTMESSAGING_API_KEY: API_KEY,
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

/** A port that somebody else listens on. */
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

describe('the start', () => {
  it('tells in JSON where the service listens, and the service is there', async () => {
    const { service, url } = await start();
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    const line = service.log.find(({ msg }) => msg === 'otp-login listens');
    expect(line).toMatchObject({ level: 'info', issuer: 'http://localhost:3000', docs: '/docs' });
    await logIn(url);
    expect((await call('GET', `${url}/docs`)).status).toBe(200);
    expectJsonLines(service);
    expect(service.stderr).toBe('');
  });

  it('succeeds in production with everything that production asks for, without the documentation', async () => {
    const keys = keysFolder();
    const redisUrlFile = join(folder, 'redis-url');
    writeFileSync(redisUrlFile, `${redis.url}\n`);
    const { service, url } = await start({
      NODE_ENV: 'production',
      HOST: '127.0.0.1',
      PORT: '0',
      ISSUER: 'https://login.example.com',
      AUDIENCE: 'shop',
      REDIS_URL: '',
      REDIS_URL_FILE: redisUrlFile,
      STARTMESSAGING_API_KEY: API_KEY,
      STARTMESSAGING_BASE_URL: upstream.url,
      STARTMESSAGING_CONTRACT: 'caller',
      STARTMESSAGING_TEMPLATE_ID: '2f1c0f6e-8d0b-4a57-9b1e-0d6f6a3f5c11',
      STARTMESSAGING_APP_NAME: 'Shop',
      UPSTREAM_TIMEOUT_MS: '10000',
      UPSTREAM_CONNECT_TIMEOUT_MS: '3000',
      UPSTREAM_RETRY_DELAY_MS: '1000',
      UPSTREAM_MAX_ATTEMPTS: '3',
      UPSTREAM_DEADLINE_MS: '20000',
      SHUTDOWN_DELAY_SECONDS: '0',
      SECRET: `${SECRET},${SECRET.replace('test', 'older')}`,
      SUBJECT_SECRET,
      JWT_KEYS_DIR: keys,
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
      LIMIT_FAILED_CODES: '10/3600,20/86400,100/2592000',
      BUDGET_PAISE_PER_HOUR: '10000',
      BUDGET_PAISE_PER_DAY: '100000',
      SMS_PRICE_PAISE: '25',
      TRUSTED_PROXIES: '10.0.0.0/8,fd00::/8',
      CORS_ORIGINS: 'https://shop.example.com',
      INTROSPECTION_CLIENTS: 'orders:0123456789-introspection',
      SWAGGER: '',
      LOG_LEVEL: 'info',
    });
    const header = (await logIn(url)).split('.')[0] ?? '';
    const { kid, alg } = JSON.parse(Buffer.from(header, 'base64url').toString()) as Line;
    expect([kid, alg]).toEqual(['20250101T0000Z-test', 'ES256']);
    for (const path of ['/docs', '/docs-json', '/docs-yaml'])
      expect((await call('GET', url + path)).status).toBe(404);
    expect(service.log.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(service.stdout).not.toContain(redis.url);
    expect(service.stderr).toBe('');
  });

  it('waits for a Redis that is not there yet, and says that it is not ready', async () => {
    const free = await takenPort();
    await free.free();
    const service = build.run(SERVICE, { ...settings(), REDIS_URL: `redis://127.0.0.1:${free.port}` });
    await until(() => service.log.some(({ msg }) => msg === 'otp-login listens'));
    const url = String(service.log.find(({ msg }) => msg === 'otp-login listens')?.url);
    const ready = await call('GET', `${url}/health/ready`);
    expect([ready.status, ready.body]).toEqual([503, { status: 'starting' }]);
    expect((await call('GET', `${url}/health/live`)).status).toBe(200);

    const late = await startRedis({ port: free.port });
    try {
      await until(async () => (await call('GET', `${url}/health/ready`)).status === 200);
      await logIn(url);
    } finally {
      await late.stop();
    }
  });
});

describe('a start that fails', () => {
  const names = (service: Run): string[] => service.faults.map((fault) => fault.split(' ')[0] ?? '').sort();

  it('names every setting that does not hold at once, and never a value', async () => {
    const service = build.run(SERVICE, {
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
    });
    expect(await service.ended).toEqual({ code: 1, signal: null });
    expect(names(service)).toEqual([
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
    expect(service.stderr).not.toMatch(/canary|1e1/);
    expect(service.stdout).toBe('');
  });

  it('names everything that production asks for and that is not there', async () => {
    const service = build.run(SERVICE, { NODE_ENV: 'production' });
    expect(await service.ended).toEqual({ code: 1, signal: null });
    expect(names(service)).toEqual([
      'BUDGET_PAISE_PER_DAY',
      'JWT_KEYS_DIR',
      'REDIS_URL',
      'SECRET',
      'STARTMESSAGING_API_KEY',
      'STARTMESSAGING_CONTRACT',
      'SUBJECT_SECRET',
    ]);
    expect(service.stdout).toBe('');
  });

  it('names every setting that is for tests only or unsafe, in production', async () => {
    const service = build.run(SERVICE, {
      ...settings(),
      NODE_ENV: 'production',
      STARTMESSAGING_CONTRACT: 'provider',
      STARTMESSAGING_BASE_URL: 'http://upstream.canary.example',
      SECRET: 'canary-too-short',
      SUBJECT_SECRET: 'change-me-canary-0123456789-0123456789',
      JWT_KEYS_DIR: keysFolder(),
      BUDGET_PAISE_PER_DAY: '100000',
      OTP_LENGTH: '4',
      TRUSTED_PROXIES: '0.0.0.0/0',
    });
    expect(await service.ended).toEqual({ code: 1, signal: null });
    expect(names(service)).toEqual([
      'OTP_LENGTH',
      'SECRET',
      'STARTMESSAGING_BASE_URL',
      'SUBJECT_SECRET',
      'TRUSTED_PROXIES',
    ]);
    expect(service.stderr).not.toContain('canary');
    expect(service.stdout).toBe('');
  });

  it('is held to the rules of production when NODE_ENV is misspelt', async () => {
    const service = build.run(SERVICE, { ...settings(), NODE_ENV: 'prod-canary' });
    expect(await service.ended).toEqual({ code: 1, signal: null });
    expect(names(service)).toEqual(expect.arrayContaining(['NODE_ENV', 'SECRET', 'SUBJECT_SECRET']));
    expect(service.stderr).not.toContain('canary');
  });

  it('says in one line that the port is taken', async () => {
    const { port, free } = await takenPort();
    try {
      const service = build.run(SERVICE, { ...settings(), PORT: String(port) });
      expect(await service.ended).toEqual({ code: 1, signal: null });
      expect(service.stderr).toBe(`Port ${port} is taken. Set PORT to another one.\n`);
      expectJsonLines(service);
    } finally {
      await free();
    }
  });

  it('says in one line that a signing key is none, and logs nothing but JSON', async () => {
    const keys = mkdtempSync(join(folder, 'keys-'));
    writeFileSync(join(keys, '20250101T0000Z-broken.pem'), 'canary');
    const service = build.run(SERVICE, { ...settings(), JWT_KEYS_DIR: keys });
    expect(await service.ended).toEqual({ code: 1, signal: null });
    expect(service.faults).toEqual([expect.stringMatching(/^JWT_KEYS_DIR.* 20250101T0000Z-broken\.pem /)]);
    expect(service.stderr).not.toContain('canary');
    expect(() => service.log).not.toThrow();
  });
});

it('tells of a fault that nobody caught in one line, without what the error carries, and exits 1', async () => {
  const fault = join(mkdtempSync(join(folder, 'fault-')), 'fault.js');
  // As axios throws them.
  writeFileSync(
    fault,
    `setTimeout(() => {
       const headers = { 'X-API-Key': '${API_KEY}' };
       void Promise.reject(Object.assign(new Error('no answer for +919876543210'), { config: { headers } }));
     }, 6000).unref();`,
  );
  const { service } = await start({ NODE_OPTIONS: `--require=${fault}` });
  expect(await service.ended).toEqual({ code: 1, signal: null });
  expect(service.stderr).toBe('');
  expect(service.log.at(-1)).toMatchObject({
    level: 'fatal',
    error: { name: 'Error', message: 'no answer for +91******' },
  });
  expect(service.stdout).not.toMatch(/9876543210|5e5e/);
});

describe('SIGTERM', () => {
  const DELAY_MS = 2_000;

  it('keeps serving for the delay while readiness says no, answers what is under way, and exits 0', async () => {
    const { service, url } = await start({
      SHUTDOWN_DELAY_SECONDS: String(DELAY_MS / 1_000),
      UPSTREAM_TIMEOUT_MS: '9000',
    });
    // Its answer comes after the delay, when the server is closing.
    upstream.fault({ on: 'send', fault: { kind: 'slow', delayMs: DELAY_MS + 1_500 } });
    let answeredAt = 0;
    const underWay = sendOtp(url, freshNumber()).then((answer) => {
      answeredAt = Date.now();
      return answer;
    });
    await until(() => upstream.calls.length === 1);

    service.signal('SIGTERM');
    const signalledAt = Date.now();
    await until(() => service.stdout.includes('"Ending"'));
    const ready = await call('GET', `${url}/health/ready`);
    expect(Date.now() - signalledAt).toBeLessThan(1_000);
    expect([ready.status, ready.body]).toEqual([503, { status: 'ending' }]);
    expect(ready.headers.get('retry-after')).toMatch(/^\d+$/);
    expect(ready.headers.get('connection')).toBe('close');
    // As `timeout` and others do: once to the process, once to its group.
    service.signal('SIGTERM');

    // Throws when one is refused.
    let served = 0;
    while (Date.now() < signalledAt + DELAY_MS - 300) {
      const answers = await Promise.all([
        call('GET', `${url}/health/live`),
        call('GET', `${url}/auth/me`),
        call('GET', `${url}/nowhere`),
      ]);
      expect(answers.map(({ status }) => status)).toEqual([200, 401, 404]);
      for (const { headers } of answers) expect(headers.get('connection')).toBe('close');
      served += answers.length;
      if (served === 3) await logIn(url);
      await sleep(10);
    }
    expect(served).toBeGreaterThan(30);

    expect((await underWay).status).toBe(200);
    expect(answeredAt - signalledAt).toBeGreaterThan(DELAY_MS);
    expect(await service.ended).toEqual({ code: 0, signal: null });
    await expect(call('GET', `${url}/health/live`)).rejects.toThrow();
    expectJsonLines(service);
    expect(service.log.filter(({ msg }) => msg === 'Ending')).toEqual([
      expect.objectContaining({ signal: 'SIGTERM' }),
    ]);
    expect(service.log.at(-1)).toMatchObject({ msg: 'Ended' });
    expect(service.log.filter(({ level }) => level === 'error')).toEqual([]);
    expect(service.stderr).toBe('');
  });

  it('does not wait for connections on which nothing is asked', async () => {
    const { service, url } = await start();
    const port = Number(new URL(url).port);
    // One that never spoke, as browsers open in advance, and one that is kept alive.
    const silent = connect(port, '127.0.0.1');
    await once(silent, 'connect');
    const kept = connect(port, '127.0.0.1');
    kept.write('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(kept, 'data');
    for (const socket of [silent, kept]) socket.on('error', () => undefined);

    const signalledAt = Date.now();
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(Date.now() - signalledAt).toBeLessThan(4_000);
    silent.destroy();
    kept.destroy();
  });

  it('ends within 30 seconds also when a request never ends', async () => {
    const { service, url } = await start({ UPSTREAM_TIMEOUT_MS: '45000', UPSTREAM_DEADLINE_MS: '45000' });
    upstream.fault({ on: 'send', fault: { kind: 'timeout' } });
    const hanging = sendOtp(url, freshNumber()).catch(() => 'cut off');
    await until(() => upstream.calls.length === 1);
    const signalledAt = Date.now();
    service.signal('SIGTERM');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(Date.now() - signalledAt).toBeLessThan(30_500);
    expect(await hanging).toBe('cut off');
  });
});

describe('SIGINT', () => {
  it('ends at once, whatever the delay is and whatever is under way', async () => {
    const { service, url } = await start({ SHUTDOWN_DELAY_SECONDS: '20', UPSTREAM_TIMEOUT_MS: '9000' });
    upstream.fault({ on: 'send', fault: { kind: 'timeout' } });
    const hanging = sendOtp(url, freshNumber()).catch(() => 'cut off');
    await until(() => upstream.calls.length === 1);
    const signalledAt = Date.now();
    service.signal('SIGINT');
    expect(await service.ended).toEqual({ code: 0, signal: null });
    expect(Date.now() - signalledAt).toBeLessThan(3_000);
    expect(await hanging).toBe('cut off');
    expectJsonLines(service);
    expect(service.stderr).toBe('');
  });

  it('cuts the delay of a SIGTERM short', async () => {
    const { service } = await start({ SHUTDOWN_DELAY_SECONDS: '20' });
    service.signal('SIGTERM');
    await until(() => service.stdout.includes('"Ending"'));
    service.signal('SIGINT');
    expect(await service.ended).toEqual({ code: 130, signal: null });
  });
});

describe('the doctor', () => {
  it('reads the environment and .env as the service does, prints a line each, and exits 0 without a fault', async () => {
    const env = join(folder, '.env');
    writeFileSync(
      env,
      `SECRET=${SECRET}\nSUBJECT_SECRET=${SUBJECT_SECRET}\nADMIN_TOKENS=ops:${'t'.repeat(32)}\n`,
    );
    try {
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
    } finally {
      rmSync(env);
    }
  });

  it('exits 1 with a fault, and takes arguments and a token', async () => {
    const { url } = await start({ ADMIN_TOKENS: `ops:${'t'.repeat(32)}` });
    const variables = { ...settings(), ADMIN_TOKEN: 't'.repeat(32) };
    const asked = build.run(DOCTOR, variables, '--url', url, '--peer', '10.0.3.7');
    expect(await asked.ended).toEqual({ code: 0, signal: null });
    expect(asked.stdout).toMatch(/^ok +service_address: Asked from here, 127\.0\.0\.1 counts/m);
    expect(asked.stdout).toMatch(/^ok +client_address: 10\.0\.3\.7 counts/m);
    const faulty = build.run(DOCTOR, { ...settings(), PORT: 'canary' });
    expect(await faulty.ended).toEqual({ code: 1, signal: null });
    expect(faulty.stdout).toMatch(/^FAULT +configuration: PORT must be [^\n]*\n$/);
    expect(faulty.stdout).not.toContain('canary');
  });
});

describe('the emulator', () => {
  it('says where its inbox is, and ends on SIGTERM', async () => {
    const emulator = build.run(EMULATOR, { EMULATOR_PORT: '0' });
    await until(() => emulator.stdout.endsWith('\n'));
    const url = /http:\/\/\S+/.exec(emulator.stdout)?.[0] ?? '';
    const page = await call('GET', url);
    expect([page.status, page.body]).toEqual([200, expect.stringContaining('Phone inbox')]);
    emulator.signal('SIGTERM');
    expect(await emulator.ended).toEqual({ code: 0, signal: null });
    expect(emulator.stderr).toBe('');
  });

  it('does not start in production: it shows every code', async () => {
    const emulator = build.run(EMULATOR, { EMULATOR_PORT: '0', NODE_ENV: 'production' });
    expect(await emulator.ended).toEqual({ code: 1, signal: null });
    expect(emulator.faults).toEqual([expect.stringContaining('NODE_ENV=production')]);
    expect(emulator.stdout).toBe('');
  });

  it('says in one line that its port is taken', async () => {
    const { port, free } = await takenPort();
    try {
      const emulator = build.run(EMULATOR, { EMULATOR_PORT: String(port) });
      expect(await emulator.ended).toEqual({ code: 1, signal: null });
      expect(emulator.stderr).toBe(`Port ${port} is taken; set EMULATOR_PORT to another one.\n`);
    } finally {
      await free();
    }
  });
});
