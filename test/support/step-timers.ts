import { until } from './hang';
import { holdTimers, type HeldTimers } from './held-timers';
import { refusal } from './outcomes';

/** All steps over Redis share one timer at a time; a step is given up after five of them. */
const STEP_PART_MS = 150;
const STEP_PARTS = 5;
/** A connection that stays silent under a command is left after this one. */
const SOCKET_MS = 3_000;

/**
 * The timers of steps over Redis and of its connections, held until {@link release}: no step is given up, and no
 * connection left, before the test says so.
 */
export class StepTimers {
  private constructor(private readonly held: HeldTimers) {}

  static hold(): StepTimers {
    return new StepTimers(holdTimers((ms) => ms === STEP_PART_MS || ms === SOCKET_MS));
  }

  /** Ends the shared timer, which a store would wait for in the next test, and then holds no timer any more. */
  release(): void {
    for (let part = 0; part < STEP_PARTS; part++) this.held.fire(STEP_PART_MS);
    jest.restoreAllMocks();
  }

  /** How many milliseconds the shared timer has run so far, or runs now. */
  get stepMs(): number {
    return this.held.delays.filter((ms) => ms === STEP_PART_MS).length * STEP_PART_MS;
  }

  /** Whether any connection has waited for an answer so far. */
  get connectionsWait(): boolean {
    return this.held.delays.includes(SOCKET_MS);
  }

  /** The time for all of these steps runs out. Throws when one of them is not refused for it. */
  async giveUp(calls: readonly Promise<unknown>[]): Promise<void> {
    const ended = Promise.allSettled(calls).then(() => true);
    await until(() => {
      this.held.fire(STEP_PART_MS);
      return Promise.race([ended, new Promise<false>((resolve) => setImmediate(resolve, false))]);
    }, 'the end of the steps');
    await expectUnavailable(calls);
  }

  /** Connections that wait for an answer are left. */
  leaveConnections(): void {
    this.held.fire(SOCKET_MS);
  }
}

/** Resolves when each call is refused as Redis is away. */
export async function expectUnavailable(calls: readonly Promise<unknown>[]): Promise<void> {
  for (const error of await Promise.all(calls.map(refusal))) {
    expect([error.code, error.status]).toEqual(['store_unavailable', 503]);
    expect(error.retryAfterSeconds).toBeGreaterThan(0);
  }
}
