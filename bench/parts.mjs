// What all benches share: how much of their work is wanted, and a line of progress.

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
