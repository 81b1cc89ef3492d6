import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { Balancer } from '../support/balancer';
import { as, signingKeys } from '../support/crowd';
import { KeptClient, type Said } from '../support/kept-client';
import { Build, type Run } from '../support/processes';
import { redisOfWorker } from '../support/redis-of-worker';
import { figures, full } from '../support/scale';
import { service } from '../support/service';
import {
  API_KEY,
  freshNumber,
  SECRET,
  SUBJECT_SECRET,
  textedCode,
  until,
  wrongCode,
  type Variables,
} from '../support/world';

const REQUESTS = full ? 20_000 : 1_500;
const CLIENTS = full ? 24 : 8;
/** Each of the three replicas ends so often at least. */
const ROUNDS = full ? 3 : 1;
/** Shorter than SHUTDOWN_DELAY_SECONDS: a client that is silent for longer has its idle connection closed, and may race that. */
const LONGEST_PAUSE_MS = full ? 60 : 150;

const JWT_KEYS_DIR = signingKeys();
let build: Build;
let redis: { url: string };
let upstream: Emulator;
let balancer: Balancer;

beforeAll(async () => {
  build = Build.make();
  [redis, upstream, balancer] = await Promise.all([
    redisOfWorker(),
    service().startEmulator(),
    Balancer.start(),
  ]);
  upstream.settings.balance = 1_000_000;
}, 180_000);
afterAll(async () => {
  await balancer.close();
  await upstream.close();
  await build.remove();
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

const settings = (): Variables => ({
  NODE_ENV: 'test',
  HOST: '127.0.0.1',
  PORT: '0',
  SECRET,
  SUBJECT_SECRET,
  JWT_KEYS_DIR,
  REDIS_URL: redis.url,
  STARTMESSAGING_API_KEY: API_KEY,
  WALLET_ALERT_PAISE: '0',
  STARTMESSAGING_BASE_URL: upstream.url,
  // Far longer than the balancer needs to see that a replica leaves, also on a busy machine.
  SHUTDOWN_DELAY_SECONDS: '5',
  LIMIT_PHONE: '1000/60',
  LIMIT_IP: '1000000/60',
  LIMIT_VERIFY_IP: '1000000/60',
  LIMIT_GLOBAL: '1000000/1',
  // Many numbers see a wrong code here.
  ABUSE_WRONG_CODES: 'off',
});

it('replicas that are restarted one after the other under load lose no request', async () => {
  const replicas: { service: Run; url: string }[] = [];
  const join = async (): Promise<void> => {
    const replica = await build.serve(settings());
    balancer.add(replica.url);
    replicas.push(replica);
  };
  for (let i = 0; i < 3; i++) await join();
  await until(() => balancer.ready === 3, 'three replicas');

  let [requests, restarts, busy] = [0, 0, 0];
  const course = { done: false };
  const failures: string[] = [];
  /** Counts a request, and an answer that is none of those that are due. */
  const expectStatus = async (
    what: string,
    status: number,
    asked: Promise<Said>,
  ): Promise<Said | undefined> => {
    requests += 1;
    const said = await asked.catch((error: unknown) => String((error as { code?: unknown }).code ?? error));
    await sleep(Math.random() * LONGEST_PAUSE_MS);
    if (typeof said === 'object' && said.status === status) return said;
    // An answer all the same, of a machine that is busy with other tests.
    if (typeof said === 'object' && said.status === 503) {
      busy += 1;
      return undefined;
    }
    failures.push(`${what}: ${typeof said === 'string' ? said : JSON.stringify(said)}`);
    return undefined;
  };

  const live = async (): Promise<void> => {
    const client = new KeptClient(balancer.url);
    while (!course.done) {
      const phoneNumber = freshNumber();
      const sent = await expectStatus('send', 200, client.call('POST', '/auth/send-otp', { phoneNumber }));
      if (!sent) continue;
      const { requestId } = sent.body as { requestId: string };
      const code = textedCode(upstream, phoneNumber);
      const wrong = { requestId, otpCode: wrongCode(code) };
      await expectStatus('wrong code', 400, client.call('POST', '/auth/verify-otp', wrong));
      const right = { requestId, otpCode: code };
      let session = await expectStatus('verify', 200, client.call('POST', '/auth/verify-otp', right));
      for (let i = 0; i < 4 && session; i++) {
        const { accessToken, refreshToken } = session.body as { accessToken: string; refreshToken: string };
        for (let j = 0; j < 2; j++)
          await expectStatus('me', 200, client.call('GET', '/auth/me', undefined, as(accessToken)));
        session = await expectStatus('refresh', 200, client.call('POST', '/auth/refresh', { refreshToken }));
      }
    }
    client.close();
  };

  const lives = Promise.all(Array.from({ length: CLIENTS }, live));
  while (restarts < 3 * ROUNDS || requests < REQUESTS) {
    const leaving = replicas.shift();
    if (leaving === undefined) throw new Error('No replica is there');
    leaving.service.signal('SIGTERM');
    expect(await leaving.service.ended).toEqual({ code: 0, signal: null });
    balancer.remove(leaving.url);
    await join();
    await until(() => balancer.ready === 3, 'three replicas');
    restarts += 1;
  }
  course.done = true;
  await lives;
  figures(
    `rolling restart: requests ${requests}, failed ${failures.length}, 503 ${busy} (restarts ${restarts})`,
  );
  expect(failures.slice(0, 20)).toEqual([]);
  expect(requests - busy).toBeGreaterThan(REQUESTS / 2);
}, 1_200_000);
