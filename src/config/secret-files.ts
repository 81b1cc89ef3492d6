import { type Config, ConfigError, SECRETS, type SecretName } from './config';
import { readConfig } from './read-config';
import { parseRedisUrl } from './redis-url';
import { type Environment, readText } from './settings';

/** What a look at the files found: names and rules, never a value. */
export type PollResult =
  /** They say what is in use. */
  | { state: 'same' }
  /** They have just changed: the next look decides. */
  | { state: 'changing' }
  | { state: 'taken'; names: readonly SecretName[]; warnings: readonly string[] }
  /** What they say now would not start a service, or needs a start: what was in use stays. */
  | { state: 'refused'; faults: readonly string[] };

/** By setting; undefined where the file cannot be read. */
type Texts = ReadonlyMap<SecretName, string | undefined>;

/**
 * The files that secrets come from, and the `Config` that follows them. What they say is read by the same reader as at the
 * start, and taken over as a whole or not at all: half a rotation would be a set that nobody wrote.
 */
export class SecretFiles {
  readonly config: Config;
  /** The secrets that come from files. */
  readonly names: readonly SecretName[];
  /** Of every file that a setting came from, what it said at the start, by path. */
  private readonly atStart = new Map<string, string>();
  private taken: Texts;
  private seen: Texts;
  private warnings: readonly string[];

  /** @throws ConfigError with all faults at once. */
  constructor(private readonly environment: Environment) {
    this.config = readConfig(environment, (path) => {
      const text = readText(path);
      this.atStart.set(path, text);
      return text;
    });
    this.names = (Object.keys(SECRETS) as SecretName[]).filter((name) => this.pathOf(name) !== undefined);
    this.taken = this.read((path) => this.atStart.get(path));
    this.seen = this.taken;
    this.warnings = this.config.warnings;
  }

  /**
   * Reads the files, and takes over what they say once two looks in a row found the same: a file that is written in place,
   * and not swapped as Kubernetes does, can be caught half written, and half a secret is a valid one.
   */
  poll(): PollResult {
    const now = this.read(readIfThere);
    const settled = same(now, this.seen);
    this.seen = now;
    if (!settled) return { state: 'changing' };
    if (same(now, this.taken)) return { state: 'same' };
    const names = this.names.filter((name) => now.get(name) !== this.taken.get(name));
    let next: Config;
    try {
      next = readConfig(this.environment, (path) => this.textNow(path, now));
    } catch (error) {
      if (error instanceof ConfigError) return { state: 'refused', faults: error.faults };
      throw error;
    }
    const faults = this.faultsOf(next, names, now);
    if (faults.length > 0) return { state: 'refused', faults };
    const warnings = next.warnings.filter((warning) => !this.warnings.includes(warning));
    this.config.replaceSecrets(next, names);
    this.taken = now;
    this.warnings = next.warnings;
    return { state: 'taken', names, warnings };
  }

  /** What would start a service, and is no change that a running one can follow. */
  private faultsOf(next: Config, names: readonly SecretName[], now: Texts): string[] {
    const { config } = this;
    // A volume that was unmounted, a Secret that lost an entry: it must not close /admin, nor shut resource servers out.
    const faults = names
      .filter((name) => now.get(name) === '')
      .map((name) => `${name}_FILE has become empty: to unset ${name} takes a restart`);
    if (next.subjectSecret !== config.subjectSecret && names.includes('SUBJECT_SECRET')) {
      faults.push('SUBJECT_SECRET has changed, by which everyone is someone else: put it back');
    }
    // Replicas would count and log in at two stores until all have seen it.
    if (names.includes('REDIS_URL') && placeOf(next.redisUrl) !== placeOf(config.redisUrl)) {
      faults.push('REDIS_URL names another Redis, and not only another user or password: it takes a restart');
    }
    // The application was put together without it.
    if (names.includes('ADMIN_TOKENS') && config.adminTokens.length === 0) {
      faults.push('ADMIN_TOKENS held none at the start, so there is no /admin: it takes a restart');
    }
    return faults;
  }

  private pathOf(name: SecretName): string | undefined {
    const path = this.environment[`${name}_FILE`];
    return path === '' ? undefined : path;
  }

  private read(readFile: (path: string) => string | undefined): Texts {
    return new Map(this.names.map((name) => [name, readFile(this.pathOf(name) ?? '')]));
  }

  /** A secret's file as it was just read; every other as it was at the start, for who asked then keeps that. */
  private textNow(path: string, now: Texts): string {
    const name = this.names.find((each) => this.pathOf(each) === path);
    const text = name === undefined ? this.atStart.get(path) : now.get(name);
    if (text === undefined) throw new Error('not readable');
    return text;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readText(path);
  } catch {
    return undefined;
  }
}

function same(one: Texts, two: Texts): boolean {
  return [...one].every(([name, text]) => two.get(name) === text);
}

/** All that a Redis URL says beside who asks. */
function placeOf(redisUrl: string | undefined): string {
  return JSON.stringify({ ...parseRedisUrl(redisUrl ?? ''), username: '', password: '' });
}
