import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { asAdmin, usageOf, WITH_ADMIN } from '../support/admin';
import { setClock } from '../support/simulated-clock';
import {
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

jest.mock('node:fs', () =>
  jest
    .requireActual<typeof import('../support/simulated-clock')>('../support/simulated-clock')
    .fsWithSimulatedClock(),
);

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;
// In the future by Redis's own clock, so that nothing that is written now has expired already.
const TODAY = Math.floor(Date.now() / DAY_MS) * DAY_MS + 2 * DAY_MS;
/** Midnight of Asia/Kolkata. */
const MIDNIGHT = TODAY + 18.5 * 3_600_000;

let world: World;
let redis: Redis;
beforeEach(async () => {
  world = await startWorld({ variables: WITH_ADMIN });
  redis = new Redis(world.redis.url);
  await setClock(redis, MIDNIGHT);
});
afterEach(async () => {
  redis.disconnect();
  await world.close();
});

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

it('days and hours of usage begin when they do in Asia/Kolkata', async () => {
  const send = async (at: number): Promise<Answer> => {
    await setClock(redis, at);
    return sendOtp(world.url, freshNumber());
  };
  // The last millisecond of a day, the first two hours of the next one, and its last hour.
  for (const at of [-1, 0, 3_599_999, 3_600_000, DAY_MS - 3_600_000, DAY_MS - 1])
    expect((await send(MIDNIGHT + at)).status).toBe(200);
  const [before, after] = [dayOf(TODAY), dayOf(TODAY + DAY_MS)];
  const { body } = await asAdmin('GET', `${world.url}/admin/usage?from=${before}&to=${after}`);
  const seen = (body.days as { date: string; sent: number; hours: { from: string; sent: number }[] }[]).map(
    ({ date, sent, hours }) => [date, sent, hours.map((hour) => [hour.from, hour.sent])],
  );
  expect(seen).toEqual([
    [before, 1, [[`${before}T23:00:00+05:30`, 1]]],
    [
      after,
      5,
      [
        [`${after}T00:00:00+05:30`, 2],
        [`${after}T01:00:00+05:30`, 1],
        [`${after}T23:00:00+05:30`, 2],
      ],
    ],
  ]);
  expect(body.total).toMatchObject({ sent: 6, costPaise: 150 });
});

it('a code that comes back after midnight is counted on the day on which it was sent', async () => {
  const phoneNumber = freshNumber();
  await setClock(redis, MIDNIGHT - MINUTE_MS);
  const { body } = await sendOtp(world.url, phoneNumber);
  await setClock(redis, MIDNIGHT + MINUTE_MS);
  const verified = await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber));
  expect(verified.status).toBe(200);
  await usageOf(world);
  const usage = await asAdmin(
    'GET',
    `${world.url}/admin/usage?from=${dayOf(TODAY)}&to=${dayOf(TODAY + DAY_MS)}`,
  );
  expect(
    (usage.body.days as { sent: number; verified: number }[]).map(({ sent, verified: right }) => [
      sent,
      right,
    ]),
  ).toEqual([
    [1, 1],
    [0, 0],
  ]);
});

it('an SMS that is refunded after midnight is taken from the day on which it was charged', async () => {
  await setClock(redis, MIDNIGHT - MINUTE_MS);
  const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
  world.upstream.fault({ on: 'send', fault: { ...fault, when: 'after' } });
  world.upstream.fault({ on: 'send', fault });
  const sending = sendOtp(world.url, freshNumber());
  expect((await sending).status).toBe(503);
  await setClock(redis, MIDNIGHT + MINUTE_MS);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
  const usage = await asAdmin(
    'GET',
    `${world.url}/admin/usage?from=${dayOf(TODAY)}&to=${dayOf(TODAY + DAY_MS)}`,
  );
  const day = { sent: 1, refunded: 1, costPaise: 0 };
  expect(usage.body.days).toEqual([expect.objectContaining(day), expect.objectContaining(day)]);
});

it('a scope that is trusted less is told with its reason, and that it fell again', async () => {
  const guard = async (): Promise<Answer['body']> => (await asAdmin('GET', `${world.url}/admin/guard`)).body;
  // Fifty-five numbers see wrong codes, and nobody a right one.
  for (let i = 0; i < 55; i++) {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, phoneNumber)));
  }
  await sleep(400);
  const at = MIDNIGHT + MINUTE_MS;
  await setClock(redis, at);
  await sendOtp(world.url, freshNumber());

  const told = await guard();
  const until = new Date(at + 15 * MINUTE_MS).toISOString();
  // The tests come from this machine, and their numbers of one series.
  const scopes = ['network:127.0.0.0/24', 'series:981000', 'service'];
  expect(told.now).toBe(new Date(at).toISOString());
  expect((told.raised as { scope: string }[]).sort((a, b) => (a.scope < b.scope ? -1 : 1))).toEqual(
    scopes.map((scope) => ({ scope, step: 'observe', until })),
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

  // The minutes pass, and it is looked at again.
  await setClock(redis, at + 40 * MINUTE_MS);
  expect((await guard()).raised).toEqual([]);
  expect((await login(world)).status).toBe(200);
  const [newest] = (await guard()).decisions as Record<string, unknown>[];
  expect(newest).toMatchObject({
    from: 'observe',
    to: 'none',
    signal: 'quiet',
    reason: 'Nothing justified the step any more',
  });
});
