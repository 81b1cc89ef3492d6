import { MIDNIGHT, SimulatedClock } from '../support/simulated-clock';
import { Redis } from 'ioredis';
import { asAdmin, flushLedger, WITH_ADMIN } from '../support/admin';
import { rawAnswer, startRawUpstream } from '../support/raw-upstream';
import { loadServiceHere } from '../support/service';
import {
  anotherInstance,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

// Its scripts must be read under the simulated clock.
loadServiceHere();

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** The days on both sides of the midnight of the simulated clock. */
const [BEFORE, AFTER] = ['2050-02-28', '2050-03-01'];

let world: World;
let redis: Redis;
let clock: SimulatedClock;
beforeAll(async () => {
  world = await startWorld({ variables: WITH_ADMIN });
  redis = new Redis(world.redis.url);
});
beforeEach(async () => {
  clock = await SimulatedClock.start(redis);
});
afterEach(() => flushLedger(world));
afterAll(async () => {
  redis.disconnect();
  await world.close();
});

const usage = async (): Promise<Answer['body']> => {
  await flushLedger(world);
  return (await asAdmin('GET', `${world.url}/admin/usage?from=${BEFORE}&to=${AFTER}`)).body;
};

it('/admin/usage begins days and hours when Asia/Kolkata does', async () => {
  // The last millisecond of a day, the first two hours of the next day, and its last hour.
  for (const at of [-1, 0, HOUR_MS - 1, HOUR_MS, DAY_MS - HOUR_MS, DAY_MS - 1]) {
    await clock.set(MIDNIGHT + at);
    expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  }
  const { days, total } = await usage();
  const seen = (days as { date: string; sent: number; hours: { from: string; sent: number }[] }[]).map(
    ({ date, sent, hours }) => [date, sent, hours.map((hour) => [hour.from, hour.sent])],
  );
  expect(seen).toEqual([
    [BEFORE, 1, [[`${BEFORE}T23:00:00+05:30`, 1]]],
    [
      AFTER,
      5,
      [
        [`${AFTER}T00:00:00+05:30`, 2],
        [`${AFTER}T01:00:00+05:30`, 1],
        [`${AFTER}T23:00:00+05:30`, 2],
      ],
    ],
  ]);
  expect(total).toMatchObject({ sent: 6, costPaise: 150 });
});

it('/admin/usage counts a code that is verified after midnight on the day of its SMS', async () => {
  const phoneNumber = freshNumber();
  await clock.set(MIDNIGHT - MINUTE_MS);
  const { body } = await sendOtp(world.url, phoneNumber);
  await clock.set(MIDNIGHT + MINUTE_MS);
  const verified = await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber));
  expect(verified.status).toBe(200);
  expect((await usage()).days).toEqual([
    expect.objectContaining({ date: BEFORE, sent: 1, verified: 1 }),
    expect.objectContaining({ date: AFTER, sent: 0, verified: 0 }),
  ]);
});

it('/admin/usage takes an SMS that is refunded after midnight from the day on which it was charged', async () => {
  let refuse: (() => void) | undefined;
  const provider = await startRawUpstream((socket) => {
    const body = JSON.stringify({ success: false, error: { code: 'INSUFFICIENT_BALANCE' } });
    refuse = () => socket.end(rawAnswer(body, { status: '402 Payment Required' }));
  });
  const instance = await anotherInstance(world, { STARTMESSAGING_BASE_URL: provider.url });
  try {
    await clock.set(MIDNIGHT - MINUTE_MS);
    const sending = sendOtp(instance.url, freshNumber());
    await until(() => refuse !== undefined, 'the call of the provider');
    await clock.set(MIDNIGHT + MINUTE_MS);
    refuse?.();
    expect((await sending).status).toBe(503);
    expect((await usage()).days).toEqual([
      expect.objectContaining({ date: BEFORE, sent: 1, refunded: 1, costPaise: 0 }),
      expect.objectContaining({ date: AFTER, sent: 0, refunded: 0, costPaise: 0 }),
    ]);
  } finally {
    await instance.close();
    await provider.close();
  }
});

it('/admin/abuse gives the reason why a scope was raised, and tells when it was lowered again', async () => {
  const abuse = async (): Promise<Answer['body']> => (await asAdmin('GET', `${world.url}/admin/abuse`)).body;
  // Fifty-five numbers have wrong codes, and none has a right one.
  const wrong = async (): Promise<void> => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, phoneNumber)));
  };
  for (let i = 0; i < 55; i += 11) await Promise.all(Array.from({ length: 11 }, wrong));
  await flushLedger(world);
  const at = MIDNIGHT + MINUTE_MS;
  await clock.set(at);
  await sendOtp(world.url, freshNumber());

  const told = await abuse();
  const until15 = new Date(at + 15 * MINUTE_MS).toISOString();
  // The tests call from this machine, and their numbers are of one series.
  const scopes = ['network:127.0.0.0/24', 'series:981000', 'service'];
  expect(told.now).toBe(new Date(at).toISOString());
  expect((told.raised as { scope: string }[]).sort((a, b) => (a.scope < b.scope ? -1 : 1))).toEqual(
    scopes.map((scope) => ({ scope, level: 'observe', until: until15 })),
  );
  expect(told.decisions).toHaveLength(3);
  for (const decision of told.decisions as { scope: string }[]) {
    expect(scopes).toContain(decision.scope);
    expect(decision).toEqual({
      at: new Date(at).toISOString(),
      scope: decision.scope,
      from: 'none',
      to: 'observe',
      signal: 'wrong_codes',
      reason: '55 numbers saw wrong codes, 0 codes were right within 15 minutes',
      figures: { sent: 0, verified: 0, wrong: 55, right: 0, challenged: 0, passed: 0 },
    });
  }

  await clock.set(at + 40 * MINUTE_MS);
  expect((await abuse()).raised).toEqual([]);
  expect((await login(world)).status).toBe(200);
  const [newest] = (await abuse()).decisions as Record<string, unknown>[];
  expect(newest).toMatchObject({
    from: 'observe',
    to: 'none',
    signal: 'quiet',
    reason: 'Nothing justified the level any more',
  });
});
