import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { Redis } from 'ioredis';
import type * as config from '../../src/config/config';
import type * as connection from '../../src/redis/connection';
import type * as credentials from '../../src/redis/credentials';
import type * as watching from '../../src/secrets/secrets-watch';
import type * as signing from '../../src/tokens/signing-keys';
import { metricOf } from '../support/metrics';
import { Mounted } from '../support/mounted';
import type { RedisServer } from '../support/redis-server';
import { RotationLoad, type Callers } from '../support/rotation-load';
import { serviceModule } from '../support/service';
import { dateOfService } from '../support/service-clock';
import { newSigningKey } from '../support/signing-keys';
import { bearer, kidOf } from '../support/tokens';
import {
  API_KEY as OLD_API_KEY,
  call,
  freshNumber,
  login,
  sendOtp,
  startInstance,
  startWorld,
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
  client: 'api:old-introspection-secret-0123456789abcdef',
  testNumber: ['+910184467440', '483920'],
};
const NEW: Callers = {
  operator: 'new-operator-0123456789-0123456789-abc',
  client: 'api-2:new-introspection-secret-0123456789abcdef',
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
const basic = ({ client }: Callers): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(client).toString('base64')}`,
});
const told = ({ status, body }: Answer): unknown[] => [status, body.code ?? body.error];
const linesOf = ({ logs }: Instance, text: string): string[] => logs.filter((line) => line.includes(text));

const refused = ({ url }: Instance, source: 'files' | 'signing_keys' | 'redis'): Promise<number> =>
  metricOf(url, `otp_login_secrets_refused{source="${source}"}`);

/** A pod: an instance with mounts of its own, for no two kubelets bring a Secret at the same time. */
interface Pod {
  secrets: Mounted;
  keys: Mounted;
  instance: Instance;
}

let world: World<RedisServer>;
let owner: Redis;
/** Of the alerts. */
let receiver: Server;
const pods: Pod[] = [];
const firstKey = newSigningKey();

/** Everything as it is before a rotation. */
const before = (): Record<string, string> => ({
  REDIS_URL: redisUrlOf('login', 'old-password'),
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
const redisUrlOf = (user: string, password: string): string =>
  world.redis.url.replace('://', `://${user}:${password}@`);

async function startPod(): Promise<Pod> {
  const [secrets, keys] = [new Mounted(), new Mounted()];
  secrets.put(before());
  keys.put({ [`${FIRST_KEY}.pem`]: firstKey });
  const variables: Variables = {
    NODE_ENV: 'production',
    LOG_LEVEL: 'info',
    ISSUER: 'http://localhost:3000',
    STARTMESSAGING_BASE_URL: world.upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    BUDGET_PAISE_PER_DAY: '1000000000',
    JWT_KEYS_DIR: keys.folder,
  };
  for (const name of Object.keys(serviceModule<typeof config>('config/config').SECRETS)) {
    // What the tests' other settings have of it.
    variables[name] = undefined;
    variables[`${name}_FILE`] = secrets.path(name);
  }
  const pod = { secrets, keys, instance: await startInstance(variables) };
  pods.push(pod);
  return pod;
}

/** An instance looks at the files every two seconds, and this makes it look now: two looks must find the same. */
function poll({ instance: { app } }: Pod, times = 2): void {
  const { SecretsWatch } = serviceModule<typeof watching>('secrets/secrets-watch');
  const { SigningKeys } = serviceModule<typeof signing>('tokens/signing-keys');
  for (let i = 0; i < times; i++) {
    app.get(SecretsWatch).poll();
    app.get(SigningKeys).poll();
  }
}

beforeAll(async () => {
  world = await startWorld({ count: 0, ownRedis: true });
  receiver = createServer().listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  owner = new Redis(world.redis.url);
});
beforeEach(async () => {
  world.upstream.reset();
  world.upstream.settings.balance = 1e9;
  world.upstream.acceptKeys(OLD_API_KEY);
  await giveUser('login', 'old-password');
});
afterEach(async () => {
  jest.restoreAllMocks();
  for (const { instance, secrets, keys } of pods.splice(0)) {
    await instance.close();
    secrets.remove();
    keys.remove();
  }
});
afterAll(async () => {
  owner.disconnect();
  receiver.close();
  await world.close();
});

const giveUser = (name: string, password: string): Promise<unknown> =>
  owner.call(
    ...(['ACL', 'SETUSER', name, 'reset', 'on', `>${password}`] as [string, ...string[]]),
    ...['~otp-login:*', '+@all', '-@dangerous', '+info', '+role'],
  );
const loginAt = (url: string): Promise<Answer> => login(world, freshNumber(), url);
const logInAgain = (callers: Callers, url: string): Promise<Answer> => {
  const [number, code] = callers.testNumber;
  return sendOtp(url, number).then(({ body }) => verifyOtp(url, body.requestId, code));
};
const introspect = (url: string, callers: Callers): Promise<Answer> =>
  call('POST', `${url}/oauth/introspect`, 'token=x', {
    'content-type': 'application/x-www-form-urlencoded',
    ...basic(callers),
  });

it('no request fails while every secret and the signing keys are rotated over two instances under load', async () => {
  const { upstream } = world;
  const [{ instance: one }, { instance: two }] = [await startPod(), await startPod()];
  const urls = [one.url, two.url] as const;
  const keptFromBefore = await loginAt(one.url);
  const load = new RotationLoad(urls, upstream, OLD);

  /** Patches the Secret; its pods see it one after the other, and between them the two live with different secrets. */
  async function patch(entries: Record<string, string>): Promise<void> {
    for (const pod of pods) {
      pod.secrets.patch(entries);
      poll(pod);
      await load.goOn();
    }
  }

  load.start();
  try {
    await load.goOn();
    // The next signing key is published a minute before its time comes, or two.
    const activeFrom = Math.ceil((Date.now() + 60_000) / 60_000) * 60_000;
    const secondKey = `${new Date(activeFrom).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-second`;
    const pem = newSigningKey();
    for (const pod of pods) {
      pod.keys.patch({ [`${secondKey}.pem`]: pem });
      poll(pod);
    }

    // 1. What others check takes both: StartMessaging two keys, Redis two users; and our lists take the new beside the old.
    upstream.acceptKeys(OLD_API_KEY, NEW_API_KEY);
    await giveUser('login-2', 'new-password');
    await patch({
      SECRET: `${OLD_SECRET},${NEW_SECRET}`,
      STARTMESSAGING_API_KEY: NEW_API_KEY,
      REDIS_URL: redisUrlOf('login-2', 'new-password'),
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

    // 3. The new key signs. A session's longest life later no session and no token of before is left.
    const ahead = activeFrom - Date.now();
    const now = Date.now.bind(Date);
    jest.spyOn(dateOfService(), 'now').mockImplementation(() => now() + ahead);
    for (const url of urls) expect(kidOf((await loginAt(url)).body.accessToken)).toBe(secondKey);
    await load.turnOver();
    await patch({ SECRET: NEW_SECRET });
    for (const pod of pods) {
      pod.keys.put({ [`${secondKey}.pem`]: pem });
      poll(pod);
      expect(linesOf(pod.instance, 'Signing keys have changed')).toHaveLength(2);
      await load.goOn();
    }
  } finally {
    await load.stop();
  }

  expect(load.failures).toEqual([]);
  // Every kind of request, at both.
  expect(Object.keys(load.counts).length).toBe(2 * RotationLoad.KINDS.length);
  expect(Math.min(...Object.values(load.counts))).toBeGreaterThan(20);
  for (const { instance } of pods) {
    expect(instance.logs.filter((line) => /"level":"(error|fatal)"/.test(line))).toEqual([]);
    expect(linesOf(instance, 'Secrets have changed')).toHaveLength(3);
    const log = instance.logs.join('');
    for (const secret of [OLD_SECRET, NEW_SECRET, NEW_API_KEY, 'new-password', NEW.operator, NEW.client])
      expect(log).not.toContain(secret);
    expect([await refused(instance, 'files'), await refused(instance, 'signing_keys')]).toEqual([0, 0]);
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
  one.app
    .get(serviceModule<typeof import('../../src/alerts/alerts')>('alerts/alerts').Alerts)
    .raise('token_reused', 'A refresh token was used again');
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
  // No connection is the old user's any more, and a new connection is the new one's.
  const users = [...String(await owner.call('CLIENT', 'LIST')).matchAll(/ user=(\S+)/g)].map(
    ([, user]) => user,
  );
  expect([...new Set(users)].sort()).toEqual(['default', 'login-2']);
  const reached = (): number[] => pods.map(({ instance }) => linesOf(instance, 'Redis is reached').length);
  const connections = reached();
  await owner.call('CLIENT', 'KILL', 'USER', 'login-2');
  await until(() => reached().every((count, i) => count > (connections[i] ?? 0)), 'new connections');
  for (const url of urls) expect((await loginAt(url)).status).toBe(200);
});

it('broken secrets are told of once and not used, and logins go on', async () => {
  const pod = await startPod();
  const { instance, secrets, keys } = pod;
  const expectRefused = async (...counts: [files: number, keys: number]): Promise<void> => {
    expect([await refused(instance, 'files'), await refused(instance, 'signing_keys')]).toEqual(counts);
  };
  await expectRefused(0, 0);
  const canary = 'hunter2';
  secrets.patch({ SECRET: canary, STARTMESSAGING_API_KEY: NEW_API_KEY });
  keys.patch({ '20250201T0000Z-second.pem': canary });
  poll(pod, 4);
  await expectRefused(1, 1);
  const errors = instance.logs.filter((line) => line.includes('"level":"error"'));
  expect(errors).toHaveLength(2);
  expect(JSON.parse(errors.find((line) => line.includes('Changed secrets')) ?? '')).toMatchObject({
    faults: ['SECRET must have 32 characters or more in production'],
  });
  expect(instance.logs.join('')).not.toContain(canary);
  // The API key beside it does not count either: the emulator takes the old one alone.
  expect((await loginAt(instance.url)).status).toBe(200);

  world.upstream.acceptKeys(NEW_API_KEY);
  secrets.patch({ SECRET: OLD_SECRET });
  keys.patch({ '20250201T0000Z-second.pem': newSigningKey() });
  poll(pod);
  await expectRefused(0, 0);
  expect(linesOf(instance, 'Secrets have changed')).toHaveLength(1);
  expect((await loginAt(instance.url)).status).toBe(200);

  // A change that is taken back is no change, and ends the refusal all the same.
  expect(linesOf(instance, 'Secrets are valid again')).toEqual([]);
  secrets.patch({ SECRET: canary });
  poll(pod);
  await expectRefused(1, 0);
  secrets.patch({ SECRET: OLD_SECRET });
  poll(pod, 4);
  await expectRefused(0, 0);
  expect(linesOf(instance, 'Secrets are valid again')).toHaveLength(1);
  expect(linesOf(instance, 'Secrets have changed')).toHaveLength(1);
});

it('an instance says that Redis refuses a new password, keeps its connections, and uses the password when Redis takes it', async () => {
  const { instance, secrets } = await startPod();
  const lines = (message: string): number => linesOf(instance, message).length;
  secrets.patch({ REDIS_URL: redisUrlOf('login', 'canary-password') });
  // Here the instance looks at its files by itself.
  await until(() => lines('Redis refuses the user or the password') === 1, 'the refusal');
  expect((await loginAt(instance.url)).status).toBe(200);
  expect(await refused(instance, 'redis')).toBe(1);
  await owner.call('CLIENT', 'KILL', 'USER', 'login');
  await until(() => lines('WRONGPASS') > 1, 'the refusal of a new connection');
  expect(await refused(instance, 'redis')).toBe(1);
  expect(instance.logs.join('')).not.toContain('canary-password');

  await owner.call('ACL', 'SETUSER', 'login', 'resetpass', '>canary-password');
  await until(async () => (await refused(instance, 'redis')) === 0, 'the password that Redis takes');
  await until(() => lines('Redis is reached') >= 2, 'a new connection');
  expect((await loginAt(instance.url)).status).toBe(200);
});

it('a new password for Redis does not count as taken while there is no connection', async () => {
  const { redisClient } = serviceModule<typeof connection>('redis/connection');
  const { changeCredentials } = serviceModule<typeof credentials>('redis/credentials');
  const client = redisClient(redisUrlOf('login', 'old-password'));
  expect(await changeCredentials(client, redisUrlOf('login', 'new-password'))).toBe(false);
  client.disconnect();
});
