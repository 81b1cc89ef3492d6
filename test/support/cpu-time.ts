/** How many seconds of CPU the work takes, however busy the machine is. */
export function cpuSecondsOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** Of work on a long text: what takes more is quadratic or worse. */
export const LINEAR_CPU_SECONDS = 5;
