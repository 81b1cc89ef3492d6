import { isRefusal, type Info, type RedisAnswers } from './ask-redis';
import { fault, ok, warning, type Finding } from './finding';

/** A closed set: the labels of `otp_login_check_failed`. */
export const REDIS_CHECKS = [
  'redis_reached',
  'redis_info',
  'redis_scripts',
  'redis_clock',
  'redis_version',
  'redis_eviction',
  'redis_persistence',
  'redis_replicas',
] as const;

export type RedisKind = 'standalone' | 'sentinel' | 'cluster';

const MOST_AHEAD_MS = 2_000;
const OLDEST = [6, 2] as const;

/** Everything that is to be said of one primary. */
export function checkRedis(kind: RedisKind, answers: RedisAnswers): Finding[] {
  const { name, info } = answers;
  const always = [ok('redis_reached', `${name} answers`), scripts(answers), clock(answers)];
  if (isRefusal(info)) {
    const message =
      `${name} refuses INFO (${info.refused}): its version, eviction policy, persistence and replicas are not ` +
      'known. Allow it to the user of REDIS_URL (ACL +info), or look at them yourself.';
    return [...always, warning('redis_info', message)];
  }
  return [
    ...always,
    ok('redis_info', `${name} tells about itself`),
    version(name, info),
    eviction(name, info),
    ...persistence(name, info),
    ...(kind === 'standalone' ? [] : [replicas(name, info)]),
  ];
}

function scripts({ name, scripts: runs }: RedisAnswers): Finding {
  const check = 'redis_scripts';
  if (!isRefusal(runs)) return ok(check, `${name} runs scripts`);
  const message =
    `${name} refuses the scripts of the service (${runs.refused}): nothing that the service does works. Give the user of ` +
    'REDIS_URL the rights that docs/operations.md lists (ACL ~otp-login:* +@all -@dangerous +info +role).';
  return fault(check, message);
}

/** Tokens say `iat` and `exp` by this process's clock, limits and codes count by Redis's. */
function clock({ name, clockAheadMs }: RedisAnswers): Finding {
  const check = 'redis_clock';
  if (isRefusal(clockAheadMs)) {
    return warning(check, `${name} refuses TIME (${clockAheadMs.refused}): its clock is not known.`);
  }
  const seconds = (Math.abs(clockAheadMs) / 1_000).toFixed(1);
  if (Math.abs(clockAheadMs) <= MOST_AHEAD_MS)
    return ok(check, `${name} and this process have the same time`);
  const message =
    `The clock of ${name} is ${seconds} s ${clockAheadMs > 0 ? 'ahead of' : 'behind'} this process's: tokens, which ` +
    "live by this process's clock, can expire early or late. Let both keep time by NTP.";
  return warning(check, message);
}

function version(name: string, info: Info): Finding {
  const check = 'redis_version';
  const text = info.get('redis_version') ?? '';
  const server = serverOf(info);
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(text) ?? [];
  if (major === undefined) return warning(check, `${name} does not tell its version: 6.2 is needed.`);
  const [atLeast, andMinor] = OLDEST;
  const old = Number(major) < atLeast || (Number(major) === atLeast && Number(minor) < andMinor);
  if (!old) return ok(check, `${name} runs ${server}`);
  return fault(check, `${name} runs ${server}: version 6.2 of Redis is needed, and 7 or newer is wanted.`);
}

/** Name and version of the server itself: others than Redis also tell the version of Redis that they are compatible with. */
function serverOf(info: Info): string {
  const compatible = info.get('redis_version') ?? '';
  const own = [...info].find(([field]) => /^(?!redis_|gcc_)[a-z]+_version$/.test(field));
  if (own === undefined) return `Redis ${compatible}`;
  const [field, version] = own;
  const name = info.get('server_name') ?? field.replace('_version', '');
  return `${name.slice(0, 1).toUpperCase()}${name.slice(1)} ${version}, compatible with Redis ${compatible}`;
}

function eviction(name: string, info: Info): Finding {
  const check = 'redis_eviction';
  const policy = info.get('maxmemory_policy');
  if (policy === 'noeviction') return ok(check, `${name} evicts nothing (noeviction)`);
  if (policy === undefined) {
    return warning(check, `${name} does not tell its maxmemory-policy: make sure that it is noeviction.`);
  }
  const message =
    `${name} evicts keys when it is full (maxmemory-policy ${policy}): limits and budgets can vanish silently. ` +
    'Set noeviction.';
  return warning(check, message);
}

/** Managed Redis allows no look at `save`, so snapshots are seen by their traces. */
function persistence(name: string, info: Info): Finding[] {
  const check = 'redis_persistence';
  const findings: Finding[] = [];
  if (info.get('rdb_last_bgsave_status') === 'err') {
    const message = `${name} could not save its last snapshot: look at its log and its disk. It may refuse to write.`;
    findings.push(warning(check, message));
  }
  if (info.get('aof_last_write_status') === 'err') {
    const message = `${name} could not write to its append-only file: look at its log and its disk.`;
    findings.push(warning(check, message));
  }
  if (findings.length > 0) return findings;
  if (info.get('aof_enabled') === '1') return [ok(check, `${name} keeps what it holds (append-only file)`)];
  if (hasSnapshot(info)) return [ok(check, `${name} keeps what it holds (snapshots)`)];
  const minutes = Math.floor(Number(info.get('uptime_in_seconds') ?? 0) / 60);
  const message =
    `${name} seems to keep nothing on disk (no append-only file, and no snapshot since it started ${minutes} ` +
    'minutes ago): a restart loses limits, budgets and sessions. Set appendonly yes.';
  return [warning(check, message)];
}

/** Whether a snapshot was written since its start, or read at it. `rdb_last_save_time` begins as the time of the start. */
function hasSnapshot(info: Info): boolean {
  const number = (field: string): number => Number(info.get(field) ?? NaN);
  const started = Math.floor(number('server_time_usec') / 1_000_000) - number('uptime_in_seconds');
  return (
    number('rdb_saves') > 0 ||
    number('rdb_last_bgsave_time_sec') >= 0 ||
    number('rdb_last_load_keys_loaded') > 0 ||
    number('rdb_bgsave_in_progress') > 0 ||
    number('rdb_last_save_time') > started + 2
  );
}

function replicas(name: string, info: Info): Finding {
  const check = 'redis_replicas';
  const connected = Number(info.get('connected_slaves') ?? 0);
  if (connected > 0) return ok(check, `${name} has ${connected} replica${connected === 1 ? '' : 's'}`);
  return warning(check, `${name} has no replica: nothing takes over when it fails.`);
}
