import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Family, readExposition } from './exposition';
import type { RedisServer } from './redis-server';
import {
  call,
  freshNumber,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  type World,
  wrongCode,
} from './world';

const DAY_MS = 86_400_000;
export const SMS_PRICE_PAISE = 25;

const error = (status: number, code: string) => ({ kind: 'error', status, code }) as const;

/** A service with everything on, to which everything has happened that a metric counts. */
export interface Monitored {
  world: World<RedisServer>;
  /** Since when the key signs, and from when the next one will, in seconds. */
  signs: { since: number; next: number };
  /** What was exported before the first request, while Redis was away, and at the end. */
  atStart: string;
  withoutRedis: string;
  exported: string;
  close(): Promise<void>;
}

export const scrape = async (url: string): Promise<string> =>
  String((await call('GET', `${url}/metrics`)).body);

/** The only sample of a metric that has these labels. */
export function sample(of: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const found = [...of.values()]
    .flatMap(({ samples }) => samples)
    .filter((each) => each.name === name && Object.entries(labels).every(([k, v]) => each.labels[k] === v));
  if (found.length !== 1) throw new Error(`${found.length} samples of ${name} ${JSON.stringify(labels)}`);
  return found[0]!.value;
}

export async function startMonitored(): Promise<Monitored> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  putKey(folder, Date.now() - 200 * DAY_MS);
  const signs = {
    since: putKey(folder, Date.now() - 100 * DAY_MS),
    next: putKey(folder, Date.now() + DAY_MS),
  };
  const world = await startWorld({
    // It is killed and paused below.
    ownRedis: true,
    variables: {
      JWT_KEYS_DIR: folder,
      STARTMESSAGING_CONTRACT: 'caller',
      PROVIDERS: 'startmessaging,sendwithses',
      SENDWITHSES_TEMPLATE_KEY: 'tk_0123456789',
      SENDWITHSES_SENT_IF: 'success=true',
      SENDWITHSES_VERIFIED_IF: 'data.verified=true',
      BUDGET_PAISE_PER_HOUR: '2500',
      BUDGET_PAISE_PER_DAY: '10000',
      SMS_PRICE_PAISE: String(SMS_PRICE_PAISE),
      BUDGET_RESERVE_PERCENT: '30',
      WALLET_ALERT_PAISE: '5000',
    },
  });
  const close = async (): Promise<void> => {
    await world.close();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const atStart = await scrape(world.url);
    const withoutRedis = await loseRedis(world);
    await happen(world);
    let exported = '';
    // The ledger writes after the login that a number is a regular's, and only then there is a reserve.
    await until(async () => {
      exported = await scrape(world.url);
      const left = { window: 'hour', numbers: 'new' };
      return sample(readExposition(exported), 'otp_login_budget_left_paise', left) < 2_000;
    }, 'the reserve of the budget');
    return { world, signs, atStart, withoutRedis, exported, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

function putKey(folder: string, activeFrom: number): number {
  const kid = `${new Date(activeFrom).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-key`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return Math.floor(activeFrom / 60_000) * 60;
}

/** What is exported while Redis is away, for a moment. */
async function loseRedis({ url, redis }: World<RedisServer>): Promise<string> {
  const health = async (status: string): Promise<void> =>
    until(async () => (await call('GET', `${url}/health/ready`)).body.status === status, `health ${status}`);
  await redis.kill();
  await health('degraded');
  const exported = await scrape(url);
  await redis.restart();
  await health('ok');
  return exported;
}

async function happen(world: World<RedisServer>): Promise<void> {
  const { url, upstream } = world;
  const { accessToken, refreshToken } = await loginAfterWrongCode(world);
  await call('GET', `${url}/auth/me`, undefined, { authorization: `Bearer ${accessToken}` });
  const second = await refresh(url, refreshToken);
  await refresh(url, String(second.body.refreshToken));
  expect(statusAndCode(await refresh(url, refreshToken))).toEqual([401, 'refresh_token_reused']);
  // Handed to the second provider; then taken by none, and given back.
  upstream.fault({ on: 'send', provider: 'startmessaging', fault: error(401, 'UNAUTHORIZED') });
  await loginAfterWrongCode(world);
  upstream.fault({ on: 'send', provider: 'startmessaging', fault: error(402, 'INSUFFICIENT_BALANCE') });
  upstream.fault({ on: 'send', provider: 'sendwithses', fault: error(402, 'NO_MONEY') });
  expect((await sendOtp(url, freshNumber())).status).toBe(503);
  await storm(url);
  world.redis.pause();
  expect(statusAndCode(await sendOtp(url, freshNumber()))).toEqual([503, 'store_unavailable']);
  world.redis.resume();
}

async function loginAfterWrongCode(world: World): Promise<{ accessToken: string; refreshToken: string }> {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
  const verified = await verifyOtp(world.url, body.requestId, code);
  expect(verified.status).toBe(200);
  return verified.body as { accessToken: string; refreshToken: string };
}

const refresh = (url: string, refreshToken: string) => call('POST', `${url}/auth/refresh`, { refreshToken });

/** What strangers choose: paths, methods, ids, numbers, tokens, headers. No two storms are alike. */
export async function storm(url: string): Promise<void> {
  const random = (): string => randomBytes(9).toString('base64url');
  for (let i = 0; i < 3; i++) {
    await call('GET', `${url}/${random()}?${random()}=${random()}`);
    await call('GET', `${url}/auth/otp/${random()}`);
    await call('DELETE', `${url}/auth/send-otp/${random()}`);
    await call('POST', `${url}/auth/${random()}`, { [random()]: random() });
    await call('OPTIONS', `${url}/${random()}`);
    await sendOtp(url, random(), { 'idempotency-key': random() + random(), 'x-request-id': random() });
    await verifyOtp(url, random(), random());
    await refresh(url, `${random()}.${random()}`);
    await call('GET', `${url}/auth/me`, undefined, { authorization: `Bearer ${random()}` });
    await call('POST', `${url}/oauth/revoke`, `token=${random()}`, {
      'content-type': 'application/x-www-form-urlencoded',
    });
  }
  for (const method of ['PROPFIND', 'MKCOL', 'SEARCH', 'TRACE', 'PATCH']) {
    await new Promise((resolve, reject) => {
      const sent = request(`${url}/${random()}`, { method }, (answer) => answer.resume().on('end', resolve));
      sent.on('error', reject).end();
    });
  }
}
