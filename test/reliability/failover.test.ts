import { execFileSync } from 'node:child_process';
import { Redis } from 'ioredis';
import type { Emulator } from '../../src/emulator/emulator';
import { block, WITH_ADMIN } from '../support/admin';
import { as } from '../support/crowd';
import { keysOfUser } from '../support/keys';
import { isServed, logInAt, logout, me, refresh } from '../support/person';
import { type RedisServer, startRedis } from '../support/redis-server';
import { full } from '../support/scale';
import { service, serviceModule } from '../support/service';
import { TcpLink } from '../support/tcp-link';
import { claimsOf } from '../support/tokens';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  statusAndCode,
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
  /** Resolves when the replica has everything that the primary has. */
  inStep: () => Promise<void>;
  /** The primary dies, the replica takes over, the name leads to it. */
  failOver: () => Promise<void>;
  stop: () => Promise<void>;
}

const ORIGIN = 'https://app.example';

let upstream: Emulator;
beforeAll(async () => {
  upstream = await service().startEmulator();
});
afterAll(() => upstream.close());

const isReady = async ({ url }: Instance): Promise<boolean> =>
  (await call('GET', `${url}/health/ready`)).body.status === 'ok';

async function startPair(): Promise<Pair> {
  const primary = await startRedis({ args: ['--repl-diskless-sync-delay', '0'] });
  const wire = await TcpLink.to(primary);
  // However long the wire withholds what the primary sends.
  const patient = ['--repl-timeout', '600'];
  const replica = await startRedis({ args: ['--replicaof', `127.0.0.1 ${wire.port}`, ...patient] });
  const name = await TcpLink.to(primary);
  const online = async (): Promise<boolean> =>
    String(await command(primary, 'INFO', 'replication')).includes('state=online');
  await until(online, 'the replica');
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
    inStep: () => until(() => reachesReplica(primary), 'the replica'),
    failOver: async () => {
      // Before the wire is cut: a primary that sees its replica go has no replica left to wait for.
      primary.pause();
      await until(() => hasStopped(primary), 'the stop of the primary');
      // Lost with the primary is what was under way between the two.
      wire.dropping = true;
      wire.cut();
      await primary.kill();
      await command(replica, 'REPLICAOF', 'NO', 'ONE');
      name.leadTo(replica);
      await until(() => isReady(instance), 'readiness');
      // It may be the connection of before: until a step has gone through.
      await until(async () => (await me(instance.url, 'x.y.z')).status !== 503, 'the new primary');
      await until(() => isServed(instance.url), 'the new primary');
    },
    stop: async () => {
      await instance.close();
      await Promise.all([wire.close(), name.close()]);
      await Promise.all([primary.stop(), replica.stop()]);
    },
  };
}

function hasStopped({ pid }: RedisServer): boolean {
  return execFileSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' }).startsWith('T');
}

async function command(server: RedisServer, name: string, ...args: string[]): Promise<unknown> {
  const redis = new Redis(server.url);
  try {
    return await redis.call(name, ...args);
  } finally {
    redis.disconnect();
  }
}

/** Whether something that is written now comes to the replica. */
async function reachesReplica(primary: RedisServer): Promise<boolean> {
  const redis = new Redis(primary.url);
  try {
    await redis.set('in-step', '', 'PX', 60_000);
    return (await redis.wait(1, 100)) === 1;
  } finally {
    redis.disconnect();
  }
}

/** How often the primary was asked to wait for its replica. */
async function waitsOf(primary: RedisServer): Promise<number> {
  const stats = String(await command(primary, 'INFO', 'commandstats'));
  return Number(/cmdstat_wait:calls=(\d+)/.exec(stats)?.[1] ?? 0);
}

const logIn = (url: string, number?: string): Promise<Answer> => logInAt(url, upstream, number);

describe('a session that was reported as ended', () => {
  it('a session that was logged out stays ended after the primary died, while the replica lagged behind', async () => {
    for (let times = 0; times < (full ? 10 : 2); times++) {
      const pair = await startPair();
      const { url } = pair.instance;
      try {
        const people = await Promise.all(Array.from({ length: 20 }, () => logIn(url)));
        await pair.inStep();
        pair.wire.delayMs = 20;
        const gone: unknown[] = [];
        let over = false;
        const leaving = people.map(async ({ body }, i) => {
          // One after the other, so that some are under way when the primary dies.
          await new Promise((resolve) => setTimeout(resolve, i * 15));
          while (!over) {
            const { status } = await logout(url, body.refreshToken);
            if (status !== 204) continue;
            gone.push(body.accessToken);
            return;
          }
        });
        await until(() => gone.length >= 10, 'ten log-outs that are confirmed');
        const failedOver = pair.failOver();
        over = true;
        await failedOver;
        await Promise.all(leaving);
        for (const token of gone) expect((await me(url, token)).status).toBe(401);
      } finally {
        await pair.stop();
      }
    }
  });
});

describe('while the replica is silent', () => {
  let pair: Pair;
  let url: string;
  beforeAll(async () => {
    pair = await startPair();
    url = pair.instance.url;
  });
  afterAll(() => pair.stop());
  /** Whatever a test has done: the replica follows the primary again, and the service asks the primary. */
  afterEach(async () => {
    const { primary, replica, wire, name, instance } = pair;
    replica.resume();
    wire.release();
    await command(primary, 'CONFIG', 'SET', 'min-replicas-to-write', '0');
    await command(replica, 'REPLICAOF', '127.0.0.1', String(wire.port));
    if (name.target !== primary.port) name.leadTo(primary);
    await pair.inStep();
    await until(() => isReady(instance), 'readiness');
    await until(async () => {
      const { body } = await logIn(url);
      return (await logout(url, body.refreshToken)).status === 204;
    }, 'a log-out that the replica confirms');
  });

  /** The replica says every second that it is there, and hears nothing any more. */
  async function silence(): Promise<void> {
    await pair.inStep();
    pair.wire.withhold();
  }

  /** The connection for confirmations is gone; the next one that is asked for is new. */
  async function withoutLine(): Promise<void> {
    pair.name.cut();
    await until(() => isServed(url), 'the connection to Redis');
  }

  function expectUnsure({ status, body, headers }: Answer): void {
    expect([status, body.code ?? body.error]).toEqual([
      503,
      body.error === undefined ? 'store_unavailable' : 'temporarily_unavailable',
    ]);
    expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  }

  it('a connection for confirmations that many logouts gave up is closed once', async () => {
    const people = await Promise.all(Array.from({ length: 20 }, () => logIn(url)));
    // The next connection for confirmations leads to where nothing answers.
    const hole = await TcpLink.to(pair.primary);
    hole.dropping = true;
    await withoutLine();
    const { redisClient } = serviceModule<typeof import('../../src/redis/connection')>('redis/connection');
    const other = redisClient(pair.primary.url) as Redis;
    const left = jest.spyOn(Object.getPrototypeOf(other) as Redis, 'disconnect');
    try {
      pair.name.target = hole.port;
      const out = await Promise.all(people.map(({ body }) => logout(url, body.refreshToken)));
      out.forEach(expectUnsure);
      await until(() => left.mock.contexts.length > 0, 'a connection that is given up');
      expect(left.mock.contexts.length).toBe(new Set(left.mock.contexts).size);
    } finally {
      left.mockRestore();
      other.disconnect();
      pair.name.target = pair.primary.port;
      await hole.close();
    }
  });

  it('every way to end a session ends it, and gets a 503 while no replica has confirmed it', async () => {
    const ways: ((tokens: { accessToken: string; refreshToken: string }) => Promise<Answer>)[] = [
      ({ refreshToken }) => logout(url, refreshToken),
      ({ accessToken }) => call('POST', `${url}/auth/logout`, {}, as(accessToken)),
      ({ accessToken }) => call('DELETE', `${url}/auth/sessions`, undefined, as(accessToken)),
      ({ accessToken }) =>
        call('DELETE', `${url}/auth/sessions/${claimsOf(accessToken).sid}`, undefined, as(accessToken)),
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

  it('a logout by cookie keeps the cookie until a replica has confirmed it', async () => {
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
    await until(async () => (await out()).status === 204, 'a log-out without a replica');
    expect((await out()).headers.getSetCookie()).toHaveLength(1);
  });

  it('a reused refresh token is refused although no replica has confirmed it', async () => {
    const { body } = await logIn(url);
    const first = await refresh(url, body.refreshToken);
    await refresh(url, first.body.refreshToken);
    await silence();
    const reuse = await refresh(url, body.refreshToken);
    expect(statusAndCode(reuse)).toEqual([401, 'refresh_token_reused']);
    expect((await me(url, first.body.accessToken)).body.code).toBe('session_revoked');
  });

  it('a block that no replica has confirmed counts, and gets a 503 so that the operator retries it', async () => {
    const number = freshNumber();
    const { body } = await logIn(url, number);
    await silence();
    expectUnsure(await block(url, number));
    expect((await me(url, body.accessToken)).body.code).toBe('session_revoked');
    pair.wire.cut();
    await until(async () => (await block(url, number)).status === 204, 'a block without a replica');
  });

  it('a block is stored on the primary that confirmed it, also on a new one', async () => {
    const number = freshNumber();
    const { body } = await logIn(url, number);
    await withoutLine();
    await silence();
    await command(pair.replica, 'REPLICAOF', 'NO', 'ONE');
    // New connections only: that by which the steps came still leads to the primary of yesterday.
    pair.name.target = pair.replica.port;
    expect((await block(url, number)).status).toBe(204);
    const { blocked } = keysOfUser(claimsOf(body.accessToken).sub);
    expect(await command(pair.replica, 'GET', blocked)).toBe('1');
  });

  const everywhere = (accessToken: unknown): Promise<Answer> =>
    call('DELETE', `${url}/auth/sessions`, undefined, as(accessToken));
  const told = (what: string): number =>
    pair.instance.logs.filter((line) => line.includes(what) && line.includes('of Redis')).length;

  it('logout works again after a replica was silent for 12 s, and waits for the replica again when it is back', async () => {
    const people = await Promise.all(Array.from({ length: 5 }, () => logIn(url)));
    const [a, b, c, d, e] = people.map(({ body }) => body);
    await silence();
    expectUnsure(await logout(url, a.refreshToken));
    expectUnsure(await everywhere(b.accessToken));
    for (const { accessToken } of [a, b])
      expect((await me(url, accessToken)).body.code).toBe('session_revoked');
    expect(told('was heard')).toBe(0);

    // Redis counts the seconds for which a replica is silent; after twelve it is not waited for.
    pair.replica.pause();
    await until(
      async () => (await logout(url, a.refreshToken)).status === 204,
      'a log-out without the replica',
    );
    expect((await everywhere(c.accessToken)).status).toBe(204);
    expect((await me(url, c.accessToken)).body.code).toBe('session_revoked');
    expect([told('was heard'), told('is heard again')]).toEqual([1, 0]);
    // Redis itself takes a minute to drop it.
    expect(await command(pair.primary, 'INFO', 'replication')).toContain('state=online');
    // It is asked all the same: it may have come back just now.
    const before = await waitsOf(pair.primary);
    expect((await logout(url, d.refreshToken)).status).toBe(204);
    expect(await waitsOf(pair.primary)).toBeGreaterThan(before);

    pair.replica.resume();
    pair.wire.release();
    await until(async () => {
      await logout(url, d.refreshToken);
      return told('is heard again') === 1;
    }, 'the line of the log');
    // What was ended meanwhile has come to it.
    const { sub, sid } = claimsOf(c.accessToken);
    expect(await command(pair.replica, 'HGET', keysOfUser(sub).session(sid), 'revoked')).not.toBeNull();
    await silence();
    expectUnsure(await logout(url, e.refreshToken));
    expect([told('was heard'), told('is heard again')]).toEqual([1, 1]);
  });

  it('a primary with min-replicas-to-write never confirms a logout while its replica is silent', async () => {
    const { body } = await logIn(url);
    const before = told('was heard');
    await pair.inStep();
    await command(pair.primary, 'CONFIG', 'SET', 'min-replicas-to-write', '1');
    pair.replica.pause();
    // By the clock of Redis, until it is past the twelve seconds after which a replica is not waited for.
    await until(async () => {
      expectUnsure(await logout(url, body.refreshToken));
      const replication = String(await command(pair.primary, 'INFO', 'replication'));
      return Number(/lag=(\d+)/.exec(replication)?.[1]) >= 14;
    }, 'a replica that is silent for 14 s');
    expect(told('was heard')).toBe(before);
  });

  it('login and refresh do not wait for a silent replica', async () => {
    await silence();
    const before = await waitsOf(pair.primary);
    const { status, body } = await logIn(url);
    expect(status).toBe(200);
    expect((await refresh(url, body.refreshToken)).status).toBe(200);
    expect(await waitsOf(pair.primary)).toBe(before);
  });
});

describe('what is lost with a primary', () => {
  let pair: Pair;
  beforeEach(async () => {
    pair = await startPair();
  });
  afterEach(() => pair.stop());

  it('a refresh whose rotation was lost with the primary leaves the client with a valid token', async () => {
    const { url } = pair.instance;
    const { body } = await logIn(url);
    await pair.inStep();
    pair.wire.dropping = true;
    const rotated = await refresh(url, body.refreshToken);
    expect(rotated.status).toBe(200);
    await pair.failOver();
    const { sub, sid } = claimsOf(body.accessToken);
    expect(await command(pair.replica, 'HGET', keysOfUser(sub).session(sid), 'counter')).toBe('0');
    const next = await refresh(url, rotated.body.refreshToken);
    expect(next.status).toBe(200);
    expect(claimsOf(next.body.accessToken).sid).toBe(sid);
    expect((await me(url, next.body.accessToken)).status).toBe(200);
  });

  it('a used code that was lost with the primary opens the same session again, and no second one', async () => {
    const { url } = pair.instance;
    const number = freshNumber();
    const { body: sent } = await sendOtp(url, number);
    const code = textedCode(upstream, number);
    await pair.inStep();
    pair.wire.dropping = true;
    const first = await verifyOtp(url, sent.requestId, code);
    expect(first.status).toBe(200);
    await pair.failOver();
    expect((await me(url, first.body.accessToken)).body.code).toBe('session_expired');
    const again = await verifyOtp(url, sent.requestId, code);
    expect(again.status).toBe(200);
    expect(claimsOf(again.body.accessToken)).toMatchObject({
      sid: claimsOf(first.body.accessToken).sid,
      sub: claimsOf(first.body.accessToken).sub,
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

  it('logout over a single Redis waits for no replica', async () => {
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

it('the service leaves a demoted primary for the one that its name leads to', async () => {
  const pair = await startPair();
  const { url } = pair.instance;
  try {
    const { body } = await logIn(url);
    await pair.inStep();
    await command(pair.replica, 'REPLICAOF', 'NO', 'ONE');
    await command(pair.primary, 'REPLICAOF', '127.0.0.1', String(pair.replica.port));
    const refused = await sendOtp(url, freshNumber());
    expect(statusAndCode(refused)).toEqual([503, 'store_unavailable']);
    // The connections of before stay open, as behind a name in DNS.
    pair.name.target = pair.replica.port;
    await until(() => isServed(url), 'the new primary');
    expect((await me(url, body.accessToken)).status).toBe(200);
  } finally {
    await pair.stop();
  }
});
