import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { learnSettings, ServiceLog } from './canaries';
import { compiledService } from './compile';
import { call, until, type Variables } from './world';

export type Line = Record<string, unknown>;

/** The compiled service of test/support/compile.js, and the processes that run it. */
export class Build {
  private readonly running = new Set<Run>();

  private constructor(
    /** Where the processes run, and where a test keeps their files. */
    readonly folder: string,
  ) {}

  static make(): Build {
    return new Build(mkdtempSync(join(tmpdir(), 'otp-login-process-')));
  }

  /** Starts a file of the build, such as `main.js`, with these variables and no others. */
  run(file: string, variables: Variables, ...args: string[]): Run {
    const run = new Run(this.folder, file, variables, args);
    this.running.add(run);
    void run.ended.catch(() => undefined).then(() => this.running.delete(run));
    return run;
  }

  /** Starts the service, and resolves when it says where it listens and Redis was reached. */
  async serve(variables: Variables): Promise<{ service: Run; url: string }> {
    const service = this.run('main.js', variables);
    const url = await service.address();
    const { MANAGEMENT_PORT: port } = variables;
    const probes = port === undefined ? url : `http://127.0.0.1:${port}`;
    const ready = async (): Promise<boolean> => (await call('GET', `${probes}/health/ready`)).status === 200;
    await service.whileItRuns(until(ready, 'readiness'));
    return { service, url };
  }

  /** Kills what still runs. */
  async killAll(): Promise<void> {
    await Promise.all([...this.running].map((run) => run.kill()));
  }

  async remove(): Promise<void> {
    await this.killAll();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A process of the built code, with what it wrote. */
export class Run {
  stdout = '';
  stderr = '';
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  private readonly child: ChildProcessByStdio<null, Readable, Readable>;

  constructor(folder: string, file: string, variables: Variables, args: string[]) {
    this.child = spawn(process.execPath, [join(compiledService(), file), ...args], {
      // Not in the checkout: a developer's .env would be read there.
      cwd: folder,
      env: { PATH: process.env.PATH, ...variables },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // The service's own: the emulator shows codes, and the doctor writes for people.
    const log = file === 'main.js' ? new ServiceLog() : undefined;
    if (log) learnSettings(variables);
    this.child.stdout.on('data', (text: Buffer) => {
      this.stdout += text.toString();
      log?.write(text.toString());
    });
    this.child.stderr.on('data', (text: Buffer) => (this.stderr += text.toString()));
    // Not 'exit': by 'close' everything that it wrote has been read.
    this.ended = once(this.child, 'close').then(([code, signal]) => {
      log?.check();
      return { code: code as number | null, signal: signal as NodeJS.Signals | null };
    });
    // A test that waits for `ended` gets the error; a test need not wait.
    this.ended.catch(() => undefined);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Its output fills the pipe from now on. */
  stopReading(): void {
    this.child.stdout.pause();
  }
  readOn(): void {
    this.child.stdout.resume();
  }
  /** The reader of its output is gone. */
  closeOutput(): void {
    this.child.stdout.destroy();
  }

  /** The outcome of the promise; throws when the process ends first. */
  whileItRuns<Value>(promise: Promise<Value>): Promise<Value> {
    const ended = this.ended.then(() => {
      throw new Error(`The process ended: ${this.stderr}`);
    });
    return Promise.race([promise, ended]);
  }

  /** The first line of its log with this message, as soon as it is there. */
  async logged(msg: string): Promise<Line> {
    const line = (): Line | undefined => this.log.find((each) => each.msg === msg);
    await this.whileItRuns(until(() => line() !== undefined, `the line "${msg}" of the log`));
    return line() ?? {};
  }

  /** Where the service listens, as soon as it says so. */
  async address(): Promise<string> {
    return String((await this.logged('otp-login listens')).url);
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** Every whole line of its log; throws when one is not JSON. */
  get log(): Line[] {
    return this.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line);
  }

  get faults(): string[] {
    return this.stderr.trimEnd().split('\n');
  }
}
