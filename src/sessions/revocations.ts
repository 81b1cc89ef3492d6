import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { Script, type ScriptCall } from '../redis/script';
import { KEY_PREFIX, Store } from '../redis/store';

const REVOKE = Script.load(__dirname, 'revoke');
const REVOKED_SINCE = Script.load(__dirname, 'revoked-since');
const KEY = `${KEY_PREFIX}{revocations}`;

/** Clocks of resource servers may lag: an ended session is told of for a little longer than its tokens live. */
const LEEWAY_SECONDS = 60;

export interface Revocation {
  sessionId: string;
  revokedAt: Date;
}

/** The feed of sessions that ended while access tokens of theirs may still be alive. */
@Injectable()
export class Revocations {
  private readonly keepMs: number;

  constructor(
    config: Config,
    private readonly store: Store,
  ) {
    this.keepMs = (config.accessTokenTtlSeconds + LEEWAY_SECONDS) * 1_000;
  }

  /** Publishes sessions *before* they end: a crash in between must not end a session without its publication. */
  async publish(sessionIds: readonly string[]): Promise<void> {
    if (sessionIds.length === 0) return;
    await this.store.run(REVOKE, [KEY], [this.keepMs, 'new', ...sessionIds]);
  }

  /** The step that publishes those that are not published, to be taken while a replica is waited for. */
  publication(sessionIds: readonly string[]): ScriptCall {
    return { script: REVOKE, keys: [KEY], args: [this.keepMs, 'again', ...sessionIds] };
  }

  /** The ids that were published at `sinceMs` (milliseconds of the store's clock) or later, and the time of this read. */
  async since(sinceMs: number): Promise<{ now: Date; revocations: Revocation[] }> {
    const [now, ...entries] = (await this.store.run(
      REVOKED_SINCE,
      [KEY],
      [this.keepMs, sinceMs],
    )) as string[];
    const revocations: Revocation[] = [];
    for (let i = 0; i + 1 < entries.length; i += 2) {
      revocations.push({ sessionId: entries[i] ?? '', revokedAt: new Date(Number(entries[i + 1])) });
    }
    return { now: new Date(Number(now)), revocations };
  }
}
