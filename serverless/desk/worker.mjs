// Starts the Worker target on this machine in workerd itself: `node desk/worker.mjs` with the settings as JSON in DESK_SETTINGS.
// The documents are on disk in DESK_FOLDER. Prints one line of JSON with the address and the process id of workerd.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const { DESK_SETTINGS = '{}', DESK_PORT = '0' } = process.env;
const folder = process.env.DESK_FOLDER ?? mkdtempSync(join(tmpdir(), 'otp-login-worker-'));
const port = DESK_PORT === '0' ? await freePort() : Number(DESK_PORT);

mkdirSync(join(folder, 'documents'), { recursive: true });
const bindings = Object.entries(JSON.parse(DESK_SETTINGS)).map(
  ([name, value]) => `    (name = ${JSON.stringify(name)}, text = ${JSON.stringify(String(value))}),`,
);
const config = join(folder, 'config.capnp');
writeFileSync(
  config,
  `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "documents", disk = (path = ${JSON.stringify(join(folder, 'documents'))}, writable = true)),
    # The emulator of StartMessaging runs on this machine.
    (name = "internet", network = (allow = ["local", "private", "public"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed ${JSON.stringify(relative(folder, join(HERE, '..', 'dist', 'worker.js')))})],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [(className = "Document", uniqueKey = "otp-login", enableSql = true)],
  durableObjectStorage = (localDisk = "documents"),
  bindings = [
    (name = "DOCUMENTS", durableObjectNamespace = "Document"),
${bindings.join('\n')}
  ],
);
`,
  { mode: 0o600 },
);

const workerd = spawn(binary(), ['serve', config], {
  stdio: ['ignore', 'inherit', 'inherit'],
});
workerd.once('exit', (code) => process.exit(code ?? 0));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => workerd.kill('SIGTERM'));
process.on('exit', () => workerd.kill('SIGKILL'));
// The parent holds stdin open: when it ends, this process ends too.
process.stdin.resume().on('end', () => process.exit(0));

const url = `http://127.0.0.1:${port}`;
for (let ready = false; !ready;) {
  ready = await fetch(`${url}/health/live`).then(
    () => true,
    () => false,
  );
  if (!ready) await new Promise((resolve) => setTimeout(resolve, 50));
}
console.log(JSON.stringify({ url, pid: workerd.pid, folder }));

/** The program inside the npm package of this system: nothing is downloaded. */
function binary() {
  const require = createRequire(import.meta.url);
  const name = `@cloudflare/workerd-${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch === 'x64' ? '64' : process.arch}`;
  return require.resolve(`${name}/bin/workerd${process.platform === 'win32' ? '.exe' : ''}`, {
    paths: [dirname(require.resolve('workerd/package.json'))],
  });
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = server.address();
      server.close(() => resolve(free));
    });
  });
}
