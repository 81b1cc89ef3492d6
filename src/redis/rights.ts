import type { Primary } from './primaries';
import { Script } from './script';

const RIGHTS = Script.load(__dirname, 'rights');

/** States of Redis that pass. Older versions wrap them into "ERR Error running script". */
const PASSES = /\b(OOM|LOADING|READONLY|BUSY|MISCONF|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|MOVED|ASK|NOREPLICAS)\b/;
const REFUSES = /\b(NOPERM|NOAUTH|WRONGPASS)\b|ACL failure|^ERR\b/;

/**
 * Runs a real script on a key of the service, which uses every command that the service's scripts use. A user without the
 * rights can connect and ask INFO, and yet every send would be a 503.
 *
 * @returns undefined when the user has all rights, and also when Redis is full, loading, read-only or busy: such a state
 * passes. Otherwise a few words: the code of Redis's refusal, or the refused commands.
 * @throws Error when no answer came.
 */
export async function refusedRights({ client, key }: Primary): Promise<string | undefined> {
  try {
    await client.evalsha(RIGHTS.sha1, 1, key).catch((error: unknown) => {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
    });
    // The service needs both: another replica of it may have loaded the script that EVALSHA found.
    const commands = (await client.eval(RIGHTS.source, 1, key)) as string[];
    return commands.length === 0 ? undefined : `NOPERM: ${commands.join(', ')}`;
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'ReplyError') throw error;
    if (PASSES.test(error.message) || !REFUSES.test(error.message)) return undefined;
    // The code only: the rest may repeat what was sent.
    return /\b(NOPERM|NOAUTH|WRONGPASS)\b/.exec(error.message)?.[0] ?? 'ERR';
  }
}
