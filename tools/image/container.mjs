// A container of namespaces and mounts alone, for machines without an engine: process, root and mounts are its own, the
// network is the machine's, there is no seccomp filter and no limit of memory.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/project.mjs';

const NAMESPACES = ['--mount', '--pid', '--fork'];

/** Undefined where containers can be made, else why not. */
export function containerTrouble() {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (process.getuid() !== 0) return 'it needs root: it makes mounts and namespaces';
  const { status, stderr, error } = spawnSync(
    'unshare',
    [...NAMESPACES, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'],
    {
      encoding: 'utf8',
    },
  );
  return status === 0
    ? undefined
    : `mounts and namespaces are not allowed here: ${error?.message ?? stderr.trim()}`;
}

/** A command in an image, under way. */
export class Container {
  printed = '';

  /**
   * @param image its `root`, a folder, and its `config`
   * @param options `variables`; `mounts` as `ro:from:to`; `command`, the image's own unless given
   */
  constructor(image, { variables = {}, mounts = [], command }) {
    const { User, WorkingDir, Env, Entrypoint, Cmd } = image.config;
    const [user, group] = User.split(':');
    this.root = image.root;
    this.user = user;
    this.group = group;
    this.variables = [...Env, ...Object.entries(variables).map((pair) => pair.join('='))];
    this.folder = WorkingDir;
    const whole = [...this.variables, ...(command ?? [...(Entrypoint ?? []), ...Cmd])];
    const place = [this.root, user, group, this.folder, ...mounts, '--'];
    this.outer = spawn(
      'unshare',
      [...NAMESPACES, 'sh', join(ROOT, 'tools', 'image', 'container.sh'), ...place, ...whole],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    for (const stream of [this.outer.stdout, this.outer.stderr])
      stream.on('data', (text) => (this.printed += text));
  }

  get ended() {
    return this.outer.exitCode !== null || this.outer.signalCode !== null;
  }

  /** Process 1 of the container, as the machine counts; undefined when there is none. */
  get pid() {
    try {
      const { pid } = this.outer;
      return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')) || undefined;
    } catch {
      return undefined;
    }
  }

  /** A field of /proc about process 1. */
  status(field) {
    return new RegExp(`^${field}:[ \\t]*(.*)$`, 'm').exec(
      readFileSync(`/proc/${this.pid}/status`, 'utf8'),
    )?.[1];
  }

  /** Runs another command beside it, as `docker exec` does. */
  exec(...command) {
    const inside = ['--target', String(this.pid), '--mount', '--pid', '--root'];
    const as = ['--setuid', this.user, '--setgid', this.group, '/usr/bin/env', '-i', '-C', this.folder];
    return spawnSync('nsenter', [...inside, ...as, ...this.variables, ...command], { encoding: 'utf8' });
  }

  /** Its exit code, or the name of the signal that ended it. */
  async end() {
    const close = this.ended ? undefined : once(this.outer, 'close');
    await close;
    return this.outer.exitCode ?? this.outer.signalCode;
  }

  /** Process 1 gets it: unshare in front of it passes no signal on. */
  kill(signal) {
    const { pid } = this;
    if (pid) process.kill(pid, signal);
    else this.outer.kill('SIGKILL');
  }
}
