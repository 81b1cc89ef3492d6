import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  type World,
} from '../support/world';

let world: World;

beforeAll(async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' }, count: 2 });
});
afterAll(() => world.close());

/** Every call that needs the store is refused as ours, quickly, and sends nothing. */
async function expectAway(token: string): Promise<void> {
  const sent = world.upstream.calls.length;
  const started = Date.now();
  const answers = await Promise.all([
    sendOtp(world.url, freshNumber()),
    verifyOtp(world.url, 'A'.repeat(44), '123456'),
    call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` }),
  ]);
  // A promise of the contract, with room for a busy machine: each is bounded by one command's time.
  expect(Date.now() - started).toBeLessThan(3_000);
  for (const { status, body, headers } of answers) {
    expect([status, body.code]).toEqual([503, 'store_unavailable']);
    expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  }
  expect(world.upstream.calls).toHaveLength(sent);
}

async function expectBack(): Promise<void> {
  await until(async () => (await sendOtp(world.url, freshNumber())).status === 200, 5_000);
}

it('while Redis is stopped everything that needs it is a 503, and it is back by itself', async () => {
  const token = (await login(world)).body.accessToken as string;
  await world.redis.kill();
  await until(async () => (await call('GET', `${world.url}/health/ready`)).body.status === 'degraded');
  await expectAway(token);
  const ready = await call('GET', `${world.url}/health/ready`);
  expect([ready.status, ready.body.status]).toEqual([200, 'degraded']);
  expect((await call('GET', `${world.url}/.well-known/jwks.json`)).status).toBe(200);
  expect((await call('GET', `${world.url}/health/live`)).status).toBe(200);
  const before = world.upstream.messages.length;
  await world.redis.restart();
  await expectBack();
  // Only the probes of expectBack: nothing that was refused was sent later.
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(world.upstream.messages.length - before).toBe(1);
  // An emptied store logs people out, and never changes who they are.
  const me = await call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` });
  expect([me.status, me.body.code]).toEqual([401, 'session_expired']);
});

it('while Redis is paused every call is answered, and what was refused is not sent later', async () => {
  const token = (await login(world)).body.accessToken as string;
  world.redis.pause();
  await expectAway(token);
  const before = world.upstream.messages.length;
  world.redis.resume();
  await expectBack();
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(world.upstream.messages.length - before).toBe(1);
  const me = await call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` });
  expect(me.status).toBe(200);
});

it('while Redis is full nothing is sent, and sessions that are open stay open', async () => {
  const token = (await login(world)).body.accessToken as string;
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '1');
  const before = world.upstream.calls.length;
  const send = await sendOtp(world.url, freshNumber());
  expect([send.status, send.body.code]).toEqual([503, 'store_unavailable']);
  expect(world.upstream.calls).toHaveLength(before);
  const me = await call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` });
  expect(me.status).toBe(200);
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '0');
  await expectBack();
});

it('while Redis is full people can log out all the same', async () => {
  const { body } = await login(world);
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '1');
  const logout = await call('POST', `${world.url}/auth/logout`, {
    refreshToken: body.refreshToken as string,
  });
  expect(logout.status).toBe(204);
  await redisCommand(world, 'CONFIG', 'SET', 'maxmemory', '0');
  const me = await call('GET', `${world.url}/auth/me`, undefined, {
    authorization: `Bearer ${String(body.accessToken)}`,
  });
  expect(me.status).toBe(401);
});

it('a forgotten script (SCRIPT FLUSH) is learnt again without a failed call', async () => {
  let told: unknown[] = [];
  // A machine that stands still for a moment is told as a Redis that is away; a script that is not learnt fails each time.
  for (let tries = 0; tries === 0 || (tries < 3 && told.some((one) => one !== 200)); tries++) {
    await redisCommand(world, 'SCRIPT', 'FLUSH');
    told = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const phoneNumber = freshNumber();
        const sent = await sendOtp(world.url, phoneNumber);
        if (sent.status !== 200 || sent.body.delivery !== 'accepted') return sent.body;
        const code = textedCode(world.upstream, phoneNumber);
        return (await verifyOtp(world.url, sent.body.requestId, code)).status;
      }),
    );
  }
  expect(told).toEqual(Array(20).fill(200));
});

it('readiness is 503 until Redis was first reached', async () => {
  const { port } = world.redis;
  await world.redis.kill();
  const starting = startInstance({ REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: world.upstream.url });
  const early = await Promise.race([
    starting.then(() => 'ready'),
    new Promise((resolve) => setTimeout(resolve, 1_500, 'waiting')),
  ]);
  expect(early).toBe('waiting');
  await world.redis.restart();
  expect(world.redis.port).toBe(port);
  await (await starting).close();
});
