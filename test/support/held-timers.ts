/** Timers that end when the test says so, while all others go on. */
export interface HeldTimers {
  /** The delays of those that were set, in order. */
  readonly delays: readonly number[];
  /** Ends those that are running, or of them only those of this delay. */
  fire(delayMs?: number): void;
}

/** Holds the timers whose delay is of interest, such as a client's timeout, until `jest.restoreAllMocks()`. */
export function holdTimers(isHeld: (delayMs: number) => boolean, of = globalThis): HeldTimers {
  const { setTimeout: start, clearTimeout: stop } = of;
  const delays: number[] = [];
  const running = new Map<unknown, { delayMs: number; end: () => void }>();
  jest.spyOn(of, 'setTimeout').mockImplementation((end: () => void, delayMs = 0, ...rest: []) => {
    if (!isHeld(delayMs)) return start(end, delayMs, ...rest);
    delays.push(delayMs);
    // A handle that never ends by itself.
    const handle = start(() => undefined, 2 ** 31 - 1).unref();
    running.set(handle, { delayMs, end });
    return handle;
  });
  jest.spyOn(of, 'clearTimeout').mockImplementation((handle) => {
    running.delete(handle);
    stop(handle);
  });
  return {
    delays,
    fire(only) {
      const ends = [...running].filter(([, { delayMs }]) => only === undefined || delayMs === only);
      for (const [handle, { end }] of ends) {
        of.clearTimeout(handle as NodeJS.Timeout);
        end();
      }
    },
  };
}
