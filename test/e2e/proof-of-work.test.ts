import crypto from 'node:crypto';
import { solveChallenge, type Challenge, type Solution } from 'altcha-lib';
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2';
import type * as proofOfWorkModule from '../../src/abuse/proof-of-work';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import { lasting } from '../support/crowd';
import { abuseLevelKey, abuseScopeKey, admittedSendsKey } from '../support/keys';
import { serviceModule } from '../support/service';
import {
  call,
  freshNumber,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

const { ProofOfWork, WORK_LIFE_SECONDS } = serviceModule<typeof proofOfWorkModule>('abuse/proof-of-work');
const KEY = { 'idempotency-key': 'the-same-send-01' };

let world: World;

beforeAll(async () => {
  world = await startWorld({
    count: 3,
    variables: { STARTMESSAGING_CONTRACT: 'caller', TRUSTED_PROXIES: '127.0.0.0/8', SWAGGER: 'true' },
  });
});
afterAll(() => world.close());
beforeEach(async () => {
  await redisCommand(world, 'FLUSHDB');
  world.upstream.reset();
});

/** Makes the abuse control hold a level for ten minutes. Returns the end of the hold. */
async function hold(level: 'challenge' | 'deny', scope = 'service', on = world): Promise<number> {
  const until = Date.now() + 600_000;
  const held = `${level === 'deny' ? 3 : 2} ${until} 0 0 none`;
  await redisCommand(on, 'SET', abuseLevelKey(scope), held, 'PX', '600000');
  return until;
}

const send = (
  phoneNumber: string,
  {
    altcha,
    headers = {},
    url = world.url,
    ...more
  }: Record<string, unknown> & {
    altcha?: unknown;
    headers?: Record<string, string>;
    url?: string;
  } = {},
): Promise<Answer> =>
  call(
    'POST',
    `${url}/auth/send-otp`,
    { phoneNumber, ...(altcha === undefined ? {} : { altcha }), ...more },
    headers,
  );

const from = (address: string): Record<string, string> => ({ 'x-forwarded-for': address });
const written = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64');

async function solved(
  challenge: Challenge,
  counterStart = 0,
): Promise<{ challenge: Challenge; solution: Solution }> {
  const solution = await solveChallenge({ challenge, deriveKey, counterStart });
  if (solution === null) throw new Error('The challenge was not solved in time');
  return { challenge, solution };
}

/** As a widget answers it. */
const solve = async (challenge: Challenge): Promise<string> => written(await solved(challenge));

function expectChallenge(answer: Answer): Challenge {
  expect(statusAndCode(answer)).toEqual([428, 'challenge_required']);
  return answer.body.challenge as Challenge;
}

const sms = (): number => world.upstream.messages.length;

it('send-otp answers 428 with an ALTCHA challenge, and its solution allows one send', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const first = await send(phoneNumber);
  expect(first.headers.get('content-type')).toContain('application/problem+json');
  expect(first.headers.get('cache-control')).toBe('no-store');
  expect(first.headers.get('retry-after')).toBeNull();
  expect(first.body).toEqual({
    type: 'urn:otp-login:challenge_required',
    title: 'Proof of work is required first',
    status: 428,
    code: 'challenge_required',
    detail: 'Solve challenge with an ALTCHA client, and send the request again with the solution as altcha.',
    challenge: {
      parameters: {
        algorithm: 'PBKDF2/SHA-256',
        cost: 1_000,
        data: { for: expect.any(String), key: expect.any(String) },
        expiresAt: expect.any(Number),
        keyLength: 32,
        keyPrefix: expect.stringMatching(/^[0-9a-f]{32}$/),
        keySignature: expect.stringMatching(/^[0-9a-f]{64}$/),
        nonce: expect.stringMatching(/^[0-9a-f]{32}$/),
        salt: expect.stringMatching(/^[0-9a-f]{32}$/),
      },
      signature: expect.stringMatching(/^[0-9a-f]{64}$/),
    },
  });
  expect(world.upstream.calls).toEqual([]);

  const challenge = expectChallenge(first);
  const { solution } = await solved(challenge);
  expect(solution.counter).toBeLessThan(7_000);
  const sent = await send(phoneNumber, { altcha: written({ challenge, solution }) });
  expect(sent.status).toBe(200);
  const verified = await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
  expect(verified.status).toBe(200);

  const again = await send(phoneNumber, { altcha: written({ challenge, solution }) });
  const next = expectChallenge(again);
  expect(next.parameters.nonce).not.toBe(challenge.parameters.nonce);
  expect(sms()).toBe(1);
});

it('every challenge is different, expires in five minutes, and reveals nothing about the number', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const before = Math.floor(Date.now() / 1_000);
  const answers = await Promise.all(Array.from({ length: 12 }, () => send(phoneNumber)));
  const challenges = answers.map(expectChallenge);
  for (const { parameters } of challenges) {
    expect(parameters.expiresAt).toBeGreaterThanOrEqual(before + WORK_LIFE_SECONDS);
    expect(parameters.expiresAt).toBeLessThanOrEqual(Math.floor(Date.now() / 1_000) + WORK_LIFE_SECONDS);
  }
  expect(WORK_LIFE_SECONDS).toBe(300);
  for (const field of ['nonce', 'salt', 'keyPrefix'] as const)
    expect(new Set(challenges.map(({ parameters }) => parameters[field])).size).toBe(12);
  const digits = phoneNumber.slice(3);
  for (const { body } of answers) {
    const text = JSON.stringify(body);
    expect(text).not.toContain(digits);
    expect(text).not.toContain(Buffer.from(phoneNumber).toString('base64').slice(0, 12));
    expect(text).not.toContain(Buffer.from(phoneNumber).toString('hex'));
    expect(text).not.toContain('127.0.0.1');
  }
  // Nor does it name the number to somebody who collects them: another address, another name.
  const elsewhere = expectChallenge(await send(phoneNumber, { headers: from('198.51.100.9') }));
  expect(elsewhere.parameters.data?.for).not.toBe(challenges[0]?.parameters.data?.for);
});

it.each([0, 6_999])('the counter %i may be the one that solves a challenge', async (counter) => {
  await hold('challenge');
  const drawn = jest.spyOn(crypto, 'randomInt').mockImplementation(() => counter);
  try {
    const challenge = expectChallenge(await send(freshNumber()));
    // From 0, and up to the bound without it.
    expect(drawn.mock.calls).toEqual([[7_000]]);
    // No counter is left out below it, so a solver cannot save work, and none is above it.
    expect((await solved(challenge, counter)).solution.counter).toBe(counter);
  } finally {
    drawn.mockRestore();
  }
});

it('of twenty sends with one solution over three instances exactly one passes', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const altcha = await solve(expectChallenge(await send(phoneNumber)));
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => send(phoneNumber, { altcha, url: world.instances[i % 3]!.url })),
  );
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  expect(answers.filter(({ status }) => status === 428)).toHaveLength(19);
  expect(sms()).toBe(1);
  // Nor another way to write the same.
  const text = Buffer.from(altcha, 'base64').toString();
  const { challenge, solution } = JSON.parse(text) as { challenge: Challenge; solution: Solution };
  for (const same of [
    Buffer.from(` ${text}`).toString('base64'),
    Buffer.from(text).toString('base64url'),
    written({ solution: { ...solution, time: 1, x: 'y' }, challenge, more: true }),
    written({ challenge: { ...challenge, codeChallenge: { image: 'x', length: 1 } }, solution }),
  ])
    expectChallenge(await send(phoneNumber, { altcha: same }));
  expect(sms()).toBe(1);
});

it('a solution is valid for its phone number and its client address only', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const home = '2001:db8:1:2::1';
  const altcha = await solve(expectChallenge(await send(phoneNumber, { headers: from(home) })));
  for (const address of ['2001:db8:1:3::1', '198.51.100.7', '127.0.0.1'])
    expectChallenge(await send(phoneNumber, { altcha, headers: from(address) }));
  expectChallenge(await send(freshNumber(), { altcha, headers: from(home) }));
  expect(sms()).toBe(0);
  // An IPv6 subscriber holds a whole /64, and changes the address in it every day.
  expect((await send(phoneNumber, { altcha, headers: from('2001:db8:1:2:ffff::9') })).status).toBe(200);
});

it('a solution for one IPv4 address is not valid for another', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const headers = from('198.51.100.7');
  const altcha = await solve(expectChallenge(await send(phoneNumber, { headers })));
  expectChallenge(await send(phoneNumber, { altcha, headers: from('198.51.100.8') }));
  expect((await send(phoneNumber, { altcha, headers })).status).toBe(200);
});

it('a solution is refused when its challenge has expired', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber() as PhoneNumber;
  const proofOfWork = world.instances[0]!.app.get(ProofOfWork, { strict: false });
  /** A challenge that was made so long ago. */
  const made = (secondsAgo: number): Promise<Challenge> =>
    proofOfWork.challenge(phoneNumber, '127.0.0.1', Date.now() - secondsAgo * 1_000);
  const expired = await made(WORK_LIFE_SECONDS + 1);
  expect(expired.parameters.expiresAt).toBeLessThan(Date.now() / 1_000);
  expectChallenge(await send(phoneNumber, { altcha: await solve(expired) }));
  expect(sms()).toBe(0);
  const aged = await made(WORK_LIFE_SECONDS - 60);
  expect((await send(phoneNumber, { altcha: await solve(aged) })).status).toBe(200);
});

it('an altered challenge or solution is refused, and the original stays valid', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const right = await solved(expectChallenge(await send(phoneNumber)));
  const { challenge, solution } = right;
  const { parameters, signature = '' } = challenge;
  const hex = (text: string): string => text.replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
  const withParameters = (change: object): unknown => ({
    challenge: { ...challenge, parameters: { ...parameters, ...change } },
    solution,
  });
  const withSolution = (change: object): unknown => ({ challenge, solution: { ...solution, ...change } });
  const altered: Record<string, unknown> = {
    algorithm: withParameters({ algorithm: 'SHA-256' }),
    cost: withParameters({ cost: 1 }),
    'cost as a text': withParameters({ cost: '1000' }),
    nonce: withParameters({ nonce: hex(parameters.nonce) }),
    salt: withParameters({ salt: hex(parameters.salt) }),
    'key length': withParameters({ keyLength: 16 }),
    'key prefix': withParameters({ keyPrefix: '00' }),
    'key signature': withParameters({ keySignature: hex(parameters.keySignature ?? '') }),
    'no key signature': withParameters({ keySignature: undefined }),
    'later expiry': withParameters({ expiresAt: Number(parameters.expiresAt) + 300 }),
    'no expiry': withParameters({ expiresAt: undefined }),
    'no data': withParameters({ data: undefined }),
    'another key': withParameters({ data: { ...parameters.data, key: 'AAAAAA' } }),
    'a key of the prototype': withParameters({ data: { ...parameters.data, key: '__proto__' } }),
    'more data': withParameters({ data: { ...parameters.data, more: 1 } }),
    'one more parameter': withParameters({ memoryCost: 1 }),
    signature: { challenge: { ...challenge, signature: hex(signature) }, solution },
    'no signature': { challenge: { parameters }, solution },
    'an empty signature': { challenge: { parameters, signature: '' }, solution },
    'a signature cut short': { challenge: { ...challenge, signature: signature.slice(0, -1) }, solution },
    'derived key': withSolution({ derivedKey: hex(solution.derivedKey) }),
    'derived key cut to the prefix': withSolution({ derivedKey: parameters.keyPrefix }),
    'derived key in capitals': withSolution({ derivedKey: solution.derivedKey.toUpperCase() + 'AB' }),
    'no derived key': withSolution({ derivedKey: undefined }),
    'a derived key that is none': withSolution({ derivedKey: [solution.derivedKey] }),
    'a negative counter': withSolution({ counter: -1 }),
    'a fraction of a counter': withSolution({ counter: solution.counter + 0.5 }),
    'a counter as a text': withSolution({ counter: String(solution.counter) }),
    'no counter': withSolution({ counter: undefined }),
    'no solution': { challenge },
    'no challenge': { solution },
  };
  for (const [name, value] of Object.entries(altered))
    expect([name, (await send(phoneNumber, { altcha: written(value) })).status]).toEqual([name, 428]);
  expect(sms()).toBe(0);
  expect((await send(phoneNumber, { altcha: written(right) })).status).toBe(200);
});

it('a challenge of another service and a guessed solution are refused', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const challenge = expectChallenge(await send(phoneNumber));
  const guesses = [0, 1, 2_000, 3_000, 4_294_967_295].map((counter) => ({
    challenge,
    solution: { counter, derivedKey: challenge.parameters.keyPrefix.padEnd(64, '0') },
  }));
  for (const guess of guesses) expectChallenge(await send(phoneNumber, { altcha: written(guess) }));
  const other = await startWorld({ variables: { SECRET: 'another-secret-0123456789-abcdefghi' } });
  try {
    await hold('challenge', 'service', other);
    const foreign = expectChallenge(await send(phoneNumber, { url: other.url }));
    expectChallenge(await send(phoneNumber, { altcha: await solve(foreign) }));
  } finally {
    await other.close();
  }
});

it('send-otp answers a malformed solution with a challenge, and one that is too long or no text with 400', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const garbage = [
    '',
    ' ',
    'x',
    '%%%',
    '\u0000',
    '😀'.repeat(100),
    'A'.repeat(4_096),
    written(null),
    written([]),
    written('text'),
    written(1),
    written({}),
    written({ challenge: null, solution: null }),
    written({ challenge: { parameters: null } }),
    written({ challenge: { parameters: { data: null, algorithm: 'PBKDF2/SHA-256', cost: 1_000 } } }),
    '['.repeat(4_000),
    Buffer.from('['.repeat(3_000)).toString('base64'),
  ];
  for (const altcha of garbage)
    expect([altcha.slice(0, 20), (await send(phoneNumber, { altcha })).status]).toEqual([
      altcha.slice(0, 20),
      428,
    ]);
  for (const altcha of ['A'.repeat(4_097), 1, true, ['x'], { challenge: {} }]) {
    const { status, body } = await send(phoneNumber, { altcha });
    expect([status, body.code, body.errors?.[0]?.field]).toEqual([400, 'validation_failed', 'altcha']);
  }
  expect(sms()).toBe(0);
});

it('without an attack no solution is needed, and a malformed solution is ignored', async () => {
  for (const altcha of [undefined, 'garbage', written({ challenge: {}, solution: {} })])
    expect((await send(freshNumber(), { altcha })).status).toBe(200);
});

it('a number outside the attacked number series needs no solution', async () => {
  await hold('challenge', 'series:987654');
  expectChallenge(await send('+919876543210'));
  expect((await send('+919876553210')).status).toBe(200);
});

describe('at deny', () => {
  it('at deny a new number is refused with 429 also with a solution, and the solution stays unused', async () => {
    await hold('challenge');
    const phoneNumber = freshNumber();
    const altcha = await solve(expectChallenge(await send(phoneNumber)));
    const until = await hold('deny');
    for (const attempt of [{}, { altcha }]) {
      const { status, body, headers } = await send(phoneNumber, attempt);
      expect([status, body.code, body.challenge]).toEqual([429, 'rate_limited', undefined]);
      const wait = Number(headers.get('retry-after'));
      expect(wait).toBe(body.retryAfterSeconds);
      expect(wait).toBeGreaterThanOrEqual((until - Date.now()) / 1_000);
      expect(wait).toBeLessThanOrEqual(600);
    }
    await hold('challenge');
    expect((await send(phoneNumber, { altcha })).status).toBe(200);
  });

  it('at deny a number that logged in before gets a challenge, and a device token needs none', async () => {
    const phoneNumber = freshNumber();
    const first = await send(phoneNumber);
    const { body } = await verifyOtp(
      world.url,
      first.body.requestId,
      textedCode(world.upstream, phoneNumber),
    );
    const deviceToken = body.deviceToken as string;
    await hold('deny');
    const challenge = expectChallenge(await send(phoneNumber));
    expect((await send(phoneNumber, { deviceToken })).status).toBe(200);
    // Nobody else's token helps.
    expect((await send(freshNumber(), { deviceToken })).status).toBe(429);
    expectChallenge(await send(phoneNumber, { deviceToken: `${deviceToken.slice(0, -1)}!` }));
    expect((await send(phoneNumber, { altcha: await solve(challenge) })).status).toBe(200);
  });
});

it('a challenge does not use up the Idempotency-Key, and the repeat with the solution is the first send', async () => {
  await hold('challenge');
  const phoneNumber = freshNumber();
  const challenge = expectChallenge(await send(phoneNumber, { headers: KEY }));
  expectChallenge(await send(phoneNumber, { headers: KEY }));
  const altcha = await solve(challenge);
  const sent = await send(phoneNumber, { altcha, headers: KEY });
  expect(sent.status).toBe(200);
  // From here on it is replayed, whatever level holds and whatever solution comes along.
  await hold('deny');
  for (const attempt of [{ altcha }, {}, { altcha: 'garbage' }]) {
    const replay = await send(phoneNumber, { ...attempt, headers: KEY });
    expect(lasting(replay)).toEqual(lasting(sent));
  }
  expect(sms()).toBe(1);
  const verified = await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
  expect(verified.status).toBe(200);
});

it('a challenged send costs nothing, counts for no limit of the number, and leaves no record', async () => {
  await hold('challenge');
  const keys = async (): Promise<string[]> => {
    const all = (await redisCommand(world, 'KEYS', 'otp-login:*')) as string[];
    return all.filter(
      (key) => !key.includes(':address:') && !key.includes('abuse') && !key.endsWith(':codes'),
    );
  };
  expectChallenge(await send(freshNumber()));
  expect(await keys()).toEqual([]);
});

it('the OpenAPI document describes the 428 as the service sends it', async () => {
  const { body: document } = await call('GET', `${world.url}/docs-json`);
  const { responses, requestBody } = document.paths['/auth/send-otp'].post;
  expect(responses['428'].description).toContain('`challenge_required`');
  const problem = responses['428'].content['application/problem+json'];
  await hold('challenge');
  const { body } = await send(freshNumber());
  const name = problem.schema.$ref.split('/').pop() as string;
  const members = Object.keys(document.components.schemas[name].properties as object);
  for (const member of Object.keys(body as object)) expect(members).toContain(member);
  expect(Object.keys(problem.examples.challenge_required.value as object).sort()).toEqual(
    Object.keys(body as object).sort(),
  );
  const request = requestBody.content['application/json'].schema.$ref.split('/').pop() as string;
  expect(document.components.schemas[request].properties.altcha).toMatchObject({
    type: 'string',
    maxLength: 4_096,
  });
  expect(document.components.schemas[request].required).not.toContain('altcha');
});

describe('with limits', () => {
  let limited: World;
  beforeAll(async () => {
    limited = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller', LIMIT_PHONE: '1/600' } });
  });
  afterAll(() => limited.close());

  it('a refusal by a limit does not use up the solution', async () => {
    const outer = world;
    world = limited;
    try {
      await hold('challenge');
      const phoneNumber = freshNumber();
      const challenges = [await send(phoneNumber), await send(phoneNumber)].map(expectChallenge);
      const [first, second] = await Promise.all(challenges.map(solve));
      expect((await send(phoneNumber, { altcha: first })).status).toBe(200);
      // Limits come first: nobody works for a send that is refused anyway.
      const refused = await send(phoneNumber, { altcha: second });
      expect(statusAndCode(refused)).toEqual([429, 'rate_limited']);
      expect((await send(phoneNumber)).status).toBe(429);
      const letTimePass = async (): Promise<void> => {
        for (const key of (await redisCommand(world, 'KEYS', admittedSendsKey('*'))) as string[])
          await redisCommand(world, 'DEL', key);
      };
      await letTimePass();
      expect((await send(phoneNumber, { altcha: second })).status).toBe(200);
      expect(limited.upstream.messages).toHaveLength(2);
      await letTimePass();
      expect((await send(phoneNumber, { altcha: second })).status).toBe(428);
    } finally {
      world = outer;
    }
  });
});

it('a low share of verified codes makes the service demand proof of work', async () => {
  const watched = await startWorld({ variables: { ABUSE_CONVERSION: 'enforce' } });
  try {
    for (let i = 0; i < 40; i += 1) expect((await sendOtp(watched.url, freshNumber())).status).toBe(200);
    // Two minutes pass: its codes are no longer on their way.
    const redis = (name: string, ...args: string[]): Promise<unknown> => redisCommand(watched, name, ...args);
    const keys = (await redis('KEYS', abuseScopeKey('*'))) as string[];
    expect(keys).toHaveLength(3);
    for (const key of keys) {
      const flat = (await redis('HGETALL', key)) as Record<string, string> | string[];
      const fields = Array.isArray(flat)
        ? Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : [])))
        : flat;
      await redis('DEL', key);
      for (const [field, count] of Object.entries(fields)) {
        const [, bucket = '', what = ''] = /^m(\d+):(\w)$/.exec(field) ?? [];
        if (what !== '') await redis('HINCRBY', key, `m${Number(bucket) - 2}:${what}`, count);
      }
    }
    for (const scope of keys.map((key) => key.slice(abuseScopeKey('').length)))
      await redis('SET', abuseLevelKey(scope), '0 0 0 0 none', 'PX', '600000');
    expectChallenge(await sendOtp(watched.url, freshNumber()));
    await until(
      () => watched.instances[0]!.logs.join('').includes('"alert":"abuse_conversion"'),
      'the alert',
    );
    expect((await call('GET', `${watched.url}/metrics`)).body).toMatch(
      /otp_login_abuse_decisions_total\{signal="conversion",level="challenge"\} 3/,
    );
  } finally {
    await watched.close();
  }
});

it('a wrong code counts at the address range that requested its SMS and at the one that entered it, and so does a right code', async () => {
  const { Ledger } = serviceModule<typeof import('../../src/ledger/ledger')>('ledger/ledger');
  const phoneNumber = freshNumber();
  const sent = await send(phoneNumber, { headers: from('198.51.100.7') });
  const code = textedCode(world.upstream, phoneNumber);
  const enter = (otpCode: string): Promise<Answer> =>
    verifyOtp(world.url, sent.body.requestId, otpCode, from('203.0.113.9'));
  expect((await enter(wrongCode(code))).status).toBe(400);
  expect((await enter(code)).status).toBe(200);
  await Promise.all(world.instances.map(({ app }) => app.get(Ledger).flush()));
  for (const range of ['198.51.100.0/24', '203.0.113.0/24']) {
    const fields = (await redisCommand(world, 'HKEYS', abuseScopeKey(`network:${range}`))) as string[];
    const counted = new Set(fields.filter((field) => field.startsWith('m')).map((field) => field.slice(-1)));
    expect([range, counted.has('w'), counted.has('r')]).toEqual([range, true, true]);
  }
});
