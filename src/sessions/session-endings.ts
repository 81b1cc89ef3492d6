import { Injectable } from '@nestjs/common';
import { Alerts } from '../alerts/alerts';
import { Audit } from '../audit/audit';
import type { Ending } from '../audit/audit-event';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { Metrics } from '../metrics/metrics';
import { Script, type ScriptCall } from '../redis/script';
import { RETRY_AFTER_SECONDS, Store } from '../redis/store';
import { Revocations } from './revocations';
import { indexKey, sessionKey } from './session-keys';

const CHILDREN = Script.load(__dirname, 'children');
const END = Script.load(__dirname, 'end');

/** Ends sessions: published first, so that a crash in between ends none that resource servers never hear of. */
@Injectable()
export class SessionEndings {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly revocations: Revocations,
    private readonly metrics: Metrics,
    private readonly alerts: Alerts,
    private readonly audit: Audit,
  ) {}

  /** Ends these sessions of this user. The ids must be found ones: what is published is believed by others. */
  async endThese(subject: string, ids: readonly string[], reason: Ending): Promise<void> {
    if (ids.length === 0) return;
    await this.endFound(subject, 'these', ids, ids, reason);
  }

  /** Ends a session of which a refresh token was used again: one of its two holders is a thief. */
  async endReused(subject: string, id: string): Promise<void> {
    // First: a process that dies in the middle must not hide it.
    this.audit.record({ audit: 'token.reused', subject, session: id });
    this.alerts.raise('token_reused', 'A refresh token was used again: its session has ended', {
      subject,
      session: id,
    });
    await this.endThese(subject, [id], 'token_reused');
    // The answer is the same either way: it has ended, and no later request would make it sure.
    await this.areGone(subject, [id]);
  }

  /** Ends every session of this user, but for the one that is kept. Returns those that it ended. */
  async endAll(subject: string, reason: Ending, kept?: string): Promise<string[]> {
    const ids = await this.store.command('list sessions', (client) =>
      client.zrange(indexKey(subject), 0, -1),
    );
    const published = ids.filter((id) => id !== kept);
    return this.endFound(subject, 'all but', kept === undefined ? [] : [kept], published, reason);
  }

  /** Publishes what was found with the sessions of its apps, and ends it. Returns all that it ended. */
  private async endFound(
    subject: string,
    mode: 'these' | 'all but',
    ids: readonly string[],
    found: readonly string[],
    reason: Ending,
  ): Promise<string[]> {
    const published = [...found, ...(await this.childrenOf(subject, found))];
    await this.revocations.publish(published);
    const ended = await this.run(subject, mode, ids, { reason, found: published });
    // One that was opened after the look has ended all the same, and is told of late rather than never.
    const late = ended.filter((id) => !published.includes(id));
    await this.revocations.publish(late);
    return [...published, ...late];
  }

  private async childrenOf(subject: string, ids: readonly string[]): Promise<string[]> {
    if (this.config.oauthClients.length === 0 || ids.length === 0) return [];
    const keys = ids.map((id) => sessionKey(subject, id));
    return (await this.store.run(CHILDREN, keys, [])) as string[];
  }

  /**
   * Whether a failover from here on cannot bring these sessions back: a replica knows of their end, or there is none. Asked
   * also where a repeat found nothing left to end, for what was ended before it. The same of `more` steps.
   */
  async areGone(subject: string, ids: readonly string[], ...more: ScriptCall[]): Promise<boolean> {
    const gone = await this.store.replicated(
      this.ending(subject, 'these', ids),
      this.revocations.publication(ids),
      ...more,
    );
    if (!gone) this.metrics.unconfirmedRevocations.inc();
    return gone;
  }

  /** As {@link areGone}. They have ended, but a caller must be able to rely on the answer: throws `store_unavailable`. */
  async confirm(subject: string, ids: readonly string[], ...more: ScriptCall[]): Promise<void> {
    if (await this.areGone(subject, ids, ...more)) return;
    throw new ApiError('store_unavailable', { retryAfterSeconds: RETRY_AFTER_SECONDS });
  }

  /** Each ending is in the audit once, however many ask for it: the script says which were alive until now. */
  private async run(
    subject: string,
    mode: 'these' | 'all but',
    ids: readonly string[],
    { reason, found }: { reason: Ending; found: readonly string[] },
  ): Promise<string[]> {
    const tell = (session: string, outcome: 'ended' | 'unknown'): void => {
      this.audit.record({ audit: 'session.ended', subject, session, reason, outcome });
    };
    const { script, keys, args } = this.ending(subject, mode, ids);
    try {
      const ended = (await this.store.run(script, keys, args)) as string[];
      for (const id of ended) tell(id, 'ended');
      return ended;
    } catch (error) {
      for (const id of found) tell(id, 'unknown');
      throw error;
    }
  }

  private ending(subject: string, mode: 'these' | 'all but', ids: readonly string[]): ScriptCall {
    const tellMs = this.config.accessTokenTtlSeconds * 1_000;
    return { script: END, keys: [indexKey(subject)], args: [sessionKey(subject, ''), tellMs, mode, ...ids] };
  }
}
