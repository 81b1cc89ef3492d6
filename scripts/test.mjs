// `npm test`: installs what is missing, then runs Jest with the arguments that it was given. Named test files may lie in
// any folder of test/; without a name it runs those of SUITES, with `--all` every test, with `--rest` those outside SUITES.
// Without Chromium the short browser test of `npm test` is left out, and a line says so.
// With `--full` tests of many runs make all of them, and take as long as that takes. `--expect-node=24` refuses to run
// under another Node.js.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium, promtool, redisServer, shellCommands } from './programs.mjs';
import { buildServerless, checkNode, giveUp, installPackages, ROOT } from './project.mjs';

/** Folders of test/, and one file. */
const SUITES = ['unit', 'integration', 'e2e', 'browser/first-login'];
const REST = ['reliability', 'browser', 'commands', 'serverless'];
const OURS = /^--(all|rest|full|expect-node=.*)$/;

const given = process.argv.slice(2).filter((argument) => !OURS.test(argument));
const has = (flag) => process.argv.includes(flag);
const expected = process.argv.find((argument) => argument.startsWith('--expect-node='))?.split('=')[1];
const [major] = process.versions.node.split('.');
if (expected && major !== expected) giveUp(`This is Node.js ${process.versions.node}, and not ${expected}.`);
checkNode();

const patterns = parseArgs({
  args: given,
  strict: false,
  // Jest's options with a value of its own argument, so that the value is not taken for the name of a file.
  options: {
    ...{ testNamePattern: { type: 'string', short: 't' }, maxWorkers: { type: 'string', short: 'w' } },
    ...{ config: { type: 'string', short: 'c' }, seed: { type: 'string' }, shard: { type: 'string' } },
  },
}).positionals;
const folders = patterns.length > 0 ? foldersOf(patterns) : chosenFolders();

installPackages();
const environment = { ...process.env, NODE_ENV: 'test', REDIS_SERVER_BIN: redisServer() };
if (folders.includes('serverless')) buildServerless();
if (folders.includes('browser')) environment.CHROMIUM_PATH = chromium();
else if (folders.includes('browser/first-login')) {
  environment.CHROMIUM_PATH = chromium({ optional: true });
  if (!environment.CHROMIUM_PATH) {
    console.log('There is no Chromium: test/browser/first-login is left out.');
    folders.splice(folders.indexOf('browser/first-login'), 1);
  }
}
if (folders.includes('commands')) {
  shellCommands();
  environment.PROMTOOL = promtool();
}
if (has('--full')) environment.SCALE ||= 'full';

// Jest refuses both at once.
const workers = given.some((argument) => /^(-i|--runInBand|-w|--maxWorkers)\b/.test(argument))
  ? []
  : ['--maxWorkers=2'];
const ours = [...(has('--full') ? ['progress'] : []), 'count'];
const reporters = ['default', ...ours.map((name) => join(ROOT, 'scripts', `${name}-reporter.cjs`))];
const jest = spawn(
  process.execPath,
  [
    join(ROOT, 'node_modules', 'jest', 'bin', 'jest.js'),
    ...given,
    ...(patterns.length > 0 ? [] : folders.map((folder) => `test/${folder}[/.]`)),
    ...workers,
    ...reporters.map((reporter) => `--reporters=${reporter}`),
  ],
  { cwd: ROOT, stdio: 'inherit', env: environment },
);
// The terminal sends Ctrl-C to Jest as well: wait for it to end.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => jest.kill('SIGTERM'));
jest.once('exit', (code) => {
  process.exitCode = code ?? 1;
});

function chosenFolders() {
  if (has('--rest')) return REST;
  return has('--all') ? [...SUITES, ...REST] : [...SUITES];
}

/** The folders of test/ with files that Jest finds by one of the patterns: relative to the checkout, or absolute. */
function foldersOf(patterns) {
  const names = (path) => (pattern) =>
    new RegExp(pattern.replace(/^\.\//, ''), 'i').test(isAbsolute(pattern) ? join(ROOT, path) : path);
  return [...SUITES, ...REST]
    .filter((folder) => !folder.includes('/'))
    .filter((folder) =>
      readdirSync(join(ROOT, 'test', folder)).some((file) =>
        patterns.some(names(join('test', folder, file))),
      ),
    );
}
