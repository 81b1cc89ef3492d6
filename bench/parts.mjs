// Functions that the benches share.
import { readdirSync, readFileSync } from 'node:fs';

/** BENCH_PART is the part of its runs, people or inputs that a bench makes: all of them unless it is set, a tenth with 0.1. */
export const part = (whole) => Math.max(1, Math.round(whole * Number(process.env.BENCH_PART || 1)));

/** Calls `work` with each number below `count`, and prints ten times how far it is. */
export async function inSteps(what, count, work) {
  for (let i = 0; i < count; i++) {
    await work(i);
    const tenth = Math.floor(((i + 1) * 10) / count);
    if (tenth > Math.floor((i * 10) / count)) console.log(`${what}: ${tenth * 10} %`);
  }
}

/** CPU time of a process, or of its main thread alone. By the scheduler's nanoseconds: `stat` counts in ticks of ten ms. */
export function cpuMs(pid, { mainOnly = false } = {}) {
  const threads = mainOnly ? [pid] : readdirSync(`/proc/${pid}/task`);
  const spent = threads.map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
  );
  return spent.reduce((sum, nanoseconds) => sum + nanoseconds) / 1e6;
}

export const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
