import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Checkout, ROOT } from '../support/checkout';
import { freePort } from '../support/free-port';
import { redisOfWorker } from '../support/redis-of-worker';
import { service } from '../support/service';
import { API_KEY, call, type Variables } from '../support/world';

// Every npm script, run as a person runs it, in a copy of the checkout and with small numbers.

const FOLDERS = ['unit', 'integration', 'e2e', 'reliability', 'browser', 'commands', 'serverless'];
/** The first needs root, Debian's packages and ten minutes. The last two need the packages of the edition: a person runs them. */
const NOT_RUN = ['image', 'client:types', 'demo:worker', 'demo:lambda'];
const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

/** The whole code; in place of the tests one in each folder that says how it was run. */
let whole: Checkout;
/** The settings of the tools, and one source file. */
let bare: Checkout;
let upstream: Awaited<ReturnType<ReturnType<typeof service>['startEmulator']>>;
let settings: Variables;

jest.setTimeout(600_000);

beforeAll(async () => {
  whole = new Checkout();
  for (const folder of FOLDERS) {
    rmSync(join(whole.folder, 'test', folder), { recursive: true });
    writeTest(`${folder}/small`);
  }
  writeTest('reliability/chaos');
  const tools = ['package.json', 'package-lock.json', '.npmrc', 'scripts', 'tsconfig.json'];
  bare = new Checkout([
    ...tools,
    'eslint.config.mjs',
    '.prettierrc.json',
    '.prettierignore',
    'client',
    'serverless/package.json',
    'serverless/package-lock.json',
    'src/pages/static',
    'src/pages/languages',
  ]);
  upstream = await service().startEmulator();
  settings = {
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: (await redisOfWorker()).url,
    STARTMESSAGING_API_KEY: API_KEY,
    STARTMESSAGING_BASE_URL: upstream.url,
    SHUTDOWN_DELAY_SECONDS: '0',
  };
});
afterAll(async () => {
  await Promise.all([whole.remove(), bare.remove(), upstream.close()]);
});

function writeTest(name: string): void {
  const file = join(whole.folder, 'test', `${name}.test.ts`);
  mkdirSync(dirname(file), { recursive: true });
  const told = `ran ${name}, scale \${process.env.SCALE}, Node.js \${process.versions.node}\\n`;
  writeFileSync(file, `it('runs', () => { process.stdout.write(\`${told}\`); });\n`);
}

const source = (text: string): void => {
  mkdirSync(join(bare.folder, 'src'), { recursive: true });
  writeFileSync(join(bare.folder, 'src', 'one.ts'), text);
};

/** The test files that Jest ran. */
const ranIn = (printed: string): string[] =>
  [...printed.matchAll(/ran (\S+),/g)].map(([, name]) => name!).sort();
const summaryOf = (printed: string): string | undefined => printed.trimEnd().split('\n').at(-1);

it('every npm script is run by this file, or is in the list of those that are not', () => {
  const own = readFileSync(__filename, 'utf8');
  const missing = Object.keys(scripts).filter(
    (name) => !NOT_RUN.includes(name) && !new RegExp(`['\`]npm (run )?${name}[' ]`).test(own),
  );
  expect(missing).toEqual(['check']);
  // Its pieces are.
  for (const piece of scripts.check!.split(' && ')) {
    const [, name] = /^npm (?:run )?([\w:]+)/.exec(piece)!;
    expect(Object.keys(scripts)).toContain(name);
  }
});

describe('the installation of packages', () => {
  const INSTALL = `node -e "import('./scripts/project.mjs').then(({ installPackages }) => installPackages())"`;
  let fresh: Checkout;

  beforeAll(() => {
    fresh = new Checkout(['package.json', 'package-lock.json', 'scripts']);
    rmSync(join(fresh.folder, 'node_modules'));
  });
  afterAll(() => fresh.remove());

  const install = (exitCode: number) => {
    const npm = join(fresh.folder, 'bin', 'npm');
    mkdirSync(dirname(npm), { recursive: true });
    writeFileSync(npm, `#!/bin/sh\necho npm warn old\necho npm error broken >&2\nexit ${exitCode}\n`);
    chmodSync(npm, 0o755);
    return fresh.run(INSTALL, { PATH: `${dirname(npm)}:${process.env.PATH ?? ''}` });
  };

  it('an installation that succeeds prints one line and no warning of npm', async () => {
    expect(await install(0)).toEqual({ code: 0, printed: 'Installing packages (npm ci) ...\n' });
  });

  it('an installation that fails prints everything that npm printed', async () => {
    const { code, printed } = await install(1);
    expect(code).toBe(1);
    expect(printed).toMatch(/npm warn old\nnpm error broken\n\nnpm ci failed: see above\.\n$/);
  });
});

describe('the tests', () => {
  it('npm test runs the unit, integration and e2e tests and ends with their count', async () => {
    const { code, printed } = await whole.run('npm test');
    expect([code, ranIn(printed)]).toEqual([0, ['e2e/small', 'integration/small', 'unit/small']]);
    expect(summaryOf(printed)).toBe('3 passed, 0 failed');
  });

  it('npm test passes the name of a file and of a test on to Jest', async () => {
    const { code, printed } = await whole.run('npm test -- browser/small -t runs');
    expect([code, ranIn(printed)]).toEqual([0, ['browser/small']]);
    const other = await whole.run('npm test -- unit -t "no such test"');
    expect([other.code, summaryOf(other.printed)]).toEqual([0, '0 passed, 0 failed, 1 skipped']);
  });

  it('npm test ends with 1 when a test fails', async () => {
    const file = join(whole.folder, 'test', 'unit', 'failing.test.ts');
    writeFileSync(file, "it('fails', () => { expect(1).toBe(2); });\n");
    const { code, printed } = await whole.run('npm test -- unit');
    rmSync(file);
    expect([code, summaryOf(printed)]).toEqual([1, '1 passed, 1 failed']);
  });

  it('npm run test:all runs the tests of every folder', async () => {
    const { code, printed } = await whole.run('npm run test:all');
    const all = [...FOLDERS.map((folder) => `${folder}/small`), 'reliability/chaos'].sort();
    expect([code, ranIn(printed)]).toEqual([0, all]);
  });

  it('npm run test:all -- --rest runs the tests that npm test leaves out', async () => {
    const { code, printed } = await whole.run('npm run test:all -- --rest');
    const rest = [
      'browser/small',
      'commands/small',
      'reliability/chaos',
      'reliability/small',
      'serverless/small',
    ];
    expect([code, ranIn(printed)]).toEqual([0, rest]);
  });

  it('npm run reliability runs all reliability tests at full length and prints each test', async () => {
    const { code, printed } = await whole.run('npm run reliability');
    expect([code, ranIn(printed)]).toEqual([0, ['reliability/chaos', 'reliability/small']]);
    expect(printed.match(/scale full/g)).toHaveLength(2);
    expect(printed.match(/^(begins|passed after [\d.]+ min): runs$/gm)).toHaveLength(4);
  });

  it('npm run chaos runs the chaos test alone at full length', async () => {
    const { code, printed } = await whole.run('npm run chaos');
    expect([code, ranIn(printed)]).toEqual([0, ['reliability/chaos']]);
    expect(printed).toContain('scale full');
  });

  it('npm run test:node24 runs the tests on Node.js 24', async () => {
    const { code, printed } = await whole.run('npm run test:node24 -- unit');
    expect([code, ranIn(printed)]).toEqual([0, ['unit/small']]);
    expect(printed).toContain('Node.js 24.');
  });

  it('the test script refuses another Node.js than the expected one', async () => {
    const { code, printed } = await whole.run('node scripts/test.mjs --expect-node=1 unit');
    expect([code, printed]).toEqual([1, `This is Node.js ${process.versions.node}, and not 1.\n`]);
  });
});

describe('the checks', () => {
  it('npm run check:lock accepts the lock file and names a dependency without an exact version', async () => {
    expect((await bare.run('npm run check:lock')).code).toBe(0);
    const file = join(bare.folder, 'package.json');
    const manifest = readFileSync(file, 'utf8');
    writeFileSync(file, manifest.replace(/"jose": "/, '"jose": "^'));
    const { code, printed } = await bare.run('npm run check:lock');
    writeFileSync(file, manifest);
    expect(code).toBe(1);
    expect(printed).toContain('jose has no exact version');
  });

  it('npm run lint refuses a file that npm run format then repairs', async () => {
    source('export  const one = 1');
    expect((await bare.run('npm run lint')).code).not.toBe(0);
    expect((await bare.run('npm run format')).code).toBe(0);
    const { code, printed } = await bare.run('npm run lint');
    expect([code, printed]).toEqual([0, expect.stringContaining('All matched files use Prettier')]);
  });

  it('npm run lint refuses a promise that nothing waits for', async () => {
    source('export const one = (): void => {\n  Promise.resolve();\n};\n');
    const { code, printed } = await bare.run('npm run lint');
    expect(code).not.toBe(0);
    expect(printed).toContain('no-floating-promises');
  });

  it('npm run types accepts a file with sound types and refuses one without', async () => {
    source('export const one: number = 1;\n');
    expect(await bare.run('npm run types')).toMatchObject({ code: 0 });
    source("export const one: number = '1';\n");
    const { code, printed } = await bare.run('npm run types');
    expect(code).not.toBe(0);
    expect(printed).toContain('src/one.ts(1,14)');
  });
});

describe('the service', () => {
  const LISTENS = /"url":"([^"]+)".*"msg":"otp-login listens"/;

  it('npm run build makes the service, its scripts for Redis, the emulator and the doctor', async () => {
    expect((await whole.run('npm run build')).code).toBe(0);
    const files = ['main.js', 'challenges/create.lua', 'emulator/main.js', 'doctor/main.js'];
    expect(files.filter((file) => !existsSync(join(whole.folder, 'dist', file)))).toEqual([]);
  });

  it('npm start serves until SIGTERM', async () => {
    const command = whole.start('npm start', settings);
    const [, url] = await command.prints(LISTENS);
    expect((await call('GET', `${url!}/health/live`)).status).toBe(200);
    await command.stop('SIGTERM');
    expect(command.printed).toContain('"msg":"Ended"');
  });

  it('npm run doctor looks at the settings, and at the address that a proxy forwards', async () => {
    const proxies = ' --peer 10.0.3.7 --forwarded "203.0.113.9, 10.0.1.2"';
    const { printed } = await whole.run(`npm run doctor --${proxies}`, settings);
    expect(printed).toMatch(/^ok {7}\w+: /m);
    expect(printed).toContain('10.0.3.7');
    const fault = await whole.run('node dist/doctor/main.js', { ...settings, PORT: 'none' });
    expect([fault.code, fault.printed]).toEqual([1, expect.stringContaining('PORT')]);
  });

  it('npm run start:dev starts the service again when a source file changes', async () => {
    const command = whole.start('npm run start:dev', settings);
    await command.prints(LISTENS);
    appendFileSync(join(whole.folder, 'src', 'main.ts'), '// A change.\n');
    const [, url] = await command.prints(LISTENS, 2);
    expect((await call('GET', `${url!}/health/live`)).status).toBe(200);
    await command.stop('SIGTERM');
  });

  it('npm run demo prints nothing but how to use it, and ends with Ctrl-C', async () => {
    const [port, inbox] = [await freePort(), await freePort()];
    const command = whole.start('npm run demo', { PORT: String(port), EMULATOR_PORT: String(inbox) });
    await command.prints(/Ctrl-C ends it/);
    expect(command.printed).toMatch(
      /^\n> .*\n> node scripts\/demo\.mjs\n\n(Building \.\.\.\n)?\n {2}otp-login is running/,
    );
    for (const url of [`http://localhost:${port}/docs`, `http://localhost:${inbox}`])
      expect([url, (await call('GET', url)).status]).toEqual([url, 200]);
    // Every link follows the ports, also where a page of one leads to the other.
    const page = String((await call('GET', `http://localhost:${inbox}`)).body);
    expect(page).toContain(`href="http://localhost:${port}/docs"`);
    const { body } = await call('GET', `http://localhost:${port}/docs-json`);
    expect(body.info.description).toContain(`(http://localhost:${inbox})`);
    await command.stop('SIGINT');
  });

  it('npm run keys makes a key that signs at once, and then one that signs later', async () => {
    const first = await bare.run('npm run keys -- made');
    const second = await bare.run('npm run keys -- made');
    const names = [first, second].map(({ printed }) => /made\/(\d{8}T\d{4}Z)-\w+\.pem/.exec(printed)?.[1]);
    expect([first.code, second.code]).toEqual([0, 0]);
    expect(names[1]! > names[0]!).toBe(true);
  });
});

describe('the benches', () => {
  it('npm run bench prints the time to start, the memory of a session, and that no mutated token is accepted', async () => {
    const { code, printed } = await whole.run('npm run bench', { BENCH_PART: '0.001' });
    expect([code, printed]).toEqual([0, expect.stringMatching(/run 1 of 1: ready after/)]);
    expect(printed).toMatch(/mutated tokens: 50 %/);
    expect(printed).toMatch(/MEMORY USAGE, session record +\d+\n/);
    expect(printed).toMatch(/ in all, \d+ a second; accepted: 0\n$/);
  });

  it('node bench/load.mjs prints what a request costs', async () => {
    const { code, printed } = await whole.run('node bench/load.mjs', { BENCH_PART: '0.01' });
    expect([code, printed]).toEqual([0, expect.stringMatching(/provider: turn 5 of 5/)]);
    expect(printed).toMatch(/^send, caller +[\d.]+/m);
  });

  it('node bench/request-sizes.mjs prints what requests of 16 KB cost beside empty ones', async () => {
    const { code, printed } = await whole.run('node bench/request-sizes.mjs', { BENCH_PART: '0.01' });
    expect([code, printed]).toEqual([
      0,
      expect.stringMatching(/the costliest: [\d.]+ times an empty request/),
    ]);
  });

  it('node bench/rejected-inputs.mjs finds Redis as it was', async () => {
    const { code, printed } = await whole.run('node bench/rejected-inputs.mjs', { BENCH_PART: '0.002' });
    expect([code, printed]).toEqual([0, expect.stringMatching(/^2000 rejected inputs /m)]);
  });
});
