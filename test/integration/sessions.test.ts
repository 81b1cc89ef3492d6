import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { Audit } from '../../src/audit/audit';
import type { Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { OtpService, type VerifiedPhone } from '../../src/otp/otp.service';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { redisClient } from '../../src/redis/connection';
import { Store } from '../../src/redis/store';
import { Revocations } from '../../src/sessions/revocations';
import { SessionEndings } from '../../src/sessions/session-endings';
import { Subjects } from '../../src/sessions/subjects';
import { type Session, SessionsService } from '../../src/sessions/sessions.service';
import {
  API_KEY,
  freshNumber,
  SECRET,
  startWorld,
  SUBJECT_SECRET,
  textedCode,
  type World,
} from '../support/world';

const CONNECTIONS = 3;
const NEW_SECRET = 'sessions-new-secret-0123456789-abcdef';

let world: World;
let otp: OtpService;
let raw: Redis;
let stores: Store[];
const logger = new Logger('trace', { write: () => undefined });

function someone(): PhoneNumber {
  const number = freshNumber();
  if (!isPhoneNumber(number)) throw new Error('The number of a test is none');
  return number;
}

/** The sessions of one replica of the service. */
function replica(variables: Environment = {}, connection = 0): SessionsService {
  const config = readConfig({
    NODE_ENV: 'test',
    SECRET,
    SUBJECT_SECRET,
    STARTMESSAGING_API_KEY: API_KEY,
    ...variables,
  });
  const store = stores[connection % CONNECTIONS]!;
  const metrics = new Metrics();
  const audit = new Audit(config, store, logger, metrics);
  return new SessionsService(
    config,
    store,
    new Subjects(config),
    new SessionEndings(config, store, new Revocations(config, store), metrics, logger, audit),
    audit,
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
  stores.map((_, connection) => replica(variables, connection));

/** Only a code that came back makes one: it is requested, texted and verified. */
async function verified(number: PhoneNumber): Promise<VerifiedPhone> {
  const { requestId } = await otp.request(number, { address: '192.0.2.1' });
  return otp.verify(requestId, textedCode(world.upstream, number), { address: '192.0.2.1' });
}

async function severalVerified(number: PhoneNumber, count: number): Promise<VerifiedPhone[]> {
  const phones: VerifiedPhone[] = [];
  for (let i = 0; i < count; i += 1) phones.push(await verified(number));
  return phones;
}

const userKeys = (subject: string): Promise<string[]> => raw.keys(`otp-login:{${subject}}:*`);
const recordOf = ({ subject, id }: Session): string => `otp-login:{${subject}}:session:${id}`;
const indexOf = (subject: string): string => `otp-login:{${subject}}:sessions`;

/** The ids of the sessions that live, by their records. */
async function living(subject: string): Promise<string[]> {
  const ids: string[] = [];
  for (const key of await raw.keys(`otp-login:{${subject}}:session:*`))
    if (await raw.hexists(key, 'phone')) ids.push(key.slice(key.lastIndexOf(':') + 1));
  return ids.sort();
}

beforeAll(async () => {
  world = await startWorld();
  otp = world.instances[0]!.app.get(OtpService);
  raw = new Redis(world.redis.url);
  stores = Array.from({ length: CONNECTIONS }, () => new Store(redisClient(world.redis.url), logger));
  for (const store of stores) store.connect();
  for (const end = Date.now() + 10_000; !stores.every((store) => store.available);) {
    if (Date.now() > end) throw new Error('Redis was not reached');
    await sleep(5);
  }
});

afterAll(async () => {
  for (const store of stores) store.close();
  raw.disconnect();
  await world.close();
});

describe('opening a session', () => {
  it('opens one that is found again, with whose it is and since when', async () => {
    const number = someone();
    const before = Date.now();
    const opened = await open(replica(), await verified(number));
    expect(opened.phoneNumber).toBe(number);
    expect(opened.subject).toMatch(/^[\w-]{22}$/);
    expect(opened.id).toMatch(/^[\w-]{22}$/);
    expect(opened.authenticatedAt.getTime()).toBeGreaterThanOrEqual(before);
    expect(opened.authenticatedAt.getTime()).toBeLessThanOrEqual(Date.now());

    const found = await find(replica({}, 1), opened.subject, opened.id);
    expect(found).toMatchObject({
      id: opened.id,
      subject: opened.subject,
      phoneNumber: number,
      authenticatedAt: opened.authenticatedAt,
    });
  });

  it('opens one session for one verification, however often and wherever it is asked', async () => {
    const all = replicas();
    const phone = await verified(someone());
    const opened = await Promise.all(
      Array.from({ length: 60 }, (_, i) => open(all[i % CONNECTIONS]!, phone)),
    );
    await sleep(5);
    opened.push(await open(all[0]!, phone));
    expect(new Set(opened.map(({ id }) => id)).size).toBe(1);
    expect(new Set(opened.map(({ authenticatedAt }) => authenticatedAt.getTime())).size).toBe(1);
    expect(await living(opened[0]!.subject)).toEqual([opened[0]!.id]);
    expect(await raw.zrange(indexOf(opened[0]!.subject), 0, -1)).toEqual([opened[0]!.id]);
  });

  it('opens another session of the same user for another verification', async () => {
    const number = someone();
    const [one, two] = await Promise.all(
      (await severalVerified(number, 2)).map((phone) => open(replica(), phone)),
    );
    expect(two!.subject).toBe(one!.subject);
    expect(two!.id).not.toBe(one!.id);
    expect(await living(one!.subject)).toEqual([one!.id, two!.id].sort());
  });

  it('tells nothing of the challenge by the id of the session', async () => {
    const phone = await verified(someone());
    const { id } = await open(replica(), phone);
    expect(phone.challengeId).not.toContain(id);
  });

  it('takes nothing but the proof that a code came back', () => {
    // @ts-expect-error An object of the same shape is no proof.
    const forged: VerifiedPhone = { phoneNumber: someone(), challengeId: 'mine', verified: true };
    expect(forged).toBeDefined();
  });
});

describe('the number of sessions of a user', () => {
  it('is kept by ending the oldest', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '3' });
    const opened: Session[] = [];
    for (const phone of await severalVerified(someone(), 5)) {
      opened.push(await open(sessions, phone));
      await sleep(3);
    }
    const found = await Promise.all(opened.map(({ subject, id }) => find(sessions, subject, id)));
    expect(found.map((session) => session !== undefined)).toEqual([false, false, true, true, true]);
  });

  it('is kept when many are opened at once on three connections, and costs nobody else a session', async () => {
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
  it('is not opened again by the verification that opened it', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '1' });
    const [first, second] = await severalVerified(someone(), 2);
    const ended = await open(sessions, first!);
    await sleep(3);
    const living = await open(sessions, second!);
    await expect(open(sessions, first!)).rejects.toMatchObject({ code: 'otp_expired' });
    expect(await find(sessions, ended.subject, ended.id)).toBeUndefined();
    expect(await find(sessions, living.subject, living.id)).toBeDefined();
  });

  it('leaves no phone number behind, and nothing for ever', async () => {
    const sessions = replica({ SESSIONS_PER_USER: '1' });
    const [first, second] = await severalVerified(someone(), 2);
    const ended = await open(sessions, first!);
    await sleep(3);
    await open(sessions, second!);
    expect(await raw.hexists(recordOf(ended), 'phone')).toBe(0);
    for (const key of await raw.keys('*')) expect([key, await raw.pttl(key)]).not.toEqual([key, -1]);
  });
});

describe('the life of a session', () => {
  it('ends with the idle limit, and its index with the absolute one', async () => {
    const sessions = replica({ SESSION_IDLE_TTL_SECONDS: '1000', SESSION_MAX_TTL_SECONDS: '5000' });
    const opened = await open(sessions, await verified(someone()));
    const [idle, absolute] = [await raw.pttl(recordOf(opened)), await raw.pttl(indexOf(opened.subject))];
    expect(idle).toBeGreaterThan(990_000);
    expect(idle).toBeLessThanOrEqual(1_000_000);
    expect(absolute).toBeGreaterThan(4_990_000);
    expect(absolute).toBeLessThanOrEqual(5_000_000);
  });

  it('is over when its time has passed', async () => {
    const sessions = replica({ SESSION_IDLE_TTL_SECONDS: '1', SESSION_MAX_TTL_SECONDS: '1' });
    const opened = await open(sessions, await verified(someone()));
    await sleep(1_010);
    expect(await find(sessions, opened.subject, opened.id)).toBeUndefined();
    expect(await living(opened.subject)).toEqual([]);
  });
});

describe('finding a session', () => {
  it('finds nobody by the id of another user, or by any other text', async () => {
    const sessions = replica();
    const [mine, theirs] = [
      await open(sessions, await verified(someone())),
      await open(sessions, await verified(someone())),
    ];
    expect(await find(sessions, mine.subject, theirs.id)).toBeUndefined();
    for (const id of ['', 'A'.repeat(22), '*', mine.id.slice(1), `${mine.id}\n`])
      expect(await find(sessions, mine.subject, id)).toBeUndefined();
  });

  it('finds nobody in a record that was copied to the key of another user, or of another session', async () => {
    const sessions = replica();
    const [mine, theirs] = [
      await open(sessions, await verified(someone())),
      await open(sessions, await verified(someone())),
    ];
    await raw.copy(recordOf(mine), `otp-login:{${theirs.subject}}:session:${mine.id}`);
    expect(await find(sessions, theirs.subject, mine.id)).toBeUndefined();
    await raw.copy(recordOf(mine), recordOf(theirs), 'REPLACE');
    expect(await find(sessions, theirs.subject, theirs.id)).toBeUndefined();
    const another = 'B'.repeat(21) + 'A';
    await raw.copy(recordOf(mine), `otp-login:{${mine.subject}}:session:${another}`);
    expect(await find(sessions, mine.subject, another)).toBeUndefined();
    expect(await find(sessions, mine.subject, mine.id)).toBeDefined();
  });

  it('opens records of every secret of the list, and none of a secret that was dropped', async () => {
    const { subject, id } = await open(replica(), await verified(someone()));
    expect(await find(replica({ SECRET: `${NEW_SECRET},${SECRET}` }), subject, id)).toMatchObject({
      subject,
      id,
    });
    expect(await find(replica({ SECRET: NEW_SECRET }), subject, id)).toBeUndefined();
  });
});

describe('who a user is', () => {
  it('is the same after the whole store is lost', async () => {
    const number = someone();
    const before = await open(replica(), await verified(number));
    await raw.flushall();
    expect(await find(replica(), before.subject, before.id)).toBeUndefined();
    const after = await open(replica(), await verified(number));
    expect(after.subject).toBe(before.subject);
    expect(after.id).not.toBe(before.id);
  });

  it('does not change with SECRET, and hangs on the number and SUBJECT_SECRET alone', async () => {
    const number = someone();
    const { subject } = await open(replica(), await verified(number));
    const rotated = replica({ SECRET: NEW_SECRET });
    expect((await open(rotated, await verified(number))).subject).toBe(subject);
    expect((await open(replica(), await verified(someone()))).subject).not.toBe(subject);
    const elsewhere = replica({ SUBJECT_SECRET: 'another-subject-secret-0123456789-ab' });
    expect((await open(elsewhere, await verified(number))).subject).not.toBe(subject);
  });

  it('is not told by the pseudonym of the number, nor the number by either', async () => {
    const number = someone();
    const phone = await verified(number);
    const { subject } = await open(replica(), phone);
    const pseudonym = phone.challengeId.slice(0, 22);
    expect(subject).not.toBe(pseudonym);

    // Neither slot's keys or values name the other.
    const dumpOf = async (keys: string[]): Promise<string> => {
      const values = keys.map(async (key) => {
        const type = await raw.type(key);
        if (type === 'hash') return raw.hgetall(key);
        if (type === 'string') return raw.get(key);
        return type === 'zset' ? raw.zrange(key, 0, -1, 'WITHSCORES') : raw.lrange(key, 0, -1);
      });
      return JSON.stringify([keys, await Promise.all(values)]);
    };
    const keys = await userKeys(subject);
    expect(keys.length).toBeGreaterThanOrEqual(2);
    const records = await dumpOf(keys);
    expect(records).not.toContain(pseudonym);
    expect(records).not.toContain(phone.challengeId.slice(22));
    for (const digits of [number.slice(1), number.slice(3), number.slice(-8)])
      expect(records).not.toContain(digits);
    for (const key of keys) expect(await raw.pttl(key)).toBeGreaterThan(0);

    await open(replica(), await verified(number));
    const all = await raw.keys('*');
    expect(all.every((key) => key.startsWith('otp-login:{'))).toBe(true);
    const ofTheNumber = all.filter((key) => key.includes(pseudonym));
    expect(ofTheNumber.length).toBeGreaterThan(0);
    for (const key of ofTheNumber) expect(key).not.toContain(subject);
  });
});
