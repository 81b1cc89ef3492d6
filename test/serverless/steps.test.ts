// First: the scripts are read with the rest.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { join } from 'node:path';
import fc from 'fast-check';
import { runStep, type Command, type StepName } from '../../serverless/core/steps';
import { windowsOf } from '../../serverless/core/windows';
import { ABUSE_FUNCTIONS } from '../../src/abuse/abuse-control';
import { NUMBER_FUNCTIONS } from '../../src/challenges/challenges';
import { DEVICE_FUNCTIONS } from '../../src/devices/device-revocations';
import { LEDGER_FUNCTIONS } from '../../src/ledger/ledger';
import { limitArguments, Script } from '../../src/redis/script';

// The rules of a login exist twice: as Lua scripts of the service, and as steps of the serverless edition. The same random
// commands go to both, and both must give the same answers.

const load = (room: string, name: string, ...libraries: Parameters<typeof Script.load>[2][]) =>
  Script.load(join(__dirname, '../../src', room), name, ...libraries);
const CREATE = load('challenges', 'create', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const ACTIVATE = load('challenges', 'activate');
const RELEASE = load('challenges', 'release');
const TAKE = load('challenges', 'take-attempt', DEVICE_FUNCTIONS, NUMBER_FUNCTIONS);
const CONSUME = load('challenges', 'consume', NUMBER_FUNCTIONS);
const GIVE_BACK = load('challenges', 'give-back');
const STORE_OUTCOME = load('challenges', 'store-outcome');
const STATUS = load('challenges', 'status');
const ADMISSION = load('throttling', 'admission', LEDGER_FUNCTIONS, ABUSE_FUNCTIONS);
const REFUND = load('throttling', 'refund', LEDGER_FUNCTIONS, ABUSE_FUNCTIONS);
const OPEN = load('sessions', 'open');
const REFRESH = load('sessions', 'refresh');
const END = load('sessions', 'end');
const LIST = load('sessions', 'list');

const TTL_MS = 300_000;
const LIFE_MS = 600_000;
const LEASE_MS = 25_000;
const FAILED = [
  { count: 4, seconds: 3_600 },
  { count: 7, seconds: 86_400 },
];
const SENDS = [
  { count: 1, seconds: 30 },
  { count: 3, seconds: 600 },
];
const SERVICE = [{ count: 2, seconds: 60 }];
/** Beside the edges of windows, leases and lives. */
const PAUSES = [0, 1, 999, 24_999, 25_001, 30_000, 30_001, 149_999, 150_001, 300_001, 600_001, 3_600_001];

let world: SimulatedStores;
/** The documents of the steps. */
const bodies = new Map<string, string>();
let drawn = 0;

beforeAll(async () => (world = await simulatedStores(1)));
afterAll(() => {
  world.close();
});

const lua = (script: Script, keys: string[], args: (string | number)[]): Promise<unknown> =>
  world.stores[0]!.run(script, keys, args);

function step<Name extends StepName>(key: string, name: Name, command: Command<Name>) {
  const { answer, body, expires } = runStep(name, bodies.get(key), command, world.clock.now);
  if (body !== undefined) {
    bodies.set(key, body);
    // Each document ends, as each key of Redis does.
    expect(expires).toBeGreaterThan(world.clock.now);
  }
  return answer;
}

/** Lua leaves a field out that has no value, as JSON does. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

async function agree(runs: number, play: (pick: (most: number) => number) => Promise<void>): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.infiniteStream(fc.nat(999)), async (stream) => {
      bodies.clear();
      await world.clock.empty();
      const pick = (most: number): number => Number(stream.next().value) % most;
      for (let i = 0; i < 60; i += 1) {
        if (pick(3) === 0) await world.clock.pass(PAUSES[pick(PAUSES.length)]!);
        await play(pick);
      }
    }),
    { numRuns: runs },
  );
}

const KEYS = ['codes', 'failed', 'cleared', 'device-failed', 'devices-ended', 'blocked', 'known', 'unlocks'];
const [codes, failed, cleared, deviceFailed, devicesEnded, blocked, known, unlocks] = KEYS.map(
  (name) => `{n}:${name}`,
) as [string, string, string, string, string, string, string, string];

describe.each([true, false])('challenges whose code the service makes: %s', (resend) => {
  it('the steps of a challenge answer as the scripts of the service do', async () => {
    const owners = new Map<string, string>();
    const taken = new Map<string, { failure: number; createdAt: number }>();
    await agree(20, async (pick) => {
      const own = 'abc'.charAt(pick(3));
      const challenge = `{n}:challenge:${own}`;
      const fresh = `${(drawn += 1)}`;
      const owner = pick(5) === 0 ? 'another' : (owners.get(own) ?? 'another');
      const keyed = pick(3);
      const key = { field: `key:${keyed}`, fingerprint: `body${pick(5) === 0 ? 1 : 0}`, owner };
      switch (pick(9)) {
        case 0:
        case 1: {
          const nonce = resend ? `s1.6.${fresh}` : `upstream.0.${fresh}`;
          const answer = JSON.parse(
            (await lua(
              CREATE,
              [challenge, codes, failed, cleared, deviceFailed, devicesEnded, blocked, known, unlocks],
              [
                ...[nonce, resend ? 1 : 0, ',s1,', TTL_MS, LIFE_MS, 3, 'sealed', '', '', 'startmessaging'],
                ...[`o${fresh}`, LEASE_MS, ...limitArguments(FAILED), 0],
              ],
            )) as string,
          ) as Record<string, unknown>;
          for (const name of ['provider', 'byDevice', 'returning', 'needsProof']) delete answer[name];
          const begun = step('n', 'begin', {
            ...{ own, owner: `o${fresh}`, leaseMs: LEASE_MS, nonce, resend, secrets: ['s1'], ttlMs: TTL_MS },
            ...{ lifeMs: LIFE_MS, attempts: 3, phone: 'sealed', counted: false, sends: [] },
            failed: windowsOf(FAILED),
          });
          const { charged, resendAfterMs, ...same } = begun as typeof begun & Record<string, unknown>;
          expect(plain(same)).toEqual(answer);
          expect([charged, resendAfterMs]).toEqual('createdAt' in same ? [false, 0] : [undefined, undefined]);
          if (answer.kind === 'new' || answer.kind === 'resumed') owners.set(own, `o${fresh}`);
          return;
        }
        case 2:
        case 3: {
          const now = world.clock.now;
          const expiresAt = [-1, now + 100_000, now - 1, now + LIFE_MS][pick(4)]!;
          const attempts = [-1, 0, 2, 5][pick(4)]!;
          const args = [owner, 'up', 'sent', expiresAt, attempts, 30_000, LIFE_MS, '', ''];
          const answer = (await lua(ACTIVATE, [challenge, codes], args)) as number[] | null;
          const command = { own, owner, upstreamId: 'up', delivery: 'sent' as const, expiresAt, attempts };
          const active = step('n', 'activate', { ...command, resendAfterMs: 30_000, lifeMs: LIFE_MS });
          if (active.kind !== 'active') expect(answer).toEqual(active.kind === 'gone' ? null : []);
          else expect([active.expiresAt, active.attemptsLeft, active.resendAt]).toEqual(answer);
          return;
        }
        case 4: {
          const sent = (['refused', 'no', 'maybe'] as const)[pick(3)]!;
          const answer = await lua(RELEASE, [challenge, codes], [owner, sent]);
          expect(step('n', 'release', { own, owner, sent, charged: false }).released).toBe(answer === 1);
          return;
        }
        case 5:
        case 6: {
          const answer = JSON.parse(
            (await lua(
              TAKE,
              [challenge, codes, failed, cleared, deviceFailed, devicesEnded, blocked, unlocks],
              [
                ...(keyed === 0 ? ['', ''] : [key.field, key.fingerprint]),
                ...['', '', ...limitArguments(FAILED), 0, key.owner, LEASE_MS],
              ],
            )) as string,
          ) as Record<string, unknown>;
          const command = { own, key: keyed === 0 ? undefined : key, leaseMs: LEASE_MS };
          const took = step('n', 'take', { ...command, failed: windowsOf(FAILED) });
          for (const name of ['provider', 'sms', 'allowance', 'sinceLastFailureMs', 'lockMs'])
            delete answer[name];
          if (took.kind === 'taken') {
            taken.set(own, took);
            answer.failure = Number(answer.failure);
          }
          const { ms, ...same } = took as typeof took & { ms?: number };
          expect(plain(took.kind === 'in_progress' ? same : took)).toEqual(answer);
          expect(ms === undefined || ms > 0).toBe(true);
          return;
        }
        case 7: {
          const { failure, createdAt } = taken.get(own) ?? { failure: 1, createdAt: 1 };
          if (pick(3) === 0) {
            const answer = await lua(GIVE_BACK, [challenge, failed], [failure, createdAt]);
            expect(step('n', 'giveBack', { own, failure, createdAt }).given).toBe(answer === 1);
          } else if (keyed > 0 && pick(2) === 0) {
            const outcome = ['400:2', '410:0', 'exhausted:0', undefined][pick(4)];
            const kept = outcome === undefined ? '' : `${key.fingerprint}:${outcome}`;
            const answer = await lua(STORE_OUTCOME, [challenge], [key.field, kept, key.owner]);
            expect(step('n', 'storeOutcome', { own, key, outcome }).stored).toBe(answer === 1);
          } else {
            const answer = await lua(
              CONSUME,
              [challenge, codes, failed, cleared, blocked, known, failed],
              [
                failure,
                ...(keyed === 0 ? ['', ''] : [key.field, key.fingerprint]),
                ...[86_400_000, createdAt],
              ],
            );
            const command = { own, failure, createdAt, key: keyed === 0 ? undefined : key };
            expect(step('n', 'consume', command).consumed).toBe(answer === 1);
          }
          return;
        }
        default: {
          const answer = (await lua(STATUS, [challenge, codes], [1_000])) as unknown[];
          const reported = step('n', 'status', { own });
          const fields =
            reported.state === 'unknown'
              ? []
              : [
                  reported.state,
                  reported.attemptsLeft,
                  reported.expiresAt,
                  reported.resendAt,
                  reported.delivery,
                ];
          expect(fields).toEqual(answer.slice(0, 5));
        }
      }
    });
  });
});

it('the steps of the limits answer as the admission script of the service does', async () => {
  const price = 25;
  const budget = 150;
  const charged: { json: string; quarter: number }[] = [];
  await agree(20, async (pick) => {
    if (pick(6) === 0 && charged.length > 0) {
      const [last] = charged.splice(pick(charged.length), 1);
      const answer = await lua(
        REFUND,
        ['minutes', 'quarters', 'ledger', 'abuse', 'device'].map((name) => `{a}:${name}`),
        [last!.json, 660_000],
      );
      expect(answer).toBe(1);
      step('service', 'refund', { quarter: last!.quarter, pricePaise: price });
      return;
    }
    const number = pick(3);
    const answer = JSON.parse(
      (await lua(
        ADMISSION,
        [`phone:${number}`, 'device', 'service', 'minutes', 'quarters', 'ledger', 'abuse', 'regulars'].map(
          (name) => `{a}:${name}`,
        ),
        [
          ...[price, -1, budget, 0, 'new', 0, 0, 'p', 'startmessaging', 600_000, '[]', 'net', 0, '[]', 0, 0],
          ...['send', ...limitArguments(SENDS), 0, ...limitArguments(SERVICE)],
        ],
      )) as string,
    ) as { kind: string; ms?: number; resendAfterMs?: number; send?: { quarter: string } };
    // As a send of the edition does: begin, then admit, and release if the service refuses.
    const owner = String((drawn += 1));
    const begun = step(`n${number}`, 'begin', {
      ...{ own: owner, owner, leaseMs: LEASE_MS, nonce: `s1.6.${owner}`, resend: true, secrets: ['s1'] },
      ...{ ttlMs: TTL_MS, lifeMs: LIFE_MS, attempts: 3, phone: 'sealed', counted: true, failed: [] },
      sends: windowsOf(SENDS),
    });
    if (begun.kind === 'limited') {
      expect(answer).toEqual({ kind: 'phone', ms: begun.ms });
      return;
    }
    const command = { windows: windowsOf(SERVICE), pricePaise: price, budgetPaisePerDay: budget };
    const admitted = step('service', 'admit', command);
    if (admitted.kind === 'admitted') {
      const { kind, resendAfterMs, send } = answer;
      expect([kind, resendAfterMs, send?.quarter]).toEqual([
        'admitted',
        (begun as { resendAfterMs: number }).resendAfterMs,
        String(admitted.quarter),
      ]);
      charged.push({ json: JSON.stringify(send), quarter: admitted.quarter });
    } else {
      expect(answer).toEqual({ kind: admitted.kind, ms: admitted.ms });
      step(`n${number}`, 'release', { own: owner, owner, sent: 'refused', charged: false });
    }
  });
});

it('the steps of sessions answer as the scripts of the service do', async () => {
  const idleMs = 3_000_000;
  const maxMs = 7_000_000;
  const tellMs = 600_000;
  await agree(20, async (pick) => {
    const id = 'abcde'.charAt(pick(5));
    const session = `{u}:session:${id}`;
    switch (pick(6)) {
      case 0:
      case 1: {
        const answer = (await lua(
          OPEN,
          [session, '{u}:sessions', `{u}:opened:${id}`, '{u}:blocked'],
          [id, '{u}:session:', idleMs, maxMs, 3, 'sealed', 'device', 'network', ''],
        )) as (string | number)[];
        const opened = step('u', 'openSession', {
          ...{ id, idleMs, maxMs, mostSessions: 3, tellMs, phone: 'sealed', device: 'device' },
          address: 'network',
        });
        const over = answer.slice(4) as string[];
        // The service ends the sessions that are one too many in a second script.
        if (over.length > 0) await lua(END, ['{u}:sessions'], ['{u}:session:', tellMs, 'these', ...over]);
        if (opened.kind === 'ended') expect(answer).toEqual(['ended']);
        else expect(['live', opened.authenticatedAt, opened.phone, opened.ttlMs]).toEqual(answer.slice(0, 4));
        return;
      }
      case 2:
      case 3: {
        const counter = pick(4);
        const key = ['', 'k1', 'k2'][pick(3)]!;
        const args = [counter, 60_000, idleMs, maxMs, key, 'network', '', '{u}:session:'];
        const answer = (await lua(REFRESH, [session], args)) as (string | number)[];
        const refreshed = step('u', 'refresh', { id, counter, graceMs: 60_000, idleMs, maxMs, tellMs, key });
        if (refreshed.kind !== 'live') {
          expect(answer).toEqual([refreshed.kind]);
          if (refreshed.kind === 'reused') {
            await lua(END, ['{u}:sessions'], ['{u}:session:', tellMs, 'these', id]);
          }
        } else {
          const { counter: newest, authenticatedAt, phone, ttlMs } = refreshed;
          expect(['live', newest, authenticatedAt, phone, ttlMs]).toEqual(answer.slice(0, 5));
        }
        return;
      }
      case 4: {
        const [mode, command] = (
          [
            [['these', id], { id }],
            [['all but', id], { kept: id }],
            [['all but'], {}],
          ] as const
        )[pick(3)]!;
        const answer = (await lua(END, ['{u}:sessions'], ['{u}:session:', tellMs, ...mode])) as string[];
        const { ended } = step('u', 'endSessions', { ...command, tellMs });
        expect([...ended].sort()).toEqual([...answer].sort());
        return;
      }
      default: {
        const rows = (await lua(LIST, ['{u}:sessions'], ['{u}:session:'])) as (string | number)[][];
        const listed = step('u', 'listSessions', {}).map((each) => [
          ...[each.id, each.createdAt, each.lastUsedAt, each.expiresAt, each.device, each.address],
          each.deviceName ?? '',
          // The edition has no apps.
          ...['', []],
        ]);
        expect(listed).toEqual(rows);
      }
    }
  });
});
