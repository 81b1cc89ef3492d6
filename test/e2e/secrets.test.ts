import { contentsOf } from '../support/redis-contents';
import {
  API_KEY,
  SECRET,
  SUBJECT_SECRET,
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
} from '../support/world';

it.each(['caller', 'provider'] as const)(
  'nothing secret is in the log or in Redis under the %s contract',
  async (contract) => {
    const world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: contract, UPSTREAM_TIMEOUT_MS: '200' },
    });
    try {
      const phones = [freshNumber(), freshNumber(), freshNumber()];
      const [first = '', second = '', third = ''] = phones;
      const canaries = [API_KEY, SECRET, SUBJECT_SECRET, ...phones, ...phones.map((phone) => phone.slice(3))];

      const verified = await login(world, first);
      canaries.push(verified.body.accessToken as string);
      await call('GET', `${world.url}/auth/me`, undefined, {
        authorization: `Bearer ${verified.body.accessToken}`,
      });
      const { body } = await sendOtp(world.url, second);
      const code = textedCode(world.upstream, second);
      await verifyOtp(world.url, body.requestId, wrongCode(code));
      // Numbers and codes where they do not belong, and every way that upstream fails.
      await call('GET', `${world.url}/auth/${first}?otp=${code}&phone=${first}`, undefined, {
        'x-phone': first,
      });
      await call('POST', `${world.url}/auth/send-otp`, `{"phoneNumber": "${third}"`);
      await call('POST', `${world.url}/auth/send-otp`, { phoneNumber: `${third} ` });
      await call('GET', `${world.url}/auth/me`, undefined, {
        authorization: `Bearer ${verified.body.accessToken}x`,
      });
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
        await sendOtp(world.url, third);
        await verifyOtp(world.url, body.requestId, code);
        world.upstream.reset();
      }
      await world.redis.kill();
      await sendOtp(world.url, third);
      await world.redis.restart();

      const log = world.instances[0]?.logs.join('') ?? '';
      expect(log.split('\n').length).toBeGreaterThan(20);
      for (const line of log.trim().split('\n'))
        expect(() => {
          JSON.parse(line);
        }).not.toThrow();
      for (const canary of canaries) expect(log).not.toContain(canary);
      expect(log).not.toMatch(new RegExp(`\\b${code}\\b`));
    } finally {
      await world.close();
    }
  },
);

it.each(['caller', 'provider'] as const)(
  'a dump of Redis tells no number and no code, and every key expires, under the %s contract',
  async (contract) => {
    const world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: contract } });
    try {
      const [first, second] = [freshNumber(), freshNumber()];
      const verified = await login(world, first);
      const { body } = await sendOtp(world.url, second);
      const code = textedCode(world.upstream, second);
      await verifyOtp(world.url, body.requestId, wrongCode(code));

      const entries = await contentsOf(world.redis.url);
      expect(entries.length).toBeGreaterThan(8);
      const text = entries.map(({ key, value }) => key + value).join('\n');
      const sha = (value: string): string => Buffer.from(value).toString('base64url');
      for (const canary of [
        first,
        second,
        first.slice(3),
        second.slice(3),
        sha(first),
        API_KEY,
        verified.body.accessToken as string,
      ]) {
        expect(text).not.toContain(canary);
      }
      expect(text).not.toMatch(new RegExp(`(?<![0-9])${code}(?![0-9])`));
      expect(text).not.toContain('127.0.0.1');
      for (const { key, ttl } of entries) {
        expect(key).toMatch(/^otp-login:\{[\w-]+\}:/);
        expect([key, ttl > 0]).toEqual([key, true]);
      }
    } finally {
      await world.close();
    }
  },
);
