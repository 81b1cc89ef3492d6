import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { ApiError } from '../../src/errors/api-error';
import { Logger } from '../../src/logging/logger';
import { type Attempt, Attempts } from '../../src/otp/attempts';
import { ChallengeRecords } from '../../src/otp/challenge-records';
import { Claims, newOwner } from '../../src/otp/claims';
import { Challenges, type PendingChallenge } from '../../src/otp/challenges';
import { Codes } from '../../src/otp/codes';
import type { Sent } from '../../src/otp/otp-provider';
import type { OtpRequest } from '../../src/otp/otp-request';
import { PendingChallenges } from '../../src/otp/pending-challenges';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { type RedisServer, startRedis } from '../support/redis-server';
import { MADE_HERE, MADE_UPSTREAM } from '../support/senders';

const CONNECTIONS = 3;
const OLD_SECRET = 'challenges-old-secret-0123456789-abc';
const NEW_SECRET = 'challenges-new-secret-0123456789-abc';
const LIFE_MS = 600_000;

let redis: RedisServer;
let raw: Redis;
let stores: Store[];
const logger = new Logger('trace', { write: () => undefined });

function phone(number: string): PhoneNumber {
  if (!isPhoneNumber(number)) throw new Error('The number of a test is none');
  return number;
}
const PERSON = phone('+919876543210');
const OTHER = phone('+919876501234');

interface Replica {
  challenges: Challenges;
  pending: PendingChallenges;
  tries: Attempts;
  codes: Codes;
  claims: Claims;
}

/** One replica of the service; unless it says so, failed codes lock nobody. */
function replica(variables: Environment = {}, connection = 0): Replica {
  const config = readConfig({
    NODE_ENV: 'test',
    SECRET: OLD_SECRET,
    SUBJECT_SECRET: 'challenges-subject-0123456789-abcdef',
    STARTMESSAGING_API_KEY: `sm_live_${'5e'.repeat(20)}`,
    STARTMESSAGING_CONTRACT: 'provider', // It only takes any OTP_TTL_SECONDS; the code is made here all the same.
    LIMIT_FAILED_CODES: '1000000/3600',
    ...variables,
  });
  const codes = new Codes(config);
  const store = stores[connection % CONNECTIONS]!;
  const records = new ChallengeRecords(config);
  const claims = new Claims(config, store, records);
  return {
    challenges: new Challenges(config, store, codes, records, claims),
    pending: new PendingChallenges(config, store, codes, records, claims),
    tries: new Attempts(config, store, records, claims),
    codes,
    claims,
  };
}

const replicas = (variables: Environment = {}): Replica[] =>
  stores.map((_, connection) => replica(variables, connection));

type Opened = OtpRequest & { requestId: string; nonce: string };

const ACCEPTED: Sent = { delivery: 'accepted' };

/** Begins and finishes, as a send does whose SMS is accepted at once. */
async function open(on: Replica, number = PERSON, sender = MADE_HERE, sent = ACCEPTED): Promise<Opened> {
  const { requestId, nonce } = await on.challenges.begin(number, sender);
  return { nonce, ...(await on.challenges.finish(requestId, sent, 0)) };
}

/** Takes an attempt, compares and uses up, as a verification does. */
async function verify({ tries, codes }: Replica, requestId: string, code: string): Promise<boolean> {
  const attempt = await tries.take(requestId);
  return codes.matches(attempt.phone, attempt.nonce, code) && tries.consume(requestId, attempt);
}

const rightCode = ({ codes }: Replica, { nonce }: { nonce: string }, number = PERSON): string =>
  codes.derive(number, nonce);

async function fail(on: Replica, requestId: string, times: number): Promise<void> {
  for (let i = 0; i < times; i += 1) await on.tries.take(requestId);
}

async function refused(call: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ApiError);
  return error as ApiError;
}

async function refusalOf(call: Promise<unknown>): Promise<string> {
  return (await refused(call)).code;
}

/** How many calls ended how: `done`, or the code of the error. */
async function outcomes(calls: Promise<unknown>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const call of await Promise.allSettled(calls)) {
    const outcome = call.status === 'fulfilled' ? 'done' : (call.reason as ApiError).code;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
}

const tagOf = (requestId: string): string => `otp-login:{${requestId.slice(0, 22)}}:`;
const recordOf = (requestId: string): string => `${tagOf(requestId)}challenge:${requestId.slice(22)}`;
const failuresOf = (requestId: string): Promise<number> => raw.llen(`${tagOf(requestId)}failed`);

async function attemptsOf(requestId: string): Promise<number> {
  return Number(await raw.hget(recordOf(requestId), 'attempts'));
}

/** Lets time pass for all that Redis holds: every timestamp becomes older, every time to live shorter. */
async function age(ms: number): Promise<void> {
  const older = (value: string): string => (/^\d{13}$/.test(value) ? String(Number(value) - ms) : value);
  for (const key of await raw.keys('*')) {
    const left = await raw.pttl(key);
    const type = await raw.type(key);
    if (left <= ms) {
      await raw.del(key);
    } else if (type === 'hash') {
      const fields = Object.entries(await raw.hgetall(key)).map(([field, value]) => [field, older(value)]);
      await raw.hset(key, Object.fromEntries(fields) as Record<string, string>);
      await raw.pexpire(key, left - ms);
    } else if (type === 'list') {
      const entries = (await raw.lrange(key, 0, -1)).map(older);
      await raw.del(key);
      await raw.rpush(key, ...entries);
      await raw.pexpire(key, left - ms);
    } else {
      await raw.set(key, older((await raw.get(key))!), 'PX', left - ms);
    }
  }
}

/** Every key and value, by its type. */
async function contents(): Promise<Record<string, unknown>> {
  const everything: Record<string, unknown> = {};
  for (const key of (await raw.keys('*')).sort()) {
    const type = await raw.type(key);
    if (type === 'hash') everything[key] = await raw.hgetall(key);
    else if (type === 'list') everything[key] = await raw.lrange(key, 0, -1);
    else everything[key] = await raw.get(key);
  }
  return everything;
}

beforeAll(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  stores = Array.from({ length: CONNECTIONS }, () => new Store(redisClient(redis.url), logger));
  for (const store of stores) store.connect();
  for (const end = Date.now() + 10_000; !stores.every((store) => store.available);) {
    if (Date.now() > end) throw new Error('Redis was not reached');
    await sleep(5);
  }
});

beforeEach(async () => {
  await raw.flushall();
});

afterAll(async () => {
  for (const store of stores) store.close();
  raw.disconnect();
  await redis.stop();
});

describe('a challenge', () => {
  it('is open to its code once it is finished, and used up by it', async () => {
    const service = replica();
    const opened = await open(service);
    expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
    expect(await refusalOf(service.tries.take(opened.requestId))).toBe('otp_expired');
  });

  it('answers what a caller is told', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
    const { requestId } = await service.challenges.begin(PERSON, MADE_HERE);
    const before = Date.now();
    const opened = await service.challenges.finish(requestId, ACCEPTED, 30_000);
    expect(opened.attemptsLeft).toBe(3);
    expect(opened.expiresAt.getTime()).toBeLessThanOrEqual(Date.now() + 300_000);
    expect(opened.expiresAt.getTime()).toBeGreaterThan(before + 290_000);
    expect(opened.resendAt.getTime()).toBeGreaterThanOrEqual(before + 30_000);
    expect(opened.resendAt.getTime()).toBeLessThanOrEqual(Date.now() + 30_000);
  });

  it('cannot be verified while it is pending, and loses no attempt by that', async () => {
    const service = replica();
    const pending = await service.challenges.begin(PERSON, MADE_HERE);
    expect(await refusalOf(verify(service, pending.requestId, rightCode(service, pending)))).toBe(
      'otp_expired',
    );
    expect(await failuresOf(pending.requestId)).toBe(0);
    expect((await service.challenges.finish(pending.requestId, ACCEPTED, 0)).attemptsLeft).toBe(3);
    expect(await verify(service, pending.requestId, rightCode(service, pending))).toBe(true);
  });

  it('is gone when it was abandoned, and voids nothing', async () => {
    const service = replica();
    const first = await open(service);
    const second = await service.challenges.begin(PERSON, MADE_HERE);
    await service.pending.abandon(second.requestId);
    expect(await refusalOf(service.tries.take(second.requestId))).toBe('otp_expired');
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('is a fault of ours when the store lost it while the SMS was under way', async () => {
    const service = replica();
    const { requestId } = await service.challenges.begin(PERSON, MADE_HERE);
    await raw.flushall();
    expect(await refusalOf(service.challenges.finish(requestId, ACCEPTED, 0))).toBe('store_unavailable');
    expect(await raw.keys('*')).toEqual([]);
  });

  it('lets exactly three of 200 concurrent guesses over three connections be looked at', async () => {
    const all = replicas();
    const { requestId } = await open(all[0]!);
    const left: number[] = [];
    const guesses = Array.from({ length: 200 }, async (_, i) => {
      left.push((await all[i % CONNECTIONS]!.tries.take(requestId)).attemptsLeft);
    });
    expect(await outcomes(guesses)).toEqual({ done: 3, otp_attempts_exhausted: 197 });
    expect(left.sort()).toEqual([0, 1, 2]);
    expect(await failuresOf(requestId)).toBe(3);
  });

  it('refuses the right code too once its attempts are used up', async () => {
    const service = replica({ OTP_MAX_ATTEMPTS: '1' });
    const opened = await open(service);
    await fail(service, opened.requestId, 1);
    const error = await refused(verify(service, opened.requestId, rightCode(service, opened)));
    expect([error.code, error.attemptsLeft]).toEqual(['otp_attempts_exhausted', 0]);
  });

  it('is used up by exactly one of 100 concurrent right answers over three connections', async () => {
    const all = replicas({ OTP_MAX_ATTEMPTS: '5' });
    const { requestId } = await open(all[0]!);
    const attempts: Attempt[] = [];
    for (let i = 0; i < 5; i += 1) attempts.push(await all[0]!.tries.take(requestId));
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => all[i % CONNECTIONS]!.tries.consume(requestId, attempts[i % 5]!)),
    );
    expect(answers.filter(Boolean)).toHaveLength(1);
  });

  it('expires by itself, and leaves nothing of itself', async () => {
    const service = replica({ OTP_TTL_SECONDS: '1' });
    const opened = await open(service);
    expect(await raw.pttl(recordOf(opened.requestId))).toBeGreaterThan(0);
    await sleep(Math.max(0, opened.expiresAt.getTime() - Date.now()) + 5);
    expect(await refusalOf(verify(service, opened.requestId, rightCode(service, opened)))).toBe(
      'otp_expired',
    );
    expect(await raw.exists(recordOf(opened.requestId))).toBe(0);
  });

  it('has expired when its time has come, even where its record outlives it', async () => {
    const service = replica();
    const { requestId } = await open(service);
    await raw.hset(recordOf(requestId), 'expires', String(Date.now() - 1));
    expect(await refusalOf(service.tries.take(requestId))).toBe('otp_expired');
    expect(await attemptsOf(requestId)).toBe(3);
  });

  it('is known by an id that nobody guesses, and by no other', async () => {
    const service = replica();
    const ids = await Promise.all(
      Array.from({ length: 50 }, () => service.challenges.begin(PERSON, MADE_HERE)),
    );
    expect(new Set(ids.map(({ requestId }) => requestId.slice(22))).size).toBe(50);
    for (const { requestId } of ids) expect(requestId).toMatch(/^[\w-]{44}$/);

    const { requestId } = await open(service);
    const foreign = (await open(service, OTHER)).requestId;
    const swapped = foreign.slice(0, 22) + requestId.slice(22);
    const unknown = requestId.slice(0, 22) + 'A'.repeat(22);
    for (const id of [swapped, unknown]) expect(await refusalOf(service.tries.take(id))).toBe('otp_expired');

    await raw.config('RESETSTAT');
    // The last of 22 base64url characters holds two bits only, so the next letter spells the same bytes.
    const twin = requestId.slice(0, 43) + String.fromCharCode(requestId.charCodeAt(43) + 1);
    for (const id of ['', 'x', twin, `${requestId}A`, `${requestId}\n`, '{}'.repeat(22), '*'.repeat(44)])
      expect(await refusalOf(service.tries.take(id))).toBe('otp_expired');
    expect(await raw.info('commandstats')).not.toMatch(/cmdstat_eval/);
  });
});

describe('a resend', () => {
  it('sends the same code while half of its life remains, and each request has its own attempts', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await age(140_000);
    const second = await open(service);
    expect(second.requestId).not.toBe(first.requestId);
    expect(second.nonce).toBe(first.nonce);

    await fail(service, first.requestId, 3);
    expect(await refusalOf(service.tries.take(first.requestId))).toBe('otp_attempts_exhausted');
    expect(await attemptsOf(second.requestId)).toBe(3);
    expect(await verify(service, second.requestId, rightCode(service, first))).toBe(true);
  });

  it('leaves the earlier request good', async () => {
    const service = replica();
    const first = await open(service);
    const second = await open(service);
    await fail(service, second.requestId, 3);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('is void with all its requests once the code was used by any of them', async () => {
    const service = replica();
    const requests = [await open(service), await open(service), await open(service)];
    const code = rightCode(service, requests[1]!);
    expect(await verify(service, requests[1]!.requestId, code)).toBe(true);
    for (const { requestId } of requests)
      expect(await refusalOf(verify(service, requestId, code))).toBe('otp_expired');
    expect((await open(service)).nonce).not.toBe(requests[0]!.nonce);
  });

  it('lets one of two requests with the same code win, when both answers come at once', async () => {
    const all = replicas();
    for (let round = 0; round < 20; round += 1) {
      await raw.flushall();
      const both = [await open(all[0]!), await open(all[1]!)];
      const attempts = await Promise.all(both.map(({ requestId }) => all[2]!.tries.take(requestId)));
      const won = await Promise.all(
        both.map(({ requestId }, i) => all[i]!.tries.consume(requestId, attempts[i]!)),
      );
      expect(won.filter(Boolean)).toHaveLength(1);
    }
  });

  it('sends a new code after half of the life, which voids the old one only when its SMS is accepted', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await age(151_000);
    const second = await service.challenges.begin(PERSON, MADE_HERE);
    expect(second.nonce).not.toBe(first.nonce);

    expect((await service.tries.take(first.requestId)).attemptsLeft).toBe(2);
    await service.challenges.finish(second.requestId, ACCEPTED, 0);
    expect(await refusalOf(verify(service, first.requestId, rightCode(service, first)))).toBe('otp_expired');
    expect(await verify(service, second.requestId, rightCode(service, second))).toBe(true);
  });

  it('that is never sent leaves the old code good to its end', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await age(151_000);
    for (let strangers = 0; strangers < 5; strangers += 1) {
      const { requestId } = await service.challenges.begin(PERSON, MADE_HERE);
      if (strangers % 2 === 0) await service.pending.abandon(requestId);
    }
    await age(140_000);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('agrees on one code with every other send at the same time', async () => {
    const all = replicas();
    // The second round finds a live code, past half of its life.
    for (let round = 0; round < 2; round += 1) {
      const pending = await Promise.all(
        Array.from({ length: 30 }, (_, i) => all[i % CONNECTIONS]!.challenges.begin(PERSON, MADE_HERE)),
      );
      expect(new Set(pending.map(({ nonce }) => nonce)).size).toBe(1);
      await Promise.all(
        pending.map(({ requestId }, i) => all[i % CONNECTIONS]!.challenges.finish(requestId, ACCEPTED, 0)),
      );
      for (const { requestId } of pending)
        expect((await all[0]!.tries.take(requestId)).nonce).toBe(pending[0]!.nonce);
      await age(200_000);
    }
  });

  it('stays used when its code was used while its SMS was under way', async () => {
    const service = replica();
    const first = await open(service);
    const second = await service.challenges.begin(PERSON, MADE_HERE);
    const code = rightCode(service, first);
    expect(await verify(service, first.requestId, code)).toBe(true);
    await service.challenges.finish(second.requestId, ACCEPTED, 0);
    expect(await refusalOf(verify(service, second.requestId, code))).toBe('otp_expired');
  });

  it('stays used also when yet another code was used meanwhile', async () => {
    const service = replica();
    const first = await open(service);
    const slow = await service.challenges.begin(PERSON, MADE_HERE);
    const code = rightCode(service, first);
    expect(await verify(service, first.requestId, code)).toBe(true);
    const next = await open(service);
    expect(await verify(service, next.requestId, rightCode(service, next))).toBe(true);

    await service.challenges.finish(slow.requestId, ACCEPTED, 0);
    expect(await refusalOf(verify(service, slow.requestId, code))).toBe('otp_expired');
  });

  it('stays void when its code was superseded, and the newer one used, while its SMS was under way', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await age(149_000);
    const slow = await service.challenges.begin(PERSON, MADE_HERE);
    expect(slow.nonce).toBe(first.nonce);
    await age(155_000);
    const newer = await open(service);
    expect(newer.nonce).not.toBe(slow.nonce);
    expect(await verify(service, newer.requestId, rightCode(service, newer))).toBe(true);

    await service.challenges.finish(slow.requestId, ACCEPTED, 0);
    expect(await refusalOf(verify(service, slow.requestId, rightCode(service, slow)))).toBe('otp_expired');
  });

  it('does not turn an older code into the live one when its SMS is accepted last', async () => {
    const service = replica();
    const older = await service.challenges.begin(PERSON, MADE_UPSTREAM);
    await sleep(3);
    const newer = await service.challenges.begin(PERSON, MADE_UPSTREAM);
    await service.challenges.finish(newer.requestId, ACCEPTED, 0);
    await service.challenges.finish(older.requestId, ACCEPTED, 0);
    expect(await refusalOf(service.tries.take(older.requestId))).toBe('otp_expired');
    expect((await service.tries.take(newer.requestId)).attemptsLeft).toBe(2);
  });

  it('is a new code each time where the provider makes it, and voids the older one when it is accepted', async () => {
    const service = replica();
    const first = await open(service, PERSON, MADE_UPSTREAM);
    const second = await service.challenges.begin(PERSON, MADE_UPSTREAM);
    expect(second.nonce).not.toBe(first.nonce);
    expect((await service.tries.take(first.requestId)).attemptsLeft).toBe(2);
    await service.challenges.finish(second.requestId, { delivery: 'accepted', upstreamId: 'theirs' }, 0);
    expect(await refusalOf(service.tries.take(first.requestId))).toBe('otp_expired');
    expect((await service.tries.take(second.requestId)).upstreamId).toBe('theirs');
  });
});

describe('the life of a code', () => {
  const born = async ({ requestId }: Opened): Promise<number> =>
    Number(await raw.hget(recordOf(requestId), 'issued'));

  it('begins anew with each resend, and ends ten minutes after it was made', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    let last = await open(service);
    const lives = [];
    for (const seconds of [140, 140, 140]) {
      await age(seconds * 1_000);
      const resent = await open(service);
      expect(resent.nonce).toBe(last.nonce);
      expect(resent.expiresAt.getTime() - (await born(resent))).toBeLessThanOrEqual(LIFE_MS);
      lives.push(Math.round((resent.expiresAt.getTime() - Date.now()) / 10_000) * 10);
      last = resent;
    }
    expect(lives).toEqual([300, 300, 180]);
    await age(60_000);
    expect((await open(service)).nonce).not.toBe(last.nonce);
  });

  it('stays within ten minutes also when one request may take as long', async () => {
    const service = replica({ OTP_TTL_SECONDS: '600' });
    const first = await open(service);
    await age(290_000);
    const pending = await service.challenges.begin(PERSON, MADE_HERE);
    expect(pending.nonce).toBe(first.nonce);
    expect(pending.lifeSeconds).toBeLessThanOrEqual(310);
    const second = { ...pending, ...(await service.challenges.finish(pending.requestId, ACCEPTED, 0)) };
    expect(second.expiresAt.getTime()).toBe((await born(second)) + LIFE_MS);
    await age(310_000);
    expect(await refusalOf(service.tries.take(second.requestId))).toBe('otp_expired');
    expect((await open(service)).nonce).not.toBe(first.nonce);
  });

  it('counts from when the code was made, not from when its SMS was accepted', async () => {
    const service = replica({ OTP_TTL_SECONDS: '600' });
    const { requestId } = await service.challenges.begin(PERSON, MADE_HERE);
    await age(20_000);
    const opened = await service.challenges.finish(requestId, ACCEPTED, 0);
    expect(opened.expiresAt.getTime()).toBeLessThanOrEqual(Date.now() + LIFE_MS - 20_000);
  });

  it('follows upstream where upstream is stricter', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
    const expiresAt = new Date(Date.now() + 100_000);
    const opened = await open(service, PERSON, MADE_UPSTREAM, {
      delivery: 'accepted',
      expiresAt,
      attemptsLeft: 1,
    });
    expect(opened.expiresAt).toEqual(expiresAt);
    expect(opened.attemptsLeft).toBe(1);
    await fail(service, opened.requestId, 1);
    expect(await refusalOf(service.tries.take(opened.requestId))).toBe('otp_attempts_exhausted');
    expect(await raw.pexpiretime(recordOf(opened.requestId))).toBe(expiresAt.getTime());
  });

  it.each([
    ['more generous', new Date(Date.now() + 86_400_000), 99],
    ['of another time', new Date(Date.now() - 86_400_000), 3],
    ['no date', new Date('never'), Number.NaN],
    ['no number of attempts', undefined, 0],
    ['less than no attempts', undefined, -7],
  ])('is not moved by an upstream that is %s', async (_, expiresAt, attemptsLeft) => {
    const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
    const opened = await open(service, PERSON, MADE_UPSTREAM, {
      delivery: 'accepted',
      expiresAt,
      attemptsLeft,
    });
    expect(opened.attemptsLeft).toBe(3);
    expect(opened.expiresAt.getTime()).toBeLessThanOrEqual(Date.now() + 300_000);
    expect(opened.expiresAt.getTime()).toBeGreaterThan(Date.now() + 290_000);
  });
});

describe('failed codes', () => {
  it('are counted across requests and codes, and lock the number at the limit', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '4/3600', OTP_TTL_SECONDS: '300' });
    await fail(service, (await open(service)).requestId, 3);
    await age(200_000);
    const second = await open(service);
    await fail(service, second.requestId, 1);

    const late = await refused(verify(service, second.requestId, rightCode(service, second)));
    expect(late.code).toBe('phone_locked');
    expect(await attemptsOf(second.requestId)).toBe(2);
    // The oldest of the four leaves first.
    expect(late.retryAfterSeconds).toBeGreaterThan(3_600 - 200 - 30);
    expect(late.retryAfterSeconds).toBeLessThanOrEqual(3_601 - 200);
  });

  it('refuse the next SMS of a locked number before it is paid for, and nobody else', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    await fail(service, (await open(service)).requestId, 3);
    const before = await contents();
    const error = await refused(service.challenges.begin(PERSON, MADE_HERE));
    expect([error.code, error.status]).toEqual(['phone_locked', 429]);
    expect(error.retryAfterSeconds).toBeGreaterThan(3_500);
    expect(error.retryAfterSeconds).toBeLessThanOrEqual(3_601);
    expect(await contents()).toEqual(before);
    expect((await open(service, OTHER)).attemptsLeft).toBe(3);
  });

  it('lock exactly at the limit, with 300 concurrent guesses over many requests and three connections', async () => {
    const all = replicas({ LIMIT_FAILED_CODES: '10/3600,20/86400', OTP_MAX_ATTEMPTS: '5' });
    const requests = await Promise.all(Array.from({ length: 20 }, (_, i) => open(all[i % CONNECTIONS]!)));
    const guesses = Array.from({ length: 300 }, (_, i) =>
      all[i % CONNECTIONS]!.tries.take(requests[i % 20]!.requestId),
    );
    expect((await outcomes(guesses)).done).toBe(10);
    expect(await failuresOf(requests[0]!.requestId)).toBe(10);
  });

  it('are forgiven when their window has passed', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    await fail(service, (await open(service)).requestId, 3);
    await age(3_590_000);
    expect(await refusalOf(service.challenges.begin(PERSON, MADE_HERE))).toBe('phone_locked');
    await age(11_000);
    expect((await open(service)).attemptsLeft).toBe(3);
  });

  it('of an hour or less are cleared by a success; those of the longer windows are not', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600,5/86400' });
    const first = await open(service);
    await fail(service, first.requestId, 2);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);

    await sleep(3);
    // The hour counts these three; the day counts the two before them as well.
    await fail(service, (await open(service)).requestId, 3);
    expect(await refusalOf(service.challenges.begin(PERSON, MADE_HERE))).toBe('phone_locked');
    await age(3_700_000);
    const { code, retryAfterSeconds } = await refused(service.challenges.begin(PERSON, MADE_HERE));
    expect(code).toBe('phone_locked');
    expect(retryAfterSeconds).toBeGreaterThan(86_400 - 3_700 - 30);
  });

  it('of an hour or less stay cleared for as long as they would have counted', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600,1000/86400' });
    const first = await open(service);
    await fail(service, first.requestId, 2);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
    await age(3_590_000);
    const second = await open(service);
    await fail(service, second.requestId, 2);
    expect(await verify(service, second.requestId, rightCode(service, second))).toBe(true);
  });

  it('do not grow by right ones', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '2/3600,3/86400,4/2592000' });
    for (let logins = 0; logins < 10; logins += 1) {
      const opened = await open(service);
      expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
      expect(await failuresOf(opened.requestId)).toBe(0);
    }
  });
});

describe('right answers that come at once', () => {
  it('are no failures, also those that were not the first', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/86400' });
    for (let logins = 0; logins < 5; logins += 1) {
      const opened = await open(service);
      const both = [await service.tries.take(opened.requestId), await service.tries.take(opened.requestId)];
      const won = await Promise.all(both.map((attempt) => service.tries.consume(opened.requestId, attempt)));
      expect(won.filter(Boolean)).toHaveLength(1);
      expect(await failuresOf(opened.requestId)).toBe(0);
    }
  });
});

describe('an attempt that is given back', () => {
  it('is there again, and no longer a failure', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    const opened = await open(service);
    for (let outages = 0; outages < 10; outages += 1) {
      const attempt = await service.tries.take(opened.requestId);
      await service.tries.giveBack(opened.requestId, attempt);
    }
    expect(await attemptsOf(opened.requestId)).toBe(3);
    expect(await failuresOf(opened.requestId)).toBe(0);
    expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
  });

  it('is given back once', async () => {
    const service = replica();
    const { requestId } = await open(service);
    await service.tries.take(requestId);
    await sleep(3);
    const attempt = await service.tries.take(requestId);
    const all = replicas();
    await Promise.all(
      Array.from({ length: 30 }, (_, i) => all[i % CONNECTIONS]!.tries.giveBack(requestId, attempt)),
    );
    expect(await attemptsOf(requestId)).toBe(2);
    expect(await failuresOf(requestId)).toBe(1);
  });

  it('adds up when many are taken and given back at once', async () => {
    const all = replicas();
    const { requestId } = await open(all[0]!);
    await Promise.all(
      Array.from({ length: 90 }, async (_, i) => {
        const { tries } = all[i % CONNECTIONS]!;
        const attempt = await tries.take(requestId).catch(() => undefined);
        if (attempt) await tries.giveBack(requestId, attempt);
      }),
    );
    expect(await attemptsOf(requestId)).toBe(3);
    expect(await failuresOf(requestId)).toBe(0);
  });

  it('brings no challenge back that has gone or was used', async () => {
    const service = replica();
    const gone = await open(service);
    const first = await service.tries.take(gone.requestId);
    await raw.del(recordOf(gone.requestId));
    await service.tries.giveBack(gone.requestId, first);
    expect(await raw.exists(recordOf(gone.requestId))).toBe(0);

    const used = await open(service);
    const [lost, right] = [
      await service.tries.take(used.requestId),
      await service.tries.take(used.requestId),
    ];
    expect(await service.tries.consume(used.requestId, right)).toBe(true);
    await service.tries.giveBack(used.requestId, lost);
    expect(await refusalOf(service.tries.take(used.requestId))).toBe('otp_expired');
  });
});

describe('the records of a person', () => {
  it('do not open when their ciphertext was copied from another record', async () => {
    const service = replica();
    const [mine, again, theirs] = [await open(service), await open(service), await open(service, OTHER)];
    const sealed = (await raw.hget(recordOf(mine.requestId), 'phone'))!;
    await raw.hset(recordOf(again.requestId), 'phone', sealed);
    await raw.hset(recordOf(theirs.requestId), 'phone', sealed);
    for (const { requestId } of [again, theirs])
      expect(await refusalOf(service.tries.take(requestId))).toBe('otp_expired');
    expect((await service.tries.take(mine.requestId)).phone).toBe(PERSON);
  });

  it('do not open under the key of another person, record and live code and all', async () => {
    const service = replica();
    const [mine, theirs] = [await open(service), await open(service, OTHER)];
    await raw.copy(recordOf(mine.requestId), recordOf(theirs.requestId), 'REPLACE');
    await raw.copy(`${tagOf(mine.requestId)}codes`, `${tagOf(theirs.requestId)}codes`, 'REPLACE');
    const attack = verify(service, theirs.requestId, rightCode(service, mine));
    expect(await refusalOf(attack)).toBe('otp_expired');
  });

  it('do not open where SUBJECT_SECRET is another, which would open a session for another user', async () => {
    const [service, elsewhere] = [
      replica(),
      replica({ SUBJECT_SECRET: 'challenges-another-subject-0123456789' }),
    ];
    const opened = await open(service);
    const attempt = verify(elsewhere, opened.requestId, rightCode(service, opened));
    expect(await refusalOf(attempt)).toBe('otp_expired');
  });

  it.each(['', 'x', 'x.y', 'AAAAAA.AAAA', '.'])('do not open when their ciphertext is %p', async (sealed) => {
    const service = replica();
    const { requestId } = await open(service);
    await raw.hset(recordOf(requestId), 'phone', sealed);
    expect(await refusalOf(service.tries.take(requestId))).toBe('otp_expired');
  });

  it('hold neither number nor code, live under one prefix and one hash tag, and not for ever', async () => {
    // Eight digits, so that no timestamp holds the code by chance.
    const service = replica({
      OTP_LENGTH: '8',
      OTP_TTL_SECONDS: '300',
      LIMIT_FAILED_CODES: '10/3600,20/86400',
    });
    const codes: string[] = [];
    const ids: string[] = [];
    for (const number of [PERSON, OTHER]) {
      const used = await open(service, number);
      await fail(service, used.requestId, 2);
      codes.push(rightCode(service, used, number));
      expect(await verify(service, used.requestId, codes.at(-1)!)).toBe(true);
      const live = await open(service, number);
      await fail(service, live.requestId, 1);
      codes.push(rightCode(service, live, number));
      await service.challenges.begin(number, MADE_UPSTREAM);
      ids.push(used.requestId);
    }
    for (const code of codes) expect(code).toMatch(/^\d{8}$/);

    const everything = JSON.stringify(await contents());
    for (const number of [PERSON, OTHER]) {
      for (const digits of [number.slice(1), number.slice(3), number.slice(-8)]) {
        expect(everything).not.toContain(digits);
        for (const encoding of ['base64url', 'hex'] as const)
          expect(everything).not.toContain(Buffer.from(digits).toString(encoding).slice(0, 10));
      }
      for (const hash of ['md5', 'sha1', 'sha256', 'sha512'])
        for (const encoding of ['base64url', 'hex'] as const)
          expect(everything).not.toContain(createHash(hash).update(number).digest(encoding).slice(0, 16));
    }
    for (const code of codes) {
      expect(everything).not.toContain(code);
      expect(everything).not.toContain(Buffer.from(code).toString('base64url').slice(0, 10));
    }

    const keys = await raw.keys('*');
    for (const key of keys) {
      expect(key).toMatch(/^otp-login:\{[\w-]{22}\}:[^{}]+$/);
      expect(await raw.pttl(key)).toBeGreaterThan(0);
    }
    expect(new Set(keys.map((key) => /\{(.+)\}/.exec(key)![1]))).toEqual(
      new Set(ids.map((requestId) => requestId.slice(0, 22))),
    );
    expect(keys.filter((key) => key.startsWith(tagOf(ids[0]!))).length).toBeGreaterThanOrEqual(6);
  });

  it('have a time to live after every single step', async () => {
    const service = replica();
    const everyKeyExpires = async (): Promise<void> => {
      for (const key of await raw.keys('*')) expect([key, await raw.pttl(key)]).not.toEqual([key, -1]);
    };
    for (const sender of [MADE_HERE, MADE_UPSTREAM]) {
      await raw.flushall();
      const first = await service.challenges.begin(PERSON, sender);
      await everyKeyExpires();
      await service.challenges.finish(first.requestId, ACCEPTED, 0);
      await everyKeyExpires();
      await service.tries.giveBack(first.requestId, await service.tries.take(first.requestId));
      await everyKeyExpires();
      const late = await service.challenges.begin(PERSON, sender);
      const attempt = await service.tries.take(first.requestId);
      await everyKeyExpires();
      expect(await service.tries.consume(first.requestId, attempt)).toBe(true);
      await everyKeyExpires();
      await service.challenges.finish(late.requestId, ACCEPTED, 0);
      await everyKeyExpires();
    }
    await raw.flushall();
    const only = await open(service);
    expect(await service.tries.consume(only.requestId, await service.tries.take(only.requestId))).toBe(true);
    await everyKeyExpires();
  });

  it('get no nonce or ciphertext twice', async () => {
    const service = replica();
    const one = await service.challenges.begin(PERSON, MADE_HERE);
    const two = await service.challenges.begin(PERSON, MADE_HERE);
    const sealed = await Promise.all(
      [one, two].map(({ requestId }) => raw.hget(recordOf(requestId), 'phone')),
    );
    expect(sealed[0]).not.toBe(sealed[1]);
    expect((await service.challenges.begin(OTHER, MADE_HERE)).nonce).not.toBe(one.nonce);
  });
});

describe('the rotation of SECRET', () => {
  const before = (): Replica => replica({ SECRET: OLD_SECRET });
  const appended = (): Replica => replica({ SECRET: `${OLD_SECRET},${NEW_SECRET}` });
  const moved = (): Replica => replica({ SECRET: `${NEW_SECRET},${OLD_SECRET}` });
  const dropped = (): Replica => replica({ SECRET: NEW_SECRET });

  it('accepts at each step what every replica of the steps beside it has sent', async () => {
    for (const [sender, verifier] of [
      [before(), appended()],
      [appended(), before()],
      [appended(), moved()],
      [moved(), appended()],
    ] as const) {
      await raw.flushall();
      const opened = await open(sender);
      expect(await verify(verifier, opened.requestId, rightCode(sender, opened))).toBe(true);
    }
  });

  it('makes new codes under the first secret', async () => {
    const [old, fresh] = [await open(before()), await open(moved(), OTHER)];
    expect(fresh.nonce.split('.')[0]).not.toBe(old.nonce.split('.')[0]);
    expect(() => before().codes.derive(OTHER, fresh.nonce)).toThrow();
    expect(rightCode(dropped(), fresh, OTHER)).toBe(rightCode(moved(), fresh, OTHER));
  });

  it('sends the live code again where its secret is known, and a new one where it is not', async () => {
    const old = await open(before());
    expect((await moved().challenges.begin(PERSON, MADE_HERE)).nonce).toBe(old.nonce);
    const fresh = await open(dropped());
    expect(fresh.nonce).not.toBe(old.nonce);
    expect(await verify(dropped(), fresh.requestId, rightCode(dropped(), fresh))).toBe(true);
  });

  it('voids what was sent under a secret that was dropped', async () => {
    const old = await open(before());
    const attack = verify(dropped(), old.requestId, rightCode(before(), old));
    expect(await refusalOf(attack)).toBe('otp_expired');
  });

  it('voids a code of a dropped secret also where a resend sealed its record under the new one', async () => {
    const old = await open(before());
    const resent = await open(moved());
    expect(resent.nonce).toBe(old.nonce);
    const attack = verify(dropped(), resent.requestId, rightCode(before(), old));
    expect(await refusalOf(attack)).toBe('otp_expired');
  });

  it('gives a guesser one code an attempt, not one with every secret', async () => {
    const opened = await open(before());
    const { codes } = moved();
    const id = moved().codes.nonceFor(MADE_HERE).split('.')[0]!;
    const underTheOther = codes.derive(PERSON, opened.nonce.replace(/^[^.]+/, id));
    expect(underTheOther).not.toBe(rightCode(before(), opened));
    expect(await verify(moved(), opened.requestId, underTheOther)).toBe(false);
  });
});

describe('a send under an Idempotency-Key', () => {
  const key = { record: 'key', owner: newOwner() };

  it('that came to its end while its answer was lost is not released: the repeat finds the answer', async () => {
    const service = replica();
    const begun = await service.challenges.begin(PERSON, MADE_HERE, key);
    const opened = await service.challenges.finish(begun.requestId, ACCEPTED, 0, key);
    await service.pending.release(begun.requestId, key, true);
    expect(await service.challenges.begin(PERSON, MADE_HERE, key)).toEqual(opened);
  });

  it('that may have been sent, and whose code is void since, voids no other by a code that nobody is sent', async () => {
    const service = replica({ OTP_TTL_SECONDS: '4' });
    const begun = (await service.challenges.begin(PERSON, MADE_HERE, key)) as PendingChallenge;
    await service.pending.release(begun.requestId, key, false);
    // Its own code is used under another request; the person gets a new one.
    expect(await verify(service, (await open(service)).requestId, rightCode(service, begun))).toBe(true);
    const live = await open(service);
    expect(live.nonce).not.toBe(begun.nonce);

    // By then it is too old to be sent again.
    await sleep(2_100);
    const again = await service.challenges.begin(PERSON, MADE_HERE, key);
    expect(again).toMatchObject({ requestId: begun.requestId, bound: true, renewed: true, turn: 2 });
    expect('nonce' in again && again.nonce).not.toBe(live.nonce);
    await service.challenges.finish(begun.requestId, { delivery: 'unknown' }, 0, key, '', false);
    expect((await service.challenges.status(begun.requestId)).state).toBe('expired');
    expect(await verify(service, live.requestId, rightCode(service, live))).toBe(true);
  });

  it('whose first step lost its answer was not sent', async () => {
    const service = replica();
    const begun = await service.challenges.begin(PERSON, MADE_HERE, key);
    await service.claims.giveUp(service.claims.releasing(begun.requestId, key));
    expect(await service.challenges.begin(PERSON, MADE_HERE, key)).toMatchObject({ bound: false });
  });

  it('whose try died is not taken for unsent because the repeat lost an answer', async () => {
    const service = replica({ UPSTREAM_DEADLINE_MS: '1' });
    const begun = await service.challenges.begin(PERSON, MADE_HERE, key);
    // Its place runs out.
    await sleep(5_100);
    expect(await service.challenges.begin(PERSON, MADE_HERE, key)).toMatchObject({ bound: true });
    await service.claims.giveUp(service.claims.releasing(begun.requestId, key));
    expect(await service.challenges.begin(PERSON, MADE_HERE, key)).toMatchObject({ bound: true });
  });

  it('that was certainly not sent is resumed with a full life', async () => {
    const service = replica();
    const begun = await service.challenges.begin(PERSON, MADE_HERE, key);
    await service.pending.release(begun.requestId, key, true);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    const resumed = await service.challenges.begin(PERSON, MADE_HERE, key);
    expect(resumed).toMatchObject({ requestId: begun.requestId, bound: false });
    expect('lifeSeconds' in resumed && resumed.lifeSeconds).toBe(300);
  });
});
