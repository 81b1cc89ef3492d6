// Programs that the scripts need and that npm does not bring: looked for in PATH, else installed from Debian's package.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

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

/** Does nothing where there is no apt-get, or no right to use it: the caller looks again and explains. */
function installByApt(name) {
  if (!findProgram(['apt-get'])) return;
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
  // The package starts a Redis on port 6379 of its own. Ours are started on free ports, and nobody asked for it.
  if (installed && name === 'redis-server') {
    run('sh', '-c', '(systemctl disable --now redis-server || service redis-server stop) 2>/dev/null');
  }
}
