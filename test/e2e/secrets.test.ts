import { contentsOf } from '../support/redis-contents';
import type { RedisServer } from '../support/redis-server';
import { bearer } from '../support/tokens';
import {
  API_KEY,
  HASTY,
  SECRET,
  SUBJECT_SECRET,
  anotherInstance,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  let world: World<RedisServer>;

  beforeAll(async () => {
    world = await startWorld({
      ownRedis: true,
      variables: { STARTMESSAGING_CONTRACT: contract },
    });
  });
  afterAll(() => world.close());

  it(`a dump of Redis holds no phone number, code, key or token under the ${contract} contract, and every key expires`, async () => {
    const [first, second] = [freshNumber(), freshNumber()];
    const verified = await login(world, first);
    const { body } = await sendOtp(world.url, second);
    const code = textedCode(world.upstream, second);
    await verifyOtp(world.url, body.requestId, wrongCode(code));

    const entries = await contentsOf(world.redis.url);
    expect(entries.length).toBeGreaterThan(8);
    const text = entries.map(({ key, value }) => key + value).join('\n');
    const canaries = [first, second, first.slice(3), second.slice(3), API_KEY, '127.0.0.1'];
    canaries.push(Buffer.from(first).toString('base64url'), verified.body.accessToken as string);
    for (const canary of canaries) expect(text).not.toContain(canary);
    expect(text).not.toMatch(new RegExp(`(?<![0-9])${code}(?![0-9])`));
    for (const { key, ttl } of entries) {
      expect(key).toMatch(/^otp-login:\{[\w-]+\}:/);
      expect([key, ttl > 0]).toEqual([key, true]);
    }
  });

  it(`the log holds nothing secret under the ${contract} contract, whatever a caller sends and however upstream and Redis fail`, async () => {
    const phones = [freshNumber(), freshNumber(), freshNumber()];
    const [first = '', second = '', third = ''] = phones;
    const canaries = [API_KEY, SECRET, SUBJECT_SECRET, ...phones, ...phones.map((phone) => phone.slice(3))];

    const verified = await login(world, first);
    const accessToken = verified.body.accessToken as string;
    canaries.push(accessToken);
    await call('GET', `${world.url}/auth/me`, undefined, bearer(accessToken));
    const { body } = await sendOtp(world.url, second);
    const code = textedCode(world.upstream, second);
    await verifyOtp(world.url, body.requestId, wrongCode(code));
    // Numbers and codes where they do not belong, and every way that upstream fails.
    await call('GET', `${world.url}/auth/${first}?otp=${code}&phone=${first}`, undefined, {
      'x-phone': first,
    });
    await call('POST', `${world.url}/auth/send-otp`, `{"phoneNumber": "${third}"`);
    await call('POST', `${world.url}/auth/send-otp`, { phoneNumber: `${third} ` });
    await call('GET', `${world.url}/auth/me`, undefined, bearer(`${accessToken}x`));
    // Nothing has to succeed at this instance.
    const hasty = await anotherInstance(world, {
      STARTMESSAGING_CONTRACT: contract,
      ...HASTY,
      UPSTREAM_TIMEOUT_MS: '200',
    });
    world.instances.push(hasty);
    for (const fault of [
      {
        kind: 'raw',
        status: 400,
        body: { error: { code: 'VALIDATION_ERROR', message: `${third} with ${API_KEY}` } },
      },
      { kind: 'raw', status: 500, body: `${third} ${API_KEY} ${code}` },
      { kind: 'raw', status: 401, body: { message: `bad key ${API_KEY} for ${third.slice(3)}` } },
      { kind: 'timeout', when: 'after' },
      { kind: 'reset', when: 'before' },
      { kind: 'malformed' },
    ] as const) {
      world.upstream.fault({ on: 'any', times: 3, fault });
      await sendOtp(hasty.url, third);
      await verifyOtp(hasty.url, body.requestId, code);
      world.upstream.reset();
    }
    await world.redis.kill();
    for (const { url } of world.instances)
      expect(statusAndCode(await sendOtp(url, third))).toEqual([503, 'store_unavailable']);

    const log = world.instances.flatMap(({ logs }) => logs).join('');
    expect(log.split('\n').length).toBeGreaterThan(20);
    for (const line of log.trim().split('\n'))
      expect(() => {
        JSON.parse(line);
      }).not.toThrow();
    for (const canary of canaries) expect(log).not.toContain(canary);
    expect(log).not.toMatch(new RegExp(`\\b${code}\\b`));
  });
});
