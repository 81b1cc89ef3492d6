// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import type { Redis } from 'ioredis';
import { Alerts } from '../../src/alerts/alerts';
import { Audit } from '../../src/audit/audit';
import type { Environment } from '../../src/config/config';
import { Metrics } from '../../src/metrics/metrics';
import type { VerifiedPhone } from '../../src/otp/otp.service';
import { PhoneIdentities } from '../../src/phone-number/phone-identity';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import { Revocations } from '../../src/sessions/revocations';
import { SessionEndings } from '../../src/sessions/session-endings';
import { type Session, SessionsService } from '../../src/sessions/sessions.service';
import { Subjects } from '../../src/sessions/subjects';
import { keysOfUser, partsOf } from '../support/keys';
import { otpSteps } from '../support/otp-steps';
import { identityOf, phoneNumber } from '../support/phone-number';
import { valuesIn } from '../support/redis-contents';
import { MADE_HERE } from '../support/senders';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';
import { freshNumber, SECRET } from '../support/world';

const CONNECTIONS = 3;
const NEW_SECRET = 'sessions-new-secret-0123456789-abcdef';

let redis: SimulatedStores;
let raw: Redis;
let clock: SimulatedClock;

beforeAll(async () => {
  redis = await simulatedStores(CONNECTIONS);
  ({ raw, clock } = redis);
});
afterAll(() => {
  redis.close();
});

const someone = (): PhoneNumber => phoneNumber(freshNumber());

/** The sessions of one replica of the service. */
function replica(variables: Environment = {}, connection = 0): SessionsService {
  const config = settings(variables);
  const store = redis.stores[connection % CONNECTIONS]!;
  const metrics = new Metrics();
  const audit = new Audit(config, store, redis.logger, metrics);
  const revocations = new Revocations(config, store);
  const endings = new SessionEndings(
    config,
    store,
    revocations,
    metrics,
    new Alerts(metrics, redis.logger),
    audit,
  );
  return new SessionsService(
    config,
    store,
    new Subjects(config),
    endings,
    audit,
    new PhoneIdentities(config),
  );
}

const open = (sessions: SessionsService, phone: VerifiedPhone): Promise<Session> =>
  sessions.open(phone, { device: 'Firefox on Linux', address: '203.0.113.0/24' });

/** The session while it lives. */
async function find(sessions: SessionsService, subject: string, id: string): Promise<Session | undefined> {
  const found = await sessions.find(subject, id);
  return typeof found === 'string' ? undefined : found;
}

const replicas = (variables: Environment = {}): SessionsService[] =>
  redis.stores.map((_, connection) => replica(variables, connection));

/** A number whose code was sent and came back. */
async function verified(number: PhoneNumber): Promise<VerifiedPhone> {
  const { challenges, tries } = otpSteps(settings(), redis.stores[0]!);
  const draft = await challenges.create(identityOf(number), MADE_HERE);
  await challenges.activate(draft, { delivery: 'accepted' }, 0);
  expect(await tries.consume(await tries.take(draft.requestId))).toBe(true);
  // The compiler lets nobody but OtpService.verify make one.
  return {
    phoneNumber: number,
    challengeId: `${draft.requestId}:${draft.createdAt}`,
  } as unknown as VerifiedPhone;
}

async function severalVerified(number: PhoneNumber, count: number): Promise<VerifiedPhone[]> {
  const phones: VerifiedPhone[] = [];
  for (let i = 0; i < count; i += 1) phones.push(await verified(number));
  return phones;
}

const recordOf = ({ subject, id }: Session): string => keysOfUser(subject).session(id);
const indexOf = (subject: string): string => keysOfUser(subject).sessions;

/** The ids of the sessions that live, by their records. */
async function living(subject: string): Promise<string[]> {
  const ids: string[] = [];
  for (const key of await clock.keys(keysOfUser(subject).session('*')))
    if (await raw.hexists(key, 'phone')) ids.push(key.slice(key.lastIndexOf(':') + 1));
  return ids.sort();
}

describe('opening a session', () => {
  it('a new session is found again with its user, its number and the time of its login', async () => {
    const number = someone();
    const opened = await open(replica(), await verified(number));
    expect(opened.phoneNumber).toBe(number);
    expect(opened.subject).toMatch(/^[\w-]{22}$/);
    expect(opened.id).toMatch(/^[\w-]{22}$/);
    expect(opened.authenticatedAt).toEqual(new Date(clock.now));

    const found = await find(replica({}, 1), opened.subject, opened.id);
    expect(found).toMatchObject({
      id: opened.id,
      subject: opened.subject,
      phoneNumber: number,
      authenticatedAt: opened.authenticatedAt,
    });
  });

  it('one verification opens one session, however often and on whichever replica it is asked', async () => {
    const all = replicas();
    const phone = await verified(someone());
    const opened = await Promise.all(
      Array.from({ length: 60 }, (_, i) => open(all[i % CONNECTIONS]!, phone)),
    );
    await clock.pass(5);
    opened.push(await open(all[0]!, phone));
    expect(new Set(opened.map(({ id }) => id)).size).toBe(1);
    expect(new Set(opened.map(({ authenticatedAt }) => authenticatedAt.getTime())).size).toBe(1);
    expect(await living(opened[0]!.subject)).toEqual([opened[0]!.id]);
    expect(await raw.zrange(indexOf(opened[0]!.subject), 0, -1)).toEqual([opened[0]!.id]);
  });

  it('a second verification opens another session of the same user', async () => {
    const number = someone();
    const [one, two] = await Promise.all(
      (await severalVerified(number, 2)).map((phone) => open(replica(), phone)),
    );
    expect(two!.subject).toBe(one!.subject);
    expect(two!.id).not.toBe(one!.id);
    expect(await living(one!.subject)).toEqual([one!.id, two!.id].sort());
  });

  it('the id of a session tells nothing of the challenge that opened it', async () => {
    const phone = await verified(someone());
    const { id } = await open(replica(), phone);
    expect(phone.challengeId).not.toContain(id);
  });
});

describe('the number of sessions of a user', () => {
  it('a session beyond SESSIONS_PER_USER ends the oldest session of the user', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '3' });
    const opened: Session[] = [];
    // All within one millisecond.
    for (const phone of await severalVerified(someone(), 5)) opened.push(await open(sessions, phone));
    const found = await Promise.all(opened.map(({ subject, id }) => find(sessions, subject, id)));
    expect(found.map((session) => session !== undefined)).toEqual([false, false, true, true, true]);
  });

  it('concurrent logins on three connections leave SESSIONS_PER_USER sessions and end no session of another user', async () => {
    const all = replicas({ SESSIONS_PER_USER: '3' });
    const neighbour = await open(all[0]!, await verified(someone()));
    const phones = await severalVerified(someone(), 12);
    const opened = await Promise.all(phones.map((phone, i) => open(all[i % CONNECTIONS]!, phone)));
    const { subject } = opened[0]!;

    const left = await living(subject);
    expect(left).toHaveLength(3);
    expect((await raw.zrange(indexOf(subject), 0, -1)).sort()).toEqual(left);
    const found = await Promise.all(opened.map(({ id }, i) => find(all[i % CONNECTIONS]!, subject, id)));
    expect(
      found
        .filter((session) => session !== undefined)
        .map(({ id }) => id)
        .sort(),
    ).toEqual(left);
    expect(await find(all[0]!, neighbour.subject, neighbour.id)).toBeDefined();
  });
});

describe('a session that has ended', () => {
  it('an ended session is not opened again by the same verification', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '1' });
    const [first, second] = await severalVerified(someone(), 2);
    const ended = await open(sessions, first!);
    const living = await open(sessions, second!);
    await expect(open(sessions, first!)).rejects.toMatchObject({ code: 'otp_expired' });
    expect(await find(sessions, ended.subject, ended.id)).toBeUndefined();
    expect(await find(sessions, living.subject, living.id)).toBeDefined();
  });

  it('an ended session leaves no phone number, and each key has a time to live', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '1' });
    const [first, second] = await severalVerified(someone(), 2);
    const ended = await open(sessions, first!);
    await open(sessions, second!);
    expect(await raw.hexists(recordOf(ended), 'phone')).toBe(0);
    for (const key of await clock.keys()) expect([key, (await clock.ttl(key)) > 0]).toEqual([key, true]);
  });
});

describe('the life of a session', () => {
  it('the record of a session expires by the idle limit, and the list of sessions by the absolute limit', async () => {
    const sessions = replica({ SESSION_IDLE_TTL_SECONDS: '1000', SESSION_MAX_TTL_SECONDS: '5000' });
    const opened = await open(sessions, await verified(someone()));
    expect(await clock.ttl(recordOf(opened))).toBe(1_000_000);
    expect(await clock.ttl(indexOf(opened.subject))).toBe(5_000_000);
  });

  it('a session is gone when its idle limit has passed', async () => {
    const sessions = replica({ SESSION_IDLE_TTL_SECONDS: '1000', SESSION_MAX_TTL_SECONDS: '1000' });
    const opened = await open(sessions, await verified(someone()));
    await clock.pass(1_000_000);
    expect(await find(sessions, opened.subject, opened.id)).toBeDefined();
    await clock.pass(1);
    expect(await find(sessions, opened.subject, opened.id)).toBeUndefined();
    expect(await living(opened.subject)).toEqual([]);
  });
});

describe('finding a session', () => {
  it('a session is not found by the id of another user, or by any other text', async () => {
    const sessions = replica();
    const [mine, theirs] = [
      await open(sessions, await verified(someone())),
      await open(sessions, await verified(someone())),
    ];
    expect(await find(sessions, mine.subject, theirs.id)).toBeUndefined();
    for (const id of ['', 'A'.repeat(22), '*', mine.id.slice(1), `${mine.id}\n`])
      expect(await find(sessions, mine.subject, id)).toBeUndefined();
  });

  it('a session record is not accepted under the key of another user or of another session', async () => {
    const sessions = replica();
    const [mine, theirs] = [
      await open(sessions, await verified(someone())),
      await open(sessions, await verified(someone())),
    ];
    await raw.copy(recordOf(mine), keysOfUser(theirs.subject).session(mine.id));
    expect(await find(sessions, theirs.subject, mine.id)).toBeUndefined();
    await raw.copy(recordOf(mine), recordOf(theirs), 'REPLACE');
    expect(await find(sessions, theirs.subject, theirs.id)).toBeUndefined();
    const another = 'B'.repeat(21) + 'A';
    await raw.copy(recordOf(mine), keysOfUser(mine.subject).session(another));
    expect(await find(sessions, mine.subject, another)).toBeUndefined();
    expect(await find(sessions, mine.subject, mine.id)).toBeDefined();
  });

  it('a session record opens under every secret of the list, and not under a secret that was dropped', async () => {
    const { subject, id } = await open(replica(), await verified(someone()));
    expect(await find(replica({ SECRET: `${NEW_SECRET},${SECRET}` }), subject, id)).toMatchObject({
      subject,
      id,
    });
    expect(await find(replica({ SECRET: NEW_SECRET }), subject, id)).toBeUndefined();
  });
});

describe('subject of a user', () => {
  it('the subject of a user is the same after Redis lost everything', async () => {
    const number = someone();
    const before = await open(replica(), await verified(number));
    await clock.empty();
    expect(await find(replica(), before.subject, before.id)).toBeUndefined();
    const after = await open(replica(), await verified(number));
    expect(after.subject).toBe(before.subject);
    expect(after.id).not.toBe(before.id);
  });

  it('the subject of a user depends on the number and SUBJECT_SECRET and not on SECRET', async () => {
    const number = someone();
    const { subject } = await open(replica(), await verified(number));
    const rotated = replica({ SECRET: NEW_SECRET });
    expect((await open(rotated, await verified(number))).subject).toBe(subject);
    expect((await open(replica(), await verified(someone()))).subject).not.toBe(subject);
    const elsewhere = replica({ SUBJECT_SECRET: 'another-subject-secret-0123456789-ab' });
    expect((await open(elsewhere, await verified(number))).subject).not.toBe(subject);
  });

  it('the records of a user do not name the pseudonym of the number, and those of the number do not name the subject', async () => {
    const number = someone();
    const phone = await verified(number);
    const { subject } = await open(replica(), phone);
    const { pseudonym, own } = partsOf(phone.challengeId.slice(0, 64));
    expect(subject).not.toBe(pseudonym);

    // Neither slot's keys or values name the other.
    const keys = await clock.keys(`otp-login:{${subject}}:*`);
    expect(keys.length).toBeGreaterThanOrEqual(2);
    const records = JSON.stringify(await valuesIn(raw, keys));
    expect(records).not.toContain(pseudonym);
    for (const part of [own, phone.challengeId.slice(0, 64), phone.challengeId.slice(22, 64)])
      expect(records).not.toContain(part);
    for (const digits of [number.slice(1), number.slice(3), number.slice(-8)])
      expect(records).not.toContain(digits);
    for (const key of keys) expect(await clock.ttl(key)).toBeGreaterThan(0);

    await open(replica(), await verified(number));
    const all = await clock.keys();
    expect(all.every((key) => key.startsWith('otp-login:{'))).toBe(true);
    const ofTheNumber = all.filter((key) => key.includes(pseudonym));
    expect(ofTheNumber.length).toBeGreaterThan(0);
    for (const key of ofTheNumber) expect(key).not.toContain(subject);
  });
});
