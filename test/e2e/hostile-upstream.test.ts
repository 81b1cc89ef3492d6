import { Redis } from 'ioredis';
import {
  pour,
  rawAnswer,
  startRawUpstream,
  trickle,
  type RawRequest,
  type RawUpstream,
} from '../support/raw-upstream';
import { startRedis, type RedisServer } from '../support/redis-server';
import {
  API_KEY,
  freshNumber,
  sendOtp,
  startInstance,
  until,
  verifyOtp,
  type Answer,
  type Instance,
} from '../support/world';

// The whole service over an upstream of raw bytes.

type Respond = (socket: Parameters<Parameters<typeof startRawUpstream>[0]>[0], request: RawRequest) => void;

const TIMEOUT_MS = 400;
const CODE = '482915';
const RIGHT = rawAnswer('{"data":{"verified":true}}');
const WRONG = rawAnswer('{"data":{"verified":false}}');

let redis: RedisServer;
let upstream: RawUpstream;
let respond: Respond;

/** Names the OTP request of each send, and leaves the rest to `next`. */
const sending =
  (next: Respond): Respond =>
  (socket, request) => {
    if (request.path !== '/otp/send') next(socket, request);
    else socket.write(rawAnswer(JSON.stringify({ data: { requestId: `otp-${upstream.seen.requests}` } })));
  };

beforeAll(async () => {
  redis = await startRedis();
  upstream = await startRawUpstream((socket, request) => {
    respond(socket, request);
  });
});
afterAll(async () => {
  await upstream.close();
  await redis.stop();
});

const service = (contract: 'caller' | 'provider'): Promise<Instance> =>
  startInstance({
    REDIS_URL: redis.url,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: contract,
    UPSTREAM_TIMEOUT_MS: String(TIMEOUT_MS),
    UPSTREAM_MAX_ATTEMPTS: '1',
  });

const hasToken = (answer: Answer): boolean => JSON.stringify(answer.body).includes('oken":');

describe('a verification under the provider contract', () => {
  let instance: Instance;

  beforeAll(async () => {
    instance = await service('provider');
  });
  afterAll(() => instance.close());

  const sent = async (): Promise<unknown> => {
    let answer: Answer | undefined;
    // A machine that is busy with other tests may make even a good answer late.
    for (let tries = 0; tries < 5 && answer?.status !== 200; tries++)
      answer = await sendOtp(instance.url, freshNumber());
    expect(answer?.status).toBe(200);
    return answer?.body.requestId;
  };

  it('of a wrong code is wrong after a neighbour’s answer that came twice', async () => {
    respond = sending((socket, { body }) => {
      if (!body.includes(CODE)) return socket.write(WRONG);
      socket.write(RIGHT);
      return setTimeout(() => socket.writable && socket.write(RIGHT), 1);
    });
    for (let i = 0; i < 5; i++) {
      const [mine, neighbours] = [await sent(), await sent()];
      expect((await verifyOtp(instance.url, neighbours, CODE)).status).toBe(200);
      const answer = await verifyOtp(instance.url, mine, '000000');
      expect([answer.status, answer.body.code, hasToken(answer)]).toEqual([400, 'otp_incorrect', false]);
    }
  });

  it.each<[string, Respond, number[]]>([
    ['silence', () => undefined, [504]],
    [
      'an answer that trickles in',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        trickle(socket, 'x', 10);
      },
      [504],
    ],
    [
      'an answer that comes too late',
      (socket) => setTimeout(() => socket.write(RIGHT), 2 * TIMEOUT_MS),
      [504],
    ],
    [
      'answers before the answer without an end',
      (socket) => {
        pour(socket, 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100));
      },
      // A slow machine may still be reading when the time is up.
      [502, 504],
    ],
    [
      'a body without an end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n{"data":{"verified":true}}');
        pour(socket, ' '.repeat(16_000));
      },
      // A slow machine may still be reading when the time is up.
      [502, 504],
    ],
    ['no HTTP', (socket) => socket.end('\0\0\0'), [502]],
    ['a reset', (socket) => socket.resetAndDestroy(), [502]],
  ])(
    'that meets %s is our trouble, gives no token, and leaves the service well',
    async (_name, next, statuses) => {
      respond = sending(next);
      const answers = await Promise.all(
        Array.from({ length: 10 }, async () => verifyOtp(instance.url, await sent(), CODE)),
      );
      for (const { status } of answers) expect(statuses).toContain(status);
      expect(answers.filter(hasToken)).toEqual([]);
      await until(() => upstream.open.size === 0);
      respond = sending((socket) => socket.write(RIGHT));
      expect((await verifyOtp(instance.url, await sent(), CODE)).status).toBe(200);
    },
  );
});

describe.each(['caller', 'provider'] as const)('what upstream repeats under the %s contract', (contract) => {
  it('reaches no caller, no log and not Redis', async () => {
    const instance = await service(contract);
    const store = new Redis(redis.url);
    // Packed, a secret would not be found.
    await store.config('SET', 'rdbcompression', 'no');
    const secrets = [API_KEY, API_KEY.slice(8)];
    let status = '';
    respond = (socket, { body }) => {
      const read = JSON.parse(body) as {
        phoneNumber?: string;
        variables?: { otp: string };
        otpCode?: string;
      };
      const code = read.variables?.otp ?? read.otpCode ?? CODE;
      const phone = read.phoneNumber ?? '';
      secrets.push(...[code, phone.slice(3)].filter((secret) => secret !== ''));
      const echo = `key ${API_KEY} number ${phone} code ${code}`;
      const answer = {
        requestId: `req_${phone.slice(3)}`,
        message: echo,
        data: { requestId: `otp-${phone}`, messageId: `${code}-1`, status: echo, verified: echo },
        error: status.startsWith('2')
          ? undefined
          : { code: `E${code}`, message: echo, details: [{ message: echo }] },
      };
      const headers = {
        Location: `${upstream.url}/?q=${encodeURIComponent(echo)}`,
        'Retry-After': code,
        'X-Echo': echo,
      };
      socket.write(rawAnswer(JSON.stringify(answer), { status: `${status} ${echo}`, headers }));
    };
    try {
      const told: unknown[] = [];
      const idOf: unknown[] = [];
      for (status of ['201', '302', '400', '401', '404', '409', '429', '500', '503']) {
        const phoneNumber = freshNumber();
        // A number is a secret even before upstream has seen it.
        secrets.push(phoneNumber.slice(3));
        const answer = await sendOtp(instance.url, phoneNumber);
        idOf.push(answer.body.requestId);
        told.push(answer.body, [...answer.headers]);
        if (answer.status !== 200) continue;
        const verified = await verifyOtp(instance.url, answer.body.requestId, '000000');
        told.push(verified.body, [...verified.headers]);
      }
      const kept = await Promise.all(
        (await store.keys('*')).map(async (key) => [
          key,
          await store.dumpBuffer(key).then((b) => b.toString('latin1')),
        ]),
      );
      const places = {
        caller: JSON.stringify(told),
        log: instance.logs.join(''),
        redis: JSON.stringify(kept),
      };
      // What is looked for was there to be found.
      expect([kept.length > 0, places.log.includes('A provider ')]).toEqual([true, true]);
      expect(new Set(secrets).size).toBeGreaterThan(4);
      for (const secret of secrets.filter((text) => text !== '000000'))
        for (const [place, text] of Object.entries(places))
          expect([place, secret, text.includes(secret)]).toEqual([place, secret, false]);
    } finally {
      store.disconnect();
      await instance.close();
    }
  });
});
