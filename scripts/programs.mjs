// Programs that the scripts need and that npm does not bring: looked for in PATH, else installed from Debian's packages.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { giveUp } from './project.mjs';

const REDIS_MAJOR = 7;
const HINDI_FONT = '/usr/share/fonts/truetype/lohit-devanagari';
const CHROME_OF_MACOS = '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome';

/** Some packages start a service of their own. The tests start their own services on free ports, so that service is stopped. */
const SERVICES = {
  'redis-server': ['redis-server'],
  prometheus: ['prometheus', 'prometheus-node-exporter'],
};

/** The path of the first of them that is there; undefined when none is. A name with a slash is a path. */
export function findProgram(names) {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const paths = names.flatMap((name) =>
    name.includes('/') ? [name] : folders.filter(Boolean).map((folder) => join(folder, name)),
  );
  return paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** As `findProgram`, after an attempt to install the package where none is there. */
export function obtainProgram(names, aptPackage) {
  const found = findProgram(names);
  if (found) return found;
  installByApt(aptPackage);
  return findProgram(names);
}

/** The path of redis-server, which must be new enough. */
export function redisServer() {
  const redis = required({
    variable: 'REDIS_SERVER_BIN',
    names: ['redis-server'],
    aptPackage: 'redis-server',
    help: 'Redis 7 or later is needed: `brew install redis`, or https://redis.io/downloads, or its path in REDIS_SERVER_BIN.',
  });
  const version = spawnSync(redis, ['--version'], { encoding: 'utf8' }).stdout?.match(/v=(\d+)\S*/);
  if (!version || Number(version[1]) < REDIS_MAJOR) {
    giveUp(`Redis ${REDIS_MAJOR} or later is needed; ${redis} says ${version?.[0] ?? 'no version'}.`);
  }
  return redis;
}

/** With `optional`: undefined where it is not there and cannot be installed. */
export function chromium({ optional = false } = {}) {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', CHROME_OF_MACOS];
  if (optional && !process.env.CHROMIUM_PATH && !obtainProgram(names, 'chromium')) return undefined;
  const program = required({
    variable: 'CHROMIUM_PATH',
    names,
    aptPackage: 'chromium',
    help: 'Chromium or Google Chrome is needed for the browser tests: install one, or set CHROMIUM_PATH to its path.',
  });
  // Without a font for Hindi, its pages show boxes. Where it cannot be installed, only the pictures suffer.
  if (process.platform === 'linux' && !existsSync(HINDI_FONT)) installByApt('fonts-lohit-deva');
  return program;
}

export const promtool = () =>
  required({
    variable: 'PROMTOOL',
    names: ['promtool'],
    aptPackage: 'prometheus',
    help: 'promtool of Prometheus is needed for the alert rules: install Prometheus, or set PROMTOOL to its path.',
  });

/** Gives up when the shell's commands that the documentation shows are not there. */
export function shellCommands() {
  for (const [name, aptPackage] of [['curl'], ['jq'], ['openssl'], ['redis-cli', 'redis-tools']]) {
    if (!obtainProgram([name], aptPackage ?? name))
      giveUp(`${name} is needed for the tests of the commands that the documentation shows: install it.`);
  }
}

/** The path of a program: from its variable, from PATH, or from Debian's package of it. */
function required({ variable, names, aptPackage, help }) {
  const named = process.env[variable];
  if (named) return findProgram([named]) ?? giveUp(`${variable} names no program: ${named}`);
  return obtainProgram(names, aptPackage) ?? giveUp(help);
}

/** Does nothing where there is no apt-get, or no right to use it: the caller looks again and explains. */
function installByApt(name) {
  if (!findProgram(['apt-get'])) return;
  const root = process.getuid?.() === 0;
  if (!root && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status !== 0) return;
  const run = (...command) => {
    const whole = [...(root ? [] : ['sudo', '-n']), 'env', 'DEBIAN_FRONTEND=noninteractive', ...command];
    return spawnSync(whole[0], whole.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  };
  console.log(`Installing ${name} (apt-get) ...`);
  run('apt-get', 'update', '-qq');
  const { status, stdout, stderr } = run('apt-get', 'install', '-y', '--no-install-recommends', name);
  if (status !== 0) {
    console.error(`${stdout}${stderr}`);
    return;
  }
  for (const service of SERVICES[name] ?? []) {
    run('sh', '-c', `systemctl disable --now ${service} || service ${service} stop`);
  }
}
