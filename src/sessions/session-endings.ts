import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { Revocations } from './revocations';
import { indexKey, sessionKey } from './session-keys';

const END = Script.load(__dirname, 'end');

/** Ends sessions: published first, so that a crash in between ends none that resource servers never hear of. */
@Injectable()
export class SessionEndings {
  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly revocations: Revocations,
  ) {}

  /** Ends these sessions of this user. The ids must be found ones: what is published is believed by others. */
  async endThese(subject: string, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    await this.revocations.publish(ids);
    await this.run(subject, 'these', ids);
  }

  /** Ends every session of this user, but for the one that is kept. */
  async endAll(subject: string, kept?: string): Promise<void> {
    const ids = await this.store.command('list sessions', (client) =>
      client.zrange(indexKey(subject), 0, -1),
    );
    const published = ids.filter((id) => id !== kept);
    await this.revocations.publish(published);
    const ended = await this.run(subject, 'all but', kept === undefined ? [] : [kept]);
    // One that was opened after the look has ended all the same, and is told of late rather than never.
    await this.revocations.publish(ended.filter((id) => !published.includes(id)));
  }

  private async run(subject: string, mode: 'these' | 'all but', ids: readonly string[]): Promise<string[]> {
    const tellMs = this.config.accessTokenTtlSeconds * 1_000;
    return (await this.store.run(
      END,
      [indexKey(subject)],
      [sessionKey(subject, ''), tellMs, mode, ...ids],
    )) as string[];
  }
}
