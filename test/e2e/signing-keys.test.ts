import { execFile } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type * as signing from '../../src/tokens/signing-keys';
import { Mounted } from '../support/mounted';
import { serviceModule } from '../support/service';
import { dateOfService } from '../support/service-clock';
import { newSigningKey } from '../support/signing-keys';
import { bearer, kidOf } from '../support/tokens';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  startWorld,
  statusAndCode,
  until,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

const SCRIPT = join(__dirname, '../../scripts/keys.mjs');
const MINUTE = 60_000;
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

/** As `npm run keys` does: under another name first, so that no instance reads half a key. */
function put(kid: string, pem = newSigningKey(), into = folder): void {
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

/** Instances read the folder every two seconds; this makes them read it now. Two reads must find the same. */
function lookNow(instances: readonly Instance[] = world?.instances ?? []): void {
  const { SigningKeys } = serviceModule<typeof signing>('tokens/signing-keys');
  for (let reads = 0; reads < 2; reads++) for (const { app } of instances) app.get(SigningKeys).poll();
}

async function published(url: string): Promise<string[]> {
  const { status, body } = await call('GET', `${url}/.well-known/jwks.json`);
  expect(status).toBe(200);
  for (const key of body.keys as Record<string, string>[]) {
    const parts =
      key.kty === 'RSA'
        ? ['alg', 'e', 'kid', 'kty', 'n', 'use']
        : ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'];
    expect(Object.keys(key).sort()).toEqual(parts);
  }
  return (body.keys as { kid: string }[]).map(({ kid }) => kid);
}
/** Every instance publishes exactly these. */
async function expectPublished(...kids: string[]): Promise<void> {
  for (const url of urls()) expect(await published(url)).toEqual(kids);
}
const me = ({ body }: Answer, url: string): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(body.accessToken));
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
    expect(kidOf(answer.body.accessToken)).toBe(kid);
    for (const other of urls()) expect((await me(answer, other)).status).toBe(200);
  }
}

describe('a new key', () => {
  it('a key for a later time is published at once and signs when its time has come', async () => {
    put(FIRST);
    await begin();
    await expectSigner(FIRST);
    const before = await loginAt(urls()[0] ?? '');
    const now = Date.now();
    const clock = jest.spyOn(dateOfService(), 'now').mockReturnValue(now);
    const later = kidFrom(now + 15 * MINUTE, 'later');
    put(later);
    lookNow();
    await expectPublished(FIRST, later);
    await expectSigner(FIRST);

    clock.mockReturnValue(now + 13 * MINUTE);
    await expectSigner(FIRST);
    clock.mockReturnValue(now + 15 * MINUTE);
    await expectSigner(later);
    // A token of the first key is good until that key is removed.
    for (const url of urls()) expect((await me(before, url)).status).toBe(200);
    const next = await call('POST', `${urls()[1]}/auth/refresh`, { refreshToken: before.body.refreshToken });
    expect([next.status, kidOf(next.body.accessToken)]).toEqual([200, later]);
  });

  it('a key whose time has come signs as soon as the instances see it, and they look by themselves', async () => {
    put(FIRST);
    await begin();
    put(SECOND);
    await until(async () => {
      const sets = await Promise.all(urls().map(published));
      return sets.every((set) => set.join() === [FIRST, SECOND].join());
    }, 'the new key in both sets');
    await expectSigner(SECOND);
    expect(linesOf('Signing keys have changed').map((lines) => lines.length)).toEqual([1, 1]);
    expect(linesOf('PRIVATE').flat()).toEqual([]);
  });
});

it('a removed key is no longer published and verifies nothing, and its sessions go on', async () => {
  put(FIRST);
  await begin();
  const before = await loginAt(urls()[0] ?? '');
  put(SECOND);
  lookNow();
  await expectPublished(FIRST, SECOND);
  remove(FIRST);
  lookNow();
  await expectPublished(SECOND);
  for (const url of urls()) expect(statusAndCode(await me(before, url))).toEqual([401, 'unauthenticated']);
  const next = await call('POST', `${urls()[1]}/auth/refresh`, { refreshToken: before.body.refreshToken });
  expect([next.status, kidOf(next.body.accessToken)]).toEqual([200, SECOND]);
  for (const url of urls()) expect((await me(next, url)).status).toBe(200);
});

it('a key that replaces another one under the same name is used in its place', async () => {
  put(FIRST);
  await begin();
  const before = await loginAt(urls()[0] ?? '');
  put(FIRST);
  lookNow();
  for (const url of urls()) expect((await me(before, url)).status).toBe(401);
  await expectSigner(FIRST);
});

describe('a broken folder', () => {
  it.each([
    ['a file without a key', 'hunter2-canary-is-no-key'],
    ['half a key', newSigningKey().slice(0, 120)],
  ])(
    'the old keys stay while the folder holds %s, and the log says so once without the content',
    async (_, content) => {
      const THIRD = '20250301T0000Z-third';
      put(FIRST);
      await begin();
      put(SECOND, content);
      // A good key beside it is not used yet: half a set would be another set on every instance.
      put(THIRD);
      for (let i = 0; i < 3; i++) lookNow();
      for (const lines of linesOf('the keys in use stay')) {
        expect(lines).toHaveLength(1);
        expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'error' });
        expect(lines[0]).toContain(`${SECOND}.pem`);
      }
      const log = linesOf('').flat().join('');
      for (const line of ['hunter2', ...content.split('\n')])
        if (line.length > 5) expect(log).not.toContain(line);
      await expectPublished(FIRST);
      await expectSigner(FIRST);

      put(SECOND);
      lookNow();
      await expectPublished(FIRST, SECOND, THIRD);
      await expectSigner(THIRD);
    },
  );

  it('the old keys stay while the folder is gone or empty, and new keys are used when it is back', async () => {
    put(FIRST);
    await begin();
    const aside = `${folder}-aside`;
    const told = (): number[] => linesOf('the keys in use stay').map((lines) => lines.length);
    renameSync(folder, aside);
    lookNow();
    expect(told()).toEqual([1, 1]);
    mkdirSync(folder);
    lookNow();
    expect(told()).toEqual([2, 2]);
    await expectSigner(FIRST);
    rmSync(folder, { recursive: true });
    renameSync(aside, folder);
    put(SECOND);
    lookNow();
    await expectPublished(FIRST, SECOND);
    await expectSigner(SECOND);
  });
});

it('a mounted Secret that Kubernetes swaps is read again, and half a swap changes nothing', async () => {
  const mounted = new Mounted();
  rmSync(folder, { recursive: true });
  ({ folder } = mounted);
  const [first, second] = [newSigningKey(), newSigningKey()];
  mounted.put({ [`${FIRST}.pem`]: first });
  await begin();
  await expectSigner(FIRST);
  const before = await loginAt(urls()[0] ?? '');

  mounted.patch({ [`${SECOND}.pem`]: second });
  lookNow();
  await expectPublished(FIRST, SECOND);
  await expectSigner(SECOND);
  for (const url of urls()) expect((await me(before, url)).status).toBe(200);

  // The link of the key that went away leads nowhere until the kubelet removes it.
  mounted.put({ [`${SECOND}.pem`]: second }, { links: 'stay' });
  lookNow();
  expect(linesOf('the keys in use stay').map((lines) => lines.length)).toEqual([1, 1]);
  await expectPublished(FIRST, SECOND);
  await expectSigner(SECOND);
  remove(FIRST);
  lookNow();
  await expectPublished(SECOND);
  for (const url of urls()) expect((await me(before, url)).status).toBe(401);
});

describe('npm run keys', () => {
  const namesIn = (path: string): string[] => readdirSync(path).sort();
  const activation = (name: string): number => {
    const [, year, month, day, hour, minute] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-/.exec(name) ?? [];
    return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
  };

  it('npm run keys makes first keys that sign now and second ones that sign in 15 minutes, readable by their owner only', async () => {
    const path = join(folder, 'made', 'keys');
    const started = Date.now();
    const one = await runScript(path);
    // For access tokens, and for ID tokens.
    const firsts = namesIn(path);
    expect(firsts.map((name) => name.includes('Z-rsa-'))).toEqual([false, true]);
    const [first = ''] = firsts;
    const two = await runScript(path);
    await runScript(path);
    const names = namesIn(path);
    expect(names).toHaveLength(6);
    expect(names.slice(0, 2)).toEqual(firsts);

    for (const name of firsts) {
      expect(activation(name)).toBeLessThanOrEqual(Date.now());
      expect(activation(name)).toBeGreaterThan(started - MINUTE);
    }
    // Names hold minutes.
    for (const name of names.slice(2)) {
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

  it('npm run keys makes a key that a running service publishes, in production too', async () => {
    await runScript(folder);
    const [first = ''] = namesIn(folder);
    const running = await begin();
    const production = await anotherInstance(running, {
      NODE_ENV: 'production',
      ISSUER: 'https://login.example',
      STARTMESSAGING_CONTRACT: 'provider',
      BUDGET_PAISE_PER_DAY: '10000',
      JWT_KEYS_DIR: folder,
    });
    try {
      expect(kidOf((await loginAt(production.url)).body.accessToken)).toBe(first.replace('.pem', ''));
      await runScript(folder);
      const kids = namesIn(folder).map((name) => name.replace('.pem', ''));
      lookNow([...running.instances, production]);
      await expectPublished(...kids);
      expect(await published(production.url)).toEqual(kids);
      expect(kidOf((await loginAt(production.url)).body.accessToken)).toBe(first.replace('.pem', ''));
    } finally {
      await production.close();
    }
  });

  it('npm run keys says why it made no key', async () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    await expect(runScript(file)).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^No key was made: /) as string,
    });
  });
});
