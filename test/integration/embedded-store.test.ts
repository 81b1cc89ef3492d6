import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { transformFileSync } from '@swc/core';
import { Redis } from 'ioredis';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import type { Store } from '../../src/redis/store';
import type { AdmissionControl } from '../../src/throttling/admission';
import { RedisThrottlerStorage } from '../../src/throttling/redis-throttler-storage';
import { admissionOver, admissionRequest } from '../support/applicant';
import { type OtpSteps, otpSteps } from '../support/otp-steps';
import { outcomes, refusalCode } from '../support/outcomes';
import { identityOf, phoneNumber } from '../support/phone-number';
import { MADE_HERE } from '../support/senders';
import { settings } from '../support/settings';
import { connectedStores } from '../support/stores';

const ADDRESS = '203.0.113.77';
const PERSON = phoneNumber('+919876543210');

// In a process of its own: its Lua is loaded by import(), which Jest gives to no package. It ends when its stdin does.
const EMBEDDED = `
${
  transformFileSync(join(__dirname, '../../src/redis/embedded.ts'), {
    configFile: false,
    swcrc: false,
    jsc: { target: 'es2023', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs', ignoreDynamic: true },
  }).code
}
exports.startEmbeddedStore().then(({ url, close }) => {
  process.stdin.resume().once('end', () => close().then(() => process.exit()));
  console.log(url);
});`;

describe('the embedded store', () => {
  let stop: () => Promise<void>;
  let address: string;
  let store: Store;
  let admission: AdmissionControl;
  let steps: OtpSteps;
  let addresses: RedisThrottlerStorage;

  const open = async (): Promise<{ requestId: string; nonce: string }> => {
    const pending = await steps.challenges.create(identityOf(PERSON), MADE_HERE);
    await steps.challenges.activate(pending, { delivery: 'accepted' }, 0);
    return pending;
  };
  const askAddress = async (address: string, count: number): Promise<number> =>
    (await addresses.admit('send', address, [{ count, seconds: 3_600 }])).waitMs;

  beforeAll(async () => {
    const child = spawn(process.execPath, ['-e', EMBEDDED], {
      cwd: join(__dirname, '../..'),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [url] = (await once(child.stdout, 'data')) as [Buffer];
    const config = settings({
      LIMIT_PHONE: '5/3600',
      LIMIT_FAILED_CODES: '4/3600',
      BUDGET_PAISE_PER_DAY: '100',
    });
    const logger = new Logger('silent', { write: () => undefined });
    address = url.toString().trim();
    [store] = (await connectedStores(address, 1, logger)) as [Store];
    admission = admissionOver(config, store, new Metrics(), logger);
    steps = otpSteps(config, store);
    addresses = new RedisThrottlerStorage(config, store);
    stop = async () => {
      store.close();
      const exit = once(child, 'exit');
      child.stdin.end();
      await exit;
    };
  });

  afterAll(() => stop());

  it('the embedded store listens on 127.0.0.1 alone, so 127.0.0.2 is refused', async () => {
    const socket = connect(Number(new URL(address).port), '127.0.0.2');
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNREFUSED');
  });

  it('the embedded store refuses every command without its random password', async () => {
    const { hostname, port, password } = new URL(address);
    expect(password).toMatch(/^[\w-]{32}$/);
    for (const given of [{}, { password: 'wrong' }]) {
      const client = { host: hostname, port: Number(port), lazyConnect: true, retryStrategy: () => null };
      const redis = new Redis({ ...client, ...given });
      const refused = once(redis, 'error') as Promise<[Error]>;
      await redis.connect().catch(() => undefined);
      expect((await refused)[0].message).toMatch(/NOAUTH|WRONGPASS/);
      redis.disconnect();
    }
  });

  it('the embedded store admits sends within the budget and the limits of a number as Redis does', async () => {
    const calls = Array.from({ length: 20 }, () => admission.admit(admissionRequest('person')));
    const results = await Promise.allSettled(calls);
    const admitted = results.filter((result) => result.status === 'fulfilled');
    expect(await outcomes(calls)).toEqual({ done: 4, sms_unavailable: 16 });
    await admission.refund(admitted[0]!.value);
    await admission.admit(admissionRequest('person'));
    expect(await refusalCode(admission.admit(admissionRequest('person')))).toBe('rate_limited');
    expect(await refusalCode(admission.admit(admissionRequest('another')))).toBe('sms_unavailable');
  });

  it('the embedded store counts attempts, locks a number and voids used codes as Redis does', async () => {
    const first = await open();
    const second = await open();
    expect(second.nonce).toBe(first.nonce);
    const attempt = await steps.tries.take(first.requestId);
    await steps.tries.giveBack(attempt);
    for (const left of [2, 1, 0]) expect((await steps.tries.take(first.requestId)).attemptsLeft).toBe(left);
    expect(await refusalCode(steps.tries.take(first.requestId))).toBe('otp_attempts_exhausted');

    const right = await steps.tries.take(second.requestId);
    expect(steps.codes.matches(PERSON, right.nonce, steps.codes.derive(PERSON, first.nonce))).toBe(true);
    expect(await refusalCode(steps.tries.take(second.requestId))).toBe('phone_locked');
    expect(await refusalCode(steps.challenges.create(identityOf(PERSON), MADE_HERE))).toBe('phone_locked');
    expect(await steps.tries.consume(right)).toBe(true);
    expect(await steps.tries.consume(right)).toBe(false);
    expect(await refusalCode(steps.tries.take(second.requestId))).toBe('otp_expired');
    const next = await steps.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(next.nonce).not.toBe(first.nonce);
    await steps.challenges.release(next, 'refused');
  });

  it('the embedded store limits addresses and IPv6 networks as Redis does', async () => {
    const waits = await Promise.all(Array.from({ length: 30 }, () => askAddress(ADDRESS, 7)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(7);
    for (let subnet = 0; subnet < 10; subnet += 1)
      expect(await askAddress(`2001:db8:1:${subnet}::1`, 1)).toBe(0);
    expect(await askAddress('2001:db8:1:ff::1', 1)).toBeGreaterThan(0);
  });

  it('the embedded store sets an expiry on each key', async () => {
    const keys = await store.command('keys', (client) => client.keys('*'));
    expect(keys.length).toBeGreaterThan(5);
    for (const key of keys)
      expect(await store.command('pttl', (client) => client.pttl(key))).toBeGreaterThan(0);
  });
});
