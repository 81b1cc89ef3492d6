// The second half of `npm run build`: compiles the client into client/dist.
import { spawnSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './project.mjs';

const CLIENT = join(ROOT, 'client');
const TSC = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');

rmSync(join(CLIENT, 'dist'), { recursive: true, force: true });
compile(CLIENT);
// The compiler does not copy what is a declaration already.
copyFileSync(join(CLIENT, 'src', 'api.d.ts'), join(CLIENT, 'dist', 'api.d.ts'));

function compile(project) {
  const { status } = spawnSync(process.execPath, [TSC, '-p', project], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}
