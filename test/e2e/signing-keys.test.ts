import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import {
  call,
  freshNumber,
  login,
  startInstance,
  startWorld,
  until,
  type Answer,
  type World,
} from '../support/world';

const SCRIPT = join(__dirname, '../../scripts/keys.mjs');
const MINUTE = 60_000;
/** Within seconds: the folder is looked at every two. */
const SECONDS = 6_000;
const FIRST = '20250101T0000Z-first';
const SECOND = '20250201T0000Z-second';

let folder: string;
let world: World | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
});
afterEach(async () => {
  jest.restoreAllMocks();
  await world?.close();
  world = undefined;
  rmSync(folder, { recursive: true, force: true });
});

const newKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString();

/** As `npm run keys` does: under another name first, so that nobody reads half a key. */
function put(kid: string, pem = newKey(), into = folder): void {
  writeFileSync(join(into, `.${kid}`), pem, { mode: 0o600 });
  renameSync(join(into, `.${kid}`), join(into, `${kid}.pem`));
}
const remove = (kid: string): void => {
  rmSync(join(folder, `${kid}.pem`));
};
/** A key's name that begins at this moment. */
const kidFrom = (time: number, name: string): string =>
  `${new Date(time).toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${name}`;
const runScript = (...parameters: string[]): Promise<{ stdout: string; stderr: string }> =>
  promisify(execFile)(process.execPath, [SCRIPT, ...parameters]);

async function begin(): Promise<World> {
  // An access token outlives what the tests do to the clock.
  world = await startWorld({
    variables: { JWT_KEYS_DIR: folder, ACCESS_TOKEN_TTL_SECONDS: '7200' },
    count: 2,
  });
  return world;
}
const urls = (): string[] => world?.instances.map(({ url }) => url) ?? [];
const linesOf = (text: string): string[][] =>
  world?.instances.map(({ logs }) => logs.filter((line) => line.includes(text))) ?? [];

async function published(url: string): Promise<string[]> {
  const { status, body } = await call('GET', `${url}/.well-known/jwks.json`);
  expect(status).toBe(200);
  for (const key of body.keys as object[])
    expect(Object.keys(key).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
  return (body.keys as { kid: string }[]).map(({ kid }) => kid);
}
/** Every instance publishes exactly these, within seconds. */
async function expectPublished(...kids: string[]): Promise<void> {
  await until(async () => {
    const sets = await Promise.all(urls().map(published));
    return sets.every((set) => set.join() === kids.join());
  }, SECONDS);
}
const kidOf = ({ body }: Answer): string =>
  (
    JSON.parse(Buffer.from((body.accessToken as string).split('.')[0] ?? '', 'base64url').toString()) as {
      kid: string;
    }
  ).kid;
const me = ({ body }: Answer, url: string): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, { authorization: `Bearer ${body.accessToken}` });
async function loginAt(url: string): Promise<Answer> {
  if (world === undefined) throw new Error('There is no world');
  const answer = await login(world, freshNumber(), url);
  expect(answer.status).toBe(200);
  return answer;
}
/** Every instance signs with this key, and every instance takes what the others signed. */
async function expectSigner(kid: string): Promise<void> {
  for (const url of urls()) {
    const answer = await loginAt(url);
    expect(kidOf(answer)).toBe(kid);
    for (const other of urls()) expect((await me(answer, other)).status).toBe(200);
  }
}

describe('a new key', () => {
  it('that is for later is published everywhere within seconds, and signs when its time comes', async () => {
    put(FIRST);
    await begin();
    await expectSigner(FIRST);
    const before = await loginAt(urls()[0] ?? '');
    const later = kidFrom(Date.now() + 15 * MINUTE, 'later');
    put(later);
    await expectPublished(FIRST, later);
    await expectSigner(FIRST);

    const now = Date.now.bind(Date);
    let ahead = 13 * MINUTE;
    jest.spyOn(Date, 'now').mockImplementation(() => now() + ahead);
    await expectSigner(FIRST);
    ahead = 15 * MINUTE;
    await expectSigner(later);
    // What the old one signed is good until it is taken away.
    for (const url of urls()) expect((await me(before, url)).status).toBe(200);
    const next = await call('POST', `${urls()[1]}/auth/refresh`, { refreshToken: before.body.refreshToken });
    expect([next.status, kidOf(next)]).toEqual([200, later]);
  });

  it('whose time has come signs as soon as it is seen', async () => {
    put(FIRST);
    await begin();
    put(SECOND);
    await expectPublished(FIRST, SECOND);
    await expectSigner(SECOND);
    expect(linesOf('Signing keys have changed').map((lines) => lines.length)).toEqual([1, 1]);
    expect(linesOf('PRIVATE').flat()).toEqual([]);
  });
});

it('a removed key is published no more and verifies nothing, and its sessions go on', async () => {
  put(FIRST);
  await begin();
  const before = await loginAt(urls()[0] ?? '');
  put(SECOND);
  await expectPublished(FIRST, SECOND);
  remove(FIRST);
  await expectPublished(SECOND);
  for (const url of urls()) {
    const refused = await me(before, url);
    expect([refused.status, refused.body.code]).toEqual([401, 'unauthenticated']);
  }
  const next = await call('POST', `${urls()[1]}/auth/refresh`, { refreshToken: before.body.refreshToken });
  expect([next.status, kidOf(next)]).toEqual([200, SECOND]);
  for (const url of urls()) expect((await me(next, url)).status).toBe(200);
});

it('a key that replaces another under its name is the one that counts', async () => {
  put(FIRST);
  await begin();
  const before = await loginAt(urls()[0] ?? '');
  put(FIRST);
  await until(
    async () =>
      (await Promise.all(urls().map((url) => me(before, url)))).every(({ status }) => status === 401),
    SECONDS,
  );
  await expectSigner(FIRST);
});

describe('the old set stays', () => {
  it.each([
    ['a file without a key', 'hunter2-canary-is-no-key'],
    ['half a key', newKey().slice(0, 120)],
  ])('while there is %s, which is told once and without its content', async (_, content) => {
    put(FIRST);
    await begin();
    put(SECOND, content);
    // A good one beside it does not count yet: half a set would be another set on every replica.
    put('20250301T0000Z-third');
    await until(() => linesOf('the old set stays').every((lines) => lines.length > 0), SECONDS);
    // Looked at once more, at least.
    await sleep(2_500);
    for (const lines of linesOf('the old set stays')) {
      expect(lines).toHaveLength(1);
      expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'error' });
      expect(lines[0]).toContain(`${SECOND}.pem`);
    }
    const log = linesOf('').flat().join('');
    for (const line of ['hunter2', ...content.split('\n')])
      if (line.length > 5) expect(log).not.toContain(line);
    for (const url of urls()) expect(await published(url)).toEqual([FIRST]);
    await expectSigner(FIRST);

    put(SECOND);
    await expectPublished(FIRST, SECOND, '20250301T0000Z-third');
    await expectSigner('20250301T0000Z-third');
  });

  it('while the folder is empty or gone, and after it came back', async () => {
    put(FIRST);
    await begin();
    const aside = `${folder}-aside`;
    renameSync(folder, aside);
    await until(() => linesOf('the old set stays').every((lines) => lines.length === 1), SECONDS);
    mkdirSync(folder);
    await until(() => linesOf('the old set stays').every((lines) => lines.length === 2), SECONDS);
    await expectSigner(FIRST);
    rmSync(folder, { recursive: true });
    renameSync(aside, folder);
    put(SECOND);
    await expectPublished(FIRST, SECOND);
    await expectSigner(SECOND);
  });
});

it('a mounted secret that Kubernetes swaps is picked up, and half a swap changes nothing', async () => {
  /** A version of the secret as kubelet writes it: a folder of its own, and `..data` turned to it in one step. */
  const swap = (version: string, pems: Record<string, string>): void => {
    mkdirSync(join(folder, version));
    for (const [kid, pem] of Object.entries(pems)) writeFileSync(join(folder, version, `${kid}.pem`), pem);
    symlinkSync(version, join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    for (const kid of Object.keys(pems)) {
      const path = join(folder, `${kid}.pem`);
      if (!readdirSync(folder).includes(`${kid}.pem`)) symlinkSync(join('..data', `${kid}.pem`), path);
    }
  };
  const [first, second] = [newKey(), newKey()];
  swap('..2026_11_20_10_00_00.111', { [FIRST]: first });
  await begin();
  await expectSigner(FIRST);
  const before = await loginAt(urls()[0] ?? '');

  swap('..2026_11_20_10_15_00.222', { [FIRST]: first, [SECOND]: second });
  rmSync(join(folder, '..2026_11_20_10_00_00.111'), { recursive: true });
  await expectPublished(FIRST, SECOND);
  await expectSigner(SECOND);
  for (const url of urls()) expect((await me(before, url)).status).toBe(200);

  // The link of the key that went away leads nowhere until kubelet removes it.
  swap('..2026_11_20_12_00_00.333', { [SECOND]: second });
  rmSync(join(folder, '..2026_11_20_10_15_00.222'), { recursive: true });
  await until(() => linesOf('the old set stays').every((lines) => lines.length > 0), SECONDS);
  for (const url of urls()) expect(await published(url)).toEqual([FIRST, SECOND]);
  await expectSigner(SECOND);
  remove(FIRST);
  await expectPublished(SECOND);
  for (const url of urls()) expect((await me(before, url)).status).toBe(401);
});

describe('npm run keys', () => {
  const namesIn = (path: string): string[] => readdirSync(path).sort();
  const activation = (name: string): number => {
    const [, year, month, day, hour, minute] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-/.exec(name) ?? [];
    return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
  };

  it('makes a first key that signs now and a second one that signs in 15 minutes, for their owner’s eyes only', async () => {
    const path = join(folder, 'made', 'keys');
    const started = Date.now();
    const one = await runScript(path);
    const [first = ''] = namesIn(path);
    const two = await runScript(path);
    await runScript(path);
    const names = namesIn(path);
    expect(names).toHaveLength(3);
    expect(names[0]).toBe(first);

    expect(activation(first)).toBeLessThanOrEqual(Date.now());
    expect(activation(first)).toBeGreaterThan(started - MINUTE);
    // Names hold minutes.
    for (const name of names.slice(1)) {
      expect(activation(name)).toBeGreaterThanOrEqual(started + 15 * MINUTE);
      expect(activation(name)).toBeLessThanOrEqual(Date.now() + 16 * MINUTE);
    }
    expect(statSync(path).mode & 0o777).toBe(0o700);
    for (const name of names) {
      expect(statSync(join(path, name)).mode & 0o777).toBe(0o600);
      const pem = readFileSync(join(path, name), 'utf8');
      expect(pem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
      expect(one.stdout + two.stdout).not.toContain(pem.split('\n')[1]);
    }
    expect(one.stdout).toContain(join(path, first));

    // The service starts with them, and signs with the first.
    folder = path;
    await begin();
    await expectPublished(...names.map((name) => name.replace('.pem', '')));
    await expectSigner(first.replace('.pem', ''));
  });

  it('makes one that a running service, in production too, publishes within seconds', async () => {
    await runScript(folder);
    const [first = ''] = namesIn(folder);
    const running = await begin();
    const production = await startInstance({
      NODE_ENV: 'production',
      ISSUER: 'https://login.example',
      REDIS_URL: running.redis.url,
      STARTMESSAGING_BASE_URL: running.upstream.url,
      STARTMESSAGING_CONTRACT: 'provider',
      BUDGET_PAISE_PER_DAY: '10000',
      JWT_KEYS_DIR: folder,
    });
    try {
      expect(kidOf(await loginAt(production.url))).toBe(first.replace('.pem', ''));
      await runScript(folder);
      const kids = namesIn(folder).map((name) => name.replace('.pem', ''));
      await expectPublished(...kids);
      await until(async () => (await published(production.url)).join() === kids.join(), SECONDS);
      expect(kidOf(await loginAt(production.url))).toBe(first.replace('.pem', ''));
    } finally {
      await production.close();
    }
  });

  it('says why it made none', async () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    await expect(runScript(file)).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^No key was made: /) as string,
    });
  });
});
