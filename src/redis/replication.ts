import { setTimeout as sleep } from 'node:timers/promises';
import { Cluster, Command } from 'ioredis';
import type { Logger } from '../logging/logger';
import { addressOf, refreshSlots } from './cluster';
import type { RedisClient } from './connection';
import { type Outcome, ReplicaLine } from './replica-line';
import type { ScriptCall } from './script';

/** Two rounds of the line fit in. */
const CONFIRM_WITHIN_MS = 750;
const MOVING_MS = 40;

/**
 * Tells whether a replica has what a step wrote. WAIT holds up its connection and counts only what came by it, so there is
 * a connection of its own to each primary that is asked for, made when it is needed and closed when it idles.
 */
export class Replication {
  readonly #lines = new Map<string, ReplicaLine>();
  /** The primaries without a wait for replicas, by their addresses. */
  readonly #unheard = new Set<string>();

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
   * Runs the command once more and waits for a replica: a failover may have brought another primary, which lacks the first
   * write. True also where there is no replica to wait for, or none that was heard of late: one that hangs is dropped by
   * Redis only after a minute, and no user could log out for so long.
   */
  async confirm(command: ScriptCall): Promise<boolean> {
    let line: ReplicaLine | undefined;
    let timer: NodeJS.Timeout | undefined;
    let late = false;
    const tooLate = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => {
        late = true;
        resolve('late');
      }, CONFIRM_WITHIN_MS);
    });
    const ask = async (): Promise<Outcome> => {
      for (;;) {
        line = this.#lineOf(command.keys[0] ?? '');
        const outcome = (await line?.confirm(command)) ?? 'away';
        if (outcome !== 'moved' || !(this.client instanceof Cluster) || late) return outcome;
        // Its slot has moved, or is just moving: nothing was run.
        refreshSlots(this.client);
        await sleep(MOVING_MS);
      }
    };
    const outcome = await Promise.race([ask(), tooLate]);
    clearTimeout(timer);
    // It hangs: commands in its queue must not run after their callers have gone.
    if (outcome === 'late') line?.close();
    this.#tell(line?.address ?? '', outcome);
    if (outcome === 'held' || outcome === 'alone' || outcome === 'silent') return true;
    this.logger.warn('No replica is known to have what was written', {
      command: command.script.name,
      outcome,
    });
    return false;
  }

  close(): void {
    for (const line of this.#lines.values()) line.close();
  }

  /** Once when they fall silent, and once when one of them is heard again. */
  #tell(address: string, outcome: Outcome | 'late'): void {
    const node = address === '' ? {} : { node: address };
    if (outcome === 'silent' && !this.#unheard.has(address)) {
      this.#unheard.add(address);
      this.logger.warn('No replica of Redis was heard for long: ended sessions do not wait for it', node);
    }
    if (outcome === 'held' && this.#unheard.delete(address))
      this.logger.info('A replica of Redis is heard again: ended sessions wait for it', node);
  }

  #lineOf(key: string): ReplicaLine | undefined {
    const { client } = this;
    let address = '';
    let node = client instanceof Cluster ? undefined : client;
    if (client instanceof Cluster) {
      address = client.slots[new Command('get', [key]).getSlot()]?.[0] ?? '';
      node = client.nodes().find((one) => addressOf(one) === address);
    }
    // No replica is asked while the primary is away.
    if (node?.status !== 'ready') return undefined;
    const known = this.#lines.get(address);
    if (known !== undefined) return known;
    const line = new ReplicaLine(node, address, () => {
      if (this.#lines.get(address) === line) this.#lines.delete(address);
    });
    this.#lines.set(address, line);
    return line;
  }
}
