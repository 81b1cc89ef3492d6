import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from './hang';
import type { Variables } from './world';

export const ROOT = join(__dirname, '../..');
const EDITION_PACKAGES = join(ROOT, 'serverless', 'node_modules');
/** What a developer has made, and no command may change. */
const NOT_COPIED = ['node_modules', 'dist', 'coverage', 'keys', '.git', '.env'];
/** Of the shell that runs the tests: nothing that would change the service's settings. */
const INHERITED =
  /^(PATH|HOME|USER|LANG|TMPDIR|CI|REDIS_SERVER_BIN|CHROMIUM_PATH|PROMTOOL|NODE_EXTRA_CA_CERTS|.*_proxy|npm_config_(?!local_prefix).*)$/i;
/** Commands compile, install and start Node.js several times. */
const COMMAND_HANG_MS = 300_000;
const GRACE_MS = 10_000;

/** A copy of this checkout without its history, in a folder of its own. Packages are those of this checkout. */
export class Checkout {
  readonly folder = mkdtempSync(join(tmpdir(), 'otp-login-commands-'));
  private readonly commands = new Set<Command>();

  /** Copies everything, or only what is named. */
  constructor(names: readonly string[] = readdirSync(ROOT)) {
    expectPackages();
    for (const name of names.filter((each) => !NOT_COPIED.includes(each))) {
      cpSync(join(ROOT, name), join(this.folder, name), {
        recursive: true,
        preserveTimestamps: true,
        filter: (path) => path !== EDITION_PACKAGES,
      });
    }
    if (names.includes('serverless') && existsSync(EDITION_PACKAGES)) {
      symlinkSync(EDITION_PACKAGES, join(this.folder, 'serverless', 'node_modules'));
    }
    symlinkSync(join(ROOT, 'node_modules'), join(this.folder, 'node_modules'));
  }

  /** Starts a command line of bash in the folder. */
  start(line: string, variables: Variables = {}): Command {
    const command = new Command(line, this.folder, variables);
    this.commands.add(command);
    void command.ended.then(() => this.commands.delete(command));
    return command;
  }

  /** Runs a command line of bash in the folder. */
  async run(line: string, variables: Variables = {}): Promise<{ code: number | null; printed: string }> {
    const command = this.start(line, variables);
    const code = await command.end();
    return { code, printed: command.printed };
  }

  /** Kills what still runs. */
  async remove(): Promise<void> {
    await Promise.all([...this.commands].map((command) => command.kill()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const INSTALLED =
  "import('./scripts/project.mjs').then(({ packagesAreInstalled }) => process.exit(packagesAreInstalled() ? 0 : 1))";
/** A script in a copy would run `npm ci` and empty the folder of packages that all copies and this checkout share. */
function expectPackages(): void {
  if (spawnSync(process.execPath, ['-e', INSTALLED], { cwd: ROOT }).status === 0) return;
  throw new Error('node_modules does not hold what package-lock.json asks for. Run npm ci first.');
}

export class Command {
  printed = '';
  /** Its exit code; null when a signal ended it. */
  readonly ended: Promise<number | null>;
  private readonly child: ChildProcessByStdio<null, Readable, Readable>;
  private hasEnded = false;

  constructor(
    readonly line: string,
    folder: string,
    variables: Variables,
  ) {
    const inherited = Object.entries(process.env).filter(([name]) => INHERITED.test(name));
    this.child = spawn('bash', ['-c', line], {
      cwd: folder,
      env: { ...Object.fromEntries(inherited), ...variables },
      stdio: ['ignore', 'pipe', 'pipe'],
      // In a process group of its own, which a signal reaches as Ctrl-C in a terminal does.
      detached: true,
    });
    for (const stream of [this.child.stdout, this.child.stderr])
      stream.on('data', (text: Buffer) => (this.printed += text.toString()));
    this.ended = once(this.child, 'close').then(([code]) => {
      this.hasEnded = true;
      return code as number | null;
    });
  }

  /** Resolves to its exit code. */
  async end(): Promise<number | null> {
    await this.wait(() => this.hasEnded, 'its end');
    return this.ended;
  }

  /** Resolves to the match when it has printed the words, the `count`-th time. Throws when it ends before that. */
  async prints(words: RegExp, count = 1): Promise<RegExpExecArray> {
    const found = (): RegExpExecArray | undefined =>
      [...this.printed.matchAll(new RegExp(words, `${words.flags}g`))][count - 1];
    await this.wait(() => found() !== undefined || this.hasEnded, String(words));
    const match = found();
    if (!match) throw new Error(`${this.line} ended without ${String(words)}:\n${this.printed}`);
    return match;
  }

  /** Sends a signal to all its processes, and resolves to its exit code. */
  stop(signal: NodeJS.Signals): Promise<number | null> {
    this.signal(signal);
    return this.end();
  }

  /** Ends it in any case. Some commands start processes that only they can end, so they are asked first. */
  async kill(): Promise<void> {
    this.signal('SIGTERM');
    await Promise.race([this.ended, sleep(GRACE_MS, undefined, { ref: false })]);
    await this.stop('SIGKILL');
  }

  private signal(name: NodeJS.Signals): void {
    try {
      process.kill(-(this.child.pid ?? 0), name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  private async wait(holds: () => boolean, what: string): Promise<void> {
    try {
      await until(holds, `${what} of ${this.line}`, COMMAND_HANG_MS);
    } catch (error) {
      throw new Error(`${(error as Error).message}; it printed:\n${this.printed}`, { cause: error });
    }
  }
}
