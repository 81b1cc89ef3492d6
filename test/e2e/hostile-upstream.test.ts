import {
  pour,
  rawAnswer,
  startRawUpstream,
  trickle,
  type RawRequest,
  type RawUpstream,
} from '../support/raw-upstream';
import { contentsOf } from '../support/redis-contents';
import { redisOfWorker } from '../support/redis-of-worker';
import {
  API_KEY,
  freshNumber,
  sendOtp,
  startInstance,
  statusAndCode,
  until,
  verifyOtp,
  type Answer,
  type Instance,
} from '../support/world';

// The whole service over an upstream of raw bytes.

type Respond = (socket: Parameters<Parameters<typeof startRawUpstream>[0]>[0], request: RawRequest) => void;

const CODE = '482915';
const RIGHT = rawAnswer('{"data":{"verified":true}}');
const WRONG = rawAnswer('{"data":{"verified":false}}');

let redis: { url: string };
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
  redis = await redisOfWorker();
  upstream = await startRawUpstream((socket, request) => {
    respond(socket, request);
  });
});
afterAll(() => upstream.close());

const service = (contract: 'caller' | 'provider', timeoutMs = 45_000): Promise<Instance> =>
  startInstance({
    REDIS_URL: redis.url,
    STARTMESSAGING_BASE_URL: upstream.url,
    STARTMESSAGING_CONTRACT: contract,
    UPSTREAM_TIMEOUT_MS: String(timeoutMs),
    UPSTREAM_DEADLINE_MS: '45000',
  });

const hasToken = (answer: Answer): boolean => JSON.stringify(answer.body).includes('oken":');

describe('a verification under the provider contract', () => {
  let patient: Instance;
  /** Gives up after a real wait. */
  let hasty: Instance;

  beforeAll(async () => {
    [patient, hasty] = [await service('provider'), await service('provider', 500)];
  });
  afterAll(() => Promise.all([patient.close(), hasty.close()]));

  const sent = async (): Promise<unknown> => {
    const { status, body } = await sendOtp(patient.url, freshNumber());
    expect(status).toBe(200);
    return body.requestId;
  };
  const verifyAtOnce = (instance: Instance): Promise<Answer[]> =>
    Promise.all(Array.from({ length: 5 }, async () => verifyOtp(instance.url, await sent(), CODE)));

  /** Nothing of this is left in the way of the next verification. */
  async function expectWell(instance: Instance): Promise<void> {
    await until(() => upstream.open.size === 0, 'the end of all connections to upstream');
    respond = sending((socket) => socket.write(RIGHT));
    const verified = async () => (await verifyOtp(instance.url, await sent(), CODE)).status === 200;
    await until(verified, 'a verification');
  }

  it('a wrong code stays wrong when the answer to another verification came twice on the same connection', async () => {
    respond = sending((socket, { body }) => {
      if (!body.includes(CODE)) return socket.write(WRONG);
      socket.write(RIGHT);
      return setTimeout(() => socket.writable && socket.write(RIGHT), 1);
    });
    for (let i = 0; i < 5; i++) {
      const [mine, neighbours] = [await sent(), await sent()];
      expect((await verifyOtp(patient.url, neighbours, CODE)).status).toBe(200);
      const answer = await verifyOtp(patient.url, mine, '000000');
      expect([...statusAndCode(answer), hasToken(answer)]).toEqual([400, 'otp_incorrect', false]);
    }
  });

  it.each<[string, Respond]>([
    ['silence and an answer that comes too late', () => undefined],
    [
      'an answer that trickles in',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        trickle(socket, 'x', 10);
      },
    ],
  ])('a verification that meets %s is a 504 and gives no token, and the next one works', async (_, next) => {
    const held = new Set<Parameters<Respond>[0]>();
    respond = sending((socket, request) => {
      held.add(socket);
      next(socket, request);
    });
    const answers = await verifyAtOnce(hasty);
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 504));
    expect(answers.filter(hasToken)).toEqual([]);
    for (const socket of held) if (socket.writable) socket.write(RIGHT);
    await expectWell(hasty);
  });

  it.each<[string, Respond]>([
    [
      'interim answers without an end',
      (socket) => {
        pour(socket, 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100));
      },
    ],
    [
      'a body without an end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n{"data":{"verified":true}}');
        pour(socket, ' '.repeat(16_000));
      },
    ],
    ['bytes that are no HTTP', (socket) => socket.end('\0\0\0')],
    ['a reset', (socket) => socket.resetAndDestroy()],
  ])('a verification that meets %s is a 502 and gives no token, and the next one works', async (_, next) => {
    respond = sending(next);
    const answers = await verifyAtOnce(patient);
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 502));
    expect(answers.filter(hasToken)).toEqual([]);
    await expectWell(patient);
  });
});

describe.each(['caller', 'provider'] as const)(
  'secrets that upstream repeats under the %s contract',
  (contract) => {
    it('secrets that upstream repeats in its answer reach no client, no log and not Redis', async () => {
      const instance = await service(contract);
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
        const kept = await contentsOf(redis.url);
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
        await instance.close();
      }
    });
  },
);
