import { Chaos, type ChaosOptions } from '../support/chaos';
import { check, type History, recoveries, type Violation } from '../support/history';
import { Build } from '../support/processes';
import { figures, full } from '../support/scale';

/** A run can be had again, as far as the machine's own timing allows. */
const SEED = Number(process.env.CHAOS_SEED ?? Date.now() % 1_000_000);
const SECONDS = full ? { caller: 360, provider: 240 } : { caller: 35, provider: 25 };
const EVERY = { killEveryMs: 10_000, failOverEveryMs: full ? 30_000 : 9_000 };
/** It is 150 MiB when nothing happens. */
const MOST_MEMORY_MIB = 400;

let build: Build;
const histories: History[] = [];
let violations = 0;
const allowances: string[] = [];
let memoryMiB = 0;

beforeAll(() => {
  build = Build.make();
}, 180_000);
afterAll(async () => {
  await build.remove();
  figures(summary());
});

describe.each(['caller', 'provider'] as const)('under the contract %s', (contract) => {
  it(
    `the service keeps every promise under ${contract} while instances and primaries die and half of the upstream calls fail`,
    async () => {
      const options: ChaosOptions = { contract, seed: SEED, seconds: SECONDS[contract], ...EVERY };
      const chaos = await Chaos.start(build, options);
      try {
        await chaos.run();
        const lockedOut = await chaos.lockedOut();
        const history = await chaos.history();
        histories.push(history);
        memoryMiB = Math.max(memoryMiB, chaos.memoryMiB);

        const verdict = check(history);
        violations += verdict.violations.length;
        allowances.push(...verdict.allowances);
        expect({ seed: SEED, ...tell(verdict.violations) }).toEqual({ seed: SEED, counts: {}, stories: [] });
        expect(lockedOut).toEqual([]);
        expect(await chaos.faultsOfRedis()).toEqual([]);
        expect(chaos.faultsOfLogs()).toEqual([]);
        expect(chaos.memoryMiB).toBeLessThan(MOST_MEMORY_MIB);
        // What was never in trouble proves nothing.
        expect(history.instanceKills.length).toBeGreaterThan(0);
        expect(history.failovers.map(({ kind }) => kind)).toContain('killed');
        expect(count(history, 'verify', 200)).toBeGreaterThan(10);
        expect(history.calls.some(({ status }) => status === 0)).toBe(true);
      } finally {
        await chaos.stop();
      }
    },
    (SECONDS[contract] + 300) * 1_000,
  );
});

/** How often each rule was broken, and how it came to the first of each. */
function tell(found: Violation[]): { counts: Record<string, number>; stories: string[][] } {
  const counts: Record<string, number> = {};
  const stories: string[][] = [];
  for (const { rule, what, story } of found) {
    counts[rule] = (counts[rule] ?? 0) + 1;
    if (counts[rule] === 1) stories.push([`${rule}: ${what}`, ...story]);
  }
  return { counts, stories };
}

const count = ({ calls }: History, op: string, status: number): number =>
  calls.filter((call) => call.op === op && call.status === status).length;

function summary(): string {
  const sum = (of: (history: History) => number): number =>
    histories.reduce((total, history) => total + of(history), 0);
  const seconds = histories.reduce((total, { contract }) => total + SECONDS[contract], 0);
  const waits = histories.flatMap(recoveries).sort((a, b) => a - b);
  const inSeconds = (ms = 0): string => (ms / 1_000).toFixed(1);
  const logins = sum((history) => count(history, 'verify', 200));
  const parts = [
    `logins ${logins}`,
    `sends ${sum(({ calls }) => calls.filter(({ op }) => op === 'send').length)}`,
    `accepted SMS ${sum(({ messages }) => messages.length)}`,
    `refreshes ${sum((history) => count(history, 'refresh', 200))}`,
    `logouts ${sum((history) => count(history, 'logout', 204))}`,
    `instances killed ${sum(({ instanceKills }) => instanceKills.length)}`,
    `failovers ${sum(({ failovers }) => failovers.length)}`,
    `violations ${violations}`,
    `writes lost with a primary ${allowances.length}`,
    `recovery after failover median ${inSeconds(waits[Math.floor(waits.length / 2)])} s, max ${inSeconds(waits.at(-1))} s`,
    `memory ${memoryMiB} MiB`,
    `seed ${SEED}`,
  ];
  return [`chaos ${seconds} s: ${parts.join(', ')}`, ...allowances.map((what) => `  ${what}`)].join('\n');
}
