import { randomUUID } from 'node:crypto';
import { toUSVString } from 'node:util';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { Script } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';
import { WriteBehind } from '../redis/write-behind';
import type { AuditEvent } from './audit-event';

/** The last events of all replicas, the oldest first, on a slot of its own. */
export const AUDIT_KEY = `${KEY_PREFIX}{audit}:events`;

const RECORD = Script.load(__dirname, 'record');

/** Events are personal data, so they are kept for this long only. */
const KEEP_MS = 90 * 86_400_000;
/** An event with its id and time. */
type Entry = Record<string, string | number | boolean | undefined>;

/** While Redis is away. They are in the log. */
const MOST_WAITING = 10_000;
const REFUSALS_EVERY_MS = 60_000;

/**
 * Records an event: at once as a log line, at every LOG_LEVEL, and soon after as an entry of a bounded stream, under the same
 * id. No answer waits for the stream, and none fails with it.
 */
@Injectable()
export class Audit implements OnApplicationShutdown {
  private readonly entries: WriteBehind<Entry>;
  private refusalAt = -Infinity;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly logger: Logger,
    metrics: Metrics,
  ) {
    this.entries = new WriteBehind(
      (batchId, entries) => this.write(batchId, entries),
      MOST_WAITING,
      () => {
        metrics.auditDropped.inc();
      },
    );
  }

  /** Never throws, and waits for nothing. */
  record({ audit, ...fields }: AuditEvent): void {
    const id = randomUUID();
    const time = new Date().toISOString();
    this.logger.audit(audit, { id, ...fields });
    if (this.config.auditStreamEvents === 0 || (audit === 'admin.refused' && this.refusedLately())) return;
    this.entries.add({ id, time, audit, ...fields });
  }

  async onApplicationShutdown(): Promise<void> {
    await this.entries.end();
  }

  private async write(batchId: string, entries: Entry[]): Promise<void> {
    // Events of the start wait for the first connection, without a warning.
    if (!this.store.reached) throw new Error('Redis was not reached yet');
    await this.store.run(
      RECORD,
      [AUDIT_KEY, `${AUDIT_KEY}:written:${batchId}`],
      [this.config.auditStreamEvents, KEEP_MS, JSON.stringify(entries.map(flat))],
    );
  }

  /** A caller that causes endless events must not push all others out of the stream: one of them a minute is recorded. */
  private refusedLately(): boolean {
    if (performance.now() - this.refusalAt < REFUSALS_EVERY_MS) return true;
    this.refusalAt = performance.now();
    return false;
  }
}

/**
 * `field, value, field, value ...`, as a stream keeps it. Half a surrogate pair is no text: Lua's JSON refuses it, and would
 * refuse the batch, and with it all that waits behind, for ever.
 */
function flat(entry: Entry): string[] {
  return Object.entries(entry).flatMap(([field, value]) =>
    value === undefined ? [] : [field, toUSVString(String(value))],
  );
}
