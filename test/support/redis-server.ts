import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { freePort } from './free-port';

const HOST = '127.0.0.1';
/** Only a hang takes longer. */
const START_TIMEOUT_MS = 60_000;
const START_TRIES = 3;

// Jest kills its workers by SIGKILL and gives tests a `process` whose 'exit' never comes, so a shell keeps watch: it
// reads a pipe that ends with this process, whatever ends it, and takes the server and its folder along.
const WATCH = 'read -r _; kill -9 "$1"; rm -rf "$2"';

type RedisProcess = ChildProcessByStdio<null, Readable, Readable>;

export interface RedisOptions {
  /** More arguments for redis-server; the last one of a name wins: `['--appendonly', 'yes']`. */
  args?: readonly string[];
  /** A free one unless given. */
  port?: number;
}

/** A real Redis of its own, on loopback, that keeps nothing on disk unless its arguments say so. */
export class RedisServer {
  private process: RedisProcess | undefined;
  private stopWatching: () => void = () => undefined;

  /** Use `startRedis`. */
  constructor(
    readonly port: number,
    private readonly args: readonly string[],
    private readonly folder: string,
  ) {}

  get url(): string {
    return `redis://${HOST}:${this.port}`;
  }

  /** Undefined while it is not running. */
  get pid(): number | undefined {
    return this.process?.pid;
  }

  /** Ends it at once, as the kernel would when memory is short: nothing is written, connections are reset. */
  async kill(): Promise<void> {
    const child = this.process;
    this.process = undefined;
    this.stopWatching();
    const running = child?.exitCode === null && child.signalCode === null;
    if (!running) return;
    // Unreferenced, it would let Node.js end before this function: after all tests, with 0 in spite of failures.
    child.ref();
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  }

  /** Ends it for good and removes its folder. */
  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Freezes it: connections stay open and new ones are accepted by the kernel, but nothing answers. */
  pause(): void {
    this.process?.kill('SIGSTOP');
  }

  /** Ends `pause`: what was sent in between is now carried out. */
  resume(): void {
    this.process?.kill('SIGCONT');
  }

  /** Starts it again on the same port, empty. */
  async restart(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder);
    await this.start();
  }

  /** Resolves when it takes commands. Throws with what it printed when it does not come up. */
  async start(): Promise<void> {
    const defaults = ['--save', '', '--appendonly', 'no', '--dir', this.folder];
    const child = spawn(
      process.env.REDIS_SERVER_BIN ?? 'redis-server',
      ['--port', String(this.port), '--bind', HOST, ...defaults, ...this.args],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    unref(child, child.stdout, child.stderr);
    if (child.pid !== undefined) {
      this.process = child;
      this.stopWatching = watch(child, this.folder);
    }
    await ready(child);
  }
}

/** Starts a Redis and resolves when it takes commands. Call `stop()` at the end; a crash of the test stops it too. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  for (let tries = 1; ; tries++) {
    const folder = mkdtempSync(join(tmpdir(), 'otp-login-redis-'));
    const server = new RedisServer(options.port ?? (await freePort()), options.args ?? [], folder);
    try {
      await server.start();
      return server;
    } catch (error) {
      await server.stop();
      // Another process took the free port first: a new one is free again.
      const portTaken = error instanceof Error && /address already in use/i.test(error.message);
      if (!portTaken || options.port !== undefined || tries === START_TRIES) throw error;
    }
  }
}

// Its own word that it is ready, and not a PING to the port: on a port taken by another Redis, that one would answer.
function ready(child: RedisProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let printed = '';
    const fail = (reason: string): void => {
      clearTimeout(timeout);
      child.kill('SIGKILL');
      reject(new Error(`redis-server ${reason}\n${printed}`));
    };
    const timeout = setTimeout(fail, START_TIMEOUT_MS, `was not ready within ${START_TIMEOUT_MS} ms`);
    const read = (text: Buffer): void => {
      printed = (printed + text.toString()).slice(-10_000);
      if (!printed.includes('Ready to accept connections')) return;
      clearTimeout(timeout);
      resolve();
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.once('error', (error) => {
      fail(`cannot be started: ${error.message}`);
    });
    // Not 'exit': by 'close' everything that it printed has been read.
    child.once('close', (code, signal) => {
      fail(`ended with ${String(code ?? signal)}`);
    });
  });
}

/** Ends a process and removes its folder when this one ends, however it does. Returns how to stop watching. */
export function watch(child: ChildProcess, folder: string): () => void {
  // In a process group of its own, so that a Ctrl-C in the terminal does not end the watch first.
  const watcher = spawn('sh', ['-c', WATCH, 'watch', String(child.pid), folder], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  unref(watcher, watcher.stdin);
  return () => watcher.kill('SIGKILL');
}

/** A server that a test forgot to stop does not keep the test process running. */
export function unref(...handles: readonly object[]): void {
  for (const handle of handles) (handle as { unref(): void }).unref();
}
