import { createHash, createHmac, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { Redis } from 'ioredis';
import { SECRETS } from '../../src/config/config';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { Logger } from '../../src/logging/logger';
import { Mounted } from '../support/mounted';
import { startRedis, type RedisServer } from '../support/redis-server';
import { RotationLoad, type Callers } from '../support/rotation-load';
import {
  API_KEY as OLD_API_KEY,
  call,
  freshNumber,
  login,
  sendOtp,
  startInstance,
  SUBJECT_SECRET,
  until,
  verifyOtp,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const NEW_API_KEY = `sm_live_${'7a'.repeat(20)}`;
const OLD_SECRET = 'old-secret-0123456789-0123456789-abcdef';
const NEW_SECRET = 'new-secret-0123456789-0123456789-abcdef';
const OLD: Callers = {
  operator: 'old-operator-0123456789-0123456789-abc',
  client: 'api:old-introspection-secret',
  testNumber: ['+910184467440', '483920'],
};
const NEW: Callers = {
  operator: 'new-operator-0123456789-0123456789-abc',
  client: 'api-2:new-introspection-secret',
  testNumber: ['+910184467441', '738211'],
};
const [OLD_WEBHOOK, NEW_WEBHOOK] = [1, 2].map(
  (byte) => `whsec_${Buffer.alloc(32, byte).toString('base64')}`,
) as [string, string];
const SOON = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10);
const FIRST_KEY = '20250101T0000Z-first';

const hashed = (name: string, { operator }: Callers): string =>
  `${name}:sha256:${createHash('sha256').update(operator).digest('hex')}`;
const testNumber = ({ testNumber: [number, code] }: Callers): string => `${number}:${code}:${SOON}`;
const newKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString();
const basic = ({ client }: Callers): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(client).toString('base64')}`,
});
const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });
const told = ({ status, body }: Answer): unknown[] => [status, body.code ?? body.error];
const kidOf = (token: unknown): string =>
  (JSON.parse(Buffer.from(String(token).split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid;
const linesOf = ({ logs }: Instance, text: string): string[] => logs.filter((line) => line.includes(text));

async function metric({ url }: Instance, name: string, source: string): Promise<number> {
  const { body } = await call('GET', `${url}/metrics`);
  const [, value] = new RegExp(`^${name}{source="${source}"} (\\S+)$`, 'm').exec(String(body)) ?? [];
  return Number(value);
}

/** A pod: an instance with mounts of its own, for no two kubelets bring a Secret at the same time. */
interface Pod {
  secrets: Mounted;
  keys: Mounted;
  instance: Instance;
}

let redis: RedisServer;
let upstream: Emulator;
let owner: Redis;
/** Of the alerts. */
let receiver: Server;
let pods: Pod[];

/** Everything as it is before a rotation. */
const before = (): Record<string, string> => ({
  REDIS_URL: redis.url.replace('://', '://login:old-password@'),
  STARTMESSAGING_API_KEY: OLD_API_KEY,
  SECRET: OLD_SECRET,
  SUBJECT_SECRET,
  INTROSPECTION_CLIENTS: OLD.client,
  ADMIN_TOKENS: hashed('ops', OLD),
  TEST_NUMBERS: testNumber(OLD),
  SENDWITHSES_TEMPLATE_KEY: 'old-template-key',
  ALERT_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/alerts`,
  ALERT_WEBHOOK_SECRET: OLD_WEBHOOK,
});

async function startPod(firstKey: string): Promise<Pod> {
  const [secrets, keys] = [new Mounted(), new Mounted()];
  secrets.put(before());
  keys.put({ [`${FIRST_KEY}.pem`]: firstKey });
  const variables: Variables = {
    NODE_ENV: 'production',
    LOG_LEVEL: 'info',
    ISSUER: 'http://localhost:3000',
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    BUDGET_PAISE_PER_DAY: '1000000000',
    JWT_KEYS_DIR: keys.folder,
  };
  for (const name of Object.keys(SECRETS)) {
    // What the tests' other settings have of it.
    variables[name] = undefined;
    variables[`${name}_FILE`] = secrets.path(name);
  }
  return { secrets, keys, instance: await startInstance(variables) };
}

beforeEach(async () => {
  [redis, upstream] = await Promise.all([startRedis(), startEmulator()]);
  upstream.settings.balance = 1e9;
  upstream.acceptKeys(OLD_API_KEY);
  receiver = createServer().listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  owner = new Redis(redis.url);
  await giveUser('login', 'old-password');
  const firstKey = newKey();
  pods = [await startPod(firstKey), await startPod(firstKey)];
});
afterEach(async () => {
  await Promise.all(pods.map(({ instance }) => instance.close()));
  for (const { secrets, keys } of pods) {
    secrets.remove();
    keys.remove();
  }
  owner.disconnect();
  receiver.close();
  await Promise.all([upstream.close(), redis.stop()]);
});

const giveUser = (name: string, password: string): Promise<unknown> =>
  owner.call(
    ...(['ACL', 'SETUSER', name, 'on', `>${password}`] as [string, ...string[]]),
    ...['~otp-login:*', '+@all', '-@dangerous', '+info', '+role'],
  );
const loginAt = (url: string): Promise<Answer> => login({ upstream, url } as World, freshNumber(), url);
const logInAgain = (callers: Callers, url: string): Promise<Answer> => {
  const [number, code] = callers.testNumber;
  return sendOtp(url, number).then(({ body }) => verifyOtp(url, body.requestId, code));
};
const introspect = (url: string, callers: Callers): Promise<Answer> =>
  call('POST', `${url}/oauth/introspect`, 'token=x', {
    'content-type': 'application/x-www-form-urlencoded',
    ...basic(callers),
  });

it('every secret and the signing keys are rotated over two instances under load, and no request fails', async () => {
  const [one, two] = pods.map(({ instance }) => instance) as [Instance, Instance];
  const urls = [one.url, two.url] as const;
  const keptFromBefore = await loginAt(one.url);
  const load = new RotationLoad(urls, upstream, OLD);

  /** Patches the Secret; its pods see it one after the other, and between them the two live with different secrets. */
  async function patch(entries: Record<string, string>): Promise<void> {
    for (const { secrets, instance } of pods) {
      const read = await metric(instance, 'otp_login_secrets_read_timestamp_seconds', 'files');
      secrets.patch(entries);
      await until(
        async () => (await metric(instance, 'otp_login_secrets_read_timestamp_seconds', 'files')) > read,
        30_000,
      );
      await load.goOn();
    }
  }

  load.start();
  try {
    await load.goOn();
    // The next signing key is published, before its time comes. A name tells minutes; the seconds are for both to see it.
    const activeFrom = Math.ceil((Date.now() + 20_000) / 60_000) * 60_000;
    const secondKey = `${new Date(activeFrom).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-second`;
    const pem = newKey();
    for (const { keys } of pods) keys.patch({ [`${secondKey}.pem`]: pem });

    // 1. What others check takes both: StartMessaging two keys, Redis two users; and our lists take the new beside the old.
    upstream.acceptKeys(OLD_API_KEY, NEW_API_KEY);
    await giveUser('login-2', 'new-password');
    await patch({
      SECRET: `${OLD_SECRET},${NEW_SECRET}`,
      STARTMESSAGING_API_KEY: NEW_API_KEY,
      REDIS_URL: redis.url.replace('://', '://login-2:new-password@'),
      INTROSPECTION_CLIENTS: `${OLD.client},${NEW.client}`,
      ADMIN_TOKENS: `${hashed('ops', OLD)},${hashed('ops-2', NEW)}`,
      TEST_NUMBERS: `${testNumber(OLD)},${testNumber(NEW)}`,
      SENDWITHSES_TEMPLATE_KEY: 'new-template-key',
      ALERT_WEBHOOK_SECRET: `${OLD_WEBHOOK},${NEW_WEBHOOK}`,
    });

    // 2. The callers move. Of what others check, the old is revoked: Redis hangs up on whoever is still the old user.
    load.callers = NEW;
    await load.turnOver();
    upstream.acceptKeys(NEW_API_KEY);
    await owner.call('ACL', 'DELUSER', 'login');
    await patch({
      SECRET: `${NEW_SECRET},${OLD_SECRET}`,
      INTROSPECTION_CLIENTS: NEW.client,
      ADMIN_TOKENS: hashed('ops-2', NEW),
      TEST_NUMBERS: testNumber(NEW),
      ALERT_WEBHOOK_SECRET: NEW_WEBHOOK,
    });

    // 3. The new key signs. A session's longest life later nobody holds a session, nor a token, of before.
    await until(async () => {
      const kids = await Promise.all(urls.map(async (url) => kidOf((await loginAt(url)).body.accessToken)));
      await new Promise((resolve) => setTimeout(resolve, 500));
      return kids.every((kid) => kid === secondKey);
    }, 100_000);
    await load.turnOver();
    await patch({ SECRET: NEW_SECRET });
    for (const { keys, instance } of pods) {
      keys.put({ [`${secondKey}.pem`]: pem });
      await until(() => linesOf(instance, 'Signing keys have changed').length === 2, 30_000);
      await load.goOn();
    }
  } finally {
    await load.stop();
  }

  expect(load.failures).toEqual([]);
  // Every kind of request, at both.
  expect(Object.keys(load.counts).length).toBe(2 * RotationLoad.KINDS.length);
  expect(Math.min(...Object.values(load.counts))).toBeGreaterThan(50);
  for (const { instance } of pods) {
    expect(instance.logs.filter((line) => /"level":"(error|fatal)"/.test(line))).toEqual([]);
    expect(linesOf(instance, 'Secrets have changed')).toHaveLength(3);
    const log = instance.logs.join('');
    for (const secret of [OLD_SECRET, NEW_SECRET, NEW_API_KEY, 'new-password', NEW.operator, NEW.client])
      expect(log).not.toContain(secret);
    expect(await metric(instance, 'otp_login_secrets_refused', 'files')).toBe(0);
    expect(await metric(instance, 'otp_login_secrets_refused', 'signing_keys')).toBe(0);
  }

  // Whatever was rotated: the old is refused, and the new is taken.
  const { accessToken, refreshToken } = keptFromBefore.body as Record<string, unknown>;
  for (const url of urls) {
    const refreshed = await call('POST', `${url}/auth/refresh`, { refreshToken });
    expect(told(refreshed)).toEqual([401, 'refresh_token_invalid']);
    expect(told(await call('GET', `${url}/auth/me`, undefined, bearer(accessToken)))).toEqual([
      401,
      'unauthenticated',
    ]);
    const usage = (callers: Callers): Promise<Answer> =>
      call('GET', `${url}/admin/usage`, undefined, bearer(callers.operator));
    expect(told(await usage(OLD))).toEqual([401, 'unauthenticated']);
    expect((await usage(NEW)).status).toBe(200);
    expect(told(await introspect(url, OLD))).toEqual([401, 'invalid_client']);
    expect((await introspect(url, NEW)).status).toBe(200);
    expect((await sendOtp(url, OLD.testNumber[0])).status).toBe(400);
    expect((await logInAgain(NEW, url)).status).toBe(200);
  }
  // The webhook's receiver knows the new secret alone.
  const arrived = once(receiver, 'request') as Promise<[IncomingMessage, ServerResponse]>;
  one.app.get(Logger).alert('token_reused', 'A refresh token was used again');
  const [alert, answer] = await arrived;
  const body = await text(alert);
  answer.writeHead(204).end();
  const { 'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': signature } = alert.headers;
  const key = Buffer.from(NEW_WEBHOOK.slice('whsec_'.length), 'base64');
  const mac = createHmac('sha256', key)
    .update(`${String(id)}.${String(time)}.${body}`)
    .digest('base64');
  expect(signature).toBe(`v1,${mac}`);
  const wallet = (key: string): Promise<Answer> =>
    call('GET', `${upstream.url}/wallet`, undefined, { 'x-api-key': key });
  expect([(await wallet(OLD_API_KEY)).status, (await wallet(NEW_API_KEY)).status]).toEqual([401, 200]);
  // Nobody stayed connected as the old user, and a new connection is the new one's.
  const users = [...String(await owner.call('CLIENT', 'LIST')).matchAll(/ user=(\S+)/g)].map(
    ([, user]) => user,
  );
  expect([...new Set(users)].sort()).toEqual(['default', 'login-2']);
  const reached = (): number[] => pods.map(({ instance }) => linesOf(instance, 'Redis is reached').length);
  const connections = reached();
  await owner.call('CLIENT', 'KILL', 'USER', 'login-2');
  await until(() => reached().every((count, i) => count > (connections[i] ?? 0)));
  for (const url of urls) expect((await loginAt(url)).status).toBe(200);
}, 240_000);

it('secrets that are broken are told once and not taken, and logins go on', async () => {
  const [{ instance, secrets, keys }] = pods as [Pod];
  const refused = (source: string): Promise<number> => metric(instance, 'otp_login_secrets_refused', source);
  expect([await refused('files'), await refused('signing_keys')]).toEqual([0, 0]);
  const canary = 'hunter2';
  secrets.patch({ SECRET: canary, STARTMESSAGING_API_KEY: NEW_API_KEY });
  keys.patch({ '20250201T0000Z-second.pem': canary });
  await until(async () => (await refused('files')) === 1 && (await refused('signing_keys')) === 1, 30_000);
  // Looked at twice more, at least.
  await new Promise((resolve) => setTimeout(resolve, 4_500));
  const errors = instance.logs.filter((line) => line.includes('"level":"error"'));
  expect(errors).toHaveLength(2);
  expect(JSON.parse(errors.find((line) => line.includes('Changed secrets')) ?? '')).toMatchObject({
    faults: ['SECRET must have 32 characters or more in production'],
  });
  expect(instance.logs.join('')).not.toContain(canary);
  // The API key beside it does not count either: the emulator takes the old one alone.
  expect((await loginAt(instance.url)).status).toBe(200);

  upstream.acceptKeys(NEW_API_KEY);
  secrets.patch({ SECRET: OLD_SECRET });
  keys.patch({ '20250201T0000Z-second.pem': newKey() });
  await until(async () => (await refused('files')) === 0 && (await refused('signing_keys')) === 0, 30_000);
  await until(() => linesOf(instance, 'Secrets have changed').length === 1, 30_000);
  expect((await loginAt(instance.url)).status).toBe(200);

  // A change that is taken back is no change, and ends the refusal all the same.
  expect(linesOf(instance, 'Secrets are good again')).toEqual([]);
  secrets.patch({ SECRET: canary });
  await until(async () => (await refused('files')) === 1, 30_000);
  secrets.patch({ SECRET: OLD_SECRET });
  await until(async () => (await refused('files')) === 0, 30_000);
  await new Promise((resolve) => setTimeout(resolve, 4_500));
  expect(linesOf(instance, 'Secrets are good again')).toHaveLength(1);
  expect(linesOf(instance, 'Secrets have changed')).toHaveLength(1);
}, 60_000);

it('Redis that does not know the new password is told of, and what is connected goes on', async () => {
  const [{ instance, secrets }] = pods as [Pod];
  secrets.patch({ REDIS_URL: redis.url.replace('://', '://login:canary-password@') });
  await until(() => linesOf(instance, 'Redis refuses the user or the password').length === 1, 30_000);
  expect(instance.logs.join('')).not.toContain('canary-password');
  expect((await loginAt(instance.url)).status).toBe(200);
  const refused = (): Promise<number> => metric(instance, 'otp_login_secrets_refused', 'redis');
  expect(await refused()).toBe(1);
  // Nor is it taken because nobody is connected who could be refused.
  await owner.call('CLIENT', 'KILL', 'USER', 'login');
  await new Promise((resolve) => setTimeout(resolve, 6_000));
  expect(await refused()).toBe(1);
  // It is the one that counts as soon as Redis takes it.
  await owner.call('ACL', 'SETUSER', 'login', 'resetpass', '>canary-password');
  await until(async () => (await refused()) === 0, 20_000);
  await until(() => linesOf(instance, 'Redis is reached').length >= 2);
  expect((await loginAt(instance.url)).status).toBe(200);
}, 60_000);
