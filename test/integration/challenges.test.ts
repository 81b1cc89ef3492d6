// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { Environment } from '../../src/config/config';
import type { Attempt } from '../../src/challenges/attempts';
import type { Draft, OtpRequest, Replay, Sent } from '../../src/challenges/challenge';
import { keysOf, partsOf, requestIdOf } from '../support/keys';
import { type OtpSteps, otpSteps } from '../support/otp-steps';
import { outcomes, refusal, refusalCode } from '../support/outcomes';
import { identityOf, phoneNumber } from '../support/phone-number';
import { valuesIn } from '../support/redis-contents';
import { MADE_HERE, MADE_UPSTREAM } from '../support/senders';
import { settings } from '../support/settings';
import { MIDNIGHT, type SimulatedClock } from '../support/simulated-clock';

const CONNECTIONS = 3;
const OLD_SECRET = 'challenges-old-secret-0123456789-abc';
const NEW_SECRET = 'challenges-new-secret-0123456789-abc';
const LIFE_MS = 600_000;
const DAY_MS = 86_400_000;
const PERSON = phoneNumber('+919876543210');
const OTHER = phoneNumber('+919876501234');

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;

beforeAll(async () => {
  redis = await simulatedStores(CONNECTIONS);
  ({ raw, clock } = redis);
});
beforeEach(() => clock.empty());
afterAll(() => {
  redis.close();
});

/** One replica of the service, on one of the connections. */
const replica = (variables: Environment = {}, connection = 0): OtpSteps =>
  otpSteps(
    settings({
      SECRET: OLD_SECRET,
      STARTMESSAGING_CONTRACT: 'provider', // It only takes any OTP_TTL_SECONDS; the code is made here all the same.
      ...variables,
    }),
    redis.stores[connection % CONNECTIONS]!,
  );

const replicas = (variables: Environment = {}): OtpSteps[] =>
  redis.stores.map((_, connection) => replica(variables, connection));

type Opened = OtpRequest & { requestId: string; nonce: string };

const ACCEPTED: Sent = { delivery: 'accepted' };

/** Begins and finishes, as a send does whose SMS is accepted at once. */
async function open(on: OtpSteps, number = PERSON, sender = MADE_HERE, sent = ACCEPTED): Promise<Opened> {
  const draft = await on.challenges.create(identityOf(number), sender);
  return { nonce: draft.nonce, ...(await on.challenges.activate(draft, sent, 0)) };
}

/** Takes an attempt, compares and uses up, as a verification does. */
async function verify({ tries, codes }: OtpSteps, requestId: string, code: string): Promise<boolean> {
  const attempt = await tries.take(requestId);
  return codes.matches(attempt.phone, attempt.nonce, code) && tries.consume(attempt);
}

const rightCode = ({ codes }: OtpSteps, { nonce }: { nonce: string }, number = PERSON): string =>
  codes.derive(number, nonce);

async function fail(on: OtpSteps, requestId: string, times: number): Promise<void> {
  for (let i = 0; i < times; i += 1) await on.tries.take(requestId);
}

const recordOf = (requestId: string): string => keysOf(requestId).challenge;
const partsOfDraft = (requestId: string): Draft['id'] => ({ text: requestId, ...partsOf(requestId) });
const failuresOf = (requestId: string): Promise<number> => raw.llen(keysOf(requestId).failed);
const attemptsOf = async (requestId: string): Promise<number> =>
  Number(await raw.hget(recordOf(requestId), 'attempts'));

/** Every key with its value. */
const contents = async (): Promise<Record<string, unknown>> => valuesIn(raw, await clock.keys());

/** Fails when a key would stay in Redis for ever. */
async function expectEveryKeyToExpire(): Promise<void> {
  for (const key of await clock.keys()) expect([key, (await clock.ttl(key)) > 0]).toEqual([key, true]);
}

describe('a challenge', () => {
  it('a finished challenge accepts its code once, and is then expired', async () => {
    const service = replica();
    const opened = await open(service);
    expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
    expect(await refusalCode(service.tries.take(opened.requestId))).toBe('otp_expired');
  });

  it('a finished send tells the attempts, the time of expiry and the time of the next resend', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
    const draft = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(await service.challenges.activate(draft, ACCEPTED, 30_000)).toMatchObject({
      attemptsLeft: 3,
      expiresAt: new Date(clock.now + 300_000),
      resendAt: new Date(clock.now + 30_000),
    });
  });

  it('a pending challenge refuses its code as expired and loses no attempt', async () => {
    const service = replica();
    const pending = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(await refusalCode(verify(service, pending.requestId, rightCode(service, pending)))).toBe(
      'otp_expired',
    );
    expect(await failuresOf(pending.requestId)).toBe(0);
    expect((await service.challenges.activate(pending, ACCEPTED, 0)).attemptsLeft).toBe(3);
    expect(await verify(service, pending.requestId, rightCode(service, pending))).toBe(true);
  });

  it('an abandoned challenge is expired, and the earlier code of the number still works', async () => {
    const service = replica();
    const first = await open(service);
    const second = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    await service.challenges.release(second, 'refused');
    expect(await refusalCode(service.tries.take(second.requestId))).toBe('otp_expired');
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('a send answers store_unavailable when Redis lost its challenge while the SMS was under way', async () => {
    const service = replica();
    const draft = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    await clock.empty();
    expect(await refusalCode(service.challenges.activate(draft, ACCEPTED, 0))).toBe('store_unavailable');
    expect(await clock.keys()).toEqual([]);
  });

  it('a challenge lets exactly three of 200 concurrent guesses over three connections be compared', async () => {
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

  it('a challenge without attempts left refuses the right code, too', async () => {
    const service = replica({ OTP_MAX_ATTEMPTS: '1' });
    const opened = await open(service);
    await fail(service, opened.requestId, 1);
    const error = await refusal(verify(service, opened.requestId, rightCode(service, opened)));
    expect([error.code, error.attemptsLeft]).toEqual(['otp_attempts_exhausted', 0]);
  });

  it('a challenge is used up by exactly one of 100 concurrent right answers over three connections', async () => {
    const all = replicas({ OTP_MAX_ATTEMPTS: '5' });
    const { requestId } = await open(all[0]!);
    const attempts: Attempt[] = [];
    for (let i = 0; i < 5; i += 1) attempts.push(await all[0]!.tries.take(requestId));
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => all[i % CONNECTIONS]!.tries.consume(attempts[i % 5]!)),
    );
    expect(answers.filter(Boolean)).toHaveLength(1);
  });

  it('a challenge expires after OTP_TTL_SECONDS and leaves no record', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const opened = await open(service);
    expect(opened.expiresAt.getTime() - clock.now).toBe(300_000);
    expect(await clock.ttl(recordOf(opened.requestId))).toBe(300_000);
    await clock.pass(300_001);
    expect(await refusalCode(verify(service, opened.requestId, rightCode(service, opened)))).toBe(
      'otp_expired',
    );
    expect(await raw.exists(recordOf(opened.requestId))).toBe(0);
  });

  it('a challenge is expired at its time of expiry even if its record still exists', async () => {
    const service = replica();
    const { requestId } = await open(service);
    await raw.hset(recordOf(requestId), 'expires', String(clock.now));
    expect(await refusalCode(service.tries.take(requestId))).toBe('otp_expired');
    expect(await attemptsOf(requestId)).toBe(3);
  });

  it('a challenge is found only by its own random request id', async () => {
    const service = replica();
    const ids = await Promise.all(
      Array.from({ length: 50 }, () => service.challenges.create(identityOf(PERSON), MADE_HERE)),
    );
    expect(new Set(ids.map(({ requestId }) => requestId)).size).toBe(50);
    for (const { requestId } of ids) expect(requestId).toMatch(/^[\w-]{64}$/);
    const unknown = requestIdOf(partsOf(ids[0]!.requestId).pseudonym);
    expect(await refusalCode(service.tries.take(unknown))).toBe('otp_expired');
  });

  it('a forged or garbled request id is refused without asking Redis', async () => {
    const service = replica();
    const { requestId } = await open(service);
    const foreign = (await open(service, OTHER)).requestId;
    const elsewhere = replica({ SUBJECT_SECRET: 'challenges-another-subject-0123456789' });
    const asked = jest.spyOn(redis.stores[0]!, 'run');
    // Each of the three parts of an id, under those of another id; and each character replaced.
    for (const [from, to] of [
      [0, 21],
      [22, 42],
      [43, 64],
    ] as const)
      // prettier-ignore
      expect(
        await refusalCode(service.tries.take(requestId.slice(0, from) + foreign.slice(from, to) + requestId.slice(to))),
      ).toBe('otp_expired');
    for (let at = 0; at < requestId.length; at += 1) {
      const other = requestId[at] === 'A' ? 'B' : 'A';
      const garbled = requestId.slice(0, at) + other + requestId.slice(at + 1);
      expect(await refusalCode(service.tries.take(garbled))).toBe('otp_expired');
      expect(await refusalCode(service.challenges.status(garbled))).toBe('otp_expired');
    }
    expect(await refusalCode(elsewhere.tries.take(requestId))).toBe('otp_expired');
    for (const id of ['', 'x', `${requestId}A`, `${requestId}\n`, '{}'.repeat(32), '*'.repeat(64)])
      expect(await refusalCode(service.tries.take(id))).toBe('otp_expired');
    expect(asked).not.toHaveBeenCalled();
    asked.mockRestore();
  });
});

describe('a resend', () => {
  it('a resend sends the same code during the first half of its life, and each request has its own attempts', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await clock.pass(140_000);
    const second = await open(service);
    expect(second.requestId).not.toBe(first.requestId);
    expect(second.nonce).toBe(first.nonce);

    await fail(service, first.requestId, 3);
    expect(await refusalCode(service.tries.take(first.requestId))).toBe('otp_attempts_exhausted');
    expect(await attemptsOf(second.requestId)).toBe(3);
    expect(await verify(service, second.requestId, rightCode(service, first))).toBe(true);
  });

  it('a resend leaves the attempts of the earlier request as they were', async () => {
    const service = replica();
    const first = await open(service);
    const second = await open(service);
    await fail(service, second.requestId, 3);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('a code that was used voids every request with the same code', async () => {
    const service = replica();
    const requests = [await open(service), await open(service), await open(service)];
    const code = rightCode(service, requests[1]!);
    expect(await verify(service, requests[1]!.requestId, code)).toBe(true);
    for (const { requestId } of requests)
      expect(await refusalCode(verify(service, requestId, code))).toBe('otp_expired');
    expect((await open(service)).nonce).not.toBe(requests[0]!.nonce);
  });

  it('two right answers to two requests with the same code open one login when they come at once', async () => {
    const all = replicas();
    for (let round = 0; round < 10; round += 1) {
      await clock.empty();
      const both = [await open(all[0]!), await open(all[1]!)];
      const attempts = await Promise.all(both.map(({ requestId }) => all[2]!.tries.take(requestId)));
      const won = await Promise.all(attempts.map((attempt, i) => all[i]!.tries.consume(attempt)));
      expect(won.filter(Boolean)).toHaveLength(1);
    }
  });

  it('a resend after half of the life sends a new code, which voids the old one only when its SMS is accepted', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await clock.pass(151_000);
    const second = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(second.nonce).not.toBe(first.nonce);

    expect((await service.tries.take(first.requestId)).attemptsLeft).toBe(2);
    await service.challenges.activate(second, ACCEPTED, 0);
    expect(await refusalCode(verify(service, first.requestId, rightCode(service, first)))).toBe(
      'otp_expired',
    );
    expect(await verify(service, second.requestId, rightCode(service, second))).toBe(true);
  });

  it('a resend that is never sent leaves the old code valid to its end', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await clock.pass(151_000);
    for (let strangers = 0; strangers < 5; strangers += 1) {
      const draft = await service.challenges.create(identityOf(PERSON), MADE_HERE);
      if (strangers % 2 === 0) await service.challenges.release(draft, 'refused');
    }
    await clock.pass(140_000);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
  });

  it('a refused send takes the code with it only if no other send has the code', async () => {
    const service = replica();
    const create = (): Promise<Draft> => service.challenges.create(identityOf(PERSON), MADE_HERE);
    const [one, two] = [await create(), await create()];
    await service.challenges.release(one, 'refused');
    await service.challenges.release(one, 'refused');
    const three = await create();
    expect([two.nonce, three.nonce]).toEqual([one.nonce, one.nonce]);
    await service.challenges.release(two, 'refused');
    const { requestId } = await service.challenges.activate(three, ACCEPTED, 0);
    expect(await verify(service, requestId, rightCode(service, three))).toBe(true);
    await clock.empty();
    for (const draft of [await create(), await create()]) await service.challenges.release(draft, 'refused');
    expect(await clock.keys()).toEqual([]);
  });

  it('concurrent sends for one number agree on one code', async () => {
    const all = replicas();
    // The second round finds a live code, past half of its life.
    for (let round = 0; round < 2; round += 1) {
      const pending = await Promise.all(
        Array.from({ length: 30 }, (_, i) =>
          all[i % CONNECTIONS]!.challenges.create(identityOf(PERSON), MADE_HERE),
        ),
      );
      expect(new Set(pending.map(({ nonce }) => nonce)).size).toBe(1);
      await Promise.all(
        pending.map((draft, i) => all[i % CONNECTIONS]!.challenges.activate(draft, ACCEPTED, 0)),
      );
      for (const { requestId } of pending)
        expect((await all[0]!.tries.take(requestId)).nonce).toBe(pending[0]!.nonce);
      await clock.pass(200_000);
    }
  });

  it('a resend stays void when its code was used while the SMS was under way', async () => {
    const service = replica();
    const first = await open(service);
    const second = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    const code = rightCode(service, first);
    expect(await verify(service, first.requestId, code)).toBe(true);
    await service.challenges.activate(second, ACCEPTED, 0);
    expect(await refusalCode(verify(service, second.requestId, code))).toBe('otp_expired');
  });

  it('a resend stays void when its code was used and then another code was used, too', async () => {
    const service = replica();
    const first = await open(service);
    const slow = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    const code = rightCode(service, first);
    expect(await verify(service, first.requestId, code)).toBe(true);
    const next = await open(service);
    expect(await verify(service, next.requestId, rightCode(service, next))).toBe(true);

    await service.challenges.activate(slow, ACCEPTED, 0);
    expect(await refusalCode(verify(service, slow.requestId, code))).toBe('otp_expired');
  });

  it('a resend stays void when a newer code was sent and used while its SMS was under way', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await open(service);
    await clock.pass(149_000);
    const slow = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(slow.nonce).toBe(first.nonce);
    await clock.pass(155_000);
    const newer = await open(service);
    expect(newer.nonce).not.toBe(slow.nonce);
    expect(await verify(service, newer.requestId, rightCode(service, newer))).toBe(true);

    await service.challenges.activate(slow, ACCEPTED, 0);
    expect(await refusalCode(verify(service, slow.requestId, rightCode(service, slow)))).toBe('otp_expired');
  });

  it('an older code does not become the valid one when its SMS is accepted last', async () => {
    const service = replica();
    const older = await service.challenges.create(identityOf(PERSON), MADE_UPSTREAM);
    await clock.pass(1);
    const newer = await service.challenges.create(identityOf(PERSON), MADE_UPSTREAM);
    await service.challenges.activate(newer, ACCEPTED, 0);
    await service.challenges.activate(older, ACCEPTED, 0);
    expect(await refusalCode(service.tries.take(older.requestId))).toBe('otp_expired');
    expect((await service.tries.take(newer.requestId)).attemptsLeft).toBe(2);
  });

  it('a provider that makes codes makes a new one for each send, and the newer one voids the older one when it is accepted', async () => {
    const service = replica();
    const first = await open(service, PERSON, MADE_UPSTREAM);
    const second = await service.challenges.create(identityOf(PERSON), MADE_UPSTREAM);
    expect(second.nonce).not.toBe(first.nonce);
    expect((await service.tries.take(first.requestId)).attemptsLeft).toBe(2);
    await service.challenges.activate(second, { delivery: 'accepted', upstreamId: 'theirs' }, 0);
    expect(await refusalCode(service.tries.take(first.requestId))).toBe('otp_expired');
    expect((await service.tries.take(second.requestId)).upstreamId).toBe('theirs');
  });
});

describe('the life of a code', () => {
  const born = async ({ requestId }: Opened): Promise<number> =>
    Number(await raw.hget(recordOf(requestId), 'issued'));

  it('the life of a code begins again with each resend and ends ten minutes after the code was made', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    let last = await open(service);
    const lives = [];
    for (const seconds of [140, 140, 140]) {
      await clock.pass(seconds * 1_000);
      const resent = await open(service);
      expect(resent.nonce).toBe(last.nonce);
      expect(resent.expiresAt.getTime() - (await born(resent))).toBeLessThanOrEqual(LIFE_MS);
      lives.push((resent.expiresAt.getTime() - clock.now) / 1_000);
      last = resent;
    }
    expect(lives).toEqual([300, 300, 180]);
    await clock.pass(60_000);
    expect((await open(service)).nonce).not.toBe(last.nonce);
  });

  it('the life of a code stays within ten minutes when OTP_TTL_SECONDS is ten minutes, too', async () => {
    const service = replica({ OTP_TTL_SECONDS: '600' });
    const first = await open(service);
    await clock.pass(290_000);
    const pending = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    expect(pending.nonce).toBe(first.nonce);
    expect(pending.lifeSeconds).toBe(310);
    const second = { ...pending, ...(await service.challenges.activate(pending, ACCEPTED, 0)) };
    expect(second.expiresAt.getTime()).toBe((await born(second)) + LIFE_MS);
    await clock.pass(310_000);
    expect(await refusalCode(service.tries.take(second.requestId))).toBe('otp_expired');
    expect((await open(service)).nonce).not.toBe(first.nonce);
  });

  it('the life of a code counts from when the code was made, not from when its SMS was accepted', async () => {
    const service = replica({ OTP_TTL_SECONDS: '600' });
    const draft = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    await clock.pass(20_000);
    const opened = await service.challenges.activate(draft, ACCEPTED, 0);
    expect(opened.expiresAt.getTime()).toBe(clock.now + LIFE_MS - 20_000);
  });

  it('a challenge takes the expiry and the attempts of the provider when they are stricter', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
    const expiresAt = new Date(clock.now + 100_000);
    const opened = await open(service, PERSON, MADE_UPSTREAM, {
      delivery: 'accepted',
      expiresAt,
      attemptsLeft: 1,
    });
    expect(opened.expiresAt).toEqual(expiresAt);
    expect(opened.attemptsLeft).toBe(1);
    await fail(service, opened.requestId, 1);
    expect(await refusalCode(service.tries.take(opened.requestId))).toBe('otp_attempts_exhausted');
    expect(await raw.pexpiretime(recordOf(opened.requestId))).toBe(expiresAt.getTime());
  });

  it.each([
    ['a later expiry and more attempts', new Date(MIDNIGHT + DAY_MS), 99],
    ['an expiry in the past', new Date(MIDNIGHT - DAY_MS), 3],
    ['no valid date and no number', new Date('never'), Number.NaN],
    ['no attempts', undefined, 0],
    ['a negative number of attempts', undefined, -7],
  ])(
    'a challenge keeps its own expiry and attempts when the answer of the provider holds %s',
    async (_, expiresAt, attemptsLeft) => {
      const service = replica({ OTP_TTL_SECONDS: '300', OTP_MAX_ATTEMPTS: '3' });
      const opened = await open(service, PERSON, MADE_UPSTREAM, {
        delivery: 'accepted',
        expiresAt,
        attemptsLeft,
      });
      expect(opened.attemptsLeft).toBe(3);
      expect(opened.expiresAt.getTime()).toBe(clock.now + 300_000);
    },
  );
});

describe('failed codes', () => {
  it('failed codes are counted across the requests and codes of a number, and lock the number at the limit', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '4/3600', OTP_TTL_SECONDS: '300' });
    await fail(service, (await open(service)).requestId, 3);
    await clock.pass(200_000);
    const second = await open(service);
    await fail(service, second.requestId, 1);

    const late = await refusal(verify(service, second.requestId, rightCode(service, second)));
    expect(late.code).toBe('phone_locked');
    expect(await attemptsOf(second.requestId)).toBe(2);
    // The oldest of the four leaves first.
    expect(late.retryAfterSeconds).toBe(3_601 - 200);
  });

  it('a locked number gets no SMS, pays nothing, and locks no other number', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    await fail(service, (await open(service)).requestId, 3);
    const before = await contents();
    const error = await refusal(service.challenges.create(identityOf(PERSON), MADE_HERE));
    expect([error.code, error.status]).toEqual(['phone_locked', 429]);
    expect(error.retryAfterSeconds).toBe(3_601);
    expect(await contents()).toEqual(before);
    expect((await open(service, OTHER)).attemptsLeft).toBe(3);
  });

  it('a number is locked exactly at the limit, with 300 concurrent guesses over 20 requests and three connections', async () => {
    const all = replicas({ LIMIT_FAILED_CODES: '10/3600,20/86400', OTP_MAX_ATTEMPTS: '5' });
    const requests = await Promise.all(Array.from({ length: 20 }, (_, i) => open(all[i % CONNECTIONS]!)));
    const guesses = Array.from({ length: 300 }, (_, i) =>
      all[i % CONNECTIONS]!.tries.take(requests[i % 20]!.requestId),
    );
    expect((await outcomes(guesses)).done).toBe(10);
    expect(await failuresOf(requests[0]!.requestId)).toBe(10);
  });

  it('failed codes are forgotten when their window has passed', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    await fail(service, (await open(service)).requestId, 3);
    await clock.pass(3_600_000);
    expect(await refusalCode(service.challenges.create(identityOf(PERSON), MADE_HERE))).toBe('phone_locked');
    await clock.pass(1);
    expect((await open(service)).attemptsLeft).toBe(3);
  });

  it('a right code clears failed codes from windows of up to an hour, not from longer ones', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600,5/86400' });
    const first = await open(service);
    await fail(service, first.requestId, 2);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);

    await clock.pass(1);
    // The hour counts these three; the day counts the two before them as well.
    await fail(service, (await open(service)).requestId, 3);
    expect(await refusalCode(service.challenges.create(identityOf(PERSON), MADE_HERE))).toBe('phone_locked');
    await clock.pass(3_700_000);
    const { code, retryAfterSeconds } = await refusal(
      service.challenges.create(identityOf(PERSON), MADE_HERE),
    );
    expect(code).toBe('phone_locked');
    // The day's five: the oldest of them was a millisecond before these three.
    expect(retryAfterSeconds).toBe(86_400 - 3_700);
  });

  it('a right code keeps earlier failed codes cleared for the whole hour in which they would have counted', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600,1000/86400' });
    const first = await open(service);
    await fail(service, first.requestId, 2);
    expect(await verify(service, first.requestId, rightCode(service, first))).toBe(true);
    await clock.pass(3_590_000);
    const second = await open(service);
    await fail(service, second.requestId, 2);
    expect(await verify(service, second.requestId, rightCode(service, second))).toBe(true);
  });

  it('right codes never count as failed codes', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '2/3600,3/86400,4/2592000' });
    for (let logins = 0; logins < 10; logins += 1) {
      const opened = await open(service);
      expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
      expect(await failuresOf(opened.requestId)).toBe(0);
    }
  });

  it('a second right answer that comes at the same time does not count as a failed code', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/86400' });
    for (let logins = 0; logins < 5; logins += 1) {
      const opened = await open(service);
      const both = [await service.tries.take(opened.requestId), await service.tries.take(opened.requestId)];
      const won = await Promise.all(both.map((attempt) => service.tries.consume(attempt)));
      expect(won.filter(Boolean)).toHaveLength(1);
      expect(await failuresOf(opened.requestId)).toBe(0);
    }
  });
});

describe('an attempt that is given back', () => {
  it('an attempt that was given back can be used again and does not count as a failed code', async () => {
    const service = replica({ LIMIT_FAILED_CODES: '3/3600' });
    const opened = await open(service);
    for (let outages = 0; outages < 10; outages += 1) {
      const attempt = await service.tries.take(opened.requestId);
      await service.tries.giveBack(attempt);
    }
    expect(await attemptsOf(opened.requestId)).toBe(3);
    expect(await failuresOf(opened.requestId)).toBe(0);
    expect(await verify(service, opened.requestId, rightCode(service, opened))).toBe(true);
  });

  it('an attempt is given back once, even if 30 concurrent calls ask for it', async () => {
    const service = replica();
    const { requestId } = await open(service);
    await service.tries.take(requestId);
    await clock.pass(1);
    const attempt = await service.tries.take(requestId);
    const all = replicas();
    await Promise.all(Array.from({ length: 30 }, (_, i) => all[i % CONNECTIONS]!.tries.giveBack(attempt)));
    expect(await attemptsOf(requestId)).toBe(2);
    expect(await failuresOf(requestId)).toBe(1);
  });

  it('the attempts and the failed codes add up when many attempts are taken and given back at once', async () => {
    const all = replicas();
    const { requestId } = await open(all[0]!);
    await Promise.all(
      Array.from({ length: 90 }, async (_, i) => {
        const { tries } = all[i % CONNECTIONS]!;
        const attempt = await tries.take(requestId).catch(() => undefined);
        if (attempt) await tries.giveBack(attempt);
      }),
    );
    expect(await attemptsOf(requestId)).toBe(3);
    expect(await failuresOf(requestId)).toBe(0);
  });

  it('giving an attempt back does not restore a challenge that has gone or was used', async () => {
    const service = replica();
    const gone = await open(service);
    const first = await service.tries.take(gone.requestId);
    await raw.del(recordOf(gone.requestId));
    await service.tries.giveBack(first);
    expect(await raw.exists(recordOf(gone.requestId))).toBe(0);

    const used = await open(service);
    const [lost, right] = [
      await service.tries.take(used.requestId),
      await service.tries.take(used.requestId),
    ];
    expect(await service.tries.consume(right)).toBe(true);
    await service.tries.giveBack(lost);
    expect(await refusalCode(service.tries.take(used.requestId))).toBe('otp_expired');
  });
});

describe('the records of a person', () => {
  it('a record does not open with a ciphertext that was copied from another record', async () => {
    const service = replica();
    const [mine, again, theirs] = [await open(service), await open(service), await open(service, OTHER)];
    const sealed = (await raw.hget(recordOf(mine.requestId), 'phone'))!;
    await raw.hset(recordOf(again.requestId), 'phone', sealed);
    await raw.hset(recordOf(theirs.requestId), 'phone', sealed);
    for (const { requestId } of [again, theirs])
      expect(await refusalCode(service.tries.take(requestId))).toBe('otp_expired');
    expect((await service.tries.take(mine.requestId)).phone).toBe(PERSON);
  });

  it('a record does not open under the key of another person, even if the code was copied along', async () => {
    const service = replica();
    const [mine, theirs] = [await open(service), await open(service, OTHER)];
    await raw.copy(recordOf(mine.requestId), recordOf(theirs.requestId), 'REPLACE');
    await raw.copy(keysOf(mine.requestId).codes, keysOf(theirs.requestId).codes, 'REPLACE');
    const attack = verify(service, theirs.requestId, rightCode(service, mine));
    expect(await refusalCode(attack)).toBe('otp_expired');
  });

  it('a record does not open under another SUBJECT_SECRET, which would make another user of the number', async () => {
    const [service, elsewhere] = [
      replica(),
      replica({ SUBJECT_SECRET: 'challenges-another-subject-0123456789' }),
    ];
    const opened = await open(service);
    const attempt = verify(elsewhere, opened.requestId, rightCode(service, opened));
    expect(await refusalCode(attempt)).toBe('otp_expired');
  });

  it.each(['', 'x', 'x.y', 'AAAAAA.AAAA', '.'])(
    'a record does not open with the ciphertext %p',
    async (sealed) => {
      const service = replica();
      const { requestId } = await open(service);
      await raw.hset(recordOf(requestId), 'phone', sealed);
      expect(await refusalCode(service.tries.take(requestId))).toBe('otp_expired');
    },
  );

  it('the records of a number hold neither the number nor a code, share one hash tag, and expire', async () => {
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
      await service.challenges.create(identityOf(number), MADE_UPSTREAM);
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

    await expectEveryKeyToExpire();
    const keys = await clock.keys();
    for (const key of keys) expect(key).toMatch(/^otp-login:\{[\w-]{22}\}:[^{}]+$/);
    expect(new Set(keys.map((key) => /\{(.+)\}/.exec(key)![1]))).toEqual(
      new Set(ids.map((requestId) => partsOf(requestId).pseudonym)),
    );
    expect(keys.filter((key) => key.includes(partsOf(ids[0]!).pseudonym)).length).toBeGreaterThanOrEqual(6);
  });

  it('each key of a number has a time to live after every single step', async () => {
    const service = replica();
    for (const sender of [MADE_HERE, MADE_UPSTREAM]) {
      await clock.empty();
      const first = await service.challenges.create(identityOf(PERSON), sender);
      await expectEveryKeyToExpire();
      await service.challenges.activate(first, ACCEPTED, 0);
      await expectEveryKeyToExpire();
      await service.tries.giveBack(await service.tries.take(first.requestId));
      await expectEveryKeyToExpire();
      const late = await service.challenges.create(identityOf(PERSON), sender);
      const attempt = await service.tries.take(first.requestId);
      await expectEveryKeyToExpire();
      expect(await service.tries.consume(attempt)).toBe(true);
      await expectEveryKeyToExpire();
      await service.challenges.activate(late, ACCEPTED, 0);
      await expectEveryKeyToExpire();
    }
    await clock.empty();
    const only = await open(service);
    expect(await service.tries.consume(await service.tries.take(only.requestId))).toBe(true);
    await expectEveryKeyToExpire();
  });

  it('two challenges never share a nonce or a ciphertext', async () => {
    const service = replica();
    const one = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    const two = await service.challenges.create(identityOf(PERSON), MADE_HERE);
    const sealed = await Promise.all(
      [one, two].map(({ requestId }) => raw.hget(recordOf(requestId), 'phone')),
    );
    expect(sealed[0]).not.toBe(sealed[1]);
    expect((await service.challenges.create(identityOf(OTHER), MADE_HERE)).nonce).not.toBe(one.nonce);
  });
});

describe('rotation of SECRET', () => {
  const before = (): OtpSteps => replica({ SECRET: OLD_SECRET });
  const appended = (): OtpSteps => replica({ SECRET: `${OLD_SECRET},${NEW_SECRET}` });
  const moved = (): OtpSteps => replica({ SECRET: `${NEW_SECRET},${OLD_SECRET}` });
  const dropped = (): OtpSteps => replica({ SECRET: NEW_SECRET });

  it('a replica accepts the codes of a replica that is one step before or after it in the rotation', async () => {
    for (const [sender, verifier] of [
      [before(), appended()],
      [appended(), before()],
      [appended(), moved()],
      [moved(), appended()],
    ] as const) {
      await clock.empty();
      const opened = await open(sender);
      expect(await verify(verifier, opened.requestId, rightCode(sender, opened))).toBe(true);
    }
  });

  it('a replica makes new codes under the first secret of the list', async () => {
    const [old, fresh] = [await open(before()), await open(moved(), OTHER)];
    expect(fresh.nonce.split('.')[0]).not.toBe(old.nonce.split('.')[0]);
    expect(() => before().codes.derive(OTHER, fresh.nonce)).toThrow();
    expect(rightCode(dropped(), fresh, OTHER)).toBe(rightCode(moved(), fresh, OTHER));
  });

  it('a resend sends the valid code again if its secret is known, and a new code if not', async () => {
    const old = await open(before());
    expect((await moved().challenges.create(identityOf(PERSON), MADE_HERE)).nonce).toBe(old.nonce);
    const fresh = await open(dropped());
    expect(fresh.nonce).not.toBe(old.nonce);
    expect(await verify(dropped(), fresh.requestId, rightCode(dropped(), fresh))).toBe(true);
  });

  it('a replica refuses a code of a secret that was dropped', async () => {
    const old = await open(before());
    const attack = verify(dropped(), old.requestId, rightCode(before(), old));
    expect(await refusalCode(attack)).toBe('otp_expired');
  });

  it('a replica refuses a code of a dropped secret even if a resend sealed its record under the new secret', async () => {
    const old = await open(before());
    const resent = await open(moved());
    expect(resent.nonce).toBe(old.nonce);
    const attack = verify(dropped(), resent.requestId, rightCode(before(), old));
    expect(await refusalCode(attack)).toBe('otp_expired');
  });

  it('a guess is compared with the code of one secret, not with those of all secrets', async () => {
    const opened = await open(before());
    const { codes } = moved();
    const id = moved().codes.nonceFor(MADE_HERE).split('.')[0]!;
    const underTheOther = codes.derive(PERSON, opened.nonce.replace(/^[^.]+/, id));
    expect(underTheOther).not.toBe(rightCode(before(), opened));
    expect(await verify(moved(), opened.requestId, underTheOther)).toBe(false);
  });
});

describe('the request id', () => {
  it('two request ids of one number have no part in common, and a dump of Redis holds neither of them', async () => {
    const service = replica();
    const [one, two] = [await open(service), await open(service)];
    const chunks = (id: string): string[] => Array.from({ length: 61 }, (_, at) => id.slice(at, at + 4));
    expect(chunks(one.requestId).filter((chunk) => two.requestId.includes(chunk))).toEqual([]);
    const { pseudonym } = identityOf(PERSON);
    for (const { requestId } of [one, two])
      expect([requestId.includes(pseudonym), requestId.slice(22, 43) === pseudonym.slice(0, 21)]).toEqual([
        false,
        false,
      ]);
    const everything = JSON.stringify(await contents());
    for (const { requestId } of [one, two]) expect(everything).not.toContain(requestId.slice(22));
  });

  it('the request id of a send under an Idempotency-Key follows from number, key and SUBJECT_SECRET alone', async () => {
    const at = async (service: OtpSteps, number = PERSON, key = 'a'.repeat(16)): Promise<string> => {
      await clock.empty();
      return ((await service.challenges.create(identityOf(number), MADE_HERE, key)) as Draft).requestId;
    };
    const id = await at(replica());
    expect(await at(replica({ SECRET: NEW_SECRET }))).toBe(id);
    const others = [
      await at(replica(), OTHER),
      await at(replica(), PERSON, 'b'.repeat(16)),
      await at(replica({ SUBJECT_SECRET: 'challenges-another-subject-0123456789' })),
    ];
    expect(new Set([id, ...others]).size).toBe(4);
  });
});

describe('a send under an Idempotency-Key', () => {
  const KEY = 'challenges-key-01';
  const create = (on: OtpSteps): Promise<Draft | Replay> =>
    on.challenges.create(identityOf(PERSON), MADE_HERE, KEY);
  const draftOf = async (on: OtpSteps): Promise<Draft> => {
    const created = await create(on);
    if (created.kind === 'replay') throw new Error('The challenge is active');
    return created;
  };

  it('a send that was activated while its answer was lost is not released, and its repeat gets the answer', async () => {
    const service = replica();
    const draft = await draftOf(service);
    const opened = await service.challenges.activate(draft, ACCEPTED, 0);
    await service.challenges.release(draft, 'no');
    expect(await create(service)).toEqual({ kind: 'replay', request: opened });
  });

  it('a replay repeats the first response, with the attempts that are left', async () => {
    const service = replica();
    const opened = await service.challenges.activate(await draftOf(service), ACCEPTED, 30_000, 'sms');
    await fail(service, opened.requestId, 2);
    const { lookup } = await service.challenges.status(opened.requestId);
    const sms = { ...lookup, id: partsOfDraft(opened.requestId), sms: 'sms', provider: '', nonce: '' };
    await service.challenges.recordDelivery(sms, 'failed', 1_000);
    const status = await service.challenges.status(opened.requestId);
    expect([status.delivery, status.resendAt]).toEqual(['failed', new Date(clock.now + 1_000)]);
    expect(await create(service)).toEqual({ kind: 'replay', request: { ...opened, attemptsLeft: 1 } });
  });

  it('a repeat whose code was voided meanwhile gets a new code if the first request certainly sent nothing', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const draft = await draftOf(service);
    await service.challenges.release(draft, 'no');
    // The code is used under another request.
    expect(await verify(service, (await open(service)).requestId, rightCode(service, draft))).toBe(true);
    const again = await draftOf(service);
    expect(again).toMatchObject({ requestId: draft.requestId, kind: 'resumed', maybeSent: false });
    expect(again.nonce).not.toBe(draft.nonce);
    await service.challenges.activate(again, ACCEPTED, 0);
    expect(await verify(service, again.requestId, rightCode(service, again))).toBe(true);
  });

  it('a repeat whose code was voided meanwhile voids no other code if the first request may have sent it', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const draft = await draftOf(service);
    await service.challenges.release(draft, 'maybe');
    expect(await verify(service, (await open(service)).requestId, rightCode(service, draft))).toBe(true);
    const live = await open(service);
    expect(live.nonce).not.toBe(draft.nonce);

    // By then the live code is too old to be sent again.
    await clock.pass(151_000);
    const again = await draftOf(service);
    expect(again).toMatchObject({ nonce: draft.nonce, maybeSent: true, fencingToken: 2 });
    await service.challenges.activate(again, { delivery: 'unknown' }, 0);
    expect((await service.challenges.status(draft.requestId)).state).toBe('expired');
    expect(await verify(service, live.requestId, rightCode(service, live))).toBe(true);
  });

  it('a draft that was reassigned gets a new code, and certainly was not sent', async () => {
    const service = replica();
    await service.challenges.release(await draftOf(service), 'maybe');
    const again = await draftOf(service);
    const { nonce } = again;
    await service.challenges.reassign(again, MADE_HERE);
    expect(again.nonce).not.toBe(nonce);
    await service.challenges.release(again, 'no');
    expect(await draftOf(service)).toMatchObject({ nonce: again.nonce, maybeSent: false, fencingToken: 3 });
  });

  it('a request that lost its lease can neither activate nor reassign nor release the challenge', async () => {
    const service = replica({ UPSTREAM_DEADLINE_MS: '20000' });
    const stalled = await draftOf(service);
    await clock.pass(25_000);
    const next = await draftOf(service);
    expect(next).toMatchObject({ createdAt: stalled.createdAt, fencingToken: 2, maybeSent: true });
    expect(await refusalCode(service.challenges.activate(stalled, ACCEPTED, 0))).toBe(
      'idempotency_in_progress',
    );
    expect(await refusalCode(service.challenges.reassign(stalled, MADE_HERE))).toBe('store_unavailable');
    await service.challenges.release(stalled, 'refused');
    const opened = await service.challenges.activate(next, ACCEPTED, 0);
    expect(await create(service)).toEqual({ kind: 'replay', request: opened });
  });

  it('a refused send leaves nothing behind, unless an earlier request may still be under way', async () => {
    const service = replica({ UPSTREAM_DEADLINE_MS: '20000' });
    const refused = await draftOf(service);
    await service.challenges.release(refused, 'refused');
    expect(await clock.keys()).toEqual([]);
    const first = await draftOf(service);
    await clock.pass(25_000);
    const second = await draftOf(service);
    await service.challenges.release(second, 'refused');
    expect(await draftOf(service)).toMatchObject({ createdAt: first.createdAt, fencingToken: 3 });
  });

  it('a send that died may have been sent, even if its repeat did nothing', async () => {
    const service = replica({ UPSTREAM_DEADLINE_MS: '20000' });
    await draftOf(service);
    await clock.pass(25_000);
    const repeat = await draftOf(service);
    expect(repeat.maybeSent).toBe(true);
    await service.challenges.release(repeat, 'no');
    expect((await draftOf(service)).maybeSent).toBe(true);
  });

  it('a send that was certainly not sent is resumed with the full life of a code', async () => {
    const service = replica();
    const draft = await draftOf(service);
    await service.challenges.release(draft, 'no');
    await clock.pass(100_000);
    expect(await draftOf(service)).toMatchObject({
      requestId: draft.requestId,
      nonce: draft.nonce,
      maybeSent: false,
      lifeSeconds: 300,
    });
  });

  it('an Idempotency-Key that is used again after its challenge expired gives the same request id for another challenge', async () => {
    const service = replica({ OTP_TTL_SECONDS: '300' });
    const first = await draftOf(service);
    const opened = await service.challenges.activate(first, ACCEPTED, 0);
    const late = await service.tries.take(opened.requestId);
    await clock.pass(300_001);
    const second = await draftOf(service);
    expect(second).toMatchObject({ kind: 'new', requestId: first.requestId, fencingToken: 1 });
    expect(second.createdAt).toBe(first.createdAt + 300_001);
    await service.challenges.activate(second, ACCEPTED, 0);
    // What is still under way for the first challenge does not touch the second.
    expect(await service.tries.consume(late)).toBe(false);
    await service.tries.giveBack(late);
    expect(await attemptsOf(second.requestId)).toBe(3);
  });

  it('a hundred repeats wait for the request in flight, and a further repeat is refused without a second look', async () => {
    const { claims } = replica();
    let free = false;
    let asked = 0;
    const ask = (): Promise<{ kind: 'in_progress' } | { kind: 'replay' }> => {
      asked += 1;
      return Promise.resolve({ kind: free ? 'replay' : 'in_progress' });
    };
    const waiting = Array.from({ length: 100 }, () => claims.untilFree(ask));
    expect(await refusalCode(claims.untilFree(ask))).toBe('idempotency_in_progress');
    expect(asked).toBe(101);
    free = true;
    expect((await Promise.all(waiting)).map(({ kind }) => kind)).toEqual(Array(100).fill('replay'));
    expect((await claims.untilFree(ask)).kind).toBe('replay');
  });
});
