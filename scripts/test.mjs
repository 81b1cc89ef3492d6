// `npm test`: installs what is missing, then runs Jest with the arguments that it was given. With `--full` tests of many
// runs make all of them, and take as long as that takes.
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { checkNode, giveUp, installPackages, ROOT } from './project.mjs';

const REDIS_MAJOR = 7;
const CHROME_OF_MACOS = '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome';

checkNode();
installPackages();
const redis = program({
  variable: 'REDIS_SERVER_BIN',
  names: ['redis-server'],
  aptPackage: 'redis-server',
  help: 'Redis 7 or later is needed: `brew install redis`, or https://redis.io/downloads, or its path in REDIS_SERVER_BIN.',
});
const redisVersion = spawnSync(redis, ['--version'], { encoding: 'utf8' }).stdout?.match(/v=(\d+)\S*/);
if (!redisVersion || Number(redisVersion[1]) < REDIS_MAJOR) {
  giveUp(`Redis ${REDIS_MAJOR} or later is needed; ${redis} says ${redisVersion?.[0] ?? 'no version'}.`);
}
const chromium = program({
  variable: 'CHROMIUM_PATH',
  names: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', CHROME_OF_MACOS],
  aptPackage: 'chromium',
  help: 'Chromium or Google Chrome is needed for the browser tests: install one, or set CHROMIUM_PATH to its path.',
});

const given = process.argv.slice(2).filter((argument) => argument !== '--full');
const full = process.argv.includes('--full');
// Jest refuses both at once.
const workers = given.some((argument) => /^(-i|--runInBand|-w|--maxWorkers)\b/.test(argument))
  ? []
  : ['--maxWorkers=2'];
const reporters = ['--reporters=default', `--reporters=${join(ROOT, 'scripts', 'count-reporter.cjs')}`];
const jest = spawn(
  process.execPath,
  [join(ROOT, 'node_modules', 'jest', 'bin', 'jest.js'), ...given, ...workers, ...reporters],
  {
    cwd: ROOT,
    stdio: 'inherit',
    env: {
      ...process.env,
      NODE_ENV: 'test',
      REDIS_SERVER_BIN: redis,
      CHROMIUM_PATH: chromium,
      ...(full && { SCALE: 'full' }),
    },
  },
);
// The terminal sends Ctrl-C to Jest as well: wait for it to end.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => jest.kill('SIGTERM'));
jest.once('exit', (code) => {
  process.exitCode = code ?? 1;
});

/** The path of a program: from its variable, from PATH, or from Debian's package of it. */
function program({ variable, names, aptPackage, help }) {
  const named = process.env[variable];
  if (named) return find([named]) ?? giveUp(`${variable} names no program: ${named}`);
  const found = find(names);
  if (found) return found;
  installByApt(aptPackage);
  return find(names) ?? giveUp(help);
}

function find(names) {
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

/** Does nothing where there is no apt-get, or no right to use it: the caller looks again and explains. */
function installByApt(name) {
  if (!find(['apt-get'])) return;
  const root = process.getuid?.() === 0;
  if (!root && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status !== 0) return;
  const run = (...command) => {
    const [file, ...rest] = [
      ...(root ? [] : ['sudo', '-n']),
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      ...command,
    ];
    return spawnSync(file, rest, { stdio: ['ignore', 'ignore', 'inherit'] }).status === 0;
  };
  console.log(`Installing ${name} (apt-get) ...`);
  run('apt-get', 'update', '-qq');
  const installed = run('apt-get', 'install', '-y', '-qq', '--no-install-recommends', name);
  // The package starts a Redis on port 6379 of its own. The tests start theirs on free ports, and nobody asked for it.
  if (installed && name === 'redis-server') {
    run('sh', '-c', '(systemctl disable --now redis-server || service redis-server stop) 2>/dev/null');
  }
}
