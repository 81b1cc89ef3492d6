import { type Config, ConfigError, SECRETS, type SecretName } from './config';
import { FilePoller } from './file-poller';
import { readConfig } from './read-config';
import { parseRedisUrl } from './redis-url';
import { type Environment, readText } from './settings';

/** The result of a poll: names and rules, never a value. */
export type PollResult =
  /** The files hold the secrets that are in use. */
  | { state: 'same' }
  /** The content differs from that of the last read. The next poll decides. */
  | { state: 'changing' }
  | { state: 'taken'; names: readonly SecretName[]; warnings: readonly string[] }
  /** The new content is invalid or needs a restart. The secrets in use stay. */
  | { state: 'refused'; faults: readonly string[] };

/** File contents by setting; undefined when the file cannot be read. */
type Texts = ReadonlyMap<SecretName, string | undefined>;

/**
 * The files that secrets come from, and the `Config` that follows them. A change is read by the reader that the start uses,
 * and taken over as a whole or not at all: half a rotation would be a set of secrets that no operator wrote.
 */
export class SecretFiles {
  readonly config: Config;
  /** The secrets that come from files. */
  readonly names: readonly SecretName[];
  /** Polls the files of {@link names}. */
  readonly poller: FilePoller<Texts>;
  /** The content at the start of every file that a setting came from, by path. */
  private readonly atStart = new Map<string, string>();
  private taken: Texts;
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
    this.poller = new FilePoller(() => this.read(readIfThere), fingerprint, this.taken);
    this.warnings = this.config.warnings;
  }

  /** Reads the files, and takes over a new content that two reads in a row returned. */
  poll(): PollResult {
    const now = this.poller.poll();
    if (now === undefined) return { state: 'changing' };
    if (fingerprint(now) === fingerprint(this.taken)) return { state: 'same' };
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

  /** The reasons why a running service cannot take over secrets with which a new one could start. */
  private faultsOf(next: Config, names: readonly SecretName[], now: Texts): string[] {
    const { config } = this;
    // An unmounted volume or a Secret without this entry must not close /admin or lock resource servers out.
    const faults = names
      .filter((name) => now.get(name) === '')
      .map((name) => `${name}_FILE has become empty: restart the service to unset ${name}`);
    if (next.subjectSecret !== config.subjectSecret && names.includes('SUBJECT_SECRET')) {
      faults.push(
        'SUBJECT_SECRET has changed, which would give every user another id: restore the old value',
      );
    }
    // Replicas would use two stores until all of them have read the change.
    if (names.includes('REDIS_URL') && placeOf(next.redisUrl) !== placeOf(config.redisUrl)) {
      faults.push(
        'REDIS_URL names another Redis, and not only another user or password: restart the service',
      );
    }
    // Without ADMIN_TOKENS the application was started without its /admin routes.
    if (names.includes('ADMIN_TOKENS') && config.adminTokens.length === 0) {
      faults.push('ADMIN_TOKENS was empty at the start, so there is no /admin: restart the service');
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

  /** A secret's file as it was just read. Every other file keeps the content of the start. */
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

function fingerprint(texts: Texts): string {
  return JSON.stringify([...texts]);
}

/** A Redis URL without its user and password. */
function placeOf(redisUrl: string | undefined): string {
  return JSON.stringify({ ...parseRedisUrl(redisUrl ?? ''), username: '', password: '' });
}
