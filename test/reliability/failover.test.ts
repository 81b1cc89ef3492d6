import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { block, WITH_ADMIN } from '../support/admin';
import { as } from '../support/crowd';
import { claims } from '../support/invariants';
import { type RedisServer, startRedis } from '../support/redis-server';
import { TcpLink } from '../support/tcp-link';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Instance,
} from '../support/world';

/** A primary and a replica behind a name, with a wire between them that can be cut. */
interface Pair {
  primary: RedisServer;
  replica: RedisServer;
  wire: TcpLink;
  name: TcpLink;
  instance: Instance;
  /** The primary dies, the replica takes over, the name leads to it. */
  failOver: () => Promise<void>;
  stop: () => Promise<void>;
}

const ORIGIN = 'https://app.example';

let upstream: Emulator;
beforeAll(async () => {
  upstream = await startEmulator();
});
afterAll(() => upstream.close());

async function startPair(): Promise<Pair> {
  const primary = await startRedis({ args: ['--repl-diskless-sync-delay', '0'] });
  const wire = await TcpLink.to(primary);
  const replica = await startRedis({ args: ['--replicaof', `127.0.0.1 ${wire.port}`] });
  const name = await TcpLink.to(primary);
  const raw = new Redis(primary.url);
  await until(async () => (await raw.info('replication')).includes('state=online'), 20_000);
  raw.disconnect();
  const instance = await startInstance({
    REDIS_URL: `redis://127.0.0.1:${name.port}`,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    CORS_ORIGINS: ORIGIN,
    REFRESH_GRACE_SECONDS: '1',
    ...WITH_ADMIN,
  });
  return {
    primary,
    replica,
    wire,
    name,
    instance,
    failOver: async () => {
      // Before the wire is cut: a primary that sees its replica go has nobody left to wait for.
      primary.pause();
      await sleep(50);
      // What was under way between the two is lost with the primary.
      wire.dropping = true;
      wire.cut();
      await primary.kill();
      await command(replica, 'REPLICAOF', 'NO', 'ONE');
      name.leadTo(replica);
      await until(async () => (await call('GET', `${instance.url}/health/ready`)).body.status === 'ok');
      // It may be the connection of before: until a step has gone through.
      await until(async () => (await me(instance.url, 'x.y.z')).status !== 503);
      await until(async () => (await sendOtp(instance.url, freshNumber())).status === 200);
    },
    stop: async () => {
      await instance.close();
      await Promise.all([wire.close(), name.close()]);
      await Promise.all([primary.stop(), replica.stop()]);
    },
  };
}

async function command(server: RedisServer, name: string, ...args: string[]): Promise<unknown> {
  const redis = new Redis(server.url);
  try {
    return await redis.call(name, ...args);
  } finally {
    redis.disconnect();
  }
}

const me = (url: string, token: unknown): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, as(token));
const refresh = (url: string, refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const logout = (url: string, refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/logout`, { refreshToken });

async function logIn(url: string, number = freshNumber()): Promise<Answer> {
  const { body } = await sendOtp(url, number);
  return verifyOtp(url, body.requestId, textedCode(upstream, number));
}

describe('who was told that a session has ended can rely on it', () => {
  it('however the primary dies right afterwards, while the replica lags behind', async () => {
    for (let times = 0; times < 3; times++) {
      const pair = await startPair();
      const { url } = pair.instance;
      try {
        const people = await Promise.all(Array.from({ length: 20 }, () => logIn(url)));
        await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
        pair.wire.delayMs = 20;
        const gone: unknown[] = [];
        let told = (): void => undefined;
        const half = new Promise<void>((resolve) => (told = resolve));
        const leaving = people.map(async ({ body }, i) => {
          await new Promise((resolve) => setTimeout(resolve, i * 15));
          const { status } = await logout(url, body.refreshToken);
          if (status !== 204) return;
          gone.push(body.accessToken);
          if (gone.length === 10) told();
        });
        // A machine that is busy may confirm fewer in time.
        await Promise.race([half, Promise.all(leaving)]);
        await pair.failOver();
        await Promise.all(leaving);
        expect(gone.length).toBeGreaterThan(0);
        for (const token of gone) expect((await me(url, token)).status).toBe(401);
      } finally {
        await pair.stop();
      }
    }
  }, 120_000);
});

describe('while the replica is silent', () => {
  let pair: Pair;
  let url: string;
  beforeEach(async () => {
    pair = await startPair();
    url = pair.instance.url;
  });
  afterEach(() => pair.stop());

  async function silence(): Promise<void> {
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    pair.wire.dropping = true;
  }

  function expectUnsure({ status, body, headers }: Answer): void {
    expect([status, body.code ?? body.error]).toEqual([
      503,
      body.error === undefined ? 'store_unavailable' : 'temporarily_unavailable',
    ]);
    expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  }

  it('every way to end a session ends it, and says that it is not sure yet', async () => {
    const ways: ((tokens: { accessToken: string; refreshToken: string }) => Promise<Answer>)[] = [
      ({ refreshToken }) => logout(url, refreshToken),
      ({ accessToken }) => call('POST', `${url}/auth/logout`, {}, as(accessToken)),
      ({ accessToken }) => call('DELETE', `${url}/auth/sessions`, undefined, as(accessToken)),
      ({ accessToken }) =>
        call('DELETE', `${url}/auth/sessions/${claims(accessToken).sid}`, undefined, as(accessToken)),
      ({ refreshToken }) =>
        call('POST', `${url}/oauth/revoke`, `token=${refreshToken}`, {
          'content-type': 'application/x-www-form-urlencoded',
        }),
    ];
    const people = [];
    for (const way of ways) people.push({ way, tokens: (await logIn(url)).body });
    await silence();
    for (const { way, tokens } of people) {
      expectUnsure(await way(tokens));
      expect((await me(url, tokens.accessToken)).body.code).toBe('session_revoked');
    }
    expect(pair.instance.logs.join('')).toContain('No replica is known to have what was written');
  });

  it('each wire that many were too late on is left once', async () => {
    const people = await Promise.all(Array.from({ length: 20 }, () => logIn(url)));
    await silence();
    const left = jest.spyOn(Redis.prototype, 'disconnect');
    try {
      const out = await Promise.all(people.map(({ body }) => logout(url, body.refreshToken)));
      out.forEach(expectUnsure);
      await until(() => left.mock.contexts.length > 0);
      expect(left.mock.contexts.length).toBe(new Set(left.mock.contexts).size);
    } finally {
      left.mockRestore();
    }
  });

  it('the cookie stays until it is sure', async () => {
    const number = freshNumber();
    const { body: sent } = await sendOtp(url, number);
    const from = { origin: ORIGIN };
    const body = {
      requestId: sent.requestId,
      otpCode: textedCode(upstream, number),
      tokenDelivery: 'cookie',
    };
    const verified = await call('POST', `${url}/auth/verify-otp`, body, from);
    const [cookie = ''] = verified.headers.getSetCookie()[0]?.split(';') ?? [];
    expect(cookie).not.toBe('');
    await silence();
    const out = (): Promise<Answer> => call('POST', `${url}/auth/logout`, {}, { ...from, cookie });
    const unsure = await out();
    expectUnsure(unsure);
    expect(unsure.headers.getSetCookie()).toEqual([]);
    // A replica that has gone is none to wait for.
    pair.wire.cut();
    await until(async () => (await out()).status === 204);
    expect((await out()).headers.getSetCookie()).toHaveLength(1);
  });

  it('a refresh token that is used again is refused all the same', async () => {
    const { body } = await logIn(url);
    const first = await refresh(url, body.refreshToken);
    await refresh(url, first.body.refreshToken);
    await silence();
    const reuse = await refresh(url, body.refreshToken);
    expect([reuse.status, reuse.body.code]).toEqual([401, 'refresh_token_reused']);
    expect((await me(url, first.body.accessToken)).body.code).toBe('session_revoked');
  });

  it('a number that is blocked is blocked, and the operator is told to repeat it', async () => {
    const number = freshNumber();
    const { body } = await logIn(url, number);
    await silence();
    expectUnsure(await block(url, number));
    expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
    pair.wire.cut();
    await until(async () => (await block(url, number)).status === 204);
  });

  it('a block is known to the primary that said yes to it, also where that is a new one', async () => {
    const number = freshNumber();
    const { body } = await logIn(url, number);
    await silence();
    await command(pair.replica, 'REPLICAOF', 'NO', 'ONE');
    // New connections only: that by which the steps came still leads to the primary of yesterday.
    pair.name.target = pair.replica.port;
    expect((await block(url, number)).status).toBe(204);
    const key = `otp-login:{${claims(body.accessToken).sub}}:blocked`;
    expect(await command(pair.replica, 'GET', key)).toBe('1');
  });

  const everywhere = (accessToken: unknown): Promise<Answer> =>
    call('DELETE', `${url}/auth/sessions`, undefined, as(accessToken));
  const told = (what: string): number =>
    pair.instance.logs.filter((line) => line.includes(what) && line.includes('of Redis')).length;

  it('and hangs, people can log out again after some seconds, and it is waited for again when it is back', async () => {
    const people = await Promise.all(Array.from({ length: 5 }, () => logIn(url)));
    const [a, b, c, d, e] = people.map(({ body }) => body);
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    pair.replica.pause();
    expectUnsure(await logout(url, a.refreshToken));
    expectUnsure(await everywhere(b.accessToken));
    for (const { accessToken } of [a, b])
      expect((await me(url, accessToken)).body.code).toBe('session_revoked');
    expect(told('was heard')).toBe(0);

    await until(async () => (await logout(url, a.refreshToken)).status === 204, 30_000);
    expect((await everywhere(c.accessToken)).status).toBe(204);
    expect((await me(url, c.accessToken)).body.code).toBe('session_revoked');
    expect([told('was heard'), told('is heard again')]).toEqual([1, 0]);
    // Redis itself takes a minute to drop it.
    expect(await command(pair.primary, 'INFO', 'replication')).toContain('state=online');
    // It is asked all the same: it may have come back just now.
    const waits = async (): Promise<string> =>
      /cmdstat_wait:calls=\d+/.exec(String(await command(pair.primary, 'INFO', 'commandstats')))?.[0] ?? '';
    const before = await waits();
    expect((await logout(url, d.refreshToken)).status).toBe(204);
    expect(await waits()).not.toBe(before);

    pair.replica.resume();
    await until(async () => {
      await logout(url, d.refreshToken);
      return told('is heard again') === 1;
    });
    // What was ended meanwhile has come to it.
    const { sub, sid } = claims(c.accessToken);
    expect(
      await command(pair.replica, 'HGET', `otp-login:{${sub}}:session:${sid}`, 'revoked'),
    ).not.toBeNull();
    pair.replica.pause();
    expectUnsure(await logout(url, e.refreshToken));
    expect([told('was heard'), told('is heard again')]).toEqual([1, 1]);
  }, 60_000);

  it('and hangs, nobody is told yes by a primary that must write to one', async () => {
    const { body } = await logIn(url);
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    await command(pair.primary, 'CONFIG', 'SET', 'min-replicas-to-write', '1');
    pair.replica.pause();
    let lag = 0;
    while (lag < 14) {
      expectUnsure(await logout(url, body.refreshToken));
      await sleep(50);
      lag = Number(/lag=(\d+)/.exec(String(await command(pair.primary, 'INFO', 'replication')))?.[1]);
    }
    expect(told('was heard')).toBe(0);
  }, 60_000);

  it('who logs in, refreshes and asks does not wait for it', async () => {
    await silence();
    const { status, body } = await logIn(url);
    expect(status).toBe(200);
    expect((await refresh(url, body.refreshToken)).status).toBe(200);
    const stats = String(await command(pair.primary, 'INFO', 'commandstats'));
    // One call: that of silence().
    expect(stats).toMatch(/cmdstat_wait:calls=1,/);
  });
});

describe('what is lost with a primary', () => {
  let pair: Pair;
  beforeEach(async () => {
    pair = await startPair();
  });
  afterEach(() => pair.stop());

  it('a rotation is caught up: the token that the client holds is good', async () => {
    const { url } = pair.instance;
    const { body } = await logIn(url);
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    pair.wire.dropping = true;
    const rotated = await refresh(url, body.refreshToken);
    expect(rotated.status).toBe(200);
    await pair.failOver();
    const { sub, sid } = claims(body.accessToken);
    expect(await command(pair.replica, 'HGET', `otp-login:{${sub}}:session:${sid}`, 'counter')).toBe('0');
    const next = await refresh(url, rotated.body.refreshToken);
    expect(next.status).toBe(200);
    expect(claims(next.body.accessToken).sid).toBe(sid);
    expect((await me(url, next.body.accessToken)).status).toBe(200);
  });

  it('a consumed code opens the same session again, and no second one', async () => {
    const { url } = pair.instance;
    const number = freshNumber();
    const { body: sent } = await sendOtp(url, number);
    const code = textedCode(upstream, number);
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    pair.wire.dropping = true;
    const first = await verifyOtp(url, sent.requestId, code);
    expect(first.status).toBe(200);
    await pair.failOver();
    expect((await me(url, first.body.accessToken)).body.code).toBe('session_expired');
    const again = await verifyOtp(url, sent.requestId, code);
    expect(again.status).toBe(200);
    expect(claims(again.body.accessToken)).toMatchObject({
      sid: claims(first.body.accessToken).sid,
      sub: claims(first.body.accessToken).sub,
    });
    const { body } = await call('GET', `${url}/auth/sessions`, undefined, as(first.body.accessToken));
    expect(body.sessions).toHaveLength(1);
  });
});

describe('a Redis alone', () => {
  let redis: RedisServer;
  let instance: Instance;
  beforeEach(async () => {
    redis = await startRedis();
    instance = await startInstance({
      REDIS_URL: redis.url,
      STARTMESSAGING_BASE_URL: upstream.url,
      STARTMESSAGING_CONTRACT: 'caller',
      REFRESH_GRACE_SECONDS: '1',
    });
  });
  afterEach(async () => {
    await instance.close();
    await redis.stop();
  });

  it('has no replica to wait for, and nobody waits', async () => {
    const { url } = instance;
    const { body } = await logIn(url);
    expect((await logout(url, body.refreshToken)).status).toBe(204);
    expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
    const stats = String(await command(redis, 'INFO', 'commandstats'));
    // It was asked whether there is one.
    expect(stats).toContain('cmdstat_role');
    expect(stats).not.toContain('cmdstat_wait');
  });
});

it('a primary that was demoted is left for the one that its name leads to', async () => {
  const pair = await startPair();
  const { url } = pair.instance;
  try {
    const { body } = await logIn(url);
    await until(async () => (await command(pair.primary, 'WAIT', '1', '100')) === 1);
    await command(pair.replica, 'REPLICAOF', 'NO', 'ONE');
    await command(pair.primary, 'REPLICAOF', '127.0.0.1', String(pair.replica.port));
    const refused = await sendOtp(url, freshNumber());
    expect([refused.status, refused.body.code]).toEqual([503, 'store_unavailable']);
    // The connections of before stay open, as behind a name in DNS.
    pair.name.target = pair.replica.port;
    await until(async () => (await sendOtp(url, freshNumber())).status === 200);
    expect((await me(url, body.accessToken)).status).toBe(200);
  } finally {
    await pair.stop();
  }
});
