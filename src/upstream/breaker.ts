import { BrokenCircuitError, circuitBreaker, CircuitState, handleWhenResult, type IBreaker } from 'cockatiel';

/** It opens after so many failures in a row, */
const IN_A_ROW = 20;
/** or when so many of the calls of the last seconds failed. */
const SHARE = 0.9;
const LEAST_CALLS = 20;
const WITHIN_MS = 10_000;
/** While it is open, one call is let through so often. */
const PROBE_EVERY_MS = 5_000;

/** A call that came to its end, one way or the other. */
interface Counted {
  /** It says that the provider does not work, and not that this request was refused. */
  down: boolean;
}

// cockatiel's own sampling leaves failures of an hour ago in a window of seconds, where calls were few in between.
class Failures implements IBreaker {
  state: { at: number; down: boolean }[] = [];
  private inARow = 0;

  success(): void {
    this.inARow = 0;
    this.count(false);
  }

  failure(circuit: CircuitState): boolean {
    this.inARow += 1;
    this.count(true);
    if (circuit !== CircuitState.Closed || this.inARow >= IN_A_ROW) return true;
    const down = this.state.filter((call) => call.down).length;
    return this.state.length >= LEAST_CALLS && down >= SHARE * this.state.length;
  }

  /** A provider that is back starts afresh. */
  forget(): void {
    this.inARow = 0;
    this.state = [];
  }

  private count(down: boolean): void {
    const at = performance.now();
    this.state.push({ at, down });
    while (this.state[0] && this.state[0].at < at - WITHIN_MS) this.state.shift();
  }
}

// By a clock that never steps back: cockatiel's is the wall's, and would stay open for as long as that was put back.
function untilProbe(): { readonly duration: number; next: typeof untilProbe } {
  const opened = performance.now();
  return {
    get duration() {
      return performance.now() - opened >= PROBE_EVERY_MS ? -Infinity : Infinity;
    },
    next: untilProbe,
  };
}

/**
 * Keeps calls from a provider that is down: no request waits for it, and it is not flooded while it restarts. The breaker
 * closes by itself, on the first call that works.
 */
export class Breaker {
  private readonly failures = new Failures();
  private readonly circuit = circuitBreaker(
    handleWhenResult((result) => (result as Counted).down),
    { breaker: this.failures, halfOpenAfter: { next: untilProbe } },
  );

  /** @param onChange told once when it opens, and once when it closes again: a probe that fails is no news */
  constructor(onChange: (open: boolean) => void = () => undefined) {
    let open = false;
    this.circuit.onBreak(() => {
      if (!open) onChange((open = true));
    });
    this.circuit.onReset(() => {
      this.failures.forget();
      onChange((open = false));
    });
  }

  /** True while a probe is under way, too. */
  get open(): boolean {
    return this.circuit.state !== CircuitState.Closed;
  }

  /** Makes a call, and counts how it ended; undefined when it is not to be made. */
  async run<Result extends Counted>(call: () => Promise<Result>): Promise<Result | undefined> {
    // cockatiel would let the call wait for the probe, which may hang.
    if (this.circuit.state === CircuitState.HalfOpen) return undefined;
    try {
      return await this.circuit.execute(call);
    } catch (error) {
      if (error instanceof BrokenCircuitError) return undefined;
      throw error;
    }
  }
}
