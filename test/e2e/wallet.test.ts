import type { Level } from 'pino';
import { asAdmin, WITH_ADMIN } from '../support/admin';
import { metricOf } from '../support/metrics';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  freshNumber,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  until,
  type World,
} from '../support/world';

const { WalletWatch } = serviceModule<typeof import('../../src/wallet/wallet-watch')>('wallet/wallet-watch');
const LEASE = 'otp-login:{wallet}:lease';

let world: World;
afterEach(() => world.close());

async function begin(balance: number, walletUnit: 'rupees' | 'millionths', count = 1): Promise<void> {
  world = await startWorld({ count: 0 });
  Object.assign(world.upstream.settings, { balance, walletUnit });
  for (let i = 0; i < count; i++)
    world.instances.push(await anotherInstance(world, { ...WITH_ADMIN, WALLET_ALERT_PAISE: '20000' }));
  world.url = world.instances[0]!.url;
  await until(() => readings() > 0, 'the first reading');
  await until(async () => (await wallet()).balancePaise !== null, 'the balance of the first reading');
}

const readings = (): number => world.upstream.calls.filter(({ path }) => path === '/wallet').length;
const wallet = async (): Promise<Record<string, unknown>> =>
  (await asAdmin('GET', `${world.url}/admin/usage`)).body.wallet as Record<string, unknown>;
const balanceMetric = (url = world.url): Promise<number> => metricOf(url, 'otp_login_wallet_balance_paise');
const logged = (text: string, level?: Level): number =>
  world.instances
    .flatMap(({ logs }) => logs)
    .map((line) => JSON.parse(line) as { alert?: string; msg?: string; level?: string })
    .filter((line) => (line.alert === text || line.msg?.includes(text)) && (!level || line.level === level))
    .length;

/** Five minutes later, for every replica. */
async function nextReading(): Promise<void> {
  await redisCommand(world, 'DEL', LEASE);
  await Promise.all(world.instances.map(({ app }) => app.get(WalletWatch).look()));
}

it('one of two replicas reads the wallet, both export the balance, and one raises wallet_low once', async () => {
  await begin(100, 'rupees', 2);
  const [one, other] = world.instances;
  expect([await balanceMetric(one!.url), await balanceMetric(other!.url)]).toEqual([10_000, 10_000]);
  expect(await wallet()).toEqual({ balancePaise: 10_000, source: 'upstream', hoursLeft: null });
  expect([readings(), logged('wallet_low')]).toEqual([1, 1]);

  await nextReading();
  expect([readings(), logged('wallet_low')]).toEqual([2, 1]);
  // A recharge ends the alert, and the next fall raises it again.
  for (const balance of [500, 199]) {
    world.upstream.settings.balance = balance;
    await nextReading();
    expect(await balanceMetric()).toBe(balance * 100);
  }
  expect([readings(), logged('wallet_low')]).toEqual([4, 2]);
});

it('the unit of the balance is inferred from what an accepted SMS takes away', async () => {
  await begin(0.9, 'millionths');
  // 900,000 could be rupees, and no SMS has told otherwise.
  expect([await balanceMetric(), logged('wallet_low')]).toEqual([90_000_000, 0]);
  expect(statusAndCode(await sendOtp(world.url, freshNumber()))).toEqual([200, undefined]);
  await nextReading();
  expect([await balanceMetric(), logged('wallet_low')]).toEqual([65, 1]);
  const { hoursLeft } = await wallet();
  // Rs 0.25 in an hour and a part of one.
  expect(hoursLeft).toBeGreaterThanOrEqual(2.6);
  expect(hoursLeft).toBeLessThanOrEqual(5.2);
});

it('the ledger estimates the balance where StartMessaging refuses the wallet to the key', async () => {
  await begin(300, 'rupees');
  world.upstream.fault({ on: 'wallet', times: 0, fault: { kind: 'error', status: 403, code: 'FORBIDDEN' } });
  await nextReading();
  await sendOtp(world.url, freshNumber());
  await nextReading();
  expect(await wallet()).toMatchObject({ balancePaise: 29_975, source: 'ledger' });
  expect(await balanceMetric()).toBe(29_975);
  expect(logged('does not let this key read the wallet')).toBe(1);
  // The key is good for SMS: no operator is called for it.
  expect(logged('upstream_credentials')).toBe(0);
});

it('a reading that fails is repeated a minute later, and leaves the last balance in place', async () => {
  await begin(300, 'rupees');
  world.upstream.fault({ on: 'wallet', fault: { kind: 'error', status: 500, code: 'INTERNAL_ERROR' } });
  await nextReading();
  expect(await wallet()).toMatchObject({ balancePaise: 30_000, source: 'upstream' });
  expect(Number(await redisCommand(world, 'PTTL', LEASE))).toBeLessThanOrEqual(55_000);
});
