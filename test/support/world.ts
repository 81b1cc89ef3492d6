import { Writable } from 'node:stream';
import { Redis } from 'ioredis';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Emulator } from '../../src/emulator/emulator';
import {
  checkRedis,
  learnAnswer,
  learnCode,
  learnRequest,
  learnNumber,
  learnSettings,
  ServiceLog,
  watchUpstream,
} from './canaries';
import { HANG_MS, until } from './hang';
import { SUBJECT_SECRET } from './keys';
import { redisOfWorker } from './redis-of-worker';
import { startRedis, type RedisServer } from './redis-server';
import { service, settingsOfLoading } from './service';

export { until };

export type Variables = Record<string, string | undefined>;

/** One instance of the service on a socket of its own, with what it wrote to its log. */
export interface Instance {
  url: string;
  app: NestFastifyApplication;
  /** Every JSON line so far. */
  logs: string[];
  close(): Promise<void>;
}

/** A real Redis, a real upstream, and any number of instances of the service between them. */
export interface World<Server extends { url: string } = { url: string }> {
  redis: Server;
  /** How long its instances wait for Redis; undefined for as long as in production. */
  redisTimeoutMs: number | undefined;
  upstream: Emulator;
  instances: Instance[];
  /** The first instance's address. */
  url: string;
  close(): Promise<void>;
}

export const SECRET = 'test-secret-0123456789-abcdefghijkl';
export { SUBJECT_SECRET };
export const API_KEY = `sm_live_${'5e'.repeat(20)}`;

/** Settings under which nothing is limited and nothing waits, so that a test names the ones that it is about. */
const QUICK: Variables = {
  NODE_ENV: 'test',
  HOST: '127.0.0.1',
  PORT: '0',
  LOG_LEVEL: 'trace',
  SECRET,
  SUBJECT_SECRET,
  STARTMESSAGING_API_KEY: API_KEY,
  UPSTREAM_RETRY_DELAY_MS: '5',
  SHUTDOWN_DELAY_SECONDS: '0',
  LIMIT_PHONE: '1000/60',
  LIMIT_IP: '100000/60',
  LIMIT_VERIFY_IP: '100000/60',
  LIMIT_GLOBAL: '100000/1',
  LIMIT_FAILED_CODES: '1000/3600',
  // The wallet is not read, so that every call at upstream is one of the test.
  WALLET_ALERT_PAISE: '0',
};

/** Settings under which the service soon gives up on an upstream that does not answer. */
export const HASTY: Variables = {
  UPSTREAM_TIMEOUT_MS: '1000',
  UPSTREAM_CONNECT_TIMEOUT_MS: '500',
  UPSTREAM_DEADLINE_MS: '3000',
};

/** On a free port unless one is given. It fails the test that closes it if its log holds what no log may hold. */
export async function startInstance(
  variables: Variables,
  port = 0,
  redisTimeoutMs?: number,
): Promise<Instance> {
  const instance = await launchInstance(variables, port, redisTimeoutMs);
  await until(async () => (await fetch(`${instance.url}/health/ready`)).status === 200);
  return instance;
}

/** The same, without waiting until it is ready. */
export async function launchInstance(
  variables: Variables,
  port = 0,
  redisTimeoutMs?: number,
): Promise<Instance> {
  const logs: string[] = [];
  const log = new ServiceLog();
  learnSettings({ ...QUICK, ...variables });
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logs.push(chunk.toString());
      log.write(chunk.toString());
      done();
    },
  });
  const app = await service().createApp({
    environment: { ...QUICK, ...settingsOfLoading(), ...variables },
    logs: destination,
    redisTimeoutMs,
  });
  await app.listen(port, '127.0.0.1');
  const close = async (): Promise<void> => {
    await app.close();
    log.check();
  };
  return { url: await app.getUrl(), app, logs, close };
}

interface WorldOptions {
  variables?: Variables;
  /** How many instances of the service. */
  count?: number;
  /** The service gives up on Redis as soon as in production, and not after a hang. So it does where a test has its own Redis. */
  hastyRedis?: boolean;
}

/** A world on an empty database of the worker's Redis or, with `ownRedis`, on a Redis that the test may kill, pause or fill. */
export function startWorld(options: WorldOptions & { ownRedis: true }): Promise<World<RedisServer>>;
export function startWorld(options?: WorldOptions): Promise<World>;
export async function startWorld({
  variables = {},
  count = 1,
  ownRedis = false,
  hastyRedis = ownRedis || 'REDIS_URL' in variables,
}: WorldOptions & { ownRedis?: boolean } = {}): Promise<World> {
  const server = ownRedis ? await startRedis() : undefined;
  const [redis, upstream] = await Promise.all([server ?? redisOfWorker(), service().startEmulator()]);
  watchUpstream(upstream);
  const both = { STARTMESSAGING_BASE_URL: upstream.url, SENDWITHSES_BASE_URL: upstream.url };
  const settings = { REDIS_URL: redis.url, ...both, ...variables };
  // On a machine that is busy a command may take longer than production waits for it.
  const redisTimeoutMs = hastyRedis ? undefined : HANG_MS;
  const instances: Instance[] = [];
  try {
    for (let i = 0; i < count; i++) instances.push(await startInstance(settings, 0, redisTimeoutMs));
  } catch (error) {
    await Promise.all([...instances.map((instance) => instance.close()), upstream.close(), server?.stop()]);
    throw error;
  }
  return {
    redis,
    redisTimeoutMs,
    upstream,
    instances,
    url: instances[0]?.url ?? '',
    async close() {
      try {
        await Promise.all(instances.map((instance) => instance.close()));
        await checkRedis(redis.url);
      } finally {
        await Promise.all([upstream.close(), server?.stop()]);
      }
    },
  };
}

/** One more instance over the Redis and the upstream of a world. The test that starts it closes it. */
export const anotherInstance = (world: World, variables: Variables = {}): Promise<Instance> =>
  startInstance(
    {
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
      SENDWITHSES_BASE_URL: world.upstream.url,
      ...variables,
    },
    0,
    'REDIS_URL' in variables ? undefined : world.redisTimeoutMs,
  );

export interface Answer {
  status: number;
  headers: Headers;
  // Tests look into bodies of many shapes.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
}

/** What most tests assert of an answer: `[429, 'rate_limited']`. The code is undefined where the answer is no error. */
export const statusAndCode = ({ status, body }: Answer): [number, string | undefined] => [
  status,
  (body as { code?: string } | null)?.code,
];

/** One call; the body is parsed when it is JSON. */
export async function call(
  method: string,
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  learnRequest(body);
  const response = await fetch(url, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const json = (response.headers.get('content-type') ?? '').includes('json');
  learnAnswer(text, response.headers);
  return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
}

export const sendOtp = (
  url: string,
  phoneNumber: unknown,
  headers?: Record<string, string>,
): Promise<Answer> => call('POST', `${url}/auth/send-otp`, { phoneNumber }, headers);

export const verifyOtp = (
  url: string,
  requestId: unknown,
  otpCode: unknown,
  headers?: Record<string, string>,
): Promise<Answer> => call('POST', `${url}/auth/verify-otp`, { requestId, otpCode }, headers);

/** The newest code that was texted to the number. */
export function textedCode(upstream: Emulator, phoneNumber: string): string {
  const message = upstream.messages.filter((sent) => sent.phoneNumber === phoneNumber).at(-1);
  if (message === undefined) throw new Error('No SMS was sent to this number');
  learnCode(message.code);
  return message.code;
}

/** A code that is not this one. */
export const wrongCode = (code: string): string =>
  code.replace(/.$/, (digit) => String((Number(digit) + 1) % 10));

let numbers = 0;
/** A valid mobile number that no other test of this file uses. */
export const freshNumber = (): string => {
  const number = `+9198${String(10_000_000 + (numbers += 1))}`;
  learnNumber(number);
  return number;
};

/** The whole login: send, read the SMS, verify. */
export async function login(world: World, phoneNumber = freshNumber(), url = world.url): Promise<Answer> {
  const sent = await sendOtp(url, phoneNumber);
  return verifyOtp(url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
}

/** One command to the world's Redis, past the service. */
export async function redisCommand(world: World, name: string, ...args: string[]): Promise<unknown> {
  const redis = new Redis(world.redis.url);
  try {
    return await redis.call(name, ...args);
  } finally {
    redis.disconnect();
  }
}
