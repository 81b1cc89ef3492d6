// The base of the Dockerfile: from its registry, or a stand-in of the same name where no registry answers. The stand-in is
// made of the same parts: Debian's smallest system (debootstrap), and Node.js and npm from the npm registry.
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { obtainProgram } from '../../scripts/programs.mjs';

/** Which npm Node.js brings, by major version. */
const NPM = { 24: '11' };
// Files that Debian's slim images leave out, too.
const NOT_SLIM = ['usr/share/doc', 'usr/share/man', 'usr/share/info', 'usr/share/locale'];
const LEFT_OVER = ['var/cache/apt', 'var/lib/apt/lists', 'var/log'];
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Puts the base into buildah's store. Returns whether it is a stand-in, or why there is none. */
export function bringBase(buildah, name, folder, digest) {
  const image = `docker.io/library/${name}`;
  // A reference has a tag or a digest.
  const pinned = digest ? `${image.replace(/:[^/:]*$/, '')}@${digest}` : image;
  console.log(`Pulling ${pinned} ...`);
  const pulled = buildah.attempt('pull', '--quiet', pinned);
  if (pulled.status === 0) {
    if (digest) buildah.run('tag', pinned, image);
    return { standIn: false };
  }

  const reason = pulled.stderr.trim().split('\n').at(-1);
  const [, major, suite] = /^node:(\d+)-([a-z]+)-slim$/.exec(name) ?? [];
  if (!suite || !NPM[major])
    return { missing: `${name} could not be pulled (${reason}), and no stand-in for it is known` };
  console.log(
    `It could not be pulled (${reason}).\nMaking a stand-in (some minutes): Debian ${suite} by debootstrap ...`,
  );
  const missing = makeSystem(join(folder, 'base'), suite) ?? addNode(join(folder, 'base'), major);
  if (missing) return { missing };

  const container = buildah.run('from', 'scratch');
  buildah.run('add', '--quiet', container, join(folder, 'base'), '/');
  buildah.run('config', '--env', `PATH=${PATH}`, '--cmd', 'node', container);
  buildah.run('commit', '--quiet', '--rm', '--format', 'docker', container, image);
  rmSync(join(folder, 'base'), { recursive: true });
  return { standIn: true };
}

/** Returns why it could not. */
function makeSystem(system, suite) {
  const debootstrap = obtainProgram(['debootstrap', '/usr/sbin/debootstrap'], 'debootstrap');
  if (!debootstrap) return 'there is no debootstrap (on Debian: apt-get install debootstrap)';
  // With mounts of its own: what it mounts is gone with it, even when it is stopped half-way.
  const made = attempt('unshare', [
    '--mount',
    debootstrap,
    '--variant=minbase',
    '--force-check-gpg',
    suite,
    system,
  ]);
  if (made.status !== 0) return `debootstrap failed: ${made.said}`;
  for (const path of NOT_SLIM) rmSync(join(system, path), { recursive: true, force: true });
  for (const path of LEFT_OVER) {
    rmSync(join(system, path), { recursive: true, force: true });
    mkdirSync(join(system, path));
  }
  // As in the real one, where 1000 has this name.
  appendFileSync(join(system, 'etc/passwd'), 'node:x:1000:1000::/home/node:/bin/bash\n');
  appendFileSync(join(system, 'etc/group'), 'node:x:1000:\n');
  return undefined;
}

/** Returns why it could not. */
function addNode(system, major) {
  const parts = [
    [`node-linux-${process.arch}@${major}`, 'usr/local', ['package/bin/node']],
    [`npm@${NPM[major]}`, 'usr/local/lib/node_modules/npm', []],
  ];
  for (const [spec, to, members] of parts) {
    console.log(`Adding ${spec} ...`);
    // npm checks the hash that the registry gives.
    const packed = attempt('npm', ['pack', spec, '--pack-destination', system, '--loglevel=error']);
    if (packed.status !== 0) return `npm pack ${spec} failed: ${packed.said}`;
    const archive = join(system, packed.stdout.trim().split('\n').at(-1));
    mkdirSync(join(system, to), { recursive: true });
    const how = ['--strip-components=1', '--no-same-owner', '-C', join(system, to)];
    const unpacked = attempt('tar', ['-xzf', archive, ...how, ...members]);
    rmSync(archive);
    if (unpacked.status !== 0) return `${spec} could not be unpacked: ${unpacked.said}`;
  }
  for (const name of ['npm', 'npx'])
    symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, join(system, 'usr/local/bin', name));
  return existsSync(join(system, 'usr/local/bin/node'))
    ? undefined
    : 'the package of Node.js holds no bin/node';
}

function attempt(file, args) {
  const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  return {
    status,
    stdout,
    said: error?.message ?? `${stdout}${stderr}`.trim().split('\n').slice(-3).join(' '),
  };
}
