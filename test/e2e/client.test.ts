import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
// @ts-expect-error: the scripts have no types
import { schemaTypes } from '../../scripts/schema-types.mjs';
import {
  client,
  html,
  Network,
  problem,
  SharedStore,
  type Login,
  type OtpLogin,
  type Store,
} from '../support/client';
import { until, withoutHang } from '../support/hang';
import {
  anotherInstance,
  call,
  freshNumber,
  startWorld,
  textedCode,
  wrongCode,
  type Instance,
  type World,
} from '../support/world';

// The client against the service, in Node.js: there are no locks here, so tabs race as they do where a lock is frozen.

const { createOtpLogin, OtpLoginError, memoryStore, createLoginFlow } = client();

let world: World;
/** The same service with access tokens that are always due: the client refreshes at every use. */
let hasty: Instance;
const ends: AbortController[] = [];

beforeAll(async () => {
  world = await startWorld();
  hasty = await anotherInstance(world, { ACCESS_TOKEN_TTL_SECONDS: '30', REFRESH_GRACE_SECONDS: '0' });
});
afterAll(async () => {
  for (const end of ends) end.abort();
  await hasty.close();
  await world.close();
});

interface Tab {
  tab: OtpLogin;
  network: Network;
  /** What its listener was told. */
  told: Login[];
}
function open(store: Store = memoryStore(), url = world.url, more: object = {}): Tab {
  const network = new Network();
  const end = new AbortController();
  ends.push(end);
  const tab = createOtpLogin({ url, store, fetch: network.fetch, signal: end.signal, ...more });
  const told: Login[] = [];
  tab.onChange((login) => told.push(login));
  return { tab, network, told };
}
async function logIn(tab: OtpLogin, phoneNumber = freshNumber()): Promise<string> {
  const sent = await tab.sendOtp(phoneNumber);
  await tab.verifyOtp(sent, textedCode(world.upstream, phoneNumber));
  return phoneNumber;
}
/** The error that the promise is rejected with. */
const errorOf = (promise: Promise<unknown>): Promise<InstanceType<typeof OtpLoginError>> =>
  promise.then(
    (value) => {
      throw new Error(`no error, but ${JSON.stringify(value)}`);
    },
    (error: unknown) => error as InstanceType<typeof OtpLoginError>,
  );
const smsTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;

describe('a login', () => {
  it('goes from the number to the user, and gives the access token to the API of the application only', async () => {
    const { tab, network, told } = open();
    expect(await tab.login()).toEqual({ state: 'out' });
    expect(network.seen).toEqual([]);
    const phoneNumber = freshNumber();
    const before = Date.now();
    const sent = await tab.sendOtp(phoneNumber);
    expect(sent).toMatchObject({ phoneNumber, codeLength: 6, attemptsLeft: 3, delivery: 'accepted' });
    expect(sent.expiresAt).toBeGreaterThan(before + 200_000);
    expect(sent.resendAt).toBeGreaterThan(before);
    expect(await tab.status(sent.requestId)).toMatchObject({
      state: 'pending',
      pollAfterSeconds: expect.any(Number),
    });
    const user = await tab.verifyOtp(sent, textedCode(world.upstream, phoneNumber));
    expect(user).toEqual({ id: expect.any(String), phoneNumber });
    expect(await tab.login()).toEqual({ state: 'in', user });
    await until(() => told.length === 2);
    expect(told).toEqual([{ state: 'out' }, { state: 'in', user }]);
    const me = await tab.fetch(`${world.url}/auth/me`).then((answer) => answer.json());
    expect(me).toMatchObject(user);
    // The token is fresh: one request for it was enough.
    expect(network.to('/auth/refresh')).toEqual([]);
    const sessions = await tab.sessions.list();
    expect(sessions).toEqual([expect.objectContaining({ current: true })]);
  });

  it('survives a reload, and gives the device token to the next send', async () => {
    const store = new SharedStore();
    const phoneNumber = await logIn(open(store.tab()).tab);
    const { tab, network } = open(store.tab());
    expect(await tab.login()).toMatchObject({ state: 'in', user: { phoneNumber } });
    expect(network.seen).toEqual([]);
    await tab.logout();
    await tab.sendOtp(phoneNumber);
    expect(network.to('/auth/send-otp')[0]?.body.deviceToken).toMatch(/^[\w-]{22}\./);
    expect([...store.values.keys()]).toEqual([`otp-login.device.${phoneNumber.slice(1)}`]);
  });

  it('sends one SMS when the answer is lost twice', async () => {
    const { tab, network } = open();
    const phoneNumber = freshNumber();
    network.fate = () => (network.seen.length <= 2 ? 'lost' : 'delivered');
    await tab.sendOtp(phoneNumber);
    expect(new Set(network.seen.map(({ headers }) => headers.get('idempotency-key'))).size).toBe(1);
    expect(network.seen).toHaveLength(3);
    expect(smsTo(phoneNumber)).toBe(1);
    // Each press of a button has a key of its own.
    await tab.sendOtp(phoneNumber);
    expect(network.seen[3]?.headers.get('idempotency-key')).not.toBe(
      network.seen[0]?.headers.get('idempotency-key'),
    );
  });

  it('opens one session when the answer to the right code is lost', async () => {
    const { tab, network } = open();
    const phoneNumber = freshNumber();
    const sent = await tab.sendOtp(phoneNumber);
    network.fate = () => (network.to('/auth/verify-otp').length === 1 ? 'lost' : 'delivered');
    await tab.verifyOtp(sent, textedCode(world.upstream, phoneNumber));
    expect(await tab.sessions.list()).toHaveLength(1);
  });

  it('tells a wrong code from the last attempt', async () => {
    const { tab } = open();
    const phoneNumber = freshNumber();
    const sent = await tab.sendOtp(phoneNumber);
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    expect(await errorOf(tab.verifyOtp(sent, wrong))).toMatchObject({
      code: 'otp_incorrect',
      status: 400,
      attemptsLeft: 2,
    });
    await errorOf(tab.verifyOtp(sent, wrong));
    const last = await errorOf(tab.verifyOtp(sent, wrong));
    expect(last).toMatchObject({ code: 'otp_attempts_exhausted', attemptsLeft: 0 });
    expect(last.requestId).toMatch(/^[\w.-]+$/);
    expect(last).toBeInstanceOf(OtpLoginError);
  });

  it('throws at once what another try cannot repair, and waits for what it can', async () => {
    const { tab, network } = open();
    for (const [status, code] of [
      [400, 'phone_number_rejected'],
      [503, 'sms_unavailable'],
      [429, 'phone_locked'],
    ] as const) {
      network.fate = () => problem(status, code, { retryAfterSeconds: 3_600 });
      network.seen.length = 0;
      expect(await errorOf(tab.sendOtp(freshNumber()))).toMatchObject({ status, code });
      expect(network.seen).toHaveLength(1);
    }
    for (const fate of [
      problem(409, 'idempotency_in_progress'),
      problem(503, 'store_unavailable'),
      problem(429, 'rate_limited', { retryAfterSeconds: 1 }),
      html(502),
    ]) {
      network.seen.length = 0;
      network.fate = () => (network.seen.length === 1 ? fate : 'delivered');
      await tab.sendOtp(freshNumber());
      expect(network.seen).toHaveLength(2);
    }
  });

  it('solves the proof of work that a 428 or a 429 asks for, once', async () => {
    const { tab, network } = open(undefined, undefined, { solve: () => Promise.resolve('solved') });
    const challenge = { parameters: { algorithm: 'none' } };
    for (const fate of [
      () => problem(428, 'challenge_required', { challenge }),
      () => problem(429, 'rate_limited', { challenge, retryAfterSeconds: 1 }),
    ]) {
      network.seen.length = 0;
      const asked: string[] = [];
      network.fate = ({ body }) => (body.altcha === undefined ? fate() : 'delivered');
      await tab.sendOtp(freshNumber(), { onChallenge: () => asked.push('asked') });
      expect(network.seen.map(({ body }) => body.altcha)).toEqual([undefined, 'solved']);
      expect(asked).toEqual(['asked']);
      network.fate = fate;
      network.seen.length = 0;
      expect((await errorOf(tab.sendOtp(freshNumber()))).code).toMatch(/challenge_required|rate_limited/);
      expect(network.seen).toHaveLength(2);
    }
    const unable = open(undefined, undefined, { solve: () => Promise.reject(new Error('no WebCrypto')) });
    unable.network.fate = () => problem(428, 'challenge_required', { challenge });
    expect(await errorOf(unable.tab.sendOtp(freshNumber()))).toMatchObject({ code: 'challenge_unsolved' });
  });

  it('ends with aborted as soon as its signal says so', async () => {
    const { tab, network } = open();
    const stop = new AbortController();
    network.fate = () => {
      stop.abort();
      return 'offline';
    };
    expect(await errorOf(tab.sendOtp(freshNumber(), { signal: stop.signal }))).toMatchObject({
      code: 'aborted',
    });
  });

  it('names the fix of a developer’s fault in the console, once', async () => {
    const { tab, network } = open();
    network.fate = () => problem(403, 'origin_not_allowed', { detail: 'Add the origin to CORS_ORIGINS' });
    const complaints: unknown[][] = [];
    const consoleOfService = (globalThis as unknown as { globalOfService: typeof globalThis }).globalOfService
      .console;
    const spoken = consoleOfService.error.bind(consoleOfService);
    consoleOfService.error = (...words: unknown[]) => complaints.push(words);
    try {
      expect(await errorOf(tab.sendOtp(freshNumber()))).toMatchObject({ code: 'origin_not_allowed' });
    } finally {
      consoleOfService.error = spoken;
    }
    expect(complaints).toHaveLength(1);
    expect(String(complaints[0])).toContain('CORS_ORIGINS');
  });
});

describe('a session', () => {
  it('is refreshed once for all callers of a tab', async () => {
    const { tab, network } = open(undefined, hasty.url);
    await logIn(tab);
    const tokens = await Promise.all(Array.from({ length: 9 }, () => tab.accessToken()));
    expect(new Set(tokens).size).toBe(1);
    expect(network.to('/auth/refresh')).toHaveLength(1);
    // The store holds the new pair before a caller has it, and no key is left.
    await tab.accessToken();
    expect(network.to('/auth/refresh')).toHaveLength(2);
    expect(network.to('/auth/refresh')[1]?.body.refreshToken).not.toBe(
      network.to('/auth/refresh')[0]?.body.refreshToken,
    );
  });

  it('goes on in three tabs that refresh at once without a lock', async () => {
    const store = new SharedStore();
    const graceful = await anotherInstance(world, { ACCESS_TOKEN_TTL_SECONDS: '30' });
    try {
      const tabs = [1, 2, 3].map(() => open(store.tab(), graceful.url));
      await logIn(tabs[0]!.tab);
      for (let round = 0; round < 3; round++) {
        await Promise.all(
          tabs.flatMap(({ tab }) => [tab.accessToken(), tab.accessToken(), tab.accessToken()]),
        );
      }
      expect(await Promise.all(tabs.map(({ tab }) => tab.login()))).toEqual(
        tabs.map(() => expect.objectContaining({ state: 'in' })),
      );
    } finally {
      await graceful.close();
    }
  });

  it('survives answers to a refresh that were lost, past any grace, because the stored key makes them one request', async () => {
    const store = new SharedStore();
    const { tab, network } = open(store.tab(), hasty.url);
    await logIn(tab);
    network.fate = () => (network.to('/auth/refresh').length <= 2 ? 'lost' : 'delivered');
    await tab.accessToken();
    const keys = network.to('/auth/refresh').map(({ headers }) => headers.get('idempotency-key'));
    expect(keys).toHaveLength(3);
    expect(new Set(keys).size).toBe(1);
    // The tab is killed after the answer was lost; the next one sends the same token with the same key.
    network.fate = () => 'lost';
    const lost = network.to('/auth/refresh').length;
    void tab.accessToken().catch(() => undefined);
    await until(() => network.to('/auth/refresh').length > lost);
    ends.at(-1)?.abort();
    const next = open(store.tab(), hasty.url);
    await next.tab.accessToken();
    expect(next.network.seen[0]?.headers.get('idempotency-key')).toBe(
      network.to('/auth/refresh')[lost]?.headers.get('idempotency-key'),
    );
    expect(await next.tab.login()).toMatchObject({ state: 'in' });
  });

  it.each([
    ['a lost connection', 'offline'],
    ['a proxy’s 401 in HTML', html(401)],
    ['a proxy’s 403 in HTML', html(403)],
    ['a captive portal’s 200 in HTML', html(200)],
    ['a proxy’s 502', html(502)],
    ['a 502 without a content type', new Response(new Uint8Array([60]), { status: 502 })],
    ['a 429', problem(429, 'rate_limited', { retryAfterSeconds: 1 })],
    ['a store that is away', problem(503, 'store_unavailable', { retryAfterSeconds: 1 })],
    ['another service’s 401', problem(401, 'forbidden_by_gateway')],
  ] as const)('is kept by %s', async (_, fate) => {
    const { tab, network, told } = open(undefined, hasty.url);
    await logIn(tab);
    let broken = true;
    network.fate = () => (broken ? (fate instanceof Response ? fate.clone() : fate) : 'delivered');
    const token = tab.accessToken();
    token.catch(() => undefined);
    await until(() => network.to('/auth/refresh').length > 0);
    broken = false;
    if (
      fate instanceof Response &&
      fate.status === 401 &&
      fate.headers.get('content-type')?.includes('problem')
    ) {
      // It is no answer that the client knows: it gives up, and ends nothing.
      await errorOf(token);
    } else {
      await withoutHang(token, 'the token');
    }
    expect(await tab.login()).toMatchObject({ state: 'in' });
    expect(told.filter(({ state }) => state === 'out')).toEqual([]);
  });

  it('ends with one event in every tab when another device ended it', async () => {
    const store = new SharedStore();
    const tabs = [1, 2, 3].map(() => open(store.tab(), hasty.url));
    const phoneNumber = await logIn(tabs[0]!.tab);
    await Promise.all(tabs.map(({ tab }) => tab.login()));
    const other = open();
    await logIn(other.tab, phoneNumber);
    await other.tab.sessions.endOthers();
    expect(await errorOf(tabs[1]!.tab.accessToken())).toMatchObject({ code: 'session_revoked' });
    await until(() => tabs.every(({ told }) => told.at(-1)?.state === 'out'));
    expect(tabs.map(({ told }) => told.filter(({ state }) => state === 'out').length)).toEqual([1, 1, 1]);
    expect(await tabs[1]!.tab.login()).toEqual({ state: 'out', reason: 'session_revoked' });
    expect(await errorOf(tabs[2]!.tab.accessToken())).toMatchObject({ code: 'not_logged_in' });
    expect(await other.tab.login()).toMatchObject({ state: 'in' });
  });

  it('gets one refresh and one repeat for a 401 of any API, and the 401 after that', async () => {
    const { tab, network } = open();
    await logIn(tab);
    network.fate = ({ path }) => (path === '/api' ? html(401) : 'delivered');
    const answer = await tab.fetch(`${world.url}/api`, { method: 'POST', body: '{}' });
    expect(answer.status).toBe(401);
    expect(network.seen.slice(2).map(({ path }) => path)).toEqual(['/api', '/auth/refresh', '/api']);
    const [first, second] = network.to('/api').map(({ headers }) => headers.get('authorization'));
    expect(first).not.toBe(second);
    expect(await tab.login()).toMatchObject({ state: 'in' });
  });

  it('does not send the body of a stream again', async () => {
    const api = createOtpLogin({
      url: world.url,
      store: memoryStore(),
      fetch: (input, init) => {
        const answer = fetch(input, init);
        return new Request(input).url.endsWith('/api') ? answer.then(() => html(401)) : answer;
      },
    });
    await logIn(api);
    const body = new Blob(['{}']).stream();
    const answer = await api.fetch(`${world.url}/api`, {
      method: 'POST',
      body,
      duplex: 'half',
    });
    expect(answer.status).toBe(401);
  });

  it('ends at once on this device without a connection, and the service is told when the connection is back', async () => {
    const { tab, network } = open();
    const phoneNumber = await logIn(tab);
    let offline = true;
    network.fate = () => (offline ? 'offline' : 'delivered');
    const left = tab.logout();
    await until(() => network.to('/auth/logout').length > 0);
    expect(await tab.login()).toEqual({ state: 'out' });
    offline = false;
    await withoutHang(left, 'the log-out');
    const again = open();
    await logIn(again.tab, phoneNumber);
    expect(await again.tab.sessions.list()).toHaveLength(1);
  });

  it('does not come back when the user logs out during a refresh', async () => {
    const store = new SharedStore();
    const { tab, network } = open(store.tab(), hasty.url);
    const phoneNumber = await logIn(tab);
    let answer: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (answer = resolve));
    const settled = { logout: false };
    network.fate = async ({ path }) => {
      if (path === '/auth/logout' && !settled.logout) return 'offline';
      if (path === '/auth/refresh') await held;
      return 'delivered';
    };
    const token = errorOf(tab.accessToken());
    await until(() => network.to('/auth/refresh').length > 0);
    const left = tab.logout();
    await until(() => network.to('/auth/logout').length > 0);
    answer();
    expect(await token).toMatchObject({ code: 'not_logged_in' });
    settled.logout = true;
    await left;
    await until(() => network.to('/auth/logout').some(({ body }) => body.refreshToken !== undefined));
    expect([...store.values.keys()].filter((key) => key.endsWith('session'))).toEqual([]);
    const again = open();
    await logIn(again.tab, phoneNumber);
    await until(async () => (await again.tab.sessions.list()).length === 1);
  });

  it('ends everywhere when the user says so, also with an access token that is due', async () => {
    const [one, two] = [open(undefined, hasty.url), open(undefined, hasty.url)];
    const phoneNumber = await logIn(one.tab);
    await logIn(two.tab, phoneNumber);
    await one.tab.logout({ everywhere: true });
    expect(await errorOf(two.tab.accessToken())).toMatchObject({ code: 'session_revoked' });
    expect(await two.tab.login()).toEqual({ state: 'out', reason: 'session_revoked' });
  });

  it('lives in memory where the store refuses every write, and is stored again when the store recovers', async () => {
    const shared = new SharedStore();
    const inner = shared.tab();
    let full = true;
    const store: Store = {
      ...inner,
      set: (key, value) => {
        if (full) throw new DOMException('full', 'QuotaExceededError');
        return inner.set(key, value);
      },
    };
    const { tab } = open(store, hasty.url);
    await logIn(tab);
    await tab.accessToken();
    await tab.accessToken();
    expect(await tab.login()).toMatchObject({ state: 'in' });
    expect(shared.values.size).toBe(0);
    full = false;
    await tab.accessToken();
    expect(await open(shared.tab(), hasty.url).tab.login()).toMatchObject({ state: 'in' });
  });

  it('is not ended by a store that cannot be read for a while', async () => {
    const inner = new SharedStore().tab();
    let locked = false;
    const store: Store = {
      ...inner,
      get: (key) => (locked ? Promise.reject(new Error('the keychain is locked')) : inner.get(key)),
    };
    const { tab } = open(store);
    await logIn(tab);
    locked = true;
    await errorOf(tab.accessToken());
    locked = false;
    expect(await tab.accessToken()).toEqual(expect.any(String));
  });

  it('tells its listeners outside of everything: one that throws or calls the client holds nothing up', async () => {
    const { tab } = open();
    const consoleOfService = (globalThis as unknown as { globalOfService: typeof globalThis }).globalOfService
      .console;
    const spoken = consoleOfService.error.bind(consoleOfService);
    consoleOfService.error = () => undefined;
    const calls: unknown[] = [];
    tab.onChange(() => {
      throw new Error('the application has a fault');
    });
    tab.onChange(() => void tab.accessToken().then((token) => calls.push(token)));
    try {
      await withoutHang(logIn(tab), 'the login');
      await until(() => calls.length === 1);
    } finally {
      consoleOfService.error = spoken;
    }
  });
});

describe('cookie mode', () => {
  const APP = 'http://localhost:5173';
  /** A browser's own part: it keeps the cookie where no script can read it. */
  function browser(): Tab & { cookie: () => string; network: Network } {
    let cookie = '';
    const network = new Network({
      send(headers) {
        headers.set('origin', APP);
        if (cookie) headers.set('cookie', cookie);
      },
      receive(answer) {
        for (const line of answer.headers.getSetCookie()) {
          if (line.startsWith('__Host-refresh='))
            cookie = /Max-Age=0|Expires=Thu, 01 Jan 1970/.test(line) ? '' : line.split(';')[0]!;
        }
      },
    });
    const end = new AbortController();
    ends.push(end);
    const store = new SharedStore();
    const tab = createOtpLogin({
      url: hasty.url,
      delivery: 'cookie',
      // Of this browser alone: every process of Node.js has one BroadcastChannel for each name.
      key: `browser-${String(ends.length)}`,
      store: store.tab(),
      fetch: network.fetch,
      signal: end.signal,
    });
    const told: Login[] = [];
    tab.onChange((login) => told.push(login));
    return { tab, network, told, cookie: () => `${cookie} ${JSON.stringify([...store.values])}` };
  }

  it('keeps the refresh token in the cookie, asks for nothing before a login, and log-out clears the cookie', async () => {
    const { tab, network, cookie } = browser();
    expect(await tab.login()).toEqual({ state: 'out' });
    expect(network.seen).toEqual([]);
    await logIn(tab);
    expect(cookie()).toMatch(/^__Host-refresh=/);
    const value = /=([^ ]+)/.exec(cookie())![1]!;
    expect(cookie().split(value)).toHaveLength(2);
    expect(await tab.accessToken()).toEqual(expect.any(String));
    expect(await tab.login()).toMatchObject({ state: 'in' });
    await tab.logout();
    expect(cookie()).toMatch(/^ \[/);
    expect(await tab.login()).toEqual({ state: 'out' });
  });

  it('goes on when the answer to a refresh is lost and its cookie is not', async () => {
    const { tab, network, told } = browser();
    await logIn(tab);
    network.fate = () => (network.to('/auth/refresh').length === 1 ? 'lost' : 'delivered');
    expect(await tab.accessToken()).toEqual(expect.any(String));
    expect(told.at(-1)).toMatchObject({ state: 'in' });
  });
});

describe('the flow of a login page', () => {
  it('goes from any spelling of the number to the session, and verifies each complete code once', async () => {
    const { tab, network } = open();
    const flow = createLoginFlow(tab, { store: memoryStore() });
    await flow.send('12345');
    expect(flow.state).toMatchObject({ step: 'number', error: { code: 'validation_failed' } });
    expect(network.seen).toEqual([]);
    const phoneNumber = freshNumber();
    const hindi = phoneNumber.slice(3).replace(/\d/g, (digit) => String.fromCharCode(0x966 + Number(digit)));
    await flow.send(hindi);
    expect(flow.state).toMatchObject({ step: 'code', sent: { phoneNumber } });
    const code = textedCode(world.upstream, phoneNumber);
    const wrong = wrongCode(code);
    expect(flow.enter(wrong.slice(0, 3))).toBe(wrong.slice(0, 3));
    expect(network.to('/auth/verify-otp')).toEqual([]);
    expect(flow.enter(`Your code is ${wrong.slice(0, 3)} ${wrong.slice(3)}.`)).toBe(wrong);
    await until(() => flow.state.error !== undefined);
    expect(flow.state).toMatchObject({
      step: 'code',
      error: { code: 'otp_incorrect' },
      sent: { attemptsLeft: 2 },
    });
    expect(flow.enter(`Chai24: ${code} is your code`)).toBe(code);
    await until(() => flow.state.step === 'done');
    expect(network.to('/auth/verify-otp')).toHaveLength(2);
    expect(flow.state.user).toMatchObject({ phoneNumber });
    flow.stop();
  });

  it('finds its pending request after a reload, sends nothing then, and forgets it when no attempt is left', async () => {
    const store = new SharedStore();
    const first = open();
    const flow = createLoginFlow(first.tab, { store: store.tab() });
    const phoneNumber = freshNumber();
    await flow.send(phoneNumber);
    flow.stop();
    const { tab, network } = open();
    const reloaded = createLoginFlow(tab, { store: store.tab() });
    await until(() => reloaded.state.step === 'code');
    expect(reloaded.state.sent).toEqual(flow.state.sent);
    expect(network.to('/auth/send-otp')).toEqual([]);
    expect(smsTo(phoneNumber)).toBe(1);
    const wrong = wrongCode(textedCode(world.upstream, phoneNumber));
    for (let attempt = 0; attempt < 3; attempt++) await reloaded.verify(wrong);
    expect(reloaded.state).toMatchObject({ step: 'code', error: { code: 'otp_attempts_exhausted' } });
    await until(() => store.values.size === 0);
    await reloaded.resend();
    expect(reloaded.state).toMatchObject({ step: 'code', sent: { attemptsLeft: 3 } });
    expect(reloaded.state.error).toBeUndefined();
    expect(smsTo(phoneNumber)).toBe(2);
    reloaded.change();
    expect(reloaded.state).toMatchObject({ step: 'number', phoneNumber });
    expect(store.values.size).toBe(0);
  });
});

it('the types of the client are those of the OpenAPI document', async () => {
  const { body } = await call('GET', `${world.url}/docs-json`);
  const written = readFileSync(join(__dirname, '../../client/src/api.d.ts'), 'utf8');
  const plain = (text: string): string =>
    ts
      .createPrinter({ removeComments: true })
      .printFile(ts.createSourceFile('api.d.ts', text, ts.ScriptTarget.ES2022));
  // After a change of a schema: npm run client:types
  expect(plain(schemaTypes(body))).toBe(plain(written));
});
