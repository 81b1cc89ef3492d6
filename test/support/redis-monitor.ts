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

/**
 * Returns the commands that clients sent to the database of `url` while `step` ran, without those inside scripts. MONITOR
 * marks the commands of a script with `lua`. The socket is read here: ioredis 5.11 fails when the first command follows the
 * reply to MONITOR in one packet.
 */
export async function commandsDuring(url: string, step: () => Promise<unknown>): Promise<SeenCommand[]> {
  const { hostname, port, pathname } = new URL(url);
  const database = pathname.slice(1) || '0';
  const end = `end ${String(Math.random())}`;
  const seen: SeenCommand[] = [];
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
        else if (of === database && source !== 'lua') seen.push({ name: name.toLowerCase(), args });
      }
    });
    socket.write('MONITOR\r\n');
    await until(() => marks.started, 'the reply to MONITOR');
    await step();
    // MONITOR shows the commands in their order, so this one comes last.
    await redis.echo(end);
    await until(() => marks.ended, 'the last command at the monitor');
    return seen.filter(({ name }) => !BY_THEMSELVES.includes(name));
  } finally {
    socket.destroy();
    redis.disconnect();
  }
}
