import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../support/free-port';

const ROOT = join(__dirname, '../..');
const TOOLS = join(ROOT, 'tools/image');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-supply-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

async function run(script: string, ...args: string[]) {
  const child = spawn(process.execPath, [join(TOOLS, script), ...args], { cwd: ROOT });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, stdout, stderr };
}

describe('the SBOM', () => {
  interface Sbom {
    bomFormat: string;
    components: { purl: string; hashes?: unknown[]; licenses?: unknown[] }[];
  }
  let sbom: Sbom;
  const check = (changed: Sbom) => {
    const file = join(folder, 'sbom.json');
    writeFileSync(file, JSON.stringify(changed));
    return run('sbom.mjs', '--check', file);
  };

  test('the SBOM names each runtime dependency with its hash and licence, and no development package', async () => {
    const { code, stdout, stderr } = await run('sbom.mjs');
    expect([code, stderr]).toEqual([0, '']);
    sbom = JSON.parse(stdout) as Sbom;
    const names = sbom.components.map(({ purl }) => decodeURIComponent(purl));
    const { dependencies, devDependencies } = JSON.parse(
      readFileSync(join(ROOT, 'package.json'), 'utf8'),
    ) as Record<'dependencies' | 'devDependencies', Record<string, string>>;
    for (const [name, version] of Object.entries(dependencies))
      expect(names).toContain(`pkg:npm/${name}@${version}`);
    expect(names).not.toContain(`pkg:npm/jest@${devDependencies.jest!}`);
  });

  test('the check of the SBOM finds a package that is missing, and one that is too many', async () => {
    const [first, ...others] = sbom.components;
    const missing = await check({ ...sbom, components: others });
    const name = decodeURIComponent(first!.purl).replace('pkg:npm/', '');
    expect([missing.code, missing.stderr]).toEqual([1, `${name} is missing\n`]);
    const added = { ...first!, purl: 'pkg:npm/left-pad@1.3.0' };
    const tooMany = await check({ ...sbom, components: [...sbom.components, added] });
    expect([tooMany.code, tooMany.stderr]).toEqual([1, 'left-pad@1.3.0 is not in the image\n']);
    const bare = await check({ ...sbom, components: [{ purl: first!.purl }, ...others] });
    expect([bare.code, bare.stderr]).toEqual([1, `${name} has no hash\n${name} has no licence\n`]);
  });
});

describe('the base image', () => {
  const MANIFEST = '{"schemaVersion":2,"manifests":[]}';
  const DIGEST = `sha256:${createHash('sha256').update(MANIFEST).digest('hex')}`;
  const DOCKERFILE = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
  let registry: Server;
  let url: string;
  /** What the registry says of its manifest. */
  let said = DIGEST;
  const asked: (string | undefined)[] = [];

  beforeAll(async () => {
    // As Docker Hub answers: a token first, then the manifest.
    registry = createServer((request, response) => {
      const path = new URL(request.url ?? '', 'http://registry');
      if (path.pathname === '/token') {
        asked.push(path.searchParams.get('scope') ?? '');
        response.end(JSON.stringify({ token: 'anonymous' }));
      } else if (request.headers.authorization !== 'Bearer anonymous') {
        const scope = 'repository:library/node:pull';
        response.setHeader('www-authenticate', `Bearer realm="${url}/token",service="r",scope="${scope}"`);
        response.writeHead(401).end();
      } else {
        asked.push(path.pathname);
        response.setHeader('docker-content-digest', said);
        response.end(MANIFEST);
      }
    });
    await once(registry.listen(0, '127.0.0.1'), 'listening');
    url = `http://127.0.0.1:${(registry.address() as AddressInfo).port}`;
  });
  afterAll(() => registry.close());

  const pin = (dockerfile: string, at = url) => {
    const file = join(folder, 'Dockerfile');
    writeFileSync(file, dockerfile);
    return run('pin-base.mjs', '--dockerfile', file, '--registry', at).then((ended) => ({
      ...ended,
      dockerfile: readFileSync(file, 'utf8'),
    }));
  };

  test('the script writes the digest of the manifest into the Dockerfile, and a newer one over it', async () => {
    const pinned = await pin(DOCKERFILE);
    expect([pinned.code, pinned.stderr]).toEqual([0, '']);
    expect(asked).toEqual(['repository:library/node:pull', '/v2/library/node/manifests/24-bookworm-slim']);
    const line = `ARG BASE_IMAGE=node:24-bookworm-slim@${DIGEST}`;
    expect(pinned.dockerfile).toBe(DOCKERFILE.replace(/^ARG BASE_IMAGE=.*$/m, line));
    const older = pinned.dockerfile.replace(DIGEST, `sha256:${'0'.repeat(64)}`);
    expect((await pin(older)).dockerfile).toBe(pinned.dockerfile);
  });

  test('the script changes nothing without a registry, and for a manifest that was changed on the way', async () => {
    const away = await pin(DOCKERFILE, `http://127.0.0.1:${await freePort()}`);
    expect([away.code, away.dockerfile]).toEqual([1, DOCKERFILE]);
    expect(away.stderr).toContain('nothing was changed');
    said = `sha256:${'1'.repeat(64)}`;
    const changed = await pin(DOCKERFILE);
    said = DIGEST;
    expect([changed.code, changed.dockerfile]).toEqual([1, DOCKERFILE]);
    expect(changed.stderr).toContain('another manifest');
  });
});
