import type { Emulator } from '../../src/emulator/emulator';
import { signingKeys } from '../support/crowd';
import { People } from '../support/invariants';
import { insist, isServed, logInAt, logout, me, refresh } from '../support/person';
import { startRedis, type RedisServer } from '../support/redis-server';
import { service } from '../support/service';
import { claimsOf } from '../support/tokens';
import { KINDS, startTopology, type Topology } from '../support/topologies';
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

// Each test has real servers, real failovers and six people.
jest.setTimeout(300_000);

let upstream: Emulator;
let instances: Instance[] = [];
let url: string;

beforeEach(async () => {
  upstream = await service().startEmulator();
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
    JWT_KEYS_DIR: signingKeys(),
    LIMIT_PHONE: '5/600',
  };
  for (let i = 0; i < 2; i++) instances.push(await startInstance(settings));
  url = instances[0]?.url ?? '';
}

const crowd = (): People =>
  new People(
    instances.map((instance) => instance.url),
    upstream,
    6,
    { number: freshNumber(), most: 5 },
  );

const logIn = (number = freshNumber()): Promise<Answer> => logInAt(url, upstream, number);

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

  /** From now on no primary is replaced. One that is just being replaced on a busy machine has been, and is found. */
  async function patient(): Promise<void> {
    await redis.beingPatient(true);
    await redis.settled();
    await until(() => isServed(url), 'the service');
  }

  /** All of it goes down at once, and comes back with what it has on its disk. */
  async function outage(): Promise<void> {
    const primaries = await redis.primaries();
    for (const primary of primaries) await primary.kill();
    const away = await sendOtp(url, freshNumber());
    for (const primary of primaries) await primary.start();
    expect(statusAndCode(away)).toEqual([503, 'store_unavailable']);
  }

  it(`a slow Redis is awaited, and a too slow one causes 503 responses until it is fast again (${kind})`, async () => {
    // It is slow, and not away: nobody may take its place.
    await patient();
    const primary = await redis.asked();
    const people = crowd();
    await people.through(5);
    for (const node of redis.nodes) redis.linkTo(node).delayMs = 20;
    await people.through(10);
    const link = redis.linkTo(await redis.asked());
    link.delayMs = 600;
    const tooSlow = Date.now();
    // Told while it is still too slow.
    await until(() => refusedSince(people, tooSlow).length >= 10, 'a refusal');
    for (const node of redis.nodes) redis.linkTo(node).delayMs = 0;
    await people.through(20);
    // A machine that stands still for long makes sentinels take it for dead all the same.
    if ((await redis.asked()) !== primary) people.lossNow();
    expect(await people.stop()).toEqual([]);
  });

  it(`a Redis behind a dead connection causes 503 responses, and is found again without manual steps (${kind})`, async () => {
    for (const node of redis.nodes) {
      // So that a replica, too, sees that its wire is dead.
      await redis.command(node, 'CONFIG', 'SET', 'repl-ping-replica-period', '1');
      await redis.command(node, 'CONFIG', 'SET', 'repl-timeout', '5');
    }
    const people = crowd();
    await people.through(10);
    const link = redis.linkTo(await redis.asked());
    // The sentinels do not reach it either: another takes its place. The nodes of a cluster do.
    if (kind === 'sentinel') people.lossNow();
    const [from, connections] = [Date.now(), link.connections];
    link.dropping = true;
    // Told while nothing comes through yet; and the connection that is silent is left.
    await until(() => refusedSince(people, from).length >= 10, 'a refusal');
    if (kind === 'sentinel') await people.through(20);
    else await until(() => link.connections > connections, 'a new connection');
    link.dropping = false;
    // Sentinels leave a silent connection only after fifteen seconds.
    if (kind === 'sentinel') link.cut();
    await people.through(20);
    expect(await people.stop()).toEqual([]);
  });

  it(`a Redis that returns empty has ended all sessions, and no user becomes another one (${kind})`, async () => {
    await patient();
    const number = freshNumber();
    const { body } = await logIn(number);
    const people = crowd();
    await people.through(10);
    people.lossNow();
    const heard: unknown[] = [];
    const asking = until(async () => {
      const answer = await me(url, body.accessToken);
      heard.push(`${answer.status} ${String(answer.body.code ?? '')}`.trim());
      return answer.status === 401;
    }, 'a Redis that knows nothing');
    await outage();
    await asking;
    await people.through(20);
    expect(await people.stop()).toEqual([]);
    // A 401 is the word of a Redis that is there and knows nothing, and of no other.
    expect(heard.at(-1)).toBe('401 session_expired');
    expect(heard).toContain('503 store_unavailable');
    expect(heard.filter((one) => one !== '200' && one !== '503 store_unavailable')).toHaveLength(1);
    expect((await refresh(url, body.refreshToken)).status).toBe(401);
    const again = await logIn(number);
    expect(claimsOf(again.body.accessToken).sub).toBe(claimsOf(body.accessToken).sub);
  });

  it(`a Redis that returns from an old dump has lost later changes, and doubles nothing (${kind})`, async () => {
    await patient();
    const [once, twice, out] = [await logIn(), await logIn(), await logIn()];
    const number = freshNumber();
    const { body: sent } = await sendOtp(url, number);
    const code = textedCode(upstream, number);
    for (const primary of await redis.primaries()) await redis.command(primary, 'SAVE');

    const verified = await verifyOtp(url, sent.requestId, code);
    const late = await logIn();
    const first = await refresh(url, once.body.refreshToken);
    const second = await refresh(url, (await refresh(url, twice.body.refreshToken)).body.refreshToken);
    expect([verified.status, late.status, first.status, second.status]).toEqual([200, 200, 200, 200]);
    expect((await insist(() => logout(url, out.body.refreshToken))).status).toBe(204);
    await outage();
    // Every shard of a cluster: each is back in its own time.
    await redis.settled();
    for (const instance of instances)
      await until(
        async () => (await call('GET', `${instance.url}/health/ready`)).body.status === 'ok',
        'readiness',
      );

    // What ended has not: the window that docs/reliability.md tells of.
    expect((await me(url, once.body.accessToken)).status).toBe(200);
    expect((await me(url, out.body.accessToken)).status).toBe(200);
    // What was opened is gone.
    expect((await me(url, late.body.accessToken)).body.code).toBe('session_expired');
    // One rotation is caught up; a client that is further ahead logs in again.
    expect((await refresh(url, first.body.refreshToken)).status).toBe(200);
    expect((await refresh(url, second.body.refreshToken)).body.code).toBe('refresh_token_invalid');
    // The code works once more, for the session that it had opened.
    const again = await verifyOtp(url, sent.requestId, code);
    expect(again.status).toBe(200);
    expect(claimsOf(again.body.accessToken)).toMatchObject({
      sub: claimsOf(verified.body.accessToken).sub,
      sid: claimsOf(verified.body.accessToken).sid,
    });
    expect((await verifyOtp(url, sent.requestId, code)).status).toBe(410);
    // Not to be found by the next test.
    for (const primary of await redis.primaries()) {
      await redis.command(primary, 'FLUSHALL');
      await redis.command(primary, 'SAVE');
    }
  });
});

it('a Redis with appendfsync always loses nothing when it is killed under load', async () => {
  const redis: RedisServer = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  try {
    await serve(redis.url);
    const people = crowd();
    for (let times = 0; times < 3; times++) {
      await people.through(10);
      await redis.kill();
      const killed = Date.now();
      await until(() => refusedSince(people, killed).length > 0, 'a refusal');
      await redis.start();
    }
    await people.through(20);
    expect(await people.stop()).toEqual([]);
  } finally {
    await redis.stop();
  }
});
