import { randomBytes, randomInt } from 'node:crypto';
import { Redis } from 'ioredis';
import { under } from '../support/crowd';
import { KEYS, partsOf, PREFIX, requestIdOf, unknownRequestId } from '../support/keys';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

// Redis is the only memory that strangers could fill. bench/rejected-inputs.mjs does the first of these a million times.

let world: World;
let redis: Redis;

afterEach(async () => {
  redis.disconnect();
  await world.close();
});

/** All of Redis, by the command that an operator would use. */
async function everyKey(): Promise<string[]> {
  const found = new Set<string>();
  let cursor = '0';
  do {
    const [next, keys] = await redis.scan(cursor, 'COUNT', 1_000);
    for (const key of keys) found.add(key);
    cursor = next;
  } while (cursor !== '0');
  return [...found].sort();
}
const isAddressList = (key: string): boolean =>
  /^otp-login:\{addresses\}:(send|verify|status)(-refused)?:address:\d+:\d+$/.test(key);
const isOfPrefix = (key: string): boolean => key.startsWith(PREFIX);

describe('rejected inputs', () => {
  const INPUTS = 1_500;
  const LIMIT = 1_000;

  const id = (): string => randomBytes(16).toString('base64url');
  const digits = (count: number): string => String(randomInt(10 ** count)).padStart(count, '0');
  const anyOf = <Item>(items: readonly Item[]): Item => items[randomInt(items.length)]!;
  const retryKey = (): Record<string, string> => anyOf([{}, { 'idempotency-key': id() }]);

  const phones: (() => unknown)[] = [
    () => `98${digits(8)}`,
    () => `+91 98${digits(8)}`,
    () => `009198${digits(8)}`,
    () => `+9198${digits(8)}\n`,
    () => `+915${digits(9)}`,
    () => `+9198${digits(7)}९`,
    () => Number(`9198${digits(8)}`),
    () => [`+9198${digits(8)}`],
    () => ({ phoneNumber: `+9198${digits(8)}` }),
  ];
  const bodies: (() => string)[] = [
    () => `{"phoneNumber":"${id()}`,
    () => `["+9198${digits(8)}"]`,
    () => `{"${id()}":"+9198${digits(8)}"}`,
    () => `{"__proto__":{"phoneNumber":"+9198${digits(8)}"}}`,
    () => `{"phoneNumber":${'['.repeat(40)}"${id()}"${']'.repeat(40)}}`,
    () => `{"requestId":{"${id()}":1},"otpCode":${digits(6)},"refreshToken":[]}`,
  ];

  it('rejected inputs change nothing in Redis, except the lists of their address', async () => {
    world = await startWorld({
      variables: { LIMIT_IP: `${LIMIT}/1`, LIMIT_VERIFY_IP: `${LIMIT}/1`, LIMIT_PHONE: '10/3600' },
    });
    redis = new Redis(world.redis.url);
    const { url } = world;
    const { refreshToken, accessToken } = (await login(world)).body as Record<string, string>;
    const phoneNumber = freshNumber();
    const { requestId } = (await sendOtp(url, phoneNumber)).body as { requestId: string };
    const changed = (text = ''): string => {
      const at = randomInt(text.length);
      return text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
    };

    const kinds: (() => Promise<Answer>)[] = [
      () => sendOtp(url, anyOf(phones)(), retryKey()),
      () =>
        call(
          'POST',
          `${url}/auth/${anyOf(['send-otp', 'verify-otp', 'refresh'])}`,
          anyOf(bodies)(),
          retryKey(),
        ),
      () => verifyOtp(url, id() + id() + id(), digits(6), retryKey()),
      () => verifyOtp(url, unknownRequestId(), digits(6), retryKey()),
      () => verifyOtp(url, requestIdOf(partsOf(requestId).pseudonym), digits(6), retryKey()),
      () => verifyOtp(url, requestId, `${digits(6)} `, retryKey()),
      () => call('GET', `${url}/auth/otp/${id()}${id()}${id()}`),
      () => call('POST', `${url}/auth/refresh`, { refreshToken: anyOf([id(), changed(refreshToken)]) }),
      () =>
        call('POST', `${url}/auth/refresh`, {
          refreshToken: `${id()}.${id()}.0.${id().slice(6)}.${id()}${id()}`,
        }),
      () =>
        call('GET', `${url}/auth/me`, undefined, {
          authorization: `Bearer ${anyOf([id(), changed(accessToken)])}`,
        }),
    ];
    const statuses = new Set<number>();
    const send = async (count: number): Promise<void> => {
      for (let sent = 0; sent < count; sent += 50) {
        const answers = await Promise.all(Array.from({ length: 50 }, () => anyOf(kinds)()));
        for (const { status } of answers) statuses.add(status);
      }
    };
    const contents = async (keys: string[]): Promise<string[]> =>
      Promise.all(keys.map(async (key) => (await redis.dumpBuffer(key)).toString('base64')));
    const usedMemory = async (): Promise<number> =>
      Number(/used_memory:(\d+)/.exec(await redis.info('memory'))![1]);

    // The scripts, the buffers and the lists of the address are there after the first of them.
    await send(500);
    // The answer of a login is kept for a minute, and a busy machine takes longer.
    const lives = (keys: string[]): string[] =>
      keys.filter((key) => !/\{addresses\}|\{admission\}:service|:opened:/.test(key));
    const keys = lives(await everyKey());
    const before = await contents(keys);
    const memoryBefore = await usedMemory();
    await send(INPUTS);
    const memoryAfter = await usedMemory();

    const after = await everyKey();
    expect(lives(after)).toEqual(keys);
    expect(await contents(keys)).toEqual(before);
    // 429 where a machine is quicker than the limit.
    expect([...statuses].filter((status) => ![400, 401, 410, 429].includes(status))).toEqual([]);
    for (const list of after.filter(isAddressList)) {
      // One address; of each request that counts it keeps six bytes, and refused ones have the looser bucket.
      expect(await redis.hlen(list)).toBeLessThanOrEqual(2);
      expect(Number(await redis.hget(list, '#'))).toBeLessThanOrEqual(6 * 10 * LIMIT);
      expect(await redis.pttl(list)).not.toBe(-1);
    }
    expect(after.filter((key) => key.includes('address') && !isAddressList(key))).toEqual([]);
    // Of the current and the previous second.
    expect(after.filter(isAddressList).length).toBeLessThanOrEqual(2 * 5);
    expect(memoryAfter - memoryBefore).toBeLessThan(128 * 1024);
    expect((await verifyOtp(url, requestId, textedCode(world.upstream, phoneNumber))).status).toBe(200);
    expect((await call('POST', `${url}/auth/refresh`, { refreshToken })).status).toBe(200);
  });
});

describe.each(['caller', 'provider'] as const)('every key under the %s contract', (contract) => {
  /** The ledger's ninety days, and a day more of its totals. */
  const LONGEST_MS = 91 * 86_400_000;
  const CLIENT = 'resource-server';
  const CLIENT_SECRET = 'of-the-resource-server-0123456789';

  /** What it is a key of: its name without whose it is. */
  const kindOf = (key: string): string =>
    key
      .replace(/\{(?!admission|revocations|addresses)[\w-]+\}/, '{}')
      .replace(/:\d+:\d+$/, '')
      .replace(/(phone|challenge|(?<!addresses\}:)send|session|opened):[\w-]+$/, '$1');

  it(`under the ${contract} contract every key has the prefix and a time to live`, async () => {
    const variables = {
      STARTMESSAGING_CONTRACT: contract,
      LIMIT_PHONE: '4/600',
      LIMIT_IP: '50/600',
      // Windows of more than a day: half of a shorter one would ask each send for a proof of work.
      LIMIT_FAILED_CODES: '5/172800,100/2592000',
      SESSIONS_PER_USER: '2',
      TRUSTED_PROXIES: '127.0.0.0/8',
      INTROSPECTION_CLIENTS: `${CLIENT}:${CLIENT_SECRET}`,
      BUDGET_PAISE_PER_DAY: '1000000',
    };
    world = await startWorld({ variables });
    redis = new Redis(world.redis.url);
    const { url, upstream } = world;
    const kinds = new Set<string>();
    /** Walks all of Redis. What is expired by the time that it is looked at is no fault. */
    const walk = async (): Promise<void> => {
      const lives = async (key: string): Promise<void> => {
        kinds.add(kindOf(key));
        const left = await redis.pttl(key);
        if (!isOfPrefix(key) || left === -1 || left > LONGEST_MS) {
          throw new Error(`${key} lives for ${left} ms`);
        }
      };
      await Promise.all((await everyKey()).map(lives));
    };
    let addresses = 0;
    /** Every caller has an address of its own. */
    const from = (): Record<string, string> => {
      addresses += 1;
      const last = String(addresses % 250);
      return { 'x-forwarded-for': addresses % 2 ? `198.51.100.${last}` : `2001:db8:0:${last}::1` };
    };
    const post = (path: string, body: unknown, headers = {}): Promise<Answer> =>
      call('POST', `${url}${path}`, body, headers);
    const form = (path: string, fields: Record<string, string>): Promise<Answer> =>
      post(path, new URLSearchParams(fields).toString(), {
        'content-type': 'application/x-www-form-urlencoded',
        authorization: `Basic ${Buffer.from(`${CLIENT}:${CLIENT_SECRET}`).toString('base64')}`,
      });
    const seen: Record<string, number> = {};
    const note = (answer: Answer): Answer => {
      const outcome = String(answer.body.code ?? answer.status);
      seen[outcome] = (seen[outcome] ?? 0) + 1;
      return answer;
    };

    /** From the first send to the last logout, with most of what can go wrong in between. */
    async function live(): Promise<void> {
      const phoneNumber = freshNumber();
      const where = from();
      const keyed = (key: string): Record<string, string> => ({ ...where, ...under(key) });
      const send = async (headers = where): Promise<Answer> => note(await sendOtp(url, phoneNumber, headers));
      const verify = async (requestId: string, code: string, headers = where): Promise<Answer> =>
        note(await verifyOtp(url, requestId, code, headers));

      const first = await send(keyed('first'));
      await send(keyed('first'));
      await walk();
      const right = textedCode(upstream, phoneNumber);
      await verify(first.body.requestId, wrongCode(right));
      await verify(first.body.requestId, wrongCode(right), keyed('wrong'));
      await verify(first.body.requestId, wrongCode(right), keyed('wrong'));
      await walk();
      const resent = await send();
      const newest = textedCode(upstream, phoneNumber);
      const phone = await verify(resent.body.requestId, newest, keyed('right'));
      await verify(resent.body.requestId, newest, keyed('right'));
      await verify(resent.body.requestId, newest, keyed('used'));
      note(await call('GET', `${url}/auth/otp/${String(resent.body.requestId)}`, undefined, where));
      await walk();

      const refresh = async (refreshToken: unknown): Promise<Answer> =>
        note(await post('/auth/refresh', { refreshToken }, where));
      const second = await refresh(phone.body.refreshToken);
      const third = await refresh(second.body.refreshToken);
      await refresh(second.body.refreshToken);
      await walk();
      // Two steps behind: a thief's.
      await refresh(phone.body.refreshToken);
      await refresh(third.body.refreshToken);
      await walk();

      // Three devices, of which one is one too many.
      for (let device = 0; device < 2; device++) {
        const sent = await send();
        const entered = await verify(sent.body.requestId, textedCode(upstream, phoneNumber));
        const authorization = `Bearer ${String(entered.body.accessToken)}`;
        note(await call('GET', `${url}/auth/sessions`, undefined, { authorization }));
        await form('/oauth/introspect', { token: entered.body.accessToken });
        if (device === 0) note(await post('/auth/logout', { refreshToken: entered.body.refreshToken }));
        else note(await call('DELETE', `${url}/auth/sessions`, undefined, { authorization }));
        await walk();
      }
      // The limit of the number.
      await send();
      await send(keyed('refused'));
      await walk();
    }
    await Promise.all(Array.from({ length: 3 }, live));

    // More sessions than a user may have, and an end of them by OAuth.
    const often = freshNumber();
    for (let device = 0; device < 4; device++) {
      const { body } = note(await login(world, often));
      if (device === 3) await form('/oauth/revoke', { token: body.refreshToken });
      await walk();
    }
    // Codes that fail until the number is locked.
    const failing = freshNumber();
    for (let request = 0; request < 3; request++) {
      const sent = note(await sendOtp(url, failing, from()));
      for (let i = 0; i < 4 && sent.status === 200; i++) {
        const code = wrongCode(textedCode(upstream, failing));
        note(await verifyOtp(url, sent.body.requestId, code, { 'idempotency-key': `the guess number ${i}` }));
      }
      await walk();
    }
    // Upstream fails a send, or a verification, in every way that matters; each with a key, and its repeat.
    const settings = { ...variables, REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: upstream.url };
    const startAnother = async (more: object): Promise<string> => {
      const instance = await startInstance({ ...settings, ...more });
      // The world closes it.
      world.instances.push(instance);
      return instance.url;
    };
    const hasty = await startAnother({ UPSTREAM_TIMEOUT_MS: '200' });
    const mend = (): Promise<Answer> => call('DELETE', `${upstream.url}/_emulator/faults`);
    const faults = [
      'wallet-empty',
      { kind: 'error', status: 429, code: 'RATE_LIMITED' },
      { kind: 'timeout' },
    ] as const;
    for (const on of ['send', 'verify'] as const) {
      for (const fault of [...faults, { kind: 'reset' }, { kind: 'malformed' }] as const) {
        const phoneNumber = freshNumber();
        const headers = { ...from(), 'idempotency-key': 'one-and-the-same' };
        const hangs = typeof fault === 'object' && fault.kind === 'timeout';
        if (on === 'send') upstream.fault({ on, fault, times: 3 });
        const sending = sendOtp(hangs && on === 'send' ? hasty : url, phoneNumber, headers);
        await walk();
        note(await sending);
        await walk();
        await mend();
        const sent = note(await sendOtp(url, phoneNumber, headers));
        if (on === 'verify' && sent.status === 200) {
          upstream.fault({ on, fault, times: 3 });
          const code = textedCode(upstream, phoneNumber);
          const verifying = verifyOtp(hangs ? hasty : url, sent.body.requestId, code, headers);
          await walk();
          note(await verifying);
          await walk();
          await mend();
          note(await verifyOtp(url, sent.body.requestId, code, headers));
        }
        note(await sendOtp(url, freshNumber(), from()));
        await walk();
      }
    }
    // The limits of an address, of the whole service, and of the budget.
    for (let i = 0; i < 60; i++) note(await sendOtp(url, 'none', { 'x-forwarded-for': '2001:db8:ffff::1' }));
    for (const tight of [{ LIMIT_GLOBAL: '1/60' }, { BUDGET_PAISE_PER_DAY: '25' }]) {
      const its = await startAnother(tight);
      for (let i = 0; i < 3; i++) note(await sendOtp(its, freshNumber(), from()));
      await walk();
    }

    // It was as busy as it was meant to be.
    expect(Object.keys(seen)).toEqual(
      expect.arrayContaining([
        ...['200', '204', 'otp_incorrect', 'otp_expired', 'rate_limited', 'phone_locked', 'overloaded'],
        ...['refresh_token_reused', 'session_revoked', 'sms_unavailable', 'validation_failed'],
      ]),
    );
    const person = ['challenge', 'codes', 'failed', 'cleared', 'session', 'sessions', 'opened'];
    const address = ['send:address', 'send-refused:network', 'verify:address', 'status:address'];
    const admission = ['phone', 'service', 'send', 'budget:minutes', 'budget:quarters'];
    expect([...kinds]).toEqual(
      expect.arrayContaining([
        ...person.map((kind) => `${PREFIX}{}:${kind}`),
        ...address.map((kind) => `${PREFIX}{addresses}:${kind}`),
        ...admission.map((kind) => `${PREFIX}{admission}:${kind}`),
        KEYS.revocations,
      ]),
    );
  });
});
