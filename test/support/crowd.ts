import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { HANG_MS } from './hang';
import { abuseLevelKey, challengesKey } from './keys';
import { call, until, type Answer, type Variables, type World } from './world';

/** Who may ask for the totals; for `ADMIN_TOKENS`. */
const OPERATOR = 'an-operator-0123456789-0123456789-abcd';
export const ADMIN_TOKENS = `ops:${OPERATOR}`;

/** A step over Redis is given up after 750 ms. */
const MOST_WAITING_MS = 250;
const QUIET_MS = 10;

/** Settings under which upstream may be held for as long as a test wants. */
export const PATIENT: Variables = { UPSTREAM_TIMEOUT_MS: '45000', UPSTREAM_DEADLINE_MS: '45000' };

/** Upstream keeps its next answer back, of any number or of this one, until `letGo` is called. */
export function holdUpstream(
  { upstream }: World,
  on: 'send' | 'verify',
  phoneNumber?: string,
): { arrived: () => Promise<void>; letGo: () => void } {
  const fault = { kind: 'slow', delayMs: 2 * HANG_MS } as const;
  upstream.fault({ on, ...(phoneNumber && { phoneNumber }), fault });
  const before = upstream.calls.length;
  return {
    arrived: () => until(() => upstream.calls.length > before, `the ${on} at upstream`),
    letGo: () => {
      upstream.clearFaults();
    },
  };
}

export const as = (accessToken: unknown): Record<string, string> => ({
  authorization: `Bearer ${String(accessToken)}`,
});
/** Under this Idempotency-Key, which is made long enough. */
export const under = (key: string): Record<string, string> => ({ 'idempotency-key': key.padEnd(16, '.') });

/** A new folder for `JWT_KEYS_DIR`: instances that share it take each other's access tokens. */
export function signingKeys(): string {
  const folder = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  writeFileSync(join(folder, '20260101T0000Z-shared.pem'), pem, { mode: 0o600 });
  return folder;
}

/** The calls spread over the instances, all at once. */
export function atOnce(
  world: World,
  count: number,
  send: (url: string, i: number) => Promise<Answer>,
): Promise<Answer[]> {
  const { instances } = world;
  return Promise.all(
    Array.from({ length: count }, (_, i) => send(instances[i % instances.length]?.url ?? '', i)),
  );
}

/** While the function runs, Redis keeps the writes of all its clients waiting, as if it stood still. Then it runs them. */
export async function withoutWrites<T>(world: World, run: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(world.redis.url);
  try {
    await redis.call('CLIENT', 'PAUSE', HANG_MS, 'WRITE');
    return await run(redis);
  } finally {
    await redis.call('CLIENT', 'UNPAUSE');
    redis.disconnect();
  }
}

/** Calls that wait at Redis together: most of them are there before the first is answered. */
export async function queued<T>(world: World, ask: () => Promise<T>): Promise<T> {
  const { asked } = await withoutWrites(world, async (redis) => {
    const asked = ask();
    const end = performance.now() + MOST_WAITING_MS;
    for (let before = '', now = ''; now === '' || now !== before; before = now) {
      await sleep(QUIET_MS);
      now = waitingClients((await redis.client('LIST')) as string);
      if (performance.now() > end) break;
    }
    return { asked };
  });
  return asked;
}

/** The clients that wait for the end of a pause, and how much each has asked. */
const waitingClients = (list: string): string =>
  list
    .split('\n')
    .filter((line) => / flags=\w*b/.test(line))
    .map((line) => line.replace(/^id=(\d+).* qbuf=(\d+).*$/, '$1 $2'))
    .join();

/** What an answer says: its status, and the code of an error. */
export const told = ({ status, body }: Answer): string =>
  status < 300 ? String(status) : `${status} ${String(body.code)}`;

/** The body of a send without what passes with time: a replay has the rest of the first response. */
export function lasting({ body }: Answer): Record<string, unknown> {
  const { expiresInSeconds, resendInSeconds, ...rest } = body as Record<string, unknown>;
  if (typeof expiresInSeconds !== 'number' || typeof resendInSeconds !== 'number')
    throw new Error('The body has no relative times');
  return rest;
}

/** How often each was said. */
export function tally(answers: readonly Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[told(answer)] = (counts[told(answer)] ?? 0) + 1;
  return counts;
}

/** An operator's call. */
export const operate = (url: string, method: string, path: string, body?: unknown): Promise<Answer> =>
  call(method, `${url}/admin/${path}`, body, as(OPERATOR));

/** The ledger's totals of all days. */
export async function bill(
  world: World,
): Promise<{ sent: number; refunded: number; unknown: number; costPaise: number }> {
  const { status, body } = await operate(world.url, 'GET', 'usage');
  if (status !== 200) throw new Error(`The totals were refused: ${status}`);
  return body.total;
}

/** The abuse control judges no scope before the next send. */
export async function forgetAbuseLevels(world: World): Promise<void> {
  const redis = new Redis(world.redis.url);
  try {
    for (const key of await redis.keys(abuseLevelKey('*'))) await redis.del(key);
  } finally {
    redis.disconnect();
  }
}

/** Makes it a minute later for every Idempotency-Key that is in flight. */
export async function aMinuteLater(world: World): Promise<void> {
  const redis = new Redis(world.redis.url);
  try {
    for (const key of await redis.keys(challengesKey)) {
      const { until, ...fields } = await redis.hgetall(key);
      if (until !== undefined) await redis.hincrby(key, 'until', -60_000);
      for (const [field, record] of Object.entries(fields)) {
        const [, before, time] = /^(.+:flight\/[\w-]+:)(\d+)$/.exec(record) ?? [];
        if (before !== undefined) await redis.hset(key, field, `${before}${Number(time) - 60_000}`);
      }
    }
  } finally {
    redis.disconnect();
  }
}
