import { Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import { asAdmin, block, WITH_ADMIN } from '../support/admin';
import { checkRedis, learnAnswer, leaksIn, ServiceLog } from '../support/canaries';
import {
  API_KEY,
  call,
  freshNumber,
  login,
  SECRET,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

type Line = Record<string, unknown>;
let world: World;
beforeAll(async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller', ...WITH_ADMIN } });
});
afterAll(() => world.close());

const lines = (): Line[] => world.instances[0]!.logs.map((line) => JSON.parse(line) as Line);

/** The request lines that come of it, which are written after their answers. */
async function linesOf(count: number, work: () => Promise<unknown>): Promise<Line[]> {
  const before = lines().length;
  const news = (): Line[] =>
    lines()
      .slice(before)
      .filter(({ msg }) => msg === 'request');
  await work();
  await until(() => news().length >= count, `${count} request lines`);
  expect(news()).toHaveLength(count);
  return news();
}

describe('every request has one line', () => {
  it('the line of a request has its trace, its id, its duration and its outcome', async () => {
    const [line] = await linesOf(1, () =>
      call('POST', `${world.url}/auth/send-otp`, {}, { traceparent: TRACEPARENT, 'x-request-id': 'mine.1' }),
    );
    expect(line).toEqual({
      level: 'info',
      time: expect.any(String) as string,
      requestId: 'mine.1',
      traceId: TRACE,
      method: 'POST',
      route: '/auth/send-otp',
      status: 400,
      code: 'validation_failed',
      durationMs: expect.any(Number) as number,
      msg: 'request',
    });
  });

  it('a request without a valid traceparent gets a new trace', async () => {
    const [one, two] = await linesOf(2, async () => {
      await call('GET', `${world.url}/auth/me`);
      await call('GET', `${world.url}/auth/me`, undefined, { traceparent: `${TRACEPARENT}x` });
    });
    for (const line of [one!, two!]) expect(line.traceId).toMatch(/^[\da-f]{32}$/);
    expect(new Set([TRACE, one!.traceId, two!.traceId]).size).toBe(3);
  });

  it('a request that is refused before any route has a line, too', async () => {
    const [unknown, malformed, preflight] = await linesOf(3, async () => {
      await call('GET', `${world.url}/nowhere/${freshNumber()}`, undefined, { traceparent: TRACEPARENT });
      await call('GET', `${world.url}/auth/%zz`, undefined, { traceparent: TRACEPARENT });
      await call('OPTIONS', `${world.url}/auth/me`, undefined, { traceparent: TRACEPARENT });
    });
    expect(unknown).toMatchObject({ traceId: TRACE, route: 'unknown', code: 'not_found' });
    expect(malformed).toMatchObject({ traceId: TRACE, code: 'validation_failed' });
    expect(preflight).toMatchObject({ traceId: TRACE, method: 'OPTIONS' });
  });

  it('a probe is logged at the level debug', async () => {
    await call('GET', `${world.url}/health/live`);
    const probe = (): Line | undefined => lines().find(({ route }) => route === '/health/live');
    await until(() => probe() !== undefined, 'the line of the probe');
    expect(probe()).toMatchObject({ level: 'debug', msg: 'probe', status: 200 });
  });

  it('the lines of all requests about a phone number have the same pseudonym', async () => {
    const number = freshNumber();
    const told = await linesOf(8, async () => {
      const sent = await sendOtp(world.url, number);
      const code = textedCode(world.upstream, number);
      await call('GET', `${world.url}/auth/otp/${sent.body.requestId}`);
      await verifyOtp(world.url, sent.body.requestId, wrongCode(code));
      const { body } = await verifyOtp(world.url, sent.body.requestId, code);
      const bearer = { authorization: `Bearer ${body.accessToken}` };
      await call('GET', `${world.url}/auth/me`, undefined, bearer);
      await call('POST', `${world.url}/auth/refresh`, { refreshToken: body.refreshToken });
      await verifyOtp(world.url, sent.body.requestId, code);
      await block(world.url, number);
    });
    expect(told.map(({ status }) => status)).toEqual([200, 200, 400, 200, 200, 200, 410, 204]);
    const [{ phone } = { phone: '' }] = told;
    expect(phone).toMatch(/^[\w-]{22}$/);
    expect(told.map((line) => line.phone)).toEqual(Array(8).fill(phone));
    // The audit calls it the same.
    expect(lines().find(({ audit }) => audit === 'admin.block')).toMatchObject({ phone });
    const [other] = await linesOf(1, () => sendOtp(world.url, freshNumber()));
    expect(other!.phone).not.toBe(phone);
    const [nobody] = await linesOf(1, () => asAdmin('GET', `${world.url}/admin/abuse`));
    expect(nobody).not.toHaveProperty('phone');
  });
});

it('no id or trace connects a line that names a user with a line that names the pseudonym of a number', async () => {
  const number = freshNumber();
  const sent = await sendOtp(world.url, number);
  const code = textedCode(world.upstream, number);
  const own = { 'x-request-id': 'my-own-id', traceparent: `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01` };
  const { body } = await verifyOtp(world.url, sent.body.requestId, code, own);
  const { body: next } = await call(
    'POST',
    `${world.url}/auth/refresh`,
    { refreshToken: body.refreshToken },
    own,
  );
  const elsewhere = await call('POST', `${world.url}/auth/logout`, { refreshToken: next.refreshToken }, own);
  expect(elsewhere.status).toBe(204);
  const all = lines();
  const ofUser = all.filter((line) => line.subject === body.user.id);
  expect(ofUser.map(({ audit }) => audit)).toEqual(expect.arrayContaining(['login', 'session.ended']));
  const ofNumber = all.filter(({ phone }) => phone !== undefined);
  expect(ofNumber.length).toBeGreaterThan(2);
  const texts = (found: Line[]): unknown[] => found.flatMap((line) => Object.values(line));
  const shared = new Set(
    texts(ofUser).filter((text) => String(text).length > 8 && texts(ofNumber).includes(text)),
  );
  // Times are of the same millisecond now and then, and many users share a network.
  const harmless = (text: unknown): boolean =>
    text === '127.0.0.0/24' || !Number.isNaN(Date.parse(String(text)));
  expect([...shared].filter((text) => !harmless(text))).toEqual([]);
});

it('a request of 16 KB writes one line of at most 600 bytes, whatever it contains', async () => {
  const long = (text: string): string => text.repeat(Math.floor(15_000 / text.length));
  const bodies = [
    { phoneNumber: long('1234 ') },
    { requestId: long('x'), otpCode: long('1') },
    { [long('n')]: 1 },
    Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`otp${i}`, i])),
    long('{"a":'),
  ];
  const headers = ['x-request-id', 'traceparent', 'user-agent', 'authorization', 'cookie', 'idempotency-key'];
  const { logs } = world.instances[0]!;
  // A warning that the service writes once belongs to no request of the test.
  const foreign = { origin: 'https://foreign.example' };
  await linesOf(1, () => call('POST', `${world.url}/auth/refresh`, {}, foreign));
  const before = logs.length;
  const count = bodies.length + headers.length + 2;
  await linesOf(count, async () => {
    for (const body of bodies) await call('POST', `${world.url}/auth/send-otp`, body);
    for (const name of headers)
      await call('POST', `${world.url}/auth/verify-otp`, {}, { [name]: long('1234 ').trim() });
    await call('GET', `${world.url}/${long('a/')}`);
    await call('POST', `${world.url}/auth/refresh`, {}, foreign);
  });
  const written = logs.slice(before);
  expect(written).toHaveLength(count);
  expect(written.filter((line) => Buffer.byteLength(line) > 600)).toEqual([]);
});

it('a caller cannot bring a phone number, a key or a code into the log by an id, a trace or a body', async () => {
  const number = freshNumber();
  const sent = await sendOtp(world.url, number);
  const code = textedCode(world.upstream, number);
  const national = number.slice(3);
  const dotted = `${national.slice(0, 5)}.${national.slice(5)}`;
  const asUuid = `00000000-0000-4000-8000-${number.slice(1)}`;
  const told = await linesOf(8, async () => {
    for (const id of [number.slice(1), API_KEY, `0${national}`, dotted, asUuid])
      await call('GET', `${world.url}/auth/me`, undefined, { 'x-request-id': id });
    for (const front of ['0'.repeat(20), `a${'0'.repeat(19)}`])
      await call('GET', `${world.url}/auth/me`, undefined, {
        traceparent: `00-${front}${number.slice(1)}-00f067aa0ba902b7-01`,
      });
    await call(
      'POST',
      `${world.url}/auth/verify-otp`,
      `{"requestId":"${sent.body.requestId}","otpCode":"${code}"`,
    );
  });
  expect(told.map(({ requestId }) => requestId).slice(0, 2)).toEqual(['+91******', 'sm_live_***']);
  expect(JSON.stringify(told)).not.toContain(dotted);
  expect(leaksIn(JSON.stringify(told))).toEqual([]);
});

describe('the canaries of every test', () => {
  it.each(['number', 'code', 'access token', 'refresh token', 'key', 'secret'])(
    'the canaries find this in a log: %s',
    async (what) => {
      const number = freshNumber();
      const { body } = await login(world, number);
      const known: Record<string, string> = {
        number: number.slice(3),
        code: textedCode(world.upstream, number),
        'access token': body.accessToken as string,
        'refresh token': (body.refreshToken as string).slice(-30),
        key: API_KEY,
        secret: SECRET,
      };
      const log = new ServiceLog();
      log.write(`${JSON.stringify({ msg: `so ${known[what]} it is` })}\n`);
      expect(() => {
        log.check();
      }).toThrow('The log holds what it must not');
      // The same through the logger is clean.
      const clean = new ServiceLog();
      new Logger('trace', clean, [SECRET]).warn(
        `so ${what === 'code' ? `otp ${known[what]}` : known[what]} it is`,
      );
      if (what !== 'refresh token')
        expect(() => {
          clean.check();
        }).not.toThrow();
      else
        expect(() => {
          clean.check();
        }).toThrow('a token');
    },
  );

  it('the canaries find a line that is not JSON', () => {
    const log = new ServiceLog();
    log.write('{"msg":"fine"}\n[Nest] not fine\n');
    expect(() => {
      log.check();
    }).toThrow('no JSON: [Nest] not fine');
  });

  it('the canaries find a token and a key without a time to live in Redis', async () => {
    const redis = new Redis(world.redis.url);
    try {
      const token = `${'s'.repeat(22)}.${'i'.repeat(22)}.0.kEy-id.${'m'.repeat(31)}ofNoOther_12`;
      learnAnswer(JSON.stringify({ refreshToken: token }), new Headers());
      await redis.set('otp-login:{x}:leak', token, 'EX', 60);
      await expect(checkRedis(world.redis.url)).rejects.toThrow('a token: otp-login:{x}:leak');
      await redis.set('otp-login:{x}:leak', 'harmless');
      await expect(checkRedis(world.redis.url)).rejects.toThrow('never expires: otp-login:{x}:leak');
      await redis.del('otp-login:{x}:leak');
      await expect(checkRedis(world.redis.url)).resolves.toBeUndefined();
    } finally {
      redis.disconnect();
    }
  });
});
