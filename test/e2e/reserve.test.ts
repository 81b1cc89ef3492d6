import { flushLedger, usageOf, WITH_ADMIN } from '../support/admin';
import { atOnce } from '../support/crowd';
import { deviceTokenOf } from '../support/device-tokens';
import { KEYS, keysOf } from '../support/keys';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const QUARTER_MS = HOUR_MS / 4;
const PRICE = 25;

let world: World;
afterEach(() => world.close());

/** A service whose budget pays for this many SMS a day. */
async function withBudget(sms: number, variables: Variables = {}, count = 1): Promise<void> {
  world = await startWorld({
    variables: { ...WITH_ADMIN, BUDGET_PAISE_PER_DAY: String(sms * PRICE), ...variables },
    count,
  });
}

/** How many SMS there are until the budget refuses one; by new numbers unless these are given. */
async function sendsUntilRefused(numbers?: string[]): Promise<number> {
  for (let sent = 0; sent < 50; sent++) {
    const answer = await sendOtp(world.url, numbers?.[sent % numbers.length] ?? freshNumber());
    if (answer.status === 200) continue;
    expect(statusAndCode(answer)).toEqual([503, 'sms_unavailable']);
    return sent;
  }
  throw new Error('There is no budget');
}

/** Numbers that logged in, and for which the service keeps a reserve by now. */
async function regulars(count: number): Promise<string[]> {
  const numbers = Array.from({ length: count }, freshNumber);
  for (const phoneNumber of numbers) expect((await login(world, phoneNumber)).status).toBe(200);
  await flushLedger(world);
  return numbers;
}

describe('the reserve of the budget', () => {
  it('the budget keeps no reserve until the first login', async () => {
    await withBudget(10);
    // A wrong code is no login.
    const { body } = await sendOtp(world.url, freshNumber());
    await verifyOtp(world.url, body.requestId, '000000');
    expect(await sendsUntilRefused()).toBe(9);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('the budget keeps 30 percent for numbers that logged in before, from the first login on', async () => {
    await withBudget(10);
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    expect(await sendsUntilRefused(numbers)).toBe(3);
    expect(await sendsUntilRefused()).toBe(0);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('the budget keeps its reserve after a login even if more than the rest was spent before', async () => {
    await withBudget(10);
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    for (let i = 0; i < 7; i++) expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
    expect((await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber))).status).toBe(
      200,
    );
    await flushLedger(world);
    expect(await sendsUntilRefused()).toBe(0);
    expect(await sendsUntilRefused([phoneNumber])).toBe(2);
  });

  it('send-otp tells a new number when the budget has room for it again', async () => {
    await withBudget(2, { BUDGET_RESERVE_PERCENT: '50' });
    await regulars(1);
    const [charged] = (await redisCommand(world, 'HKEYS', KEYS.quarters)) as string[];
    const opensAt = Number(charged) * QUARTER_MS + DAY_MS + QUARTER_MS;
    const before = Date.now();
    const refused = await sendOtp(world.url, freshNumber());
    const after = Date.now();
    expect(statusAndCode(refused)).toEqual([503, 'sms_unavailable']);
    const retryAfterMs = Number(refused.headers.get('retry-after')) * 1_000;
    expect(retryAfterMs).toBeGreaterThanOrEqual(opensAt - after);
    expect(retryAfterMs).toBeLessThanOrEqual(opensAt - before + 1_000);
  });

  it.each([
    ['0', 9, 0],
    ['1', 8, 1],
    ['50', 4, 5],
    ['99', 0, 9],
    ['100', 0, 9],
  ])(
    'a reserve of %s percent leaves %d SMS to new numbers and then %d to numbers that logged in before',
    async (percent, fresh, known) => {
      await withBudget(10, { BUDGET_RESERVE_PERCENT: percent });
      const numbers = await regulars(1);
      expect(await sendsUntilRefused()).toBe(fresh);
      expect(await sendsUntilRefused(numbers)).toBe(known);
      expect(world.upstream.messages).toHaveLength(10);
    },
  );

  it('a budget of an hour keeps the reserve, too', async () => {
    await withBudget(0, { BUDGET_PAISE_PER_DAY: undefined, BUDGET_PAISE_PER_HOUR: String(5 * PRICE) });
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(2);
    expect(await sendsUntilRefused(numbers)).toBe(2);
  });

  it('an SMS that is refunded goes back to the reserve that it was taken from', async () => {
    await withBudget(10);
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    world.upstream.fault({ on: 'send', fault });
    expect(statusAndCode(await sendOtp(world.url, numbers[0]))).toEqual([503, 'sms_unavailable']);
    expect(await sendsUntilRefused()).toBe(0);
    expect(await sendsUntilRefused(numbers)).toBe(3);
  });

  it('the reserve and the budget are exact over three instances that send at once', async () => {
    await withBudget(40, {}, 3);
    const numbers = await regulars(4);
    const news = await atOnce(world, 45, (url) => sendOtp(url, freshNumber()));
    expect(news.filter(({ status }) => status === 200)).toHaveLength(24);
    const known = await atOnce(world, 30, (url, i) => sendOtp(url, numbers[i % numbers.length]));
    expect(known.filter(({ status }) => status === 200)).toHaveLength(12);
    expect(world.upstream.messages).toHaveLength(40);
    expect(await usageOf(world)).toMatchObject({ sent: 40, costPaise: 1_000 });
  });

  it('new numbers never use the reserve while others send at the same time over three instances', async () => {
    await withBudget(40, {}, 3);
    const numbers = await regulars(2);
    const answers = await atOnce(world, 80, (url, i) =>
      sendOtp(url, i % 2 === 0 ? freshNumber() : numbers[i % numbers.length]),
    );
    const sent = answers.map(({ status }) => status === 200);
    expect(sent.filter((each) => each)).toHaveLength(38);
    // Any of the first 28 SMS of the day may go to a new number, and none of the last 12.
    expect(sent.filter((each, i) => each && i % 2 === 0).length).toBeLessThanOrEqual(26);
    expect(world.upstream.messages).toHaveLength(40);
  });
});

describe('a number that logged in before', () => {
  /** A number with a device token that was issued at that time, and about which Redis has no record. */
  function holder(issuedAt: number): { phoneNumber: string; deviceToken: string } {
    const phoneNumber = freshNumber();
    return { phoneNumber, deviceToken: deviceTokenOf(phoneNumber, issuedAt) };
  }
  const sendBy = (body: object): Promise<Answer> => call('POST', `${world.url}/auth/send-otp`, body);

  it.each([undefined, '86400', '7776000'])(
    'a login gives its number a part in the reserve for 30 days longer than a session can live with SESSION_MAX_TTL_SECONDS=%s',
    async (seconds) => {
      await withBudget(10, { SESSION_MAX_TTL_SECONDS: seconds, SESSION_IDLE_TTL_SECONDS: '86400' });
      const [phoneNumber = ''] = await regulars(1);
      const { known } = keysOf((await sendOtp(world.url, phoneNumber)).body.requestId);
      const longestSession = Number(seconds ?? 2_592_000) * 1_000;
      for (const key of [known, KEYS.regulars]) {
        const ms = Number(await redisCommand(world, 'PTTL', key));
        expect(ms).toBeGreaterThan(longestSession + 30 * DAY_MS - HOUR_MS);
        expect(ms).toBeLessThanOrEqual(longestSession + 30 * DAY_MS);
      }
    },
  );

  it('a number is like a new one for the reserve when the record of its login has expired', async () => {
    await withBudget(10);
    const [phoneNumber = ''] = await regulars(1);
    const { known } = keysOf((await sendOtp(world.url, phoneNumber)).body.requestId);
    expect(await sendsUntilRefused()).toBe(5);
    await redisCommand(world, 'DEL', known);
    expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual([503, 'sms_unavailable']);
  });

  it('an authentic device token gives its number a part in the reserve for as long as it lives', async () => {
    await withBudget(10);
    await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    const old = holder(Date.now() - 91 * DAY_MS);
    expect(statusAndCode(await sendBy(old))).toEqual([503, 'sms_unavailable']);
    const young = holder(Date.now() - 89 * DAY_MS);
    expect((await sendBy(young)).status).toBe(200);
    // The token of another number gives no part.
    const { phoneNumber } = holder(Date.now());
    const other = await sendBy({ ...young, phoneNumber });
    expect(statusAndCode(other)).toEqual([503, 'sms_unavailable']);
  });

  it('a number with only an SMS or a wrong code has no part in the reserve', async () => {
    await withBudget(10);
    await regulars(1);
    const [texted, tried] = [freshNumber(), freshNumber()];
    await sendOtp(world.url, texted);
    const { body } = await sendOtp(world.url, tried);
    await verifyOtp(world.url, body.requestId, '000000');
    expect(await sendsUntilRefused()).toBe(4);
    for (const phoneNumber of [texted, tried])
      expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual([503, 'sms_unavailable']);
  });
});
