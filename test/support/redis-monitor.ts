import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { Redis } from 'ioredis';
import { until } from './hang';

/** A command that a client sent, as MONITOR shows it. */
export interface SeenCommand {
  /** In lower case. */
  name: string;
  args: string[];
}

/** What clients ask by themselves at any time. */
const BY_THEMSELVES = ['echo', 'ping', 'info', 'monitor', 'select', 'client'];

/** One run of a script, with the keys of the commands inside it. */
export interface RunScript {
  sha1: string;
  keys: string[];
  args: string[];
  used: string[];
}

/** Commands with any number of keys, and those without one. */
const MANY_KEYS = ['del', 'exists', 'mget', 'pfcount', 'unlink'];
const NO_KEYS = ['time'];

/** Returns the commands that clients sent to the database of `url` while `step` ran, without those inside scripts. */
export async function commandsDuring(url: string, step: () => Promise<unknown>): Promise<SeenCommand[]> {
  const seen = await monitor(url, step);
  return seen.filter(({ inScript, name }) => !inScript && !BY_THEMSELVES.includes(name));
}

/** Returns the scripts that ran while `step` ran, with the keys that they used. */
export async function scriptsDuring(url: string, step: () => Promise<unknown>): Promise<RunScript[]> {
  const runs: RunScript[] = [];
  for (const { inScript, name, args } of await monitor(url, step)) {
    if (!inScript && (name === 'evalsha' || name === 'eval')) {
      const [script = '', count, ...rest] = args;
      // The monitor quotes as Lua and C do.
      const source = script.replace(/\\(n|.)/g, (_, sign: string) => (sign === 'n' ? '\n' : sign));
      const sha1 = name === 'evalsha' ? script : createHash('sha1').update(source).digest('hex');
      runs.push({ sha1, keys: rest.slice(0, Number(count)), args: rest.slice(Number(count)), used: [] });
    } else if (inScript && !NO_KEYS.includes(name)) {
      runs.at(-1)?.used.push(...(MANY_KEYS.includes(name) ? args : args.slice(0, 1)));
    }
  }
  return runs;
}

/**
 * MONITOR marks the commands of a script with `lua`. The socket is read here: ioredis 5.11 fails when the first command
 * follows the reply to MONITOR in one packet.
 */
async function monitor(
  url: string,
  step: () => Promise<unknown>,
): Promise<(SeenCommand & { inScript: boolean })[]> {
  const { hostname, port, pathname } = new URL(url);
  const database = pathname.slice(1) || '0';
  const end = `end ${String(Math.random())}`;
  const seen: (SeenCommand & { inScript: boolean })[] = [];
  const socket = connect(Number(port), hostname).setEncoding('utf8');
  const redis = new Redis(url);
  try {
    const marks = { started: false, ended: false };
    let rest = '';
    socket.on('data', (text: string) => {
      const lines = (rest + text).split('\r\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const [, of, source] = /^\+[\d.]+ \[(\d+) (\S+)\]/.exec(line) ?? [];
        if (of === undefined) marks.started = true;
        const [name = '', ...args] = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word]) => word!);
        if (args[0] === end) marks.ended = true;
        else if (of === database) seen.push({ name: name.toLowerCase(), args, inScript: source === 'lua' });
      }
    });
    socket.write('MONITOR\r\n');
    await until(() => marks.started, 'the reply to MONITOR');
    await step();
    // MONITOR shows the commands in their order, so this one comes last.
    await redis.echo(end);
    await until(() => marks.ended, 'the last command at the monitor');
    return seen;
  } finally {
    socket.destroy();
    redis.disconnect();
  }
}
