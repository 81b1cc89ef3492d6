import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Redis } from 'ioredis';
import type { FaultScript } from '../../src/emulator/emulator';
import type * as usage from '../../src/ledger/usage';
import { admittedSendsKey, forgivenSendsKey, KEYS, keysOf, partsOf, requestIdOf } from '../support/keys';
import { metricOf } from '../support/metrics';
import { contentsOf } from '../support/redis-contents';
import { RedisProxy } from '../support/redis-proxy';
import { serviceModule } from '../support/service';
import {
  anotherInstance,
  call,
  freshNumber,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

/** Long enough for an SMS to stay where it is. */
const NEVER = 100_000_000;
/** One SMS to a number in ten minutes. */
const WINDOW_MS = 600_000;
const SETTINGS: Variables = { STARTMESSAGING_CONTRACT: 'caller', LIMIT_PHONE: '1/600' };

let world: World;
let raw: Redis;

beforeAll(async () => {
  world = await startWorld({ variables: SETTINGS, count: 3 });
  raw = new Redis(world.redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await world.close();
});
beforeEach(() => {
  world.upstream.reset();
  Object.assign(world.upstream.settings, { sentAfterMs: NEVER, deliveredAfterMs: NEVER });
});

/** A world of its own, for a test that needs other settings or totals that no other test adds to. */
async function inWorldOf(variables: Variables, test: (own: World) => Promise<void>): Promise<void> {
  const own = await startWorld({ variables: { ...SETTINGS, ...variables } });
  Object.assign(own.upstream.settings, { sentAfterMs: NEVER, deliveredAfterMs: NEVER });
  try {
    await test(own);
  } finally {
    await own.close();
  }
}

interface Sent {
  phoneNumber: string;
  requestId: string;
  /** Upstream's id of the SMS. */
  message: string;
}

async function send(of = world, phoneNumber = freshNumber()): Promise<Sent> {
  const answer = await sendOtp(of.url, phoneNumber);
  expect([answer.status, answer.body.delivery]).toEqual([200, 'accepted']);
  const message = of.upstream.lastMessageTo(phoneNumber)!.id;
  return { phoneNumber, requestId: answer.body.requestId as string, message };
}

const look = ({ requestId }: Pick<Sent, 'requestId'>, url = world.url): Promise<Answer> =>
  call('GET', `${url}/auth/otp/${requestId}`);

/** The time between two look-ups of one SMS has gone by. */
const letTimePass = ({ requestId }: Pick<Sent, 'requestId'>, of = world): Promise<unknown> =>
  redisCommand(of, 'HSET', keysOf(requestId).challenge, 'looked', '0');

/** How often the service asked upstream what became of this SMS. */
const lookUps = ({ message }: Sent, of = world): number =>
  of.upstream.calls.filter(({ path }) => path === `/messages/${message}`).length;

/** Asks until the page would show this delivery. */
async function untilShown(sent: Pick<Sent, 'requestId'>, delivery: string, of = world): Promise<Answer> {
  let answer!: Answer;
  await until(async () => {
    answer = await look(sent, of.url);
    if (answer.body.delivery === delivery) return true;
    await letTimePass(sent, of);
    return false;
  }, `delivery ${delivery}`);
  return answer;
}

const failing = ({ phoneNumber }: Pick<Sent, 'phoneNumber'>, status = 'failed'): FaultScript => ({
  on: 'message',
  phoneNumber,
  fault: { kind: 'delivery', status, failureReason: 'ABSENT_SUBSCRIBER' },
});

/** The ledger's stream, the oldest first. */
async function events(of = world): Promise<Record<string, string>[]> {
  const entries = (await redisCommand(of, 'XRANGE', KEYS.ledger, '-', '+')) as [string, string[]][];
  return entries.map(([id, flat]) => ({
    id,
    ...Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]!]] : []))),
  }));
}

/** What the ledger says of the SMS of one request, without the line that it was sent. */
async function outcomesOf(
  { requestId }: Pick<Sent, 'requestId'>,
  of = world,
): Promise<Record<string, string>[]> {
  const all = await events(of);
  const sms = all.filter(({ event, phone }) => event === 'sent' && phone === partsOf(requestId).pseudonym);
  return all.filter((event) => sms.some(({ id }) => id === event.sms));
}

/** The totals of a world; of two days, for a test may begin before midnight and end after it. */
async function totals(of: World): Promise<usage.Usage> {
  const { UsageReader, sum } = serviceModule<typeof usage>('ledger/usage');
  const [yesterday, today] = [Date.now() - 86_400_000, Date.now()].map((time) =>
    UsageReader.dayOf(new Date(time)),
  );
  return sum(await of.instances[0]!.app.get(UsageReader, { strict: false }).read(yesterday!, today!));
}

/** When the page is told that another SMS may be asked for. */
const resendAt = ({ body }: Answer): number => Date.parse(body.resendAt as string);

/** Sends and says when another SMS may be asked for: `wait` after a moment of the call. */
async function expectResendIn(wait: number, ask: () => Promise<Answer>): Promise<Answer> {
  const before = Date.now();
  const answer = await ask();
  expect(resendAt(answer)).toBeGreaterThanOrEqual(before + wait);
  // A window includes both of its edges.
  expect(resendAt(answer)).toBeLessThanOrEqual(Date.now() + wait + 1);
  return answer;
}

/** An upstream that answers questions about an SMS when the test says so. */
async function holdingUpstream(): Promise<{
  url: string;
  held: ((status: string) => void)[];
  close: () => void;
}> {
  const held: ((status: string) => void)[] = [];
  const server = createServer((request, response) => {
    const id = request.url!.split('/').at(-1);
    held.push((status) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ success: true, data: { id, status, costAmount: '0.2500' } }));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, held, close };
}

/** Instances over the world's Redis, whose upstream answers when the test says so. */
async function behindHoldingUpstream(
  of: World,
  count: number,
  settings: Variables,
  test: (instances: Instance[], held: ((status: string) => void)[]) => Promise<void>,
): Promise<void> {
  const slow = await holdingUpstream();
  const variables = {
    ...SETTINGS,
    ...settings,
    STARTMESSAGING_BASE_URL: slow.url,
    UPSTREAM_TIMEOUT_MS: '45000',
    UPSTREAM_DEADLINE_MS: '45000',
  };
  const instances = await Promise.all(Array.from({ length: count }, () => anotherInstance(of, variables)));
  try {
    await test(instances, slow.held);
  } finally {
    slow.close();
    await Promise.all(instances.map((instance) => instance.close()));
  }
}

describe('the page that waits for its code', () => {
  it('GET /auth/otp/{requestId} shows an SMS as accepted, sent and delivered, and then nothing is looked up any more', async () => {
    const { settings } = world.upstream;
    const sent = await send();
    const { challenge } = keysOf(sent.requestId);
    await until(async () => {
      const { status, body } = await look(sent);
      expect([status, body.state, body.delivery]).toEqual([200, 'pending', 'accepted']);
      return lookUps(sent) > 0;
    }, 'the first look-up');
    settings.sentAfterMs = 0;
    await untilShown(sent, 'sent');
    settings.deliveredAfterMs = 0;
    await untilShown(sent, 'delivered');
    await letTimePass(sent);
    for (const { url } of world.instances) expect((await look(sent, url)).body.delivery).toBe('delivered');
    // The store notes each look-up that it lets through.
    expect(await raw.hget(challenge, 'looked')).toBe('0');
    await until(async () => (await outcomesOf(sent)).length > 0, 'the outcome in the ledger');
    expect(await outcomesOf(sent)).toMatchObject([{ event: 'delivery', delivery: 'delivered', cost: '0' }]);
  });

  it('GET /auth/otp/{requestId} answers before upstream has told of the SMS', async () => {
    const sent = await send();
    await behindHoldingUpstream(world, 1, {}, async ([instance], held) => {
      const { status, body } = await look(sent, instance!.url);
      expect([status, body.delivery]).toEqual([200, 'accepted']);
      await until(() => held.length === 1, 'the look-up');
      // Upstream was still asked when the answer came: it is answered only now, and what it says counts.
      held[0]!('sent');
      await until(async () => (await look(sent, instance!.url)).body.delivery === 'sent', 'the delivery');
      expect(instance!.logs.join('')).not.toContain('The state of an SMS could not be read');
    });
  });

  it('the service looks up an SMS again after a look-up that upstream never answered', async () => {
    const sent = await send();
    const { phoneNumber } = sent;
    world.upstream.fault({ on: 'message', phoneNumber, fault: { kind: 'timeout' } });
    await look(sent);
    await until(() => lookUps(sent) === 1, 'the look-up that is never answered');
    world.upstream.settings.sentAfterMs = 0;
    await untilShown(sent, 'sent');
    expect(lookUps(sent)).toBeGreaterThanOrEqual(2);
  });

  it('the service looks up an SMS once a second at most for 180 requests over three instances', async () => {
    const sent = await send();
    const redisTime = async (): Promise<number> => Number((await raw.time())[0]);
    const started = await redisTime();
    const ROUNDS = 3;
    for (let round = 1; round <= ROUNDS; round++) {
      const answers = await Promise.all(
        Array.from({ length: 60 }, (_, i) => look(sent, world.instances[i % 3]!.url)),
      );
      for (const { status } of answers) expect(status).toBe(200);
      await until(() => lookUps(sent) >= round, `look-up ${round}`);
      if (round < ROUNDS) await letTimePass(sent);
    }
    // By the clock of Redis, whose first second had begun already.
    expect(lookUps(sent)).toBeLessThanOrEqual(ROUNDS + (await redisTime()) - started + 1);
  });

  it('the service asks upstream about an SMS by upstream’s id, and not at all for an unknown request id', async () => {
    const sent = await send();
    await look(sent);
    await until(() => lookUps(sent) === 1, 'the look-up');
    const calls = world.upstream.calls.length;
    for (const requestId of ['A'.repeat(64), requestIdOf(partsOf(sent.requestId).pseudonym), 'x'])
      expect((await look({ requestId })).status).toBe(410);
    // What upstream would be asked, it would be asked before this.
    const next = await send();
    expect(world.upstream.calls.slice(calls).map(({ path }) => path)).toEqual(['/otp/send']);
    await untilShown(next, 'accepted');
  });

  it('a failed look-up changes nothing, and the next one tells of the SMS', async () => {
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
    ];
    await inWorldOf({}, async (own) => {
      const expectAsSent = (answer: Answer, sent: Answer, delivery: string): void => {
        // The seconds of a status are those of its own moment.
        const { state, pollAfterSeconds, expiresInSeconds, resendInSeconds, ...rest } = answer.body;
        const seconds = { expiresInSeconds, resendInSeconds };
        expect([state, { requestId: sent.body.requestId, ...rest, ...seconds }]).toEqual([
          'pending',
          { ...sent.body, delivery, ...seconds },
        ]);
        expect(pollAfterSeconds).toBeGreaterThan(0);
      };
      for (const fault of faults) {
        const phoneNumber = freshNumber();
        const sent = await sendOtp(own.url, phoneNumber);
        own.upstream.fault({ on: 'message', phoneNumber, fault });
        const message = own.upstream.lastMessageTo(phoneNumber)!.id;
        const { requestId } = sent.body as Sent;
        expectAsSent(await look({ requestId }, own.url), sent, 'accepted');
        await until(() => lookUps({ phoneNumber, requestId, message }, own) === 1, 'the failed look-up');
        own.upstream.settings.sentAfterMs = 0;
        // A look-up that was read as delivered or failed would be the last.
        expectAsSent(await untilShown({ requestId }, 'sent', own), sent, 'sent');
        own.upstream.settings.sentAfterMs = NEVER;
      }
      expect((await events(own)).filter(({ event }) => event !== 'sent')).toEqual([]);
    });
  });

  it('an SMS in a state that the service does not know stays accepted', async () => {
    const sent = await send();
    world.upstream.fault(failing(sent, 'a state that nobody knows'));
    await look(sent);
    // The second look-up goes out when the first has been read, for both go over one connection.
    await until(async () => {
      await letTimePass(sent);
      expect((await look(sent)).body.delivery).toBe('accepted');
      return lookUps(sent) >= 3;
    }, 'more look-ups');
    expect(await outcomesOf(sent)).toEqual([]);
  });

  it('the service looks up nothing under the provider contract, because there is no message', async () => {
    await inWorldOf({ STARTMESSAGING_CONTRACT: 'provider' }, async (own) => {
      const sent = await send(own);
      for (let i = 0; i < 2; i++) expect((await look(sent, own.url)).body.delivery).toBe('accepted');
      // The store notes each look-up that it lets through.
      expect(await redisCommand(own, 'HGET', keysOf(sent.requestId).challenge, 'looked')).toBeNull();
      expect(lookUps(sent, own)).toBe(0);
    });
  });

  it('an instance makes sixteen look-ups at once at most, and the others are made later', async () => {
    const sent: Sent[] = [];
    for (let i = 0; i < 20; i++) sent.push(await send());
    await behindHoldingUpstream(world, 1, {}, async ([instance], held) => {
      let waiting = sent;
      const lookAtAll = async (): Promise<Answer[]> => {
        await Promise.all(waiting.map((each) => letTimePass(each)));
        return Promise.all(waiting.map((each) => look(each, instance!.url)));
      };
      for (const { status } of await lookAtAll()) expect(status).toBe(200);
      await until(() => held.length >= 16, 'sixteen look-ups');
      for (const { status } of await lookAtAll()) expect(status).toBe(200);
      expect(held).toHaveLength(16);
      let answered = 0;
      await until(async () => {
        while (answered < held.length) held[answered++]!('sent');
        const answers = await lookAtAll();
        waiting = waiting.filter((_, i) => answers[i]!.body.delivery !== 'sent');
        return waiting.length === 0;
      }, 'the delivery of all');
    });
  });
});

describe('an SMS that the carrier failed', () => {
  it.each(['failed', 'expired'])(
    'an SMS in the state %s is shown as failed, and the number may be sent another one at once',
    async (status) => {
      const sent = await send();
      const { phoneNumber, requestId } = sent;
      expect(statusAndCode(await sendOtp(world.url, phoneNumber))).toEqual([429, 'rate_limited']);
      world.upstream.fault(failing(sent, status));
      const shown = await expectResendIn(0, () => untilShown(sent, 'failed'));
      expect(shown.body.state).toBe('pending');
      const again = await expectResendIn(WINDOW_MS, () => sendOtp(world.url, phoneNumber));
      expect(again.status).toBe(200);
      expect((await sendOtp(world.url, phoneNumber)).status).toBe(429);
      // The failed SMS may arrive all the same: its code still works.
      const code = textedCode(world.upstream, phoneNumber);
      expect((await verifyOtp(world.url, requestId, code)).status).toBe(200);
      const deliveries = async (): Promise<unknown[]> =>
        (await outcomesOf(sent)).filter(({ event }) => event === 'delivery');
      await until(async () => (await deliveries()).length > 0, 'the outcome in the ledger');
      expect(await deliveries()).toMatchObject([{ delivery: 'failed' }]);
    },
  );

  it('an SMS that upstream already calls failed in its answer to the send does not count', async () => {
    const phoneNumber = freshNumber();
    const data = { otpRequestId: 'o-1', messageId: 'm-1', status: 'failed', phoneNumber };
    world.upstream.fault({ on: 'send', fault: { kind: 'raw', status: 201, body: { success: true, data } } });
    const sent = await sendOtp(world.url, phoneNumber);
    expect([sent.status, sent.body.delivery]).toEqual([200, 'failed']);
    expect((await sendOtp(world.url, phoneNumber)).status).toBe(200);
  });

  it('send-otp says after two failed SMS when the other limits allow the next one', async () => {
    await inWorldOf({ LIMIT_PHONE: '1/60,2/600' }, async (own) => {
      const phoneNumber = freshNumber();
      for (let i = 0; i < 2; i++) {
        const sent = await send(own, phoneNumber);
        own.upstream.fault(failing(sent));
        await untilShown(sent, 'failed', own);
      }
      const third = await expectResendIn(60_000, () => sendOtp(own.url, phoneNumber));
      expect(third.status).toBe(200);
    });
  });

  it('a number is forgiven five failed SMS a day, and the sixth counts', async () => {
    const phoneNumber = freshNumber();
    let sentBefore = 0;
    for (let i = 1; i <= 6; i += 1) {
      sentBefore = Date.now();
      const sent = await send(world, phoneNumber);
      const sentAfter = Date.now();
      world.upstream.fault(failing(sent));
      if (i <= 5) await expectResendIn(0, () => untilShown(sent, 'failed'));
      else {
        const shown = resendAt(await untilShown(sent, 'failed'));
        expect(shown).toBeGreaterThanOrEqual(sentBefore + WINDOW_MS);
        expect(shown).toBeLessThanOrEqual(sentAfter + WINDOW_MS + 1);
      }
    }
    const { status, headers } = await sendOtp(world.url, phoneNumber);
    const left = (sentBefore + WINDOW_MS - Date.now()) / 1_000;
    expect(status).toBe(429);
    expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(left);
    // Another number is forgiven five of its own.
    const other = await send();
    world.upstream.fault(failing(other));
    await untilShown(other, 'failed');
    expect((await sendOtp(world.url, other.phoneNumber)).status).toBe(200);
  });

  it('a failed SMS is forgiven once when three instances hear of it at the same time', async () => {
    const limits = { LIMIT_PHONE: '3/600' };
    await inWorldOf(limits, async (own) => {
      const sent = await send(own);
      for (let i = 0; i < 2; i += 1) await send(own, sent.phoneNumber);
      let heard = 0;
      await behindHoldingUpstream(own, 3, limits, async (instances, held) => {
        for (const [i, { url }] of instances.entries()) {
          await letTimePass(sent, own);
          await look(sent, url);
          await until(() => held.length > i, 'the look-up');
        }
        heard = Date.now();
        for (const answer of held) answer('failed');
        const DELIVER =
          'otp_login_redis_command_duration_seconds_count{command="record-delivery",outcome="answered"}';
        for (const { url } of instances)
          await until(async () => (await metricOf(url, DELIVER)) === 1, 'the end of the look-up');
      });
      // The instances that heard of it are closed, and have written everything.
      const pseudonym = partsOf(sent.requestId).pseudonym;
      expect([
        await redisCommand(own, 'LLEN', admittedSendsKey(pseudonym)),
        await redisCommand(own, 'LLEN', forgivenSendsKey(pseudonym)),
      ]).toEqual([2, 1]);
      expect(await outcomesOf(sent, own)).toMatchObject([{ event: 'delivery', delivery: 'failed' }]);
      expect(await totals(own)).toMatchObject({ sent: 3, failed: 1 });
      const shown = await untilShown(sent, 'failed', own);
      expect(resendAt(shown)).toBeGreaterThanOrEqual(heard);
      expect(resendAt(shown)).toBeLessThanOrEqual(Date.now());
    });
  });
});

describe('the price of an SMS', () => {
  it('a price above SMS_PRICE_PAISE is in the totals, and alerts once', async () => {
    await inWorldOf({ SMS_PRICE_PAISE: '20' }, async (own) => {
      const all: Sent[] = [];
      for (let i = 0; i < 3; i += 1) all.push(await send(own));
      Object.assign(own.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: 0 });
      for (const sent of all) await untilShown(sent, 'delivered', own);
      await until(async () => (await totals(own)).delivered === 3, 'the totals');
      expect(await totals(own)).toMatchObject({ sent: 3, delivered: 3, cost: 3 * 2_500 });
      const deliveries = (await events(own)).filter(({ event }) => event === 'delivery');
      expect(deliveries.map(({ cost }) => cost)).toEqual(['500', '500', '500']);
      const alerts = own.instances[0]!.logs.filter((line) => line.includes('"alert":"sms_price"'));
      expect(alerts).toHaveLength(1);
      expect(JSON.parse(alerts[0]!)).toMatchObject({ level: 'error', pricePaise: 25 });
      expect(await metricOf(own.url, 'otp_login_alerts_total{alert="sms_price"}')).toBe(1);
      expect(await metricOf(own.url, 'otp_login_deliveries_total{delivery="delivered"}')).toBe(3);
    });
  });

  it('a price below SMS_PRICE_PAISE is in the totals, and does not alert', async () => {
    await inWorldOf({ SMS_PRICE_PAISE: '30' }, async (own) => {
      const sent = await send(own);
      Object.assign(own.upstream.settings, { sentAfterMs: 0, deliveredAfterMs: 0 });
      await untilShown(sent, 'delivered', own);
      await until(async () => (await totals(own)).delivered === 1, 'the totals');
      expect(await totals(own)).toMatchObject({ sent: 1, cost: 2_500 });
      expect(own.instances[0]!.logs.join('')).not.toContain('sms_price');
    });
  });
});

describe('the ledger', () => {
  it('the ledger holds the sent, refunded, verified and lost SMS, and no phone number', async () => {
    await inWorldOf({}, async (own) => {
      const people = Array.from({ length: 4 }, freshNumber);
      const [verified, wrong, lost, refused] = people as [string, string, string, string];
      const { requestId } = await send(own, verified);
      expect((await verifyOtp(own.url, requestId, textedCode(own.upstream, verified))).status).toBe(200);
      const other = await send(own, wrong);
      const bad = wrongCode(textedCode(own.upstream, wrong));
      expect((await verifyOtp(own.url, other.requestId, bad)).status).toBe(400);
      own.upstream.fault({ on: 'send', fault: { kind: 'reset' } });
      expect((await sendOtp(own.url, lost)).body.delivery).toBe('unknown');
      own.upstream.fault({ on: 'send', fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } });
      expect((await sendOtp(own.url, refused)).status).toBe(503);

      await until(async () => (await events(own)).length >= 7, 'seven events');
      const all = await events(own);
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
      const expected = { sent: 4, refunded: 1, verified: 1, unknown: 1, cost: 3 * 2_500 };
      expect(await totals(own)).toMatchObject(expected);

      const text = JSON.stringify(await contentsOf(own.redis.url));
      for (const phoneNumber of people) expect(text).not.toContain(phoneNumber.slice(3));
      // The number's series is there, four digits short of the number.
      expect(text).toContain(`series:${verified.slice(3, 9)}`);
    });
  });

  it('the ledger holds a login although the instance ends at once', async () => {
    const instance = await anotherInstance(world, SETTINGS);
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(instance.url, phoneNumber);
    const verified = await verifyOtp(instance.url, body.requestId, textedCode(world.upstream, phoneNumber));
    expect(verified.status).toBe(200);
    await instance.close();
    expect(await outcomesOf(body as Sent)).toMatchObject([{ event: 'verified' }]);
  });

  it('the ledger holds a login once although Redis answered its write too late', async () => {
    const proxy = await RedisProxy.before(world.redis);
    const instance = await anotherInstance({ ...world, redis: proxy }, SETTINGS);
    const { phoneNumber, requestId } = await send({ ...world, url: instance.url });
    const write = proxy.trap('record', 'late');
    await verifyOtp(instance.url, requestId, textedCode(world.upstream, phoneNumber));
    await write.caught();
    await until(
      () => instance.logs.some((line) => line.includes('"command":"record"') && line.includes('failed')),
      'the write that is given up',
    );
    write.letGo();
    // It writes everything that it has not written yet.
    await instance.close();
    await proxy.close();
    expect(await outcomesOf({ requestId })).toMatchObject([{ event: 'verified' }]);
  });
});
