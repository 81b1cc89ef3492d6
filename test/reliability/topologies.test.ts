import { setTimeout as sleep } from 'node:timers/promises';
import { startEmulator, type Emulator } from '../../src/emulator/emulator';
import { as, signingKeys } from '../support/crowd';
import { claims, People } from '../support/invariants';
import { startRedis, type RedisServer } from '../support/redis-server';
import { KINDS, startTopology, type Topology } from '../support/topologies';
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

/** A connection that is silent is left after three seconds. */
const SILENT_MS = 4_000;

/** On a machine that is busy with other tests people take longer to come through. */
const THROUGH_MS = 30_000;
jest.setTimeout(150_000);

let upstream: Emulator;
let instances: Instance[] = [];
let url: string;

beforeEach(async () => {
  upstream = await startEmulator();
  upstream.settings.balance = 100_000;
});
afterEach(async () => {
  await Promise.all(instances.map((instance) => instance.close()));
  instances = [];
  await upstream.close();
});

async function serve(redisUrl: string): Promise<void> {
  const settings = {
    REDIS_URL: redisUrl,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: 'caller',
    // A busy machine is not an upstream that is dead.
    UPSTREAM_TIMEOUT_MS: '10000',
    UPSTREAM_DEADLINE_MS: '20000',
    JWT_KEYS_DIR: signingKeys(),
    LIMIT_PHONE: '5/600',
  };
  for (let i = 0; i < 2; i++) instances.push(await startInstance(settings));
  url = instances[0]?.url ?? '';
}

const everybody = (): People =>
  new People(
    instances.map((instance) => instance.url),
    upstream,
    6,
    { number: freshNumber(), most: 5 },
  );

async function logIn(number = freshNumber()): Promise<Answer> {
  const { body } = await sendOtp(url, number);
  return verifyOtp(url, body.requestId, textedCode(upstream, number));
}

const me = (token: unknown): Promise<Answer> => call('GET', `${url}/auth/me`, undefined, as(token));
const refresh = (refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const logout = (refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/logout`, { refreshToken });

/** What was told 503 since then. */
const refusedSince = (people: People, since: number): string[] =>
  people.seen.filter(({ at, status }) => at >= since && status === 503).map(({ what }) => what);

describe.each(KINDS)('Redis as %s', (kind) => {
  let redis: Topology;
  beforeAll(async () => {
    redis = await startTopology(kind);
  });
  afterAll(() => redis.stop());
  beforeEach(() => serve(redis.url));
  afterEach(async () => {
    for (const node of redis.nodes) redis.linkTo(node).delayMs = 0;
    for (const node of redis.nodes) redis.linkTo(node).dropping = false;
    await redis.beingPatient(false);
    await redis.settled();
  });

  /** From now on nobody stands in for a primary; one that was just being replaced on a busy machine has been, and is found. */
  async function patient(): Promise<void> {
    await redis.beingPatient(true);
    await redis.settled();
    await until(async () => (await logIn()).status === 200, THROUGH_MS);
  }

  /** All of it goes down at once, and comes back with what it has on its disk. */
  async function outage(): Promise<void> {
    const primaries = await redis.primaries();
    for (const primary of primaries) await primary.kill();
    const away = await sendOtp(url, freshNumber());
    for (const primary of primaries) await primary.start();
    expect([away.status, away.body.code]).toEqual([503, 'store_unavailable']);
  }

  it('slow, is waited for; too slow, is told within the deadline; and served again when it is not', async () => {
    // It is slow, and not away: nobody may take its place.
    await patient();
    const primary = await redis.asked();
    const people = everybody();
    await people.through(5, THROUGH_MS);
    const slow = Date.now();
    for (const node of redis.nodes) redis.linkTo(node).delayMs = 20;
    await people.through(10, THROUGH_MS);
    // Revoking goes the way several times, and may say that it is not sure yet.
    expect(refusedSince(people, slow).filter((what) => what !== 'logout')).toEqual([]);
    const link = redis.linkTo(await redis.asked());
    link.delayMs = 600;
    const tooSlow = Date.now();
    await until(() => refusedSince(people, tooSlow).length >= 10);
    for (const node of redis.nodes) redis.linkTo(node).delayMs = 0;
    await people.through(20, THROUGH_MS);
    // A machine that stands still for long makes sentinels take it for dead all the same.
    if ((await redis.asked()) !== primary) people.lossNow();
    expect(await people.stop()).toEqual([]);
  });

  it('swallowed by the net, is told within the deadline, and found again without a hand', async () => {
    for (const node of redis.nodes) {
      // So that a replica, too, sees that its wire is dead.
      await redis.command(node, 'CONFIG', 'SET', 'repl-ping-replica-period', '1');
      await redis.command(node, 'CONFIG', 'SET', 'repl-timeout', '5');
    }
    const people = everybody();
    await people.through(10, THROUGH_MS);
    const link = redis.linkTo(await redis.asked());
    // The sentinels do not reach it either: another takes its place. The nodes of a cluster do.
    if (kind === 'sentinel') people.lossNow();
    const from = Date.now();
    link.dropping = true;
    await until(() => refusedSince(people, from).length >= 10);
    if (kind === 'sentinel') await people.through(20, THROUGH_MS);
    else await sleep(SILENT_MS);
    link.dropping = false;
    // Sentinels leave a silent connection only after fifteen seconds.
    if (kind === 'sentinel') link.cut();
    await people.through(20, THROUGH_MS);
    expect(await people.stop()).toEqual([]);
  });

  it('back empty, has forgotten everybody, and nobody is somebody else', async () => {
    await patient();
    const number = freshNumber();
    const { body } = await logIn(number);
    const people = everybody();
    await people.through(10, THROUGH_MS);
    people.lossNow();
    const heard: unknown[] = [];
    const asking = until(async () => {
      const answer = await me(body.accessToken);
      heard.push(`${answer.status} ${String(answer.body.code ?? '')}`.trim());
      return answer.status === 401;
    }, 20_000);
    await outage();
    await asking;
    await people.through(20, THROUGH_MS);
    expect(await people.stop()).toEqual([]);
    // A 401 is the word of a Redis that is there and knows nothing, and of no other.
    expect(heard.at(-1)).toBe('401 session_expired');
    expect(heard).toContain('503 store_unavailable');
    expect(heard.filter((one) => one !== '200' && one !== '503 store_unavailable')).toHaveLength(1);
    expect((await refresh(body.refreshToken)).status).toBe(401);
    const again = await logIn(number);
    expect(claims(again.body.accessToken).sub).toBe(claims(body.accessToken).sub);
  });

  it('back from an old dump, has forgotten what was done since, and nothing is doubled by it', async () => {
    await patient();
    const [once, twice, out] = [await logIn(), await logIn(), await logIn()];
    const number = freshNumber();
    const { body: sent } = await sendOtp(url, number);
    const code = textedCode(upstream, number);
    for (const primary of await redis.primaries()) await redis.command(primary, 'SAVE');

    const verified = await verifyOtp(url, sent.requestId, code);
    const late = await logIn();
    const first = await refresh(once.body.refreshToken);
    const second = await refresh((await refresh(twice.body.refreshToken)).body.refreshToken);
    expect([verified.status, late.status, first.status, second.status]).toEqual([200, 200, 200, 200]);
    expect((await logout(out.body.refreshToken)).status).toBe(204);
    await outage();
    // Every shard of a cluster: each is back in its own time.
    await redis.settled();
    for (const instance of instances)
      await until(async () => (await call('GET', `${instance.url}/health/ready`)).body.status === 'ok');

    // What ended has not: the window that docs/reliability.md tells of.
    expect((await me(once.body.accessToken)).status).toBe(200);
    expect((await me(out.body.accessToken)).status).toBe(200);
    // What was opened is gone.
    expect((await me(late.body.accessToken)).body.code).toBe('session_expired');
    // One rotation is caught up; who is further ahead logs in again.
    expect((await refresh(first.body.refreshToken)).status).toBe(200);
    expect((await refresh(second.body.refreshToken)).body.code).toBe('refresh_token_invalid');
    // The code works once more, for the session that it had opened.
    const again = await verifyOtp(url, sent.requestId, code);
    expect(again.status).toBe(200);
    expect(claims(again.body.accessToken)).toMatchObject({
      sub: claims(verified.body.accessToken).sub,
      sid: claims(verified.body.accessToken).sid,
    });
    expect((await verifyOtp(url, sent.requestId, code)).status).toBe(410);
    // Not to be found by the next test.
    for (const primary of await redis.primaries()) {
      await redis.command(primary, 'FLUSHALL');
      await redis.command(primary, 'SAVE');
    }
  });
});

it('a Redis that writes before it answers loses nothing when it is killed under load', async () => {
  const redis: RedisServer = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  try {
    await serve(redis.url);
    const people = everybody();
    for (let times = 0; times < 3; times++) {
      await people.through(10, THROUGH_MS);
      await redis.kill();
      await sleep(300);
      await redis.start();
    }
    await people.through(20, THROUGH_MS);
    expect(await people.stop()).toEqual([]);
  } finally {
    await redis.stop();
  }
});
