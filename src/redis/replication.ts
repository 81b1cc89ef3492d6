import { setTimeout as sleep } from 'node:timers/promises';
import { Cluster, Command } from 'ioredis';
import type { Logger } from '../logging/logger';
import { addressOf, look } from './cluster';
import type { RedisClient } from './connection';
import { ReplicaLine } from './replica-line';
import type { Step } from './script';

/** Two rounds of the line fit in. */
const CONFIRM_WITHIN_MS = 750;
const MOVING_MS = 40;

/**
 * Tells whether a replica has what a step wrote. WAIT holds up its connection and counts only what came by it, so there is
 * a connection of its own to each primary that is asked for, made when it is needed and closed when it idles.
 */
export class Replication {
  readonly #lines = new Map<string, ReplicaLine>();

  constructor(
    private readonly client: RedisClient,
    private readonly logger: Logger,
  ) {
    // A line must not be older than the connection that the step came by: it would lead to a primary of yesterday.
    if (!(client instanceof Cluster))
      client.on('close', () => {
        this.close();
      });
  }

  /**
   * Takes the step once more and waits for a replica: the primary may be another one by now, which has never heard of it.
   * True also where there is no replica to wait for.
   */
  async confirm(step: Step): Promise<boolean> {
    let line: ReplicaLine | undefined;
    let timer: NodeJS.Timeout | undefined;
    let late = false;
    const tooLate = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => {
        late = true;
        resolve('late');
      }, CONFIRM_WITHIN_MS);
    });
    const ask = async (): Promise<string> => {
      for (;;) {
        line = this.#lineOf(step.keys[0] ?? '');
        const outcome = (await line?.confirm(step)) ?? 'away';
        if (outcome !== 'moved' || !(this.client instanceof Cluster) || late) return outcome;
        // Its slot has moved, or is just moving: nothing was run.
        look(this.client);
        await sleep(MOVING_MS);
      }
    };
    const outcome = await Promise.race([ask(), tooLate]);
    clearTimeout(timer);
    // It hangs: what is in its queue must not run when nobody waits for it any more.
    if (outcome === 'late') line?.close();
    if (outcome === 'held') return true;
    this.logger.warn('No replica is known to have what was written', { step: step.script.name, outcome });
    return false;
  }

  close(): void {
    for (const line of this.#lines.values()) line.close();
  }

  #lineOf(key: string): ReplicaLine | undefined {
    const { client } = this;
    let address = '';
    let node = client instanceof Cluster ? undefined : client;
    if (client instanceof Cluster) {
      address = client.slots[new Command('get', [key]).getSlot()]?.[0] ?? '';
      node = client.nodes().find((one) => addressOf(one) === address);
    }
    // Nobody is asked while the primary is away.
    if (node?.status !== 'ready') return undefined;
    const known = this.#lines.get(address);
    if (known !== undefined) return known;
    const line = new ReplicaLine(node, () => {
      if (this.#lines.get(address) === line) this.#lines.delete(address);
    });
    this.#lines.set(address, line);
    return line;
  }
}
