import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// The package as npm sends it, in a project that knows nothing of this checkout.

const ROOT = join(__dirname, '../..');
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');
const folder = mkdtempSync(join(tmpdir(), 'otp-login-client-'));
const [source, project] = [join(folder, 'client'), join(folder, 'project')];

afterAll(() => {
  rmSync(folder, { recursive: true });
});

function run(where: string, file: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, { cwd: where, encoding: 'utf8' });
  expect({ args, status, stdout: status === 0 ? '' : stdout, stderr: status === 0 ? '' : stderr }).toEqual({
    args,
    status: 0,
    stdout: '',
    stderr: '',
  });
  return stdout;
}

it('npm pack gives a package whose entries work in a fresh project, with types and without a dependency', () => {
  mkdirSync(source);
  mkdirSync(project);
  for (const name of ['package.json', 'README.md', 'LICENSE', 'src']) {
    cpSync(join(ROOT, 'client', name), join(source, name), { recursive: true });
  }
  run(ROOT, process.execPath, TSC, '-p', 'client', '--outDir', join(source, 'dist'));
  cpSync(join(ROOT, 'client/src/api.d.ts'), join(source, 'dist/api.d.ts'));
  const tarball = run(source, 'npm', 'pack', '--pack-destination', project, '--silent').trim();

  writeFileSync(join(project, 'package.json'), '{ "type": "module", "private": true }');
  run(project, 'npm', 'install', '--offline', '--no-audit', '--no-fund', `./${tarball}`);
  expect(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.'))).toEqual([
    '@otp-login',
  ]);
  writeFileSync(
    join(project, 'app.ts'),
    `import { createOtpLogin, OtpLoginError, toE164, type Login, type OtpLogin } from '@otp-login/client';
    import { createLoginFlow } from '@otp-login/client/flow';
    import { createSolver, solve } from '@otp-login/client/pow';
    import { memoryStore } from '@otp-login/client/stores';
    const client: OtpLogin = createOtpLogin({ url: 'https://login.example.com', store: memoryStore(), solve: createSolver() });
    const login: Login = await client.login();
    const flow = createLoginFlow(client, { store: memoryStore() });
    const error = new OtpLoginError('offline');
    const code: string = error.code;
    console.log(login.state, flow.state.step, toE164('98765 43210'), code, typeof solve);
    // @ts-expect-error: the options are checked
    export const wrong = () => createOtpLogin({ url: 1 });`,
  );
  for (const [moduleResolution, module] of [
    ['bundler', 'esnext'],
    ['nodenext', 'nodenext'],
  ]) {
    const compilerOptions = {
      module,
      moduleResolution,
      target: 'es2022',
      lib: ['es2022', 'dom'],
      strict: true,
      types: [],
    };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['app.ts'] }));
    run(project, process.execPath, TSC);
  }
  expect(run(project, process.execPath, 'app.js')).toBe('out number +919876543210 offline function\n');
});
