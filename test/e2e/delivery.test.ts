import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultScript } from '../../src/emulator/emulator';
import { LEDGER_KEY } from '../../src/ledger/ledger';
import { UsageReader, type UsageOfDay } from '../../src/ledger/usage';
import {
  call,
  freshNumber,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

/** Long enough for an SMS to stay where it is. */
const NEVER = 100_000_000;

let world: World;
const opened: World[] = [];

async function open(variables: Variables = {}, count = 1): Promise<World> {
  const more = { STARTMESSAGING_CONTRACT: 'caller', LIMIT_PHONE: '1/600', ...variables };
  const fresh = await startWorld({
    variables: { UPSTREAM_TIMEOUT_MS: '3000', UPSTREAM_DEADLINE_MS: '6000', ...more },
    count,
  });
  opened.push(fresh);
  return fresh;
}

beforeAll(async () => {
  world = await open({}, 3);
});
afterAll(() => Promise.all(opened.map((each) => each.close())));
beforeEach(async () => {
  // Looks of the last test have ended.
  await sleep(50);
  await redisCommand(world, 'FLUSHALL');
  world.upstream.reset();
});

const look = (requestId: string, instance = 0, of = world): Promise<Answer> =>
  call('GET', `${of.instances[instance]!.url}/auth/otp/${requestId}`);

/** How many times upstream was asked what became of an SMS. */
const lookUps = (of = world): { at: string; status: number | undefined }[] =>
  of.upstream.calls.filter(({ path }) => path.startsWith('/messages/'));

async function send(phoneNumber = freshNumber(), of = world): Promise<string> {
  const answer = await sendOtp(of.url, phoneNumber);
  expect([answer.status, answer.body.delivery]).toEqual([200, 'accepted']);
  return answer.body.requestId as string;
}

/** Asks until the page would show this. */
async function untilShown(requestId: string, delivery: string, of = world): Promise<Answer> {
  let answer!: Answer;
  await until(async () => (answer = await look(requestId, 0, of)).body.delivery === delivery);
  return answer;
}

const failing = (more: Partial<FaultScript> = {}): FaultScript => ({
  on: 'message',
  fault: { kind: 'delivery', status: 'failed', failureReason: 'ABSENT_SUBSCRIBER' },
  ...more,
});

/** The ledger's stream, the oldest first. */
async function events(of = world): Promise<Record<string, string>[]> {
  const entries = (await redisCommand(of, 'XRANGE', LEDGER_KEY, '-', '+')) as [string, string[]][];
  return entries.map(([id, flat]) => ({
    id,
    ...Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : []))),
  }));
}

const eventsOf = async (what: string, of = world): Promise<Record<string, string>[]> =>
  (await events(of)).filter(({ event }) => event === what);

async function totals(of = world): Promise<UsageOfDay> {
  const today = UsageReader.dayOf(new Date());
  const [day] = await of.instances[0]!.app.get(UsageReader, { strict: false }).read(today, today);
  return day!;
}

/** An upstream that tells of one SMS, to everybody at once when the test says so. */
async function holdingUpstream(
  data: object,
): Promise<{ url: string; held: (() => void)[]; close: () => void }> {
  const held: (() => void)[] = [];
  const server = createServer((_request, response) => {
    held.push(() => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ success: true, data }));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, held, close };
}

describe('the page that waits for its code', () => {
  it('sees the SMS sent, then delivered, and nobody looks after that', async () => {
    Object.assign(world.upstream.settings, { sentAfterMs: 700, deliveredAfterMs: 2_000 });
    const requestId = await send();
    const seen = new Set<string>();
    await until(async () => {
      const { status, body } = await look(requestId);
      expect([status, body.state]).toEqual([200, 'pending']);
      seen.add(body.delivery as string);
      return body.delivery === 'delivered';
    });
    expect([...seen]).toEqual(['accepted', 'sent', 'delivered']);
    const before = lookUps().length;
    for (let i = 0; i < 15; i += 1) {
      expect((await look(requestId, i % 3)).body.delivery).toBe('delivered');
      await sleep(100);
    }
    expect(lookUps()).toHaveLength(before);
    expect(await eventsOf('delivery')).toMatchObject([{ delivery: 'delivered', cost: '0' }]);
  });

  it('is answered at once, however long upstream takes', async () => {
    for (const fault of [{ kind: 'slow', delayMs: 1_500 }, { kind: 'timeout' }] as const) {
      world.upstream.fault({ on: 'message', fault });
      const requestId = await send();
      const before = lookUps().length;
      const started = performance.now();
      const { status, body } = await look(requestId);
      expect([status, body.delivery]).toEqual([200, 'accepted']);
      expect(performance.now() - started).toBeLessThan(500);
      await until(() => lookUps().length === before + 1);
    }
  });

  it('looks again after a look that was never answered', async () => {
    world.upstream.fault({ on: 'message', fault: { kind: 'timeout' } });
    const requestId = await send();
    world.upstream.settings.sentAfterMs = 0;
    await untilShown(requestId, 'sent');
    expect(lookUps().length).toBeGreaterThanOrEqual(2);
  });

  it('costs one look-up a second at most, however many ask on how many instances', async () => {
    Object.assign(world.upstream.settings, { sentAfterMs: NEVER, deliveredAfterMs: NEVER });
    const requestId = await send();
    const started = Date.now();
    let asked = 0;
    while (Date.now() - started < 3_300) {
      const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => look(requestId, i % 3)));
      for (const { status } of answers) expect(status).toBe(200);
      asked += answers.length;
    }
    expect(asked).toBeGreaterThan(500);
    const times = lookUps().map(({ at }) => Date.parse(at));
    expect(times.length).toBeGreaterThanOrEqual(3);
    expect(times.length).toBeLessThanOrEqual(4);
    // A second by Redis's clock; the way to upstream takes a moment.
    for (const [i, time] of times.entries()) if (i > 0) expect(time - times[i - 1]!).toBeGreaterThan(800);
  });

  it('asks upstream about its own SMS only, by an id that is upstream’s', async () => {
    const requestId = await send();
    await look(requestId);
    await until(() => lookUps().length === 1);
    expect(world.upstream.calls.at(-1)?.path).toBe(`/messages/${world.upstream.messages.at(-1)!.id}`);
    for (const id of ['A'.repeat(44), `${requestId.slice(0, 22)}${'A'.repeat(22)}`, 'x'])
      expect((await look(id)).status).toBe(410);
    await sleep(200);
    expect(lookUps()).toHaveLength(1);
  });

  it('stays as it was when upstream fails, and looks again later', async () => {
    const faults: FaultScript['fault'][] = [
      { kind: 'error', status: 404, code: 'NOT_FOUND', message: 'Message not found' },
      { kind: 'error', status: 404, code: 'NOT_FOUND' },
      { kind: 'error', status: 500, code: 'INTERNAL_ERROR' },
      { kind: 'error', status: 401, code: 'UNAUTHORIZED' },
      { kind: 'error', status: 429, code: 'RATE_LIMIT_EXCEEDED' },
      { kind: 'html' },
      { kind: 'raw', status: 200, body: 'no JSON' },
      { kind: 'raw', status: 200, body: { success: true, data: { status: 7, costAmount: {} } } },
      { kind: 'raw', status: 200, body: { success: true, data: { id: 'another', status: 'delivered' } } },
      { kind: 'raw', status: 200, body: { success: false, data: { status: 'delivered' } } },
      { kind: 'raw', status: 302, headers: { Location: '/messages/another' } },
      { kind: 'reset' },
      { kind: 'cut' },
      { kind: 'malformed' },
      { kind: 'delivery', status: 'a state that nobody knows' },
    ];
    const people = faults.map((fault) => ({ fault, phoneNumber: freshNumber() }));
    for (const { fault, phoneNumber } of people) world.upstream.fault({ on: 'message', phoneNumber, fault });
    const sent = await Promise.all(people.map(({ phoneNumber }) => sendOtp(world.url, phoneNumber)));
    Object.assign(world.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: NEVER });
    const before = await events();
    for (const { body } of sent) await look(body.requestId as string);
    await until(() => lookUps().length === faults.length);
    await sleep(150);
    for (const [i, { body }] of sent.entries()) {
      const answer = await look(body.requestId as string);
      const { delivery, resendAt, attemptsLeft, expiresAt } = answer.body;
      expect([faults[i], { delivery, resendAt, attemptsLeft, expiresAt }]).toEqual([
        faults[i],
        {
          delivery: 'accepted',
          resendAt: body.resendAt,
          attemptsLeft: body.attemptsLeft,
          expiresAt: body.expiresAt,
        },
      ]);
    }
    expect(await events()).toEqual(before);
    // All but the last, whose state is decided.
    for (const { body } of sent.slice(0, -1)) await untilShown(body.requestId as string, 'sent');
  });

  it('looks under the provider contract at nothing: there is no message to look at', async () => {
    const other = await open({ STARTMESSAGING_CONTRACT: 'provider' });
    const requestId = await send(freshNumber(), other);
    for (let i = 0; i < 12; i += 1) {
      expect((await look(requestId, 0, other)).body.delivery).toBe('accepted');
      await sleep(100);
    }
    expect(lookUps(other)).toEqual([]);
  });

  it('sixteen look-ups at once are the most that a process makes, and the others find a place later', async () => {
    const other = await open();
    other.upstream.fault({ on: 'message', times: 16, fault: { kind: 'slow', delayMs: 1_500 } });
    const ids = await Promise.all(Array.from({ length: 40 }, () => send(freshNumber(), other)));
    Object.assign(other.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: NEVER });
    for (const id of ids) expect((await look(id, 0, other)).status).toBe(200);
    await sleep(500);
    expect(lookUps(other)).toHaveLength(16);
    // Only who does not know yet asks again.
    let waiting = ids;
    await until(async () => {
      const answers = await Promise.all(waiting.map((id) => look(id, 0, other)));
      waiting = waiting.filter((_, i) => answers[i]?.body.delivery !== 'sent');
      return waiting.length === 0;
    });
  });
});

describe('an SMS that the carrier failed', () => {
  it.each(['failed', 'expired'])(
    'is shown as failed when it is %s, and another may be asked for',
    async (status) => {
      const phoneNumber = freshNumber();
      const requestId = await send(phoneNumber);
      const refused = await sendOtp(world.url, phoneNumber);
      expect([refused.status, refused.body.code]).toEqual([429, 'rate_limited']);
      world.upstream.fault(failing({ fault: { kind: 'delivery', status } }));
      const { body } = await untilShown(requestId, 'failed');
      expect(body.state).toBe('pending');
      expect(Math.abs(Date.parse(body.resendAt as string) - Date.now())).toBeLessThan(2_000);
      const again = await sendOtp(world.url, phoneNumber);
      expect(again.status).toBe(200);
      expect(Date.parse(again.body.resendAt as string) - Date.now()).toBeGreaterThan(590_000);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      // It may arrive all the same: its code still works.
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, requestId, code)).status).toBe(200);
      await until(async () => (await eventsOf('delivery')).length === 1);
      expect(await eventsOf('delivery')).toMatchObject([{ delivery: 'failed' }]);
    },
  );

  it('is shown as failed and forgiven when upstream says so in its answer to the send', async () => {
    const phoneNumber = freshNumber();
    const data = { otpRequestId: 'o-1', messageId: 'm-1', status: 'failed', phoneNumber };
    world.upstream.fault({ on: 'send', fault: { kind: 'raw', status: 201, body: { success: true, data } } });
    const sent = await sendOtp(world.url, phoneNumber);
    expect([sent.status, sent.body.delivery]).toEqual([200, 'failed']);
    expect((await sendOtp(world.url, phoneNumber)).status).toBe(200);
  });

  it('says of the resend what the other limits leave', async () => {
    const other = await open({ LIMIT_PHONE: '1/60,2/600' });
    const phoneNumber = freshNumber();
    const requestId = await send(phoneNumber, other);
    other.upstream.fault(failing());
    await untilShown(requestId, 'failed', other);
    const second = await send(phoneNumber, other);
    other.upstream.fault(failing());
    await untilShown(second, 'failed', other);
    const third = await sendOtp(other.url, phoneNumber);
    expect(third.status).toBe(200);
    expect(Date.parse(third.body.resendAt as string) - Date.now()).toBeLessThan(61_000);
  });

  it('is forgiven five times a day, and the sixth counts', async () => {
    const phoneNumber = freshNumber();
    for (let i = 1; i <= 6; i += 1) {
      const requestId = await send(phoneNumber);
      world.upstream.fault(failing());
      const { body } = await untilShown(requestId, 'failed');
      const wait = Date.parse(body.resendAt as string) - Date.now();
      if (i <= 5) expect([i, wait < 2_000]).toEqual([i, true]);
      else expect([i, wait > 590_000]).toEqual([i, true]);
    }
    const { status, headers } = await sendOtp(world.url, phoneNumber);
    expect(status).toBe(429);
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(590);
    // Somebody else has five of their own.
    const other = freshNumber();
    const requestId = await send(other);
    world.upstream.fault(failing());
    await untilShown(requestId, 'failed');
    expect((await sendOtp(world.url, other)).status).toBe(200);
  });

  it('is forgiven once, however many instances hear of it at once', async () => {
    const limits = { LIMIT_PHONE: '3/600' };
    const other = await open(limits);
    const phoneNumber = freshNumber();
    const requestId = await send(phoneNumber, other);
    for (let i = 0; i < 2; i += 1) {
      await sleep(5);
      await send(phoneNumber, other);
    }
    const { id } = other.upstream.messages[0]!;
    const slow = await holdingUpstream({ id, status: 'failed', costAmount: '0.2500' });
    const behind = await Promise.all(
      [0, 1, 2].map(() =>
        startInstance({
          ...limits,
          REDIS_URL: other.redis.url,
          STARTMESSAGING_BASE_URL: slow.url,
          STARTMESSAGING_CONTRACT: 'caller',
          UPSTREAM_TIMEOUT_MS: '9000',
          UPSTREAM_DEADLINE_MS: '9000',
        }),
      ),
    );
    try {
      // Each instance looks, a second apart, and all hear of it at the same moment.
      for (const [i, instance] of behind.entries()) {
        await until(async () => {
          await call('GET', `${instance.url}/auth/otp/${requestId}`);
          return slow.held.length > i;
        });
      }
      for (const answer of slow.held) answer();
      await until(async () => (await look(requestId, 0, other)).body.delivery === 'failed');
      await until(async () => (await eventsOf('delivery', other)).length > 0);
      await sleep(500);
      const lists = (await redisCommand(other, 'KEYS', 'otp-login:{admission}:*')) as string[];
      const lengthOf = (kind: string): Promise<unknown> =>
        redisCommand(
          other,
          'LLEN',
          lists.find((key) => key.includes(`:${kind}:`))!,
        );
      expect([await lengthOf('phone'), await lengthOf('forgiven')]).toEqual([2, 1]);
      expect(await eventsOf('delivery', other)).toHaveLength(1);
      expect(await totals(other)).toMatchObject({ sent: 3, failed: 1 });
      // The page is told so, whichever instance was first.
      const { body } = await look(requestId, 0, other);
      expect(Date.parse(body.resendAt as string) - Date.now()).toBeLessThan(1_000);
    } finally {
      await Promise.all(behind.map((instance) => instance.close()));
      slow.close();
    }
  });
});

describe('what an SMS costs', () => {
  it('more than SMS_PRICE_PAISE is in the totals, and alerts once', async () => {
    const other = await open({ SMS_PRICE_PAISE: '20' });
    const ids = [];
    for (let i = 0; i < 3; i += 1) ids.push(await send(freshNumber(), other));
    Object.assign(other.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: 0 });
    for (const id of ids) await untilShown(id, 'delivered', other);
    await until(async () => (await totals(other)).delivered === 3);
    expect(await totals(other)).toMatchObject({ sent: 3, delivered: 3, cost: 3 * 2_500 });
    expect((await eventsOf('delivery', other)).map(({ cost }) => cost)).toEqual(['500', '500', '500']);
    const alerts = other.instances[0]!.logs.filter((line) => line.includes('"alert":"sms_price"'));
    expect(alerts).toHaveLength(1);
    expect(JSON.parse(alerts[0]!)).toMatchObject({ level: 'error', pricePaise: 25 });
    const { body: metrics } = await call('GET', `${other.url}/metrics`);
    expect(metrics).toContain('otp_login_alerts_total{alert="sms_price"} 1');
    expect(metrics).toContain('otp_login_deliveries_total{delivery="delivered"} 3');
  });

  it('less is in the totals, and nobody is woken', async () => {
    const other = await open({ SMS_PRICE_PAISE: '30' });
    const requestId = await send(freshNumber(), other);
    Object.assign(other.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: 0 });
    await untilShown(requestId, 'delivered', other);
    await until(async () => (await totals(other)).delivered === 1);
    expect(await totals(other)).toMatchObject({ sent: 1, cost: 2_500 });
    expect(other.instances[0]!.logs.join('')).not.toContain('sms_price');
  });
});

describe('the ledger over HTTP', () => {
  it('holds what was sent, given back, verified and lost, and no phone number anywhere', async () => {
    const people = Array.from({ length: 4 }, freshNumber);
    const [verified, wrong, lost, refused] = people as [string, string, string, string];
    const requestId = await send(verified);
    expect((await verifyOtp(world.url, requestId, textedCode(world.upstream, verified))).status).toBe(200);
    const other = await send(wrong);
    const bad = wrongCode(textedCode(world.upstream, wrong));
    expect((await verifyOtp(world.url, other, bad)).status).toBe(400);
    world.upstream.fault({ on: 'send', fault: { kind: 'reset' } });
    expect((await sendOtp(world.url, lost)).body.delivery).toBe('unknown');
    world.upstream.fault({ on: 'send', fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } });
    expect((await sendOtp(world.url, refused)).status).toBe(503);

    await until(async () => (await events()).length >= 7);
    const all = await events();
    const sent = all.filter(({ event }) => event === 'sent');
    expect(all.map(({ event, delivery }) => [event, delivery].join(' ').trim()).sort()).toEqual([
      'delivery unknown',
      'refunded',
      'sent',
      'sent',
      'sent',
      'sent',
      'verified',
    ]);
    expect(all.find(({ event }) => event === 'verified')?.sms).toBe(sent[0]?.id);
    expect(all.find(({ event }) => event === 'delivery')?.sms).toBe(sent[2]?.id);
    expect(all.find(({ event }) => event === 'refunded')?.sms).toBe(sent[3]?.id);
    expect(new Set(sent.map(({ phone }) => phone)).size).toBe(4);
    for (const { phone } of sent) expect(phone).toMatch(/^[\w-]{22}$/);
    expect(await totals()).toMatchObject({ sent: 4, refunded: 1, verified: 1, unknown: 1, cost: 3 * 2_500 });

    const keys = (await redisCommand(world, 'KEYS', 'otp-login:{admission}:*')) as string[];
    let everything = keys.join(' ') + JSON.stringify(all);
    for (const key of keys) {
      const type = await redisCommand(world, 'TYPE', key);
      if (type === 'hash') everything += JSON.stringify(await redisCommand(world, 'HGETALL', key));
      if (type === 'list') everything += JSON.stringify(await redisCommand(world, 'LRANGE', key, '0', '-1'));
      if (type === 'string') everything += String(await redisCommand(world, 'GET', key));
    }
    for (const phoneNumber of people) expect(everything).not.toContain(phoneNumber.slice(3));
    // The number's series is there, four digits short of the number.
    expect(everything).toContain(`series:${verified.slice(3, 9)}`);
  });

  it('a login is in it even when the process ends at once', async () => {
    for (let round = 0; round < 5; round += 1) {
      const instance = await startInstance({
        REDIS_URL: world.redis.url,
        STARTMESSAGING_BASE_URL: world.upstream.url,
        STARTMESSAGING_CONTRACT: 'caller',
      });
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(instance.url, phoneNumber);
      const verified = await verifyOtp(instance.url, body.requestId, textedCode(world.upstream, phoneNumber));
      expect(verified.status).toBe(200);
      await instance.close();
      expect(await eventsOf('verified')).toHaveLength(round + 1);
    }
  });

  it('a login while Redis hangs is in it once', async () => {
    const phoneNumber = freshNumber();
    const requestId = await send(phoneNumber);
    await verifyOtp(world.url, requestId, textedCode(world.upstream, phoneNumber));
    world.redis.pause();
    // Its event is flushed into the hang, given up, and flushed again.
    await sleep(1_500);
    world.redis.resume();
    await until(async () => (await eventsOf('verified')).length > 0);
    await sleep(1_500);
    expect(await eventsOf('verified')).toHaveLength(1);
    expect(await totals()).toMatchObject({ verified: 1 });
  });
});
