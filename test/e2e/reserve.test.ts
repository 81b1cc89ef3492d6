import { randomBytes } from 'node:crypto';
import { readConfig } from '../../src/config/read-config';
import { ChallengeRecords } from '../../src/otp/challenge-records';
import { DeviceTokens } from '../../src/otp/device-tokens';
import { isPhoneNumber } from '../../src/phone-number/phone-number';
import { usageOf, WITH_ADMIN } from '../support/admin';
import {
  API_KEY,
  call,
  freshNumber,
  login,
  redisCommand,
  SECRET,
  sendOtp,
  startWorld,
  SUBJECT_SECRET,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

const DAY_MS = 86_400_000;
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

const told = ({ status, body }: Answer): unknown[] => [status, body.code];

/** How many SMS there are until the budget refuses one; by new numbers unless these are given. */
async function sendsUntilRefused(numbers?: string[]): Promise<number> {
  for (let sent = 0; sent < 50; sent++) {
    const answer = await sendOtp(world.url, numbers?.[sent % numbers.length] ?? freshNumber());
    if (answer.status === 200) continue;
    expect(told(answer)).toEqual([503, 'sms_unavailable']);
    return sent;
  }
  throw new Error('There is no budget');
}

/** Numbers whose owners logged in; returns when the service knows of it. */
async function regulars(count: number): Promise<string[]> {
  const numbers = Array.from({ length: count }, freshNumber);
  for (const phoneNumber of numbers) expect((await login(world, phoneNumber)).status).toBe(200);
  await until(async () => (await usageOf(world)).verified === count);
  return numbers;
}

describe('the reserve of the budget', () => {
  it('is not kept while nobody has logged in yet', async () => {
    await withBudget(10);
    // A wrong code is no login.
    const { body } = await sendOtp(world.url, freshNumber());
    await verifyOtp(world.url, body.requestId, '000000');
    expect(await sendsUntilRefused()).toBe(9);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('is 30 percent for numbers that logged in, once there is one', async () => {
    await withBudget(10);
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    expect(await sendsUntilRefused(numbers)).toBe(3);
    expect(await sendsUntilRefused()).toBe(0);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('is kept as soon as somebody has logged in, whatever was spent before', async () => {
    await withBudget(10);
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    for (let i = 0; i < 7; i++) expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
    expect((await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber))).status).toBe(
      200,
    );
    const verified = Date.now();
    const regular = async (): Promise<boolean> =>
      (await redisCommand(world, 'EXISTS', 'otp-login:{admission}:regulars')) === 1;
    await until(regular);
    expect(Date.now() - verified).toBeLessThan(1_500);
    expect(await sendsUntilRefused()).toBe(0);
    expect(await sendsUntilRefused([phoneNumber])).toBe(2);
  });

  it('tells new numbers when they may come again', async () => {
    await withBudget(2, { BUDGET_RESERVE_PERCENT: '50' });
    await regulars(1);
    const refused = await sendOtp(world.url, freshNumber());
    expect(told(refused)).toEqual([503, 'sms_unavailable']);
    const seconds = Number(refused.headers.get('retry-after'));
    expect(seconds).toBeGreaterThan(DAY_MS / 1_000);
    expect(seconds).toBeLessThanOrEqual(DAY_MS / 1_000 + 900);
  });

  it.each([
    ['0', 9, 0],
    ['1', 8, 1],
    ['50', 4, 5],
    ['99', 0, 9],
    ['100', 0, 9],
  ])('of %s percent leaves %d SMS to new numbers and then %d to others', async (percent, fresh, known) => {
    await withBudget(10, { BUDGET_RESERVE_PERCENT: percent });
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(fresh);
    expect(await sendsUntilRefused(numbers)).toBe(known);
    expect(world.upstream.messages).toHaveLength(10);
  });

  it('is one of a budget per hour too', async () => {
    await withBudget(0, { BUDGET_PAISE_PER_DAY: undefined, BUDGET_PAISE_PER_HOUR: String(5 * PRICE) });
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(2);
    expect(await sendsUntilRefused(numbers)).toBe(2);
  });

  it('does not make the budget larger: what is refunded is there for whom it was', async () => {
    await withBudget(10);
    const numbers = await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    world.upstream.fault({ on: 'send', fault });
    expect(told(await sendOtp(world.url, numbers[0]))).toEqual([503, 'sms_unavailable']);
    expect(await sendsUntilRefused()).toBe(0);
    expect(await sendsUntilRefused(numbers)).toBe(3);
  });

  it('and the budget hold to the paisa over three instances', async () => {
    await withBudget(40, {}, 3);
    const numbers = await regulars(4);
    const at = (i: number): string => world.instances[i % 3]!.url;
    const news = await Promise.all(Array.from({ length: 90 }, (_, i) => sendOtp(at(i), freshNumber())));
    expect(news.filter(({ status }) => status === 200)).toHaveLength(24);
    const known = await Promise.all(
      Array.from({ length: 60 }, (_, i) => sendOtp(at(i), numbers[i % numbers.length])),
    );
    expect(known.filter(({ status }) => status === 200)).toHaveLength(12);
    expect(world.upstream.messages).toHaveLength(40);
    expect(await usageOf(world)).toMatchObject({ sent: 40, costPaise: 1_000 });
  });

  it('is never used by new numbers that come at the same time as others, over three instances', async () => {
    await withBudget(40, {}, 3);
    const numbers = await regulars(2);
    const answers = await Promise.all(
      Array.from({ length: 120 }, (_, i) =>
        sendOtp(world.instances[i % 3]!.url, i % 2 === 0 ? freshNumber() : numbers[i % numbers.length]),
      ),
    );
    const sent = answers.map(({ status }) => status === 200);
    expect(sent.filter((each) => each)).toHaveLength(38);
    // Of the day's first 28 SMS any may be a new number's, of the last 12 none.
    expect(sent.filter((each, i) => each && i % 2 === 0).length).toBeLessThanOrEqual(26);
    expect(world.upstream.messages).toHaveLength(40);
  });
});

describe('a number that logged in before', () => {
  /** A number for which a token was signed at that time, though Redis knows nothing of it. */
  function holder(issuedAt: number): { phoneNumber: string; deviceToken: string } {
    const config = readConfig({ STARTMESSAGING_API_KEY: API_KEY, SECRET, SUBJECT_SECRET });
    const phoneNumber = freshNumber();
    if (!isPhoneNumber(phoneNumber)) throw new Error('This is no phone number');
    const pseudonym = new ChallengeRecords(config).pseudonymOf(phoneNumber);
    const id = randomBytes(16).toString('base64url');
    return { phoneNumber, deviceToken: new DeviceTokens(config).issue(pseudonym, { id, issuedAt }) };
  }
  const sendBy = (body: object): Promise<Answer> => call('POST', `${world.url}/auth/send-otp`, body);

  it('is known for 30 days', async () => {
    await withBudget(10);
    const [phoneNumber = ''] = await regulars(1);
    const pseudonym = String((await sendOtp(world.url, phoneNumber)).body.requestId).slice(0, 22);
    for (const key of [`otp-login:{${pseudonym}}:known`, 'otp-login:{admission}:regulars']) {
      const ms = Number(await redisCommand(world, 'PTTL', key));
      expect(Math.abs(ms - 30 * DAY_MS)).toBeLessThan(60_000);
    }
    // Thereafter it is like a new one.
    expect(await sendsUntilRefused()).toBe(5);
    await redisCommand(world, 'DEL', `otp-login:{${pseudonym}}:known`);
    expect(told(await sendOtp(world.url, phoneNumber))).toEqual([503, 'sms_unavailable']);
  });

  it('is known by the token of its device, too, for as long', async () => {
    await withBudget(10);
    await regulars(1);
    expect(await sendsUntilRefused()).toBe(6);
    const old = holder(Date.now() - 31 * DAY_MS);
    expect(told(await sendBy(old))).toEqual([503, 'sms_unavailable']);
    const young = holder(Date.now() - 29 * DAY_MS);
    expect((await sendBy(young)).status).toBe(200);
    // The token of another number does not do.
    const { phoneNumber } = holder(Date.now());
    const other = await sendBy({ ...young, phoneNumber });
    expect(told(other)).toEqual([503, 'sms_unavailable']);
  });

  it('is not a number whose session was refused, nor one that was only texted', async () => {
    await withBudget(10);
    await regulars(1);
    const [texted, tried] = [freshNumber(), freshNumber()];
    await sendOtp(world.url, texted);
    const { body } = await sendOtp(world.url, tried);
    await verifyOtp(world.url, body.requestId, '000000');
    expect(await sendsUntilRefused()).toBe(4);
    for (const phoneNumber of [texted, tried])
      expect(told(await sendOtp(world.url, phoneNumber))).toEqual([503, 'sms_unavailable']);
  });
});
