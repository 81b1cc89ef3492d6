import {
  freshNumber,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

let world: World;
const start = async (variables: Variables): Promise<void> => {
  world = await startWorld({ variables });
};
afterEach(() => world.close());

/** The waiting time of a refusal: one plain header in whole seconds (RFC 9110), and the same number in the body. */
function retryAfter(answer: Answer): number {
  const header = answer.headers.get('retry-after') ?? '';
  expect(header).toMatch(/^[1-9]\d*$/);
  expect(answer.body.retryAfterSeconds).toBe(Number(header));
  expect([...answer.headers.keys()].filter((name) => name.startsWith('retry-after'))).toEqual([
    'retry-after',
  ]);
  return Number(header);
}

it('send-otp sends one SMS in 30 seconds to a number by default, and says when the next one is possible', async () => {
  await start({ LIMIT_PHONE: undefined });
  const phoneNumber = freshNumber();
  const sentAt = [Date.now()];
  const first = await sendOtp(world.url, phoneNumber);
  sentAt.push(Date.now());
  const resendAt = Date.parse(first.body.resendAt);
  expect(resendAt).toBeGreaterThanOrEqual(sentAt[0]! + 30_000);
  expect(resendAt).toBeLessThanOrEqual(sentAt[1]! + 31_000);

  const refusedAt = [Date.now()];
  const second = await sendOtp(world.url, phoneNumber);
  refusedAt.push(Date.now());
  expect(statusAndCode(second)).toEqual([429, 'rate_limited']);
  expect(retryAfter(second) * 1_000).toBeGreaterThanOrEqual(sentAt[0]! + 30_000 - refusedAt[1]!);
  expect(retryAfter(second) * 1_000).toBeLessThanOrEqual(sentAt[1]! + 32_000 - refusedAt[0]!);
  expect(world.upstream.messages).toHaveLength(1);
});

it('LIMIT_IP counts the valid sends of an address, and LIMIT_VERIFY_IP counts its verifications separately', async () => {
  await start({ LIMIT_IP: '2/7200', LIMIT_VERIFY_IP: '2/7200' });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect(statusAndCode(refused)).toEqual([429, 'rate_limited']);
  expect(retryAfter(refused)).toBeGreaterThan(3_600);
  expect((await verifyOtp(world.url, 'x', '123456')).status).toBe(410);
  expect((await verifyOtp(world.url, 'x', '123456')).status).toBe(410);
  const verify = await verifyOtp(world.url, 'x', '123456');
  expect(statusAndCode(verify)).toEqual([429, 'rate_limited']);
  retryAfter(verify);
});

it('a client cannot escape LIMIT_IP by an X-Forwarded-For header of its own, and the log warns once', async () => {
  await start({ LIMIT_IP: '2/600' });
  const statuses = [];
  for (let i = 0; i < 4; i++) {
    const headers = {
      'x-forwarded-for': `203.0.113.${i}`,
      'x-real-ip': `203.0.113.${i}`,
      forwarded: `for=203.0.113.${i}`,
    };
    statuses.push((await sendOtp(world.url, freshNumber(), headers)).status);
  }
  expect(statuses).toEqual([200, 200, 429, 429]);
  const warnings = world.instances[0]?.logs.filter((line) => line.includes('TRUSTED_PROXIES'));
  expect(warnings).toHaveLength(1);
});

it('LIMIT_IP counts the last address in X-Forwarded-For that is not a trusted proxy', async () => {
  await start({ LIMIT_IP: '1/600', TRUSTED_PROXIES: '127.0.0.0/8,10.0.0.0/8' });
  const send = async (hops: string): Promise<number> =>
    (await sendOtp(world.url, freshNumber(), { 'x-forwarded-for': hops })).status;
  expect(await send('198.51.100.1, 10.0.0.1')).toBe(200);
  expect(await send('6.6.6.6, 198.51.100.1')).toBe(429);
  expect(await send('198.51.100.2')).toBe(200);
  // An IPv6 subscriber has a whole /64.
  expect(await send('2001:db8:1:2::1')).toBe(200);
  expect(await send('2001:db8:1:2:ffff::9')).toBe(429);
  expect(await send('2001:db8:1:3::1')).toBe(200);
});

it('LIMIT_GLOBAL limits the sends of the whole service, and send-otp then answers overloaded', async () => {
  await start({ LIMIT_GLOBAL: '2/600' });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect(statusAndCode(refused)).toEqual([503, 'overloaded']);
  retryAfter(refused);
  expect(world.upstream.messages).toHaveLength(2);
});

it('send-otp sends no SMS when the budget of the day is used up, and the log has an alert', async () => {
  await start({ BUDGET_PAISE_PER_DAY: '50' });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect(statusAndCode(refused)).toEqual([503, 'sms_unavailable']);
  expect(retryAfter(refused)).toBeGreaterThan(80_000);
  expect(world.upstream.messages).toHaveLength(2);
  expect(world.instances[0]?.logs.join('')).toContain('"alert":"budget_exhausted"');
});

it('an SMS that the provider certainly did not accept is refunded to the budget, but still counts for LIMIT_PHONE', async () => {
  await start({ BUDGET_PAISE_PER_DAY: '25', LIMIT_PHONE: '1/600' });
  world.upstream.fault({ on: 'send', fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } });
  const phoneNumber = freshNumber();
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(503);
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
});

it('too many wrong codes lock a number for all its requests, and a locked number costs no SMS', async () => {
  await start({ LIMIT_FAILED_CODES: '4/7200', STARTMESSAGING_CONTRACT: 'caller' });
  const phoneNumber = freshNumber();
  const first = await sendOtp(world.url, phoneNumber);
  // The same code again: after half of the wrong codes a send would need a proof of work.
  const second = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  for (const { body } of [first, second, first, second])
    expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);

  const right = await verifyOtp(world.url, second.body.requestId, code);
  expect(statusAndCode(right)).toEqual([429, 'phone_locked']);
  expect(retryAfter(right)).toBeGreaterThan(3_600);
  expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual([429, 'phone_locked']);
  expect(world.upstream.messages).toHaveLength(2);
});

it('a login clears the wrong codes of the last hour', async () => {
  await start({ LIMIT_FAILED_CODES: '3/3600,20/86400' });
  const phoneNumber = freshNumber();
  for (let round = 0; round < 3; round++) {
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
    expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
  }
});
