import { isIP } from 'node:net';
import fc from 'fast-check';
import { Redis } from 'ioredis';
import { ERROR_CODES } from '../../src/errors/api-error';
import { bodies, MARK, utf16 } from './json-bodies';
import { exchange, garbage, requestWith, type RawAnswer } from './raw-http';
import { exactBodies, inserted, miswrittenCodes, misspeltPhones, NOISE, phones } from './spellings';
import {
  call,
  freshNumber,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  verifyOtp,
  type World,
} from './world';

// What holds for every input, not only for chosen inputs. A failure prints its seed, its path and the smallest input that
// shows it: `fc.assert(..., { seed, path })` repeats it.

const SENDS_OF_AN_ADDRESS = 2;

/** The tests of all properties. `scale` is the part of the inputs that is drawn. */
export function testProperties(scale: number): void {
  let world: World;
  let redis: Redis;
  /** Instances that limit phone numbers, addresses, and addresses that proxies report. */
  let perPhone: string;
  let perAddress: string;
  let behindProxies: string;

  beforeAll(async () => {
    world = await startWorld({ variables: { OTP_TTL_SECONDS: '600' } });
    const settings = { REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: world.upstream.url };
    const limited = { ...settings, LIMIT_IP: `${SENDS_OF_AN_ADDRESS}/600` };
    const instances = [
      await startInstance({ ...settings, LIMIT_PHONE: '1/600' }),
      await startInstance(limited),
      await startInstance({ ...limited, TRUSTED_PROXIES: '127.0.0.0/8,10.0.0.0/8' }),
    ];
    // The world closes them.
    world.instances.push(...instances);
    [perPhone = '', perAddress = '', behindProxies = ''] = instances.map(({ url }) => url);
    redis = new Redis(world.redis.url);
  });
  afterAll(async () => {
    redis.disconnect();
    await world.close();
  });
  beforeEach(async () => {
    await redis.flushdb();
    world.upstream.reset();
    Object.assign(world.upstream.settings, { balance: 1e9, otpTtlSeconds: 600 });
  });

  const holds = <Input>(
    numRuns: number,
    inputs: fc.Arbitrary<Input>,
    property: (input: Input) => Promise<void>,
  ): Promise<void> => fc.assert(fc.asyncProperty(inputs, property), { numRuns: Math.ceil(numRuns * scale) });

  /** Every key but the counts of client addresses. */
  const keysBeyondAddresses = async (): Promise<string[]> =>
    // What became of codes before is written a moment later, beside what is sent; so are the signing keys of the start.
    (await redis.keys('*'))
      .filter((key) => !/:address:|\{admission\}:(ledger|regulars)|\{audit\}/.test(key))
      .sort();

  /** One call with a body of any bytes. */
  async function post(url: string, bytes: string | Buffer): Promise<RawAnswer> {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Uint8Array(Buffer.from(bytes)),
    });
    const body = await response.text();
    return { status: response.status, headers: Object.fromEntries(response.headers), body };
  }

  /** What every answer promises: it is no fault of ours, and when it is no success it is a problem of the closed set. */
  function expectSuccessOrProblem({ status, headers, body }: RawAnswer): void {
    expect(status).toBeLessThan(500);
    if (status < 300) return;
    expect(headers['content-type']).toMatch(/^application\/problem\+json/);
    const problem = JSON.parse(body) as { code: keyof typeof ERROR_CODES; status: number };
    expect([problem.status, ERROR_CODES[problem.code].status]).toEqual([status, status]);
  }

  describe('a phone number', () => {
    it('send-otp answers a number in any spelling except E.164 with a 400 that names the field, and writes nothing', async () => {
      await holds(2_000, misspeltPhones, async (phoneNumber) => {
        const answer = await sendOtp(perPhone, phoneNumber);
        expect([answer.status, answer.body.code]).toEqual([400, 'validation_failed']);
        expect(answer.body.errors).toEqual([{ field: 'phoneNumber', message: expect.any(String) as string }]);
        expect(await keysBeyondAddresses()).toEqual([]);
      });
      expect(world.upstream.calls).toEqual([]);
    });

    it('send-otp counts a number in one bucket, in whatever way its JSON is written', async () => {
      const twice = phones.chain((phone) =>
        fc.tuple(fc.constant(phone), exactBodies(phone), exactBodies(phone)),
      );
      await holds(300, twice, async ([phone, first, second]) => {
        // A number may be drawn again.
        await redis.flushdb();
        const sent = world.upstream.messages.length;
        expect((await post(`${perPhone}/auth/send-otp`, first)).status).toBe(200);
        expect((await post(`${perPhone}/auth/send-otp`, second)).status).toBe(429);
        expect(world.upstream.messages.slice(sent).map(({ phoneNumber }) => phoneNumber)).toEqual([phone]);
      });
    });
  });

  describe('a body of any shape', () => {
    it.each(['send-otp', 'verify-otp', 'refresh', 'logout'])(
      '%s answers any body with success or a documented error, and repeats it nowhere',
      async (route) => {
        const logs = world.instances[0]!.logs;
        const logged = logs.length;
        await holds(900, bodies, async (body) => {
          const answer = await post(`${world.url}/auth/${route}`, body);
          expectSuccessOrProblem(answer);
          expect(JSON.stringify(answer)).not.toContain(MARK);
        });
        expect(logs.slice(logged).join('')).not.toContain(MARK);
      },
    );
  });

  const ORIGIN = 'http://localhost:5173';
  const LOGGED_IN = { Cookie: '__Host-refresh=x' };

  describe('a header of any bytes', () => {
    it.each([
      {
        header: 'Authorization',
        of: 'GET /auth/me',
        normal: 401,
        pieces: ['Bearer ', 'Basic ', 'e30.', '='],
      },
      { header: 'Authorization', of: 'GET /auth/sessions', normal: 401, pieces: ['Bearer ', 'eyJ', '..'] },
      { header: 'Authorization', of: 'POST /auth/logout', normal: 204, pieces: ['Bearer ', 'A'.repeat(22)] },
      {
        header: 'Cookie',
        of: 'POST /auth/refresh',
        normal: 401,
        pieces: ['__Host-refresh=', '; ', '%', '"'],
      },
      {
        header: 'Cookie',
        of: 'POST /auth/logout',
        normal: 204,
        pieces: ['__Host-refresh=', '__proto__=', ';'],
      },
      { header: 'Origin', of: 'POST /auth/refresh', normal: 401, pieces: ['http://localhost', ':', '5173'] },
      {
        header: 'Origin',
        of: 'GET /auth/me',
        normal: 401,
        pieces: ['http://localhost', ':5173', 'null', ','],
      },
      { header: 'Content-Type', of: 'POST /auth/logout', normal: 204, pieces: ['application/json', ';a='] },
      {
        header: 'Content-Type',
        of: 'POST /auth/refresh',
        normal: 400,
        pieces: ['text/', 'json', 'charset='],
      },
      { header: 'Content-Encoding', of: 'POST /auth/logout', normal: 204, pieces: ['identity', 'gzip', ','] },
      { header: 'X-Forwarded-For', of: 'POST /auth/send-otp', normal: 400, pieces: ['1.2.3.4', '::1', ', '] },
      {
        header: 'User-Agent',
        of: 'POST /auth/verify-otp',
        normal: 400,
        pieces: ['Mozilla/5.0 (', 'Android'],
      },
      { header: 'Access-Control-Request-Headers', of: 'OPTIONS /auth/me', normal: 204, pieces: ['*', ', '] },
    ])(
      '$of answers any bytes in the header $header with its normal response or a 4xx',
      async ({ header, of, normal, pieces }) => {
        const headers: Record<string, string> = {
          ...(header === 'Cookie' || of.startsWith('OPTIONS') ? { Origin: ORIGIN } : {}),
          ...(header === 'Origin' ? LOGGED_IN : {}),
          ...(of.startsWith('OPTIONS') ? { 'Access-Control-Request-Method': 'GET' } : {}),
        };
        const body = of.startsWith('POST') ? '{}' : '';
        await holds(400, garbage(...(pieces as [string, ...string[]])), async (value) => {
          const answer = await exchange(world.url, requestWith(of, [header, value], { body, headers }));
          expectSuccessOrProblem(answer);
          if (answer.status < 400) expect(answer.status).toBe(normal);
          // An origin comes back only when it is allowed.
          expect(answer.headers['access-control-allow-origin'] ?? ORIGIN).toMatch(
            /^http:\/\/localhost(:\d+)?$/,
          );
        });
        expect(world.upstream.calls).toEqual([]);
      },
    );

    it('the service returns the X-Request-Id of a request only when it is harmless', async () => {
      const values = fc.oneof(garbage('trace', '-'), fc.stringMatching(/^[A-Za-z0-9._-]{1,70}$/));
      await holds(600, values, async (value) => {
        const answer = await exchange(world.url, requestWith('GET /auth/me', ['X-Request-Id', value]));
        expectSuccessOrProblem(answer);
        const id = answer.headers['x-request-id'];
        const given = value.replace(/^[ \t]+|[ \t]+$/g, '');
        if (/^[A-Za-z0-9._-]{1,64}$/.test(given)) expect(id).toBe(given);
        else expect(id).toMatch(/^[0-9a-f-]{36}$/);
      });
    });

    it('the service accepts an Idempotency-Key only of 16 to 255 printable ASCII characters', async () => {
      const body = JSON.stringify({ phoneNumber: freshNumber() });
      const printable = fc.string({ minLength: 10, maxLength: 300 });
      const edges = fc.constantFrom(
        '',
        ' ',
        ...[15, 16, 255, 256].map((length) => 'k'.repeat(length)),
        ` ${'k'.repeat(15)}`,
      );
      await holds(600, fc.oneof(garbage('key', '-'), printable, edges), async (value) => {
        const request = requestWith('POST /auth/send-otp', ['Idempotency-Key', value], { body });
        const answer = await exchange(world.url, request);
        expectSuccessOrProblem(answer);
        // The end of a line is the end of the header.
        if (/[\r\n]/.test(value)) return;
        const given = value.replace(/^[ \t]+|[ \t]+$/g, '');
        if (/^[\x20-\x7e]{16,255}$/.test(given)) expect(answer.status).toBe(200);
        else expect(answer.status).toBe(400);
      });
    });
  });

  describe('the bucket of a client address', () => {
    const ADDRESS_HEADERS =
      'X-Forwarded-For X-Real-IP Forwarded X-Forwarded Forwarded-For X-Client-IP Client-IP X-Cluster-Client-IP ' +
      'CF-Connecting-IP True-Client-IP Fastly-Client-IP X-Remote-Addr Via Cookie Origin User-Agent Idempotency-Key';
    const NO_ADDRESSES = [
      'unknown',
      'for=198.51.100.1',
      '[2001:db8::1]:80',
      '1.2.3.4:80',
      '1.2.3',
      '0x7f.1',
      '',
    ];

    /** An address alone, or in a form that proxies write: quoted, in brackets, with a port or a zone. */
    const namesAddress = (hop: string): boolean =>
      [hop, hop.replace(/:[^:]*$/, '')].some(
        (text) => isIP(text.replace(/^\s*(for=)?\s*/i, '').replaceAll(/["'[\]\s]|%.*/g, '')) !== 0,
      );
    const oneLine = garbage('1.2.3.4', '::', ', ', ',', '%').map((text) => text.replace(/[\r\n]/g, ' '));
    const addresses = fc.oneof(
      ...[fc.ipV4(), fc.ipV4Extended(), fc.ipV6(), fc.ipV4().map((address) => `::ffff:${address}`)],
      fc.constantFrom('127.0.0.1', '10.0.0.1', '::1', ...NO_ADDRESSES),
    );
    const hops = fc
      .tuple(
        fc.array(fc.oneof({ weight: 3, arbitrary: addresses }, { weight: 1, arbitrary: oneLine })),
        fc.constantFrom(', ', ',', ' ,\t'),
      )
      .map(([all, comma]) => all.join(comma));

    const send = (url: string, name: string, value: string): Promise<RawAnswer> =>
      exchange(url, requestWith('POST /auth/send-otp', [name, value], { body: '{}' }));
    /** Uses up the bucket of refused requests of the address that this header leads to: ten times what it may send. */
    async function exhaust(url: string, name: string, value: string): Promise<void> {
      for (let i = 0; i < 10 * SENDS_OF_AN_ADDRESS; i++)
        expect((await send(url, name, value)).status).toBe(400);
      expect((await send(url, name, value)).status).toBe(429);
    }
    /** It was counted by the limit that is used up; or it was no HTTP, and its body was not judged either. */
    function expectNoPlace(answer: RawAnswer): void {
      expectSuccessOrProblem(answer);
      expect([429, 400, 413]).toContain(answer.status);
      expect(JSON.parse(answer.body)).not.toHaveProperty('errors');
    }

    it('a client without a trusted proxy stays in one bucket, whatever its headers say', async () => {
      await exhaust(perAddress, 'X', 'y');
      const names = fc.constantFrom('X-Forwarded-For', ...ADDRESS_HEADERS.split(' '));
      await holds(800, fc.tuple(names, fc.oneof(hops, garbage('1.2.3.4', 'for='))), async ([name, value]) => {
        expectNoPlace(await send(perAddress, name, value));
      });
    });

    it('a client behind trusted proxies stays in one bucket, whatever it adds to X-Forwarded-For', async () => {
      await exhaust(behindProxies, 'X-Forwarded-For', '203.0.113.7');
      const client = fc.constantFrom(
        '203.0.113.7',
        '::ffff:203.0.113.7',
        '::FFFF:cb00:7107',
        '::ffff:cb00:7107%1',
      );
      const proxies = fc.array(
        fc.nat(255).map((last) => `10.0.0.${last}`),
        { maxLength: 3 },
      );
      const lineOrLines = fc.constantFrom(', ', ',', '\r\nX-Forwarded-For: ');
      await holds(600, fc.tuple(hops, lineOrLines, client, proxies), async ([forged, then, seen, ours]) => {
        const value = forged + then + [seen, ...ours].join(', ');
        expectNoPlace(await send(behindProxies, 'X-Forwarded-For', value));
      });
    });

    it('a client whose last hop is no address is counted in the bucket of its peer', async () => {
      await exhaust(behindProxies, 'X', 'y');
      const noAddress = fc
        .oneof(oneLine, fc.constantFrom(...NO_ADDRESSES))
        .filter((text) => !namesAddress(text.split(',').at(-1)!));
      await holds(600, fc.tuple(hops, noAddress), async ([forged, last]) => {
        expectNoPlace(await send(behindProxies, 'X-Forwarded-For', `${forged},${last}`));
      });
    });

    it('the addresses of an IPv6 /64 are counted in one bucket, in whatever way they are written', async () => {
      await exhaust(behindProxies, 'X-Forwarded-For', '2001:db8:12:a::1');
      const group = fc
        .tuple(fc.nat(0xffff), fc.nat(4), fc.boolean())
        .map(([value, width, large]) => ({ text: value.toString(16).padStart(width, '0'), large }))
        .map(({ text, large }) => (large ? text.toUpperCase() : text));
      const host = fc.oneof(
        fc.array(group, { minLength: 4, maxLength: 4 }).map((groups) => groups.join(':')),
        group.map((last) => `:${last}`),
        fc.ipV4().map((address) => `:${address}`),
      );
      const network = fc.constantFrom('2001:db8:12:a:', '2001:0DB8:0012:000A:', '2001:0db8:12:00a:');
      const client = fc
        .tuple(network, host, fc.constantFrom('', '', '%eth0', '%1'))
        .map((parts) => parts.join(''));
      await holds(600, fc.tuple(hops, client), async ([forged, seen]) => {
        expectNoPlace(await send(behindProxies, 'X-Forwarded-For', `${forged}, ${seen}`));
      });
    });
  });

  describe('a verification', () => {
    let requestId: string;
    let code: string;
    let calls: number;

    beforeEach(async () => {
      const phoneNumber = freshNumber();
      requestId = (await sendOtp(world.url, phoneNumber)).body.requestId;
      code = textedCode(world.upstream, phoneNumber);
      calls = world.upstream.calls.length;
    });
    afterEach(async () => {
      expect(world.upstream.calls).toHaveLength(calls);
      expect((await call('GET', `${world.url}/auth/otp/${requestId}`)).body.attemptsLeft).toBe(3);
      expect((await verifyOtp(world.url, requestId, code)).status).toBe(200);
    });

    it('a verification with a malformed code uses no attempt', async () => {
      await holds(1_000, miswrittenCodes(code), async (otpCode) => {
        const answer = await verifyOtp(world.url, requestId, otpCode);
        expect([answer.status, answer.body.code]).toEqual([400, 'validation_failed']);
        expect(answer.body.errors).toEqual([{ field: 'otpCode', message: expect.any(String) as string }]);
      });
    });

    it('a verification of an unknown request is answered with 410, and calls no upstream and writes nothing', async () => {
      const keys = await keysBeyondAddresses();
      const letters = Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_');
      const letter = fc.constantFrom(...letters);
      const replaceFrom = (at: number, text: string): string =>
        requestId.slice(0, at) + text + requestId.slice(at + text.length);
      const others = fc.oneof(
        // Of the last letter of each half, base64url ignores some bits.
        fc.tuple(fc.oneof(fc.nat(43), fc.constantFrom(21, 43)), letter).map(([at, c]) => replaceFrom(at, c)),
        fc.string({ unit: letter, minLength: 20, maxLength: 20 }).map((own) => replaceFrom(22, `${own}Aw`)),
        fc.string({ unit: letter, minLength: 43, maxLength: 43 }).map((all) => `${all}A`),
        inserted(requestId, ...NOISE, 'A', '='),
        fc.constantFrom<unknown>([requestId], { requestId }, requestId.toLowerCase(), requestId.slice(22)),
        ...[utf16, fc.jsonValue({ maxDepth: 2 })],
      );
      const unknown = others.filter((id) => id !== requestId);
      await holds(1_000, unknown, async (id) => {
        const isText = typeof id === 'string' && id.length >= 1 && id.length <= 128;
        const answer = await verifyOtp(world.url, id, code);
        if (isText) expect([answer.status, answer.body.code]).toEqual([410, 'otp_expired']);
        else expect([answer.status, answer.body.errors[0].field]).toEqual([400, 'requestId']);
        // What a path cannot carry, or what is walked away before it is sent.
        if (!isText || /\p{Surrogate}|^\.\.?$/u.test(id)) return;
        const status = await call('GET', `${world.url}/auth/otp/${encodeURIComponent(id)}`);
        expect([status.status, status.body.code]).toEqual([410, 'otp_expired']);
      });
      // The shortest-lived may be gone meanwhile.
      expect((await keysBeyondAddresses()).filter((key) => !keys.includes(key))).toEqual([]);
    });
  });
}
