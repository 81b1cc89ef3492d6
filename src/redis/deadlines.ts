/**
 * A timeout passes in as many parts. After a stall of this process a timer fires before the sockets are read, and the answer
 * may be there already: a stall costs one part, and not the command.
 */
const PARTS = 5;

/** A command that waits for its answer. */
interface Waiting {
  readonly giveUp: () => void;
  partsLeft: number;
}

/** One timer for all commands that wait for an answer: a timer for each would cost more than the command. */
export class Deadlines {
  private readonly waiting = new Set<Waiting>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly timeoutMs: number) {}

  /** Calls `giveUp` when the time is over, unless the returned function was called before. */
  start(giveUp: () => void): () => void {
    const one = { giveUp, partsLeft: PARTS };
    this.waiting.add(one);
    this.timer ??= this.next();
    return () => this.waiting.delete(one);
  }

  private next(): NodeJS.Timeout {
    return setTimeout(() => {
      for (const one of this.waiting) {
        one.partsLeft -= 1;
        if (one.partsLeft > 0) continue;
        this.waiting.delete(one);
        one.giveUp();
      }
      this.timer = this.waiting.size > 0 ? this.next() : undefined;
    }, this.timeoutMs / PARTS).unref();
  }
}
