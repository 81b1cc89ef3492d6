import { Redis } from 'ioredis';
import { figures } from '../support/scale';
import { freshNumber, login, sendOtp, startWorld, statusAndCode, type World } from '../support/world';
import type { RedisServer } from '../support/redis-server';

// An attacker with many addresses asks for SMS to ever new numbers, each under an Idempotency-Key of its own, while the budget
// refuses them. What such a send left in Redis would fill it, and no SMS limits how often the attacker can ask.

const AT_ONCE = 20;
const MB = 1_000_000;

let world: World<RedisServer>;
let redis: Redis;
afterEach(async () => {
  redis.disconnect();
  await world.close();
});

const memory = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);

it.each([
  ['caller', 5_000],
  ['provider', 500],
])(
  'under %s %d sends that the budget refuses, each under a key, leave less than 2 MB in Redis and no key of their own',
  async (contract, sends) => {
    world = await startWorld({
      ownRedis: true,
      variables: {
        STARTMESSAGING_CONTRACT: contract,
        BUDGET_PAISE_PER_DAY: '25',
        TRUSTED_PROXIES: '127.0.0.1/32',
        LOG_LEVEL: 'error',
      },
    });
    redis = new Redis(world.redis.url);
    // The budget of one SMS is for this login.
    expect((await login(world)).status).toBe(200);
    let count = 0;
    const refused = async (): Promise<void> => {
      const i = count++;
      const headers = {
        'x-forwarded-for': `2001:${(i >> 8).toString(16)}:${(i & 255).toString(16)}::1`,
        'idempotency-key': `refused-send-${String(i).padStart(8, '0')}`,
      };
      expect(statusAndCode(await sendOtp(world.url, freshNumber(), headers))).toEqual([
        503,
        'sms_unavailable',
      ]);
    };
    // The scripts and the connections are there before the measurement.
    for (let i = 0; i < 50; i += 1) await refused();
    // The tables of addresses have a bound of their own, and a new name in each period.
    const ownKeys = async (): Promise<string[]> =>
      (await redis.keys('*')).filter((key) => !key.startsWith('otp-login:{addresses}'));
    const [keys, before] = [new Set(await ownKeys()), await memory()];
    const attack = async (): Promise<void> => {
      while (count < sends + 50) await refused();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, attack));
    const bytes = (await memory()) - before;
    figures(`${sends} refused sends under ${contract} leave ${(bytes / MB).toFixed(2)} MB in Redis`);
    expect(bytes).toBeLessThan(2 * MB);
    expect((await ownKeys()).filter((key) => !keys.has(key))).toEqual([]);
  },
  300_000,
);
