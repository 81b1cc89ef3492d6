import type { Redis } from 'ioredis';
import { stopSocketTimer } from './reconnecting';
import { Script, type Step } from './script';

const MARK = Script.load(__dirname, 'mark');

/** A healthy replica answers within a millisecond or two. */
const WAIT_MS = 350;
const IDLE_MS = 10_000;

/** `held` by a replica, or there is none; `not held` in time; the slot has `moved`; the primary is `away`. */
type Outcome = 'held' | 'not held' | 'moved' | 'away';

/** A connection to one primary on which WAIT is asked: once for all steps that came meanwhile. */
export class ReplicaLine {
  readonly #redis: Redis;
  #waiting: { step: Step; resolve: (outcome: Outcome) => void }[] = [];
  #busy = false;
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    primary: Redis,
    private readonly onClose: () => void,
  ) {
    this.#redis = primary.duplicate({
      lazyConnect: true,
      enableOfflineQueue: false,
      enableAutoPipelining: false,
      readOnly: false,
      // A line that breaks is left; the next step makes a new one.
      retryStrategy: () => null,
      reconnectOnError: () => false,
    });
    this.#redis.on('error', () => undefined);
    this.#redis.on('close', () => {
      stopSocketTimer(this.#redis);
      this.close();
    });
  }

  confirm(step: Step): Promise<Outcome> {
    return new Promise((resolve) => {
      this.#waiting.push({ step, resolve });
      void this.#work();
    });
  }

  close(): void {
    // Called by everyone who is late, and when the connection has closed: ioredis would keep a timer and a listener each time.
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#idle);
    this.onClose();
    this.#redis.disconnect();
    for (const { resolve } of this.#waiting.splice(0)) resolve('away');
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    clearTimeout(this.#idle);
    while (this.#waiting.length > 0) {
      const round = this.#waiting.splice(0);
      const outcomes = await this.#round(round.map(({ step }) => step)).catch((): Outcome[] => []);
      round.forEach(({ resolve }, i) => {
        resolve(outcomes[i] ?? 'away');
      });
      if (outcomes.length === 0) this.close();
    }
    this.#busy = false;
    if (!this.#closed)
      this.#idle = setTimeout(() => {
        this.close();
      }, IDLE_MS).unref();
  }

  async #round(steps: readonly Step[]): Promise<Outcome[]> {
    if (this.#redis.status === 'wait') await this.#redis.connect();
    const taken = steps.map((step) => this.#take(step));
    // In the order of the connection, so it is asked after them: whether there is anybody to wait for.
    const [outcomes, role] = await Promise.all([Promise.all(taken), this.#optional(this.#redis.role())]);
    if (role !== undefined && role[0] !== 'master') throw new Error('It is no primary any more');
    if (role === undefined || (role[2] as unknown[]).length === 0) return outcomes;
    const count = await this.#optional(this.#redis.wait(1, WAIT_MS));
    return outcomes.map((outcome) => (outcome === 'held' && count === 0 ? 'not held' : outcome));
  }

  async #take({ script, keys, args }: Step): Promise<Outcome> {
    const [tag = ''] = /.*?\{.*?\}/.exec(keys[0] ?? '') ?? [];
    try {
      await Promise.all([
        this.#redis.eval(script.source, keys.length, ...keys, ...args),
        this.#redis.eval(MARK.source, 1, `${tag}:mark`, 1_000),
      ]);
      return 'held';
    } catch (error) {
      if (error instanceof Error && /^(MOVED|ASK|TRYAGAIN) /.test(error.message)) return 'moved';
      throw error;
    }
  }

  /** Undefined where this server, or this user of it, does not know the command. */
  async #optional<Answer>(answer: Promise<Answer>): Promise<Answer | undefined> {
    return answer.catch((error: unknown) => {
      if (!(error instanceof Error) || !/NOPERM|unknown command/i.test(error.message)) throw error;
      return undefined;
    });
  }
}
