import type { Redis } from 'ioredis';
import { stopSocketTimer } from './reconnecting';
import { Script, type ScriptCall } from './script';

const MARK = Script.load(__dirname, 'mark');

/** A healthy replica answers within a millisecond or two. */
const WAIT_MS = 350;
/**
 * A replica reports its offset each second. After ten seconds, and one more for its own check, a primary with
 * `min-replicas-to-write` has refused the write: with that setting no caller gets a confirmation without a replica.
 */
const SILENT_SECONDS = 12;
/** A replica that has just come back is counted; silent ones delay no request. */
const SILENT_WAIT_MS = 50;
const IDLE_MS = 10_000;

/**
 * `held` by a replica; there is none, the primary is `alone`; every replica has been `silent` for long; `not held` in
 * time; the slot has `moved`; the primary is `away`.
 */
export type Outcome = 'held' | 'alone' | 'silent' | 'not held' | 'moved' | 'away';

/** A connection to one primary on which WAIT is asked: once for all steps that came meanwhile. */
export class ReplicaLine {
  readonly #redis: Redis;
  #waiting: { command: ScriptCall; resolve: (outcome: Outcome) => void }[] = [];
  #busy = false;
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    primary: Redis,
    /** In a cluster; empty elsewhere. */
    readonly address: string,
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

  confirm(command: ScriptCall): Promise<Outcome> {
    return new Promise((resolve) => {
      this.#waiting.push({ command, resolve });
      void this.#work();
    });
  }

  close(): void {
    // Called by every late request, and after the connection has closed: ioredis would keep a timer and a listener each
    // time.
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
      const outcomes = await this.#round(round.map(({ command }) => command)).catch((): Outcome[] => []);
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

  async #round(commands: readonly ScriptCall[]): Promise<Outcome[]> {
    if (this.#redis.status === 'wait') await this.#redis.connect();
    const taken = commands.map((command) => this.#take(command));
    // Asked after them on the same connection: is there a replica to wait for? ROLE, because there
    // are managed servers with no replicas in INFO; INFO, because ROLE does not tell of their silence.
    const [moved, role, info] = await Promise.all([
      Promise.all(taken),
      this.#optional(this.#redis.role()),
      this.#optional(this.#redis.info('replication')),
    ]);
    if (role !== undefined && role[0] !== 'master') throw new Error('It is no primary any more');
    const nobody = role === undefined || (role[2] as unknown[]).length === 0;
    const outcome = nobody ? 'alone' : await this.#wait(areSilent(info));
    return moved.map((hasMoved) => (hasMoved ? 'moved' : outcome));
  }

  async #wait(silent: boolean): Promise<Outcome> {
    // Waits for the silent ones, too: a primary whose own clock leapt, or that stood still itself, finds all of them so at
    // first.
    const count = await this.#optional(this.#redis.wait(1, silent ? SILENT_WAIT_MS : WAIT_MS));
    if (count !== 0) return 'held';
    return silent ? 'silent' : 'not held';
  }

  /** Whether its slot has moved: then nothing was run. */
  async #take({ script, keys, args }: ScriptCall): Promise<boolean> {
    const [tag = ''] = /.*?\{.*?\}/.exec(keys[0] ?? '') ?? [];
    try {
      await Promise.all([
        this.#redis.eval(script.source, keys.length, ...keys, ...args),
        this.#redis.eval(MARK.source, 1, `${tag}:mark`, 1_000),
      ]);
      return false;
    } catch (error) {
      if (error instanceof Error && /^(MOVED|ASK|TRYAGAIN) /.test(error.message)) return true;
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

/** Whether no replica has been heard for long; false where this server does not tell. */
function areSilent(info = ''): boolean {
  // slave0:ip=10.0.0.2,port=6379,state=online,offset=4711,lag=1
  const replicas = info.match(/^slave\d+:.*\bstate=online\b.*$/gm) ?? [];
  return (
    replicas.length > 0 && replicas.every((line) => Number(/\blag=(\d+)/.exec(line)?.[1]) >= SILENT_SECONDS)
  );
}
