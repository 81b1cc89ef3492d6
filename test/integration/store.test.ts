import { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import { Logger } from '../../src/logging/logger';
import type { Draft } from '../../src/challenges/challenge';
import { Metrics } from '../../src/metrics/metrics';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import type { AdmissionControl } from '../../src/throttling/admission';
import { RedisThrottlerStorage } from '../../src/throttling/redis-throttler-storage';
import { admissionOver, admissionRequest } from '../support/applicant';
import { freePort } from '../support/free-port';
import { until } from '../support/hang';
import { holdTimers } from '../support/held-timers';
import { admittedSendsKey, keysOf, KEYS, partsOf, unknownRequestId } from '../support/keys';
import { type OtpSteps, otpSteps } from '../support/otp-steps';
import { outcome, outcomes, refusal, refusalCode } from '../support/outcomes';
import { identityOf, phoneNumber } from '../support/phone-number';
import { valuesIn } from '../support/redis-contents';
import { type RedisServer, startRedis } from '../support/redis-server';
import { MADE_HERE } from '../support/senders';
import { settings } from '../support/settings';
import { expectUnavailable, StepTimers } from '../support/step-timers';

const ADDRESS = '203.0.113.77';
const PERSON = phoneNumber('+919876543210');
/** An answer of 503 is promised within a second. */
const PROMISED_MS = 1_000;

/** What a replica of the service does over its store, and what it wrote to its log. */
interface Replica extends OtpSteps {
  store: Store;
  client: Redis;
  admission: AdmissionControl;
  addresses: RedisThrottlerStorage;
  logs: string[];
}

let redis: RedisServer;
/** A connection past the service. */
let raw: Redis;
/** No step is given up, and no connection left, before the test says so. */
let timers: StepTimers;
const closing: (() => unknown)[] = [];

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url, { retryStrategy: () => 20, disconnectTimeout: 50 });
  raw.on('error', () => undefined); // Redis goes away on purpose here.
});
beforeEach(async () => {
  if (redis.pid === undefined) await redis.restart();
  await until(async () => Boolean(await raw.ping()), 'the connection past the service');
  await raw.config('SET', 'maxmemory', '0');
  await raw.replicaof('NO', 'ONE');
  await raw.flushall();
  await raw.script('FLUSH');
  timers = StepTimers.hold();
});
afterEach(async () => {
  redis.resume();
  for (const close of closing.splice(0).reverse()) await close();
  timers.release();
});
afterAll(async () => {
  raw.disconnect();
  await redis.stop();
});

/** A replica that begins to connect. */
function replica(url: string, variables: Environment = {}): Replica {
  const config = settings({ LIMIT_PHONE: '5/3600', BUDGET_PAISE_PER_DAY: '1000000', ...variables });
  const logs: string[] = [];
  const logger = new Logger('trace', { write: (line: string) => void logs.push(line) });
  const client = redisClient(url) as Redis;
  const store = new Store(client, logger);
  store.connect();
  closing.push(() => {
    store.close();
  });
  return {
    ...otpSteps(config, store),
    store,
    client,
    logs,
    admission: admissionOver(config, store, new Metrics(), logger),
    addresses: new RedisThrottlerStorage(config, store),
  };
}

const ready = ({ store }: Replica): Promise<void> =>
  until(() => store.reached && store.available, 'the connection to Redis');
const lost = ({ store }: Replica): Promise<void> => until(() => !store.available, 'the loss of Redis');

async function connected(variables: Environment = {}): Promise<Replica> {
  const service = replica(redis.url, variables);
  await ready(service);
  return service;
}

const linesWith = ({ logs }: Replica, text: string): number =>
  logs.filter((line) => line.includes(text)).length;

/** Resolves when so many tries to connect have failed, so that the pauses between them have grown. */
const tried = (service: Replica, times: number): Promise<void> =>
  until(() => linesWith(service, 'Redis connection failed') >= times, `${times} tries to connect`);

const askAddress = async ({ addresses }: Replica, address = ADDRESS, count = 100): Promise<number> =>
  (await addresses.admit('send', address, [{ count, seconds: 3_600 }])).waitMs;

async function open({ challenges }: Replica): Promise<Draft> {
  const pending = await challenges.create(identityOf(PERSON), MADE_HERE);
  await challenges.activate(pending, { delivery: 'accepted' }, 0);
  return pending;
}

/** Runs the calls while Redis is paused, and returns when they are on the wire. */
async function onTheWire<Calls>({ client }: Replica, run: () => Calls): Promise<Calls> {
  redis.pause();
  const before = client.stream.bytesWritten;
  const calls = run();
  await until(() => client.stream.bytesWritten > before, 'the commands on the wire');
  return calls;
}

/** What was sent before on the connection of this replica has been answered, and what came of it, too. */
async function barrier({ store }: Replica): Promise<void> {
  for (let i = 0; i < 2; i += 1) await store.command('ping', (client) => client.ping());
}

const contents = async (): Promise<Record<string, unknown>> => valuesIn(raw, (await raw.keys('*')).sort());

describe('a forgotten script', () => {
  it('a step runs once, although Redis forgot its script', async () => {
    const service = await connected();
    for (let times = 1; times <= 3; times += 1) {
      await raw.script('FLUSH');
      await service.admission.admit(admissionRequest('person'));
      expect(await raw.llen(admittedSendsKey('person'))).toBe(times);
    }
    await raw.script('FLUSH');
    const draft = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    await raw.script('FLUSH');
    await service.challenges.activate(draft, { delivery: 'accepted' }, 0);
    await raw.script('FLUSH');
    const attempt = await service.tries.take(draft.requestId);
    expect(attempt.attemptsLeft).toBe(2);
    await raw.script('FLUSH');
    expect(await service.tries.consume(attempt)).toBe(true);
    expect(service.logs.join('')).not.toContain('NOSCRIPT');
  });

  it('300 concurrent calls of three forgotten scripts over three connections are counted exactly', async () => {
    const services = [await connected(), await connected(), await connected()];
    for (let round = 0; round < 2; round += 1) {
      await raw.flushall();
      const { requestId } = await open(services[0]!);
      await raw.script('FLUSH');
      const calls = Array.from({ length: 100 }, (_, i) => {
        const service = services[i % 3]!;
        return {
          sms: service.admission.admit(admissionRequest('person')),
          wait: askAddress(service, ADDRESS, 7),
          attempt: service.tries.take(requestId),
        };
      });
      const [sms, attempts, waits] = await Promise.all([
        outcomes(calls.map((each) => each.sms)),
        outcomes(calls.map((each) => each.attempt)),
        Promise.all(calls.map((each) => each.wait)),
      ]);
      expect(sms).toEqual({ done: 5, rate_limited: 95 });
      expect(attempts).toEqual({ done: 3, otp_attempts_exhausted: 97 });
      expect(waits.filter((wait) => wait === 0)).toHaveLength(7);
    }
  });

  it('300 concurrent calls after a restart of Redis are counted exactly', async () => {
    const service = await connected();
    expect(await askAddress(service, ADDRESS, 1)).toBe(0);
    await redis.restart();
    await lost(service);
    await ready(service);
    const waits = await Promise.all(Array.from({ length: 300 }, () => askAddress(service, ADDRESS, 7)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(7);
  });
});

describe('a killed Redis', () => {
  it('each step answers store_unavailable at once while Redis is killed', async () => {
    const service = await connected();
    const draft = await open(service);
    const { requestId } = draft;
    const attempt = await service.tries.take(requestId);
    const admitted = await service.admission.admit(admissionRequest('person'));
    await redis.kill();
    // No timer ends here, so none of them is waited for.
    for (let times = 0; times < 3; times += 1) {
      await expectUnavailable([
        askAddress(service),
        service.admission.admit(admissionRequest('person')),
        service.admission.refund(admitted),
        service.challenges.create(identityOf(PERSON), MADE_HERE),
        service.challenges.activate(draft, { delivery: 'accepted' }, 0),
        service.challenges.reassign(draft, MADE_HERE),
        service.tries.take(requestId),
        service.tries.consume(attempt),
        service.tries.giveBack(attempt),
      ]);
    }
    expect(linesWith(service, 'Redis command failed')).toBe(27);
  });

  it('the store connects again by itself after several failed tries', async () => {
    const service = await connected();
    await redis.kill();
    await expectUnavailable([askAddress(service)]);
    await tried(service, 3);
    await expectUnavailable([askAddress(service)]);
    await redis.restart();
    await ready(service);
    expect(await askAddress(service)).toBe(0);
  });

  it('the store counts as reached after Redis was killed, but not as available', async () => {
    const service = await connected();
    expect([service.store.reached, service.store.available]).toEqual([true, true]);
    await redis.kill();
    await lost(service);
    expect(service.store.reached).toBe(true);
  });

  it('a step that failed before or during an outage of Redis does not run later', async () => {
    const service = await connected();
    const admit = (name: string): Promise<unknown>[] =>
      Array.from({ length: 20 }, (_, i) => service.admission.admit(admissionRequest(`${name}-${i}`)));
    const before = await onTheWire(service, () => admit('before'));
    await redis.kill();
    await expectUnavailable(before);
    await expectUnavailable(admit('meanwhile'));
    await redis.restart();
    await ready(service);
    await service.admission.admit(admissionRequest('after'));
    await barrier(service);
    expect(await raw.keys(admittedSendsKey('*'))).toEqual([admittedSendsKey('after')]);
  });

  it('a new connection is not ended by the timer of a connection that was lost under a command', async () => {
    const service = await connected();
    const inFlight = await onTheWire(service, () => [askAddress(service), askAddress(service)]);
    expect(timers.connectionsWait).toBe(true);
    await redis.kill();
    await expectUnavailable(inFlight);
    await redis.restart();
    await ready(service);
    const lines = service.logs.length;
    timers.leaveConnections();
    expect(await askAddress(service)).toBe(0);
    await barrier(service);
    expect(service.logs.slice(lines)).toEqual([]);
  });
});

describe('a paused Redis', () => {
  it('each of 50 steps answers store_unavailable within a second while Redis is paused', async () => {
    const service = await connected();
    await askAddress(service);
    redis.pause();
    const earlier = timers.stepMs;
    await timers.giveUp(Array.from({ length: 50 }, () => askAddress(service)));
    expect(timers.stepMs - earlier).toBeLessThan(PROMISED_MS);
    redis.resume();
    await ready(service);
    expect(await askAddress(service, '203.0.113.78')).toBe(0);
  });

  it('steps that Redis carries out after they were given up grant nothing twice', async () => {
    const service = await connected({ BUDGET_PAISE_PER_DAY: '100' });
    const { requestId, nonce } = await open(service);
    // Without scopes, because admission counts nothing before it judges a scope whose time mark has expired.
    const admit = (): Promise<unknown> => service.admission.admit(admissionRequest('person', { scopes: [] }));
    await admit();
    // Redis knows every script by now: one that it has to be sent first is not, once its caller was answered.
    await refusal(service.tries.take(unknownRequestId()));
    await askAddress(service, '203.0.113.79', 7);
    redis.pause();
    await timers.giveUp([
      ...Array.from({ length: 20 }, admit),
      ...Array.from({ length: 20 }, () => service.tries.take(requestId)),
      ...Array.from({ length: 20 }, () => askAddress(service, ADDRESS, 7)),
    ]);
    redis.resume();
    await ready(service);

    // 100 paise pay for four SMS. The given up steps took three of them, and their callers got none.
    await refusal(admit());
    const held = await contents();
    expect(await raw.llen(admittedSendsKey('person'))).toBe(4);
    const charged = Object.values(await raw.hgetall(KEYS.quarters));
    expect(charged.reduce((sum, paise) => sum + Number(paise), 0)).toBe(100);
    expect(await askAddress(service, ADDRESS, 7)).toBeGreaterThan(0);
    expect(await refusalCode(service.tries.take(requestId))).toBe('otp_attempts_exhausted');
    expect(service.codes.derive(PERSON, nonce)).toMatch(/^\d{6}$/);
    for (const key of Object.keys(held)) expect(await raw.pttl(key)).toBeGreaterThan(0);
  });

  it('a step that was given up does not send its script after Redis did not know it', async () => {
    const service = await connected();
    redis.pause();
    await timers.giveUp([askAddress(service)]);
    redis.resume();
    await ready(service);
    await barrier(service);
    expect(await raw.keys('*')).toEqual([]);
    expect(await askAddress(service)).toBe(0);
  });

  it('the store leaves a silent Redis, queues nothing, and connects again when Redis answers', async () => {
    const service = await connected();
    redis.pause();
    await timers.giveUp([service.admission.admit(admissionRequest('sent'))]);
    timers.leaveConnections();
    await lost(service);
    // No timer ends here: they do not wait.
    await expectUnavailable(
      Array.from({ length: 20 }, (_, i) => service.admission.admit(admissionRequest(`queued-${i}`))),
    );
    redis.resume();
    await ready(service);
    await service.admission.admit(admissionRequest('after'));
    await barrier(service);
    expect(await raw.keys(admittedSendsKey('queued*'))).toEqual([]);
    expect(await raw.llen(admittedSendsKey('after'))).toBe(1);
    expect(await raw.llen(admittedSendsKey('sent'))).toBeLessThanOrEqual(1);
  });
});

describe('a Redis without memory', () => {
  it('each step answers store_unavailable and writes nothing when the memory of Redis is full', async () => {
    // The list of the whole service lives for longer than the test.
    const service = await connected({ LIMIT_GLOBAL: '100/3600' });
    const { requestId } = await open(service);
    const pending = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    const attempt = await service.tries.take(requestId);
    const admitted = await service.admission.admit(admissionRequest('person'));
    await askAddress(service);
    await raw.config('SET', 'maxmemory', '1');

    const before = await contents();
    const steps: (() => Promise<unknown>)[] = [
      () => askAddress(service),
      () => askAddress(service, '2001:db8::1'),
      () => service.admission.admit(admissionRequest('person')),
      () => service.admission.admit(admissionRequest('another')),
      () => service.admission.refund(admitted),
      () => service.challenges.create(identityOf(PERSON), MADE_HERE),
      () => service.challenges.activate(pending, { delivery: 'accepted' }, 0),
      () => service.tries.take(requestId),
      () => service.tries.consume(attempt),
    ];
    for (const step of steps) {
      await expectUnavailable([step()]);
      expect(await contents()).toEqual(before);
    }

    await raw.config('SET', 'maxmemory', '0');
    await service.challenges.activate(pending, { delivery: 'accepted' }, 0);
    expect(await service.tries.consume(attempt)).toBe(true);
    expect(await askAddress(service)).toBe(0);
  });

  it('an attempt is given back wholly or not at all when the memory of Redis is full', async () => {
    const service = await connected();
    const { requestId } = await open(service);
    const attempt = await service.tries.take(requestId);
    await raw.config('SET', 'maxmemory', '1');
    const given = (await outcome(service.tries.giveBack(attempt))) === 'done';
    await raw.config('SET', 'maxmemory', '0');
    expect(await raw.llen(keysOf(requestId).failed)).toBe(given ? 0 : 1);
    expect(await raw.hget(keysOf(requestId).challenge, 'attempts')).toBe(given ? '3' : '2');
  });

  it('a send is admitted wholly or not at all when the memory of Redis is full and an old budget is deleted first', async () => {
    const service = await connected();
    await raw.hset(KEYS.quarters, '1', '25');
    await raw.config('SET', 'maxmemory', '1');
    const admitted = (await outcome(service.admission.admit(admissionRequest('person')))) === 'done';
    await raw.config('SET', 'maxmemory', '0');
    expect(await raw.llen(admittedSendsKey('person'))).toBe(admitted ? 1 : 0);
    expect(await raw.llen(KEYS.serviceLimit)).toBe(admitted ? 1 : 0);
    const charged = await raw.hgetall(KEYS.quarters);
    delete charged['1'];
    expect(Object.values(charged)).toEqual(admitted ? ['25'] : []);
  });
});

describe('a demoted Redis', () => {
  it('each step answers store_unavailable while Redis is a replica, and works when it is a primary again', async () => {
    const service = await connected();
    const { requestId } = await open(service);
    const before = await contents();
    await raw.replicaof('127.0.0.1', await freePort());
    for (const step of [
      () => askAddress(service),
      () => service.admission.admit(admissionRequest('person')),
      () => service.challenges.create(identityOf(PERSON), MADE_HERE),
      () => service.tries.take(requestId),
    ]) {
      await expectUnavailable([step()]);
      await ready(service);
    }
    expect(service.logs.join('')).toContain('READONLY');
    expect(await contents()).toEqual(before);

    await raw.replicaof('NO', 'ONE');
    await ready(service);
    expect((await service.tries.take(requestId)).attemptsLeft).toBe(2);
  });

  it('the store leaves a demoted Redis for a new connection', async () => {
    const service = await connected();
    await raw.replicaof('127.0.0.1', await freePort());
    expect(linesWith(service, 'Redis is reached')).toBe(1);
    await expectUnavailable([askAddress(service)]);
    await until(() => linesWith(service, 'Redis is reached') > 1, 'a new connection');
  });
});

describe('a Redis that is not there yet', () => {
  it('the store finds a Redis that starts later than the service', async () => {
    const port = await freePort();
    const service = replica(`redis://127.0.0.1:${port}`);
    await expectUnavailable([askAddress(service), service.challenges.create(identityOf(PERSON), MADE_HERE)]);
    await tried(service, 3);
    await expectUnavailable([askAddress(service)]);
    expect([service.store.reached, service.store.available]).toEqual([false, false]);

    const late = await startRedis({ port });
    closing.push(() => late.stop());
    await ready(service);
    expect(service.store.reached).toBe(true);
    expect(await askAddress(service)).toBe(0);
  });

  it('a store that was closed does not try to connect any more', async () => {
    jest.restoreAllMocks();
    // The pause before the next try: between 50 and 1500 ms, and no whole number.
    const pauses = holdTimers((ms) => !Number.isInteger(ms));
    const url = `redis://127.0.0.1:${await freePort()}`;
    const service = replica(url);
    await until(() => pauses.delays.length > 0, 'the pause before the next try');
    service.store.close();
    const lines = service.logs.length;
    pauses.fire();
    // Another one that begins now fails after a try that the closed one would have made.
    await tried(replica(url), 1);
    expect(service.logs.slice(lines).filter((line) => line.includes('failed'))).toEqual([]);
    await expectUnavailable([askAddress(service)]);
  });
});

describe('a Redis that answers with an error', () => {
  it('the log names a step that failed, and none of its arguments', async () => {
    const service = await connected();
    const { requestId, nonce } = await open(service);
    await raw.set(keysOf(requestId).codes, 'not a hash');
    await raw.set(admittedSendsKey('pseudonym-of-somebody'), 'not a list');
    await expectUnavailable([
      service.challenges.create(identityOf(PERSON), MADE_HERE),
      service.tries.take(requestId),
      service.admission.admit(admissionRequest('pseudonym-of-somebody')),
    ]);
    const log = service.logs.join('');
    for (const step of ['create', 'take-attempt', 'admission']) expect(log).toContain(`"command":"${step}"`);
    expect(log).toContain('WRONGTYPE');
    const tag = partsOf(requestId).pseudonym;
    for (const argument of [PERSON.slice(1), tag, requestId, nonce, 'pseudonym-of-somebody', 'evalsha'])
      expect(log).not.toContain(argument);
  });

  it('the log holds no argument of a command that Redis repeats in its error', async () => {
    const guarded = await startRedis({ args: ['--rename-command', 'EVALSHA', 'FORBIDDEN'] });
    closing.push(() => guarded.stop());
    const service = replica(guarded.url);
    await until(() => service.store.available, 'the connection to Redis');
    await expectUnavailable([service.admission.admit(admissionRequest('pseudonym-of-somebody'))]);
    const log = service.logs.join('');
    expect(log).toContain('unknown command');
    expect(log).not.toContain('pseudonym-of-somebody');
  });

  it('the log holds no password that Redis accepts or refuses', async () => {
    const guarded = await startRedis({ args: ['--requirepass', 'right-password-of-the-store'] });
    closing.push(() => guarded.stop());
    const address = `127.0.0.1:${guarded.port}`;
    const refused = replica(`redis://:wrong-password-of-mine@${address}`);
    const without = replica(`redis://${address}`);
    const welcome = replica(`redis://default:right%2Dpassword-of-the-store@${address}`);
    await ready(welcome);
    expect(await askAddress(welcome)).toBe(0);
    await until(() => refused.logs.length > 0 && without.logs.length > 0, 'the refusals in the log');
    await expectUnavailable([askAddress(refused), askAddress(without)]);
    for (const { logs } of [refused, without, welcome])
      expect(logs.join('')).not.toMatch(/wrong-password|right-password/);
  });
});
