import {
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

let world: World;
afterEach(() => world.close());

/** RFC 9110: one plain header in whole seconds, and the same in the body. */
function retryAfter(answer: Answer): number {
  const header = answer.headers.get('retry-after') ?? '';
  expect(header).toMatch(/^[1-9]\d*$/);
  expect(answer.body.retryAfterSeconds).toBe(Number(header));
  expect([...answer.headers.keys()].filter((name) => name.startsWith('retry-after'))).toEqual([
    'retry-after',
  ]);
  return Number(header);
}

it('a phone number gets one SMS in 30 seconds by default, and is told when the next may come', async () => {
  world = await startWorld({ variables: { LIMIT_PHONE: undefined } });
  const phoneNumber = freshNumber();
  const first = await sendOtp(world.url, phoneNumber);
  expect(Math.round((Date.parse(first.body.resendAt) - Date.now()) / 10_000)).toBe(3);
  const second = await sendOtp(world.url, phoneNumber);
  expect([second.status, second.body.code]).toEqual([429, 'rate_limited']);
  expect(retryAfter(second)).toBeGreaterThan(25);
  expect(retryAfter(second)).toBeLessThanOrEqual(31);
  expect(world.upstream.messages).toHaveLength(1);
});

it('an address gets its limit of sends, whatever the body is, and verifications have a limit of their own', async () => {
  world = await startWorld({ variables: { LIMIT_IP: '3/600', LIMIT_VERIFY_IP: '2/600' } });
  expect((await sendOtp(world.url, 'no number')).status).toBe(400);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect([refused.status, refused.body.code]).toEqual([429, 'rate_limited']);
  expect(retryAfter(refused)).toBeGreaterThan(500);
  expect((await verifyOtp(world.url, 'x', '123456')).status).toBe(410);
  expect((await verifyOtp(world.url, 'x', '123456')).status).toBe(410);
  const verify = await verifyOtp(world.url, 'x', '123456');
  expect([verify.status, verify.body.code]).toEqual([429, 'rate_limited']);
  retryAfter(verify);
});

it('X-Forwarded-For of a stranger mints no addresses', async () => {
  world = await startWorld({ variables: { LIMIT_IP: '2/600' } });
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

it('behind a trusted proxy the address is the last one that no proxy of ours wrote', async () => {
  world = await startWorld({ variables: { LIMIT_IP: '1/600', TRUSTED_PROXIES: '127.0.0.0/8,10.0.0.0/8' } });
  const send = async (hops: string): Promise<number> =>
    (await sendOtp(world.url, freshNumber(), { 'x-forwarded-for': hops })).status;
  expect(await send('198.51.100.1, 10.0.0.1')).toBe(200);
  expect(await send('6.6.6.6, 198.51.100.1')).toBe(429);
  expect(await send('198.51.100.2')).toBe(200);
  // An IPv6 subscriber holds a whole /64.
  expect(await send('2001:db8:1:2::1')).toBe(200);
  expect(await send('2001:db8:1:2:ffff::9')).toBe(429);
  expect(await send('2001:db8:1:3::1')).toBe(200);
});

it('the whole service has a limit, refused as overloaded', async () => {
  world = await startWorld({ variables: { LIMIT_GLOBAL: '2/60' } });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect([refused.status, refused.body.code]).toEqual([503, 'overloaded']);
  retryAfter(refused);
  expect(world.upstream.messages).toHaveLength(2);
});

it('a budget that is used up stops every SMS, and raises an alert', async () => {
  world = await startWorld({ variables: { BUDGET_PAISE_PER_DAY: '50' } });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  const refused = await sendOtp(world.url, freshNumber());
  expect([refused.status, refused.body.code]).toEqual([503, 'sms_unavailable']);
  expect(retryAfter(refused)).toBeGreaterThan(80_000);
  expect(world.upstream.messages).toHaveLength(2);
  expect(world.instances[0]?.logs.join('')).toContain('"alert":"budget_exhausted"');
});

it('an SMS that upstream certainly did not accept is given back to the budget, not to the limits', async () => {
  world = await startWorld({ variables: { BUDGET_PAISE_PER_DAY: '25', LIMIT_PHONE: '1/600' } });
  world.upstream.fault({ on: 'send', fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } });
  const phoneNumber = freshNumber();
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(503);
  expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(200);
  expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
});

it('a number that failed too often is locked, over every request, before an SMS is paid for', async () => {
  world = await startWorld({ variables: { LIMIT_FAILED_CODES: '4/3600' } });
  const phoneNumber = freshNumber();
  for (let request = 0; request < 2; request++) {
    const { body } = await sendOtp(world.url, phoneNumber);
    for (let i = 0; i < 2; i++) {
      await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, phoneNumber)));
    }
    if (request === 1) {
      const right = await verifyOtp(world.url, body.requestId, textedCode(world.upstream, phoneNumber));
      expect([right.status, right.body.code]).toEqual([429, 'phone_locked']);
      expect(retryAfter(right)).toBeGreaterThan(3_500);
    }
  }
  const sent = world.upstream.messages.length;
  const send = await sendOtp(world.url, phoneNumber);
  expect([send.status, send.body.code]).toEqual([429, 'phone_locked']);
  expect(world.upstream.messages).toHaveLength(sent);
});

it('a login clears the failures of the last hour', async () => {
  world = await startWorld({ variables: { LIMIT_FAILED_CODES: '3/3600,20/86400' } });
  const phoneNumber = freshNumber();
  for (let round = 0; round < 3; round++) {
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
    expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
    expect((await verifyOtp(world.url, body.requestId, code)).status).toBe(200);
  }
});
