import { Injectable } from '@nestjs/common';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Script, type ScriptCall } from '../redis/script';
import { Store } from '../redis/store';
import { SessionEndings } from './session-endings';
import { blockedKey } from './session-keys';
import { Subjects } from './subjects';

const BLOCK = Script.load(__dirname, 'block');

/** Keeps a number out: an order of an authority, a stolen phone. */
@Injectable()
export class SessionBlocks {
  constructor(
    private readonly store: Store,
    private readonly subjects: Subjects,
    private readonly endings: SessionEndings,
  ) {}

  /** Ends every session of the number, and lets none be opened for this long. */
  async block(phone: PhoneNumber, forMs: number): Promise<void> {
    const subject = this.subjects.of(phone);
    // First: a session that is being opened right now is refused, or there to be ended.
    const block: ScriptCall = { script: BLOCK, keys: [blockedKey(subject)], args: [forMs] };
    await this.store.run(block.script, block.keys, block.args);
    // The block itself, too, shall outlive the primary: a new one may never have heard of it.
    await this.endings.confirm(subject, await this.endings.endAll(subject, 'number_blocked'), block);
  }

  /** Sessions may be opened again; those that ended stay ended. */
  async unblock(phone: PhoneNumber): Promise<void> {
    const key = blockedKey(this.subjects.of(phone));
    await this.store.command('unblock', (client) => client.del(key));
  }
}
