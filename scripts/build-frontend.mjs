// The second half of `npm run build`: compiles the client into client/dist, and the modules of the pages, with the client
// beside them, into dist/pages/static. The service adds hashes to their names and compresses them.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compilePageModule } from './page-modules.mjs';
import { ROOT } from './project.mjs';

const CLIENT = join(ROOT, 'client');
const PAGES = join(ROOT, 'src', 'pages', 'static');
const SERVED = join(ROOT, 'dist', 'pages', 'static');
/** Entries of the client that no page uses. */
const UNUSED = /^(react|pow-worker|api\.d)\.ts$/;

rmSync(join(CLIENT, 'dist'), { recursive: true, force: true });
check(CLIENT);
// The compiler does not copy what is a declaration already.
copyFileSync(join(CLIENT, 'src', 'api.d.ts'), join(CLIENT, 'dist', 'api.d.ts'));

check(PAGES);
emit(PAGES, SERVED);
emit(join(CLIENT, 'src'), join(SERVED, 'client'));

/** Runs the compiler over a project, which writes its output if the project wants it. */
function check(project) {
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [compiler, '-p', project], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}

/** Writes the modules of a folder as they are served. */
function emit(from, to) {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from).filter((file) => file.endsWith('.ts') && !UNUSED.test(file))) {
    const outputText = compilePageModule(readFileSync(join(from, name), 'utf8'));
    writeFileSync(join(to, name.replace(/\.ts$/, '.js')), outputText);
  }
}
