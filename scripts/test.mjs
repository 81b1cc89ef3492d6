// `npm test`: installs what is missing, then runs Jest with the arguments that it was given. With `--full` tests of many
// runs make all of them, and take as long as that takes.
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findProgram, obtainProgram } from './programs.mjs';
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
  if (named) return findProgram([named]) ?? giveUp(`${variable} names no program: ${named}`);
  return obtainProgram(names, aptPackage) ?? giveUp(help);
}
