import { Redis } from 'ioredis';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
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
  });
  return {
    primary,
    replica,
    wire,
    name,
    instance,
    failOver: async () => {
      // First: what was under way between the two is lost with the primary.
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
    for (let times = 0; times < 5; times++) {
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
        await half;
        await pair.failOver();
        await Promise.all(leaving);
        expect(gone.length).toBeGreaterThanOrEqual(10);
        for (const token of gone) expect((await me(url, token)).status).toBe(401);
      } finally {
        await pair.stop();
      }
    }
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
