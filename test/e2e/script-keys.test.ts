import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Script } from '../../src/redis/script';
import { ADMIN_TOKEN, block, flushLedger, unblock, unlock, WITH_ADMIN } from '../support/admin';
import { type RunScript, scriptsDuring } from '../support/redis-monitor';
import type { RedisServer } from '../support/redis-server';
import { bearer } from '../support/tokens';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  type Answer,
  until,
  verifyOtp,
  type World,
  wrongCode,
} from '../support/world';

// Managed caches and clusters refuse or misroute a script whose keys they do not know. So every key that a script uses is
// among its KEYS, or begins with a name that its caller gives and its head declares, on the slot of KEYS[1].

const SRC = join(__dirname, '../../src');
const REFUSED = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;

const BACK = 'https://app.example/callback';

/** A replica makes these run: the rights are asked for before a monitor listens, and a mark needs a replica. */
const NOT_RUN = ['redis/rights', 'redis/mark'];

interface Source {
  name: string;
  head: string;
}

/** Every script by its SHA-1. */
function readScripts(): Map<string, Source> {
  const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => ({ room: join(SRC, dirname(path)), text: readFileSync(join(SRC, path), 'utf8') }));
  const libraries = new Map(
    files.flatMap(({ room, text }) =>
      [...text.matchAll(/const (\w+) = Script\.library\(/g)].map(([, name]) => [name!, room] as const),
    ),
  );
  const scripts = files.flatMap(({ room, text }) =>
    [...text.matchAll(/Script\.load\(\s*__dirname,\s*'([\w-]+)'((?:,\s*\w+)*),?\s*\)/g)].map(
      ([, name = '', list = '']): [string, Source] => {
        const rooms = [...list.matchAll(/\w+/g)].map(([each]) => libraries.get(each)!);
        const { sha1 } = Script.load(room, name, ...rooms.map((each) => Script.library(each)));
        const comments = [room, ...rooms].map((each, i) =>
          readFileSync(join(each, i === 0 ? `${name}.lua` : 'functions.lua'), 'utf8').split(/^[^-]/m, 1),
        );
        return [sha1, { name: `${basename(room)}/${name}`, head: comments.join('\n') }];
      },
    ),
  );
  return new Map(scripts);
}

const slotOf = (key = ''): string => /\{([^}]+)\}/.exec(key)?.[1] ?? key;

/** The keys that a script used without a declaration. */
function undeclared({ keys, args, used }: RunScript, { head }: Source): string[] {
  const named = /begins? with|made from/.test(head)
    ? [...keys, ...args.filter((arg) => arg.includes('{'))]
    : [];
  return used.filter(
    (key) =>
      !keys.includes(key) && !(slotOf(key) === slotOf(keys[0]) && named.some((name) => key.startsWith(name))),
  );
}

let world: World<RedisServer>;
beforeAll(async () => {
  world = await startWorld({ ownRedis: true, count: 0 });
});
afterAll(() => world.close());

/** Makes every script run. */
async function useEverything(): Promise<void> {
  const { upstream } = world;
  const instance = await startInstance({
    ...WITH_ADMIN,
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: upstream.url,
    SENDWITHSES_BASE_URL: upstream.url,
    SENDWITHSES_TEMPLATE_KEY: 'tk_0123456789',
    SENDWITHSES_SENT_IF: 'success=true,data.status="sent"',
    SENDWITHSES_VERIFIED_IF: 'data.verified=true',
    STARTMESSAGING_CONTRACT: 'provider',
    PROVIDERS: 'startmessaging,sendwithses',
    INTROSPECTION_CLIENTS: `api:${'c'.repeat(32)}`,
    LOGIN_PAGE: 'true',
    OAUTH_CLIENTS: JSON.stringify([{ id: 'app', name: 'An app', redirect_uris: [BACK] }]),
    ALERT_WEBHOOK_URL: 'http://127.0.0.1:9/',
    ALERT_WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 7).toString('base64')}`,
    LIMIT_GLOBAL: '1000/3600',
    BUDGET_PAISE_PER_DAY: '100000',
    TRUSTED_PROXIES: '127.0.0.1',
  });
  const { url } = instance;
  // Only of an SMS of the `caller` contract can the service ask what became of it.
  const caller = await startInstance({
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
  });
  try {
    // An SMS that never arrives.
    const unreached = freshNumber();
    upstream.fault({
      on: 'send',
      times: 1,
      fault: { kind: 'delivery', status: 'failed', failureReason: '' },
    });
    const { body: lost } = await sendOtp(caller.url, unreached);
    await until(
      async () =>
        (await call('GET', `${caller.url}/auth/otp/${lost.requestId as string}`)).body.delivery === 'failed',
      'the delivery that failed',
    );
    // A login with a wrong code before the right one, under a key.
    const phoneNumber = freshNumber();
    const { body: sent } = await sendOtp(url, phoneNumber);
    const code = textedCode(upstream, phoneNumber);
    const under = { 'Idempotency-Key': 'a-key-of-this-test-0123456789' };
    await verifyOtp(url, sent.requestId, wrongCode(code), under);
    upstream.fault({ on: 'verify', times: 1, fault: { kind: 'error', status: 401, code: 'UNAUTHORIZED' } });
    await verifyOtp(url, sent.requestId, code, { 'Idempotency-Key': 'another-key-of-this-test-01234' });
    // From another address than the one that asked for the code.
    const elsewhere = { 'X-Forwarded-For': '203.0.113.9' };
    const { body: first, status } = await verifyOtp(url, sent.requestId, code, elsewhere);
    expect(status).toBe(200);
    const { body: next } = await call('POST', `${url}/auth/refresh`, { refreshToken: first.refreshToken });
    const person = bearer(next.accessToken as string);
    await call('GET', `${url}/auth/otp/${sent.requestId as string}`);
    await call('GET', `${url}/auth/sessions`, undefined, person);
    await call('DELETE', `${url}/auth/sessions`, undefined, person);
    await useAnApp(url, upstream);
    // Another provider, then none.
    upstream.fault({ on: 'send', times: 1, provider: 'startmessaging', fault: REFUSED });
    await sendOtp(url, freshNumber());
    for (const provider of ['startmessaging', 'sendwithses'] as const)
      upstream.fault({ on: 'send', times: 0, provider, fault: REFUSED });
    expect((await sendOtp(url, freshNumber(), under)).status).toBe(503);
    // Operators, backends and Prometheus.
    await flushLedger({ ...world, instances: [instance] });
    for (const path of ['usage', 'abuse'])
      await call('GET', `${url}/admin/${path}`, undefined, bearer(ADMIN_TOKEN));
    for (const change of [block, unblock, unlock]) await change(url, phoneNumber);
    const basic = `Basic ${Buffer.from(`api:${'c'.repeat(32)}`).toString('base64')}`;
    const feed = await call('GET', `${url}/auth/revocations?since=0`, undefined, { authorization: basic });
    expect(feed.status).toBe(200);
    await call('GET', `${url}/metrics`);
  } finally {
    // The alerts and the audit are written at the end at the latest.
    await Promise.all([instance.close(), caller.close()]);
  }
}

/** A login on the login page for an app, a refresh by the app, and the list of both sessions. */
async function useAnApp(url: string, upstream: World['upstream']): Promise<void> {
  const phoneNumber = freshNumber();
  const { body: sent } = await sendOtp(url, phoneNumber);
  const otpCode = textedCode(upstream, phoneNumber);
  const login = { requestId: sent.requestId as string, otpCode, tokenDelivery: 'cookie' };
  const origin = { origin: 'http://localhost:3000' };
  const page = await call('POST', `${url}/auth/verify-otp`, login, origin);
  const cookie = page.headers
    .getSetCookie()
    .find((each) => each.includes('refresh='))!
    .split(';')[0]!;
  const verifier = 'v'.repeat(43);
  const client = { client_id: 'app', redirect_uri: BACK };
  const code = await call(
    'POST',
    `${url}/oauth/authorize`,
    {
      ...client,
      response_type: 'code',
      scope: 'openid offline_access',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    },
    { ...origin, cookie },
  );
  const token = (fields: Record<string, string>): Promise<Answer> =>
    call('POST', `${url}/oauth/token`, new URLSearchParams(fields).toString(), {
      'content-type': 'application/x-www-form-urlencoded',
    });
  const exchanged = await token({
    ...client,
    grant_type: 'authorization_code',
    code: new URL(code.body.location as string).searchParams.get('code')!,
    code_verifier: verifier,
  });
  expect(exchanged.status).toBe(200);
  const refresh = { client_id: 'app', refresh_token: exchanged.body.refresh_token as string };
  expect((await token({ ...refresh, grant_type: 'refresh_token' })).status).toBe(200);
  await call('GET', `${url}/auth/sessions`, undefined, bearer(page.body.accessToken as string));
}

test('every key that a script uses is declared', async () => {
  const scripts = readScripts();
  const runs = await scriptsDuring(world.redis.url, useEverything);
  const faults = runs.flatMap((run) => {
    const script = scripts.get(run.sha1);
    return script ? undeclared(run, script).map((key) => `${script.name}: ${key}`) : [];
  });
  expect([...new Set(faults)]).toEqual([]);
  const seen = new Set(runs.map(({ sha1 }) => scripts.get(sha1)?.name));
  const missed = [...scripts.values()].map(({ name }) => name).filter((name) => !seen.has(name));
  expect(missed.filter((name) => !NOT_RUN.includes(name))).toEqual([]);
});

test('a key that no name of the call begins is found', () => {
  const run = { sha1: '', keys: ['x:{a}:one'], args: ['{a}:mine:'] };
  const script = { name: 'a', head: '-- KEYS one; on the slot of every key that is made from the prefix' };
  const used = ['x:{a}:one', 'x:{a}:one:more', '{a}:mine:1', 'x:{a}:two', 'x:{b}:one'];
  expect(undeclared({ ...run, used }, script)).toEqual(['x:{a}:two', 'x:{b}:one']);
  expect(undeclared({ ...run, used }, { ...script, head: '-- KEYS one' })).toEqual(used.slice(1));
});
