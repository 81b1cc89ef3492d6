// Processes that a script starts, and that end when it ends.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { redisServer } from './programs.mjs';
import { freePort, giveUp } from './project.mjs';

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Starts a program. `printed` of the child is the last of what it printed, for the case that it fails. */
export function launch(file, args, options) {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  child.printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => (child.printed = (child.printed + text).slice(-10_000)));
  running.add(child);
  child.once('error', (error) => giveUp(`${file} cannot be started: ${error.message}`));
  child.once('close', () => running.delete(child));
  return child;
}

/** Resolves to the match when the child has printed the words. Gives up when it ends before that. */
export async function prints(child, words) {
  for (;;) {
    const found = words.exec(child.printed);
    if (found) return found;
    if (child.exitCode !== null || child.signalCode !== null) giveUp(`A program ended:\n${child.printed}`);
    await new Promise((resolve) => {
      child.stdout.once('data', resolve);
      child.stderr.once('data', resolve);
      child.once('close', resolve);
    });
  }
}

/** Kills a child, and resolves when it is gone. */
export async function kill(child) {
  const close = once(child, 'close');
  child.kill('SIGKILL');
  await close;
}

/** Starts a Redis on a free port of the loopback address, with these arguments. */
export async function startRedis(...args) {
  const port = await freePort();
  const local = ['--port', String(port), '--bind', '127.0.0.1', '--save', ''];
  const redis = launch(redisServer(), [...local, ...args]);
  await prints(redis, /Ready to accept connections/);
  return { redis, port };
}
