import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { freePort } from './free-port';
import { freshNumber, type Instance, login, startInstance, startWorld, until, type World } from './world';

const ROOT = join(__dirname, '../..');
const CACHE = join(ROOT, 'node_modules', '.cache');
const AUDIENCE = 'shop';
const CLIENT = 'shop:introspection-secret-0123456789abcdef';
const KID = '20200101T0000Z-test';

const pem = { type: 'pkcs8', format: 'pem' } as const;
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

/** What a recipe makes of a token: the user it belongs to, or undefined when it is refused. */
export type Verify = (token: string) => Promise<string | undefined>;

/** The recipes of docs/resource-servers.md, taken from the page, and an instance whose tokens they verify. */
export class Recipes {
  private readonly running = new Set<Program>();

  private constructor(
    readonly world: World,
    private readonly instance: Instance,
    /** With the files of the page. Below the checkout, so that the recipes find their packages. */
    readonly folder: string,
  ) {}

  static async start(): Promise<Recipes> {
    mkdirSync(CACHE, { recursive: true });
    const folder = mkdtempSync(join(CACHE, 'otp-login-recipes-'));
    mkdirSync(join(folder, 'keys'));
    writeFileSync(join(folder, 'keys', `${KID}.pem`), privateKey.export(pem));
    const world = await startWorld({ count: 0 });
    // Its ISSUER is its own address.
    const port = await freePort();
    const variables = {
      ISSUER: `http://127.0.0.1:${port}`,
      AUDIENCE,
      INTROSPECTION_CLIENTS: CLIENT,
      JWT_KEYS_DIR: join(folder, 'keys'),
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
    };
    const recipes = new Recipes(world, await startInstance(variables, port), folder);
    for (const [name, text] of blocks()) recipes.write(name, text);
    return recipes;
  }

  get issuer(): string {
    return this.instance.url;
  }

  /** What the page says a recipe is told. */
  get environment(): Record<string, string> {
    return { ISSUER: this.issuer, AUDIENCE, OTP_LOGIN_CLIENT: CLIENT };
  }

  read(name: string): string {
    return readFileSync(join(this.folder, name), 'utf8');
  }

  write(name: string, text: string): void {
    mkdirSync(dirname(join(this.folder, name)), { recursive: true });
    writeFileSync(join(this.folder, name), text);
  }

  /** Starts a program in the folder, until `close`. */
  run(command: string, args: string[], variables = this.environment): Program {
    const program = new Program(command, args, this.folder, variables);
    this.running.add(program);
    return program;
  }

  async login(phoneNumber = freshNumber()): Promise<{ accessToken: string; user: { id: string } }> {
    const { body } = await login(this.world, phoneNumber, this.issuer);
    return body as { accessToken: string; user: { id: string } };
  }

  /** A token that is good but for what is given. */
  forge(claims: Fields = {}, header: Fields = {}, by: Sign = es256(privateKey)): string {
    const now = Math.floor(Date.now() / 1_000);
    const who = { sub: 'u'.repeat(22), sid: 's'.repeat(22), jti: 'j', client_id: AUDIENCE };
    const good = { iss: this.issuer, aud: AUDIENCE, iat: now, exp: now + 600, ...who };
    const part = (fields: Fields): string => Buffer.from(JSON.stringify(fields)).toString('base64url');
    const input = [
      part({ alg: 'ES256', typ: 'at+jwt', kid: KID, ...header }),
      part({ ...good, ...claims }),
    ].join('.');
    return `${input}.${by(input).toString('base64url')}`;
  }

  async close(): Promise<void> {
    for (const program of this.running) program.kill();
    await this.instance.close();
    await this.world.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The blocks of the page that name a file. */
function blocks(): [name: string, text: string][] {
  const page = readFileSync(join(ROOT, 'docs/resource-servers.md'), 'utf8');
  const found = page.matchAll(/<!-- file: (\S+) -->\n+```\w+\n(.*?)\n```/gs);
  return [...found].map(([, name = '', text = '']) => [name, `${text}\n`]);
}

/** A process that answers each line with a line. */
export class Program {
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  constructor(command: string, args: string[], folder: string, variables: Record<string, string>) {
    this.child = spawn(command, args, {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', ...variables },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.child.stderr.on('data', (text: Buffer) => (this.errors += text.toString()));
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
  }

  async line(): Promise<string> {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`${this.child.spawnfile} ended\n${this.errors}`);
    return value;
  }

  async ask(line: string): Promise<string> {
    this.child.stdin.write(`${line}\n`);
    return this.line();
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}

type Fields = Record<string, unknown>;
type Sign = (input: string) => Buffer;
const es256 =
  (key: KeyObject): Sign =>
  (input) =>
    sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
const byPublicKey: Sign = (input) =>
  createHmac('sha256', publicKey.export({ type: 'spki', format: 'pem' }))
    .update(input)
    .digest();

function tampered(recipes: Recipes): string {
  const [header, , signature] = recipes.forge().split('.');
  return [header, recipes.forge({ sub: 'v'.repeat(22) }).split('.')[1], signature].join('.');
}

const BAD: [what: string, make: (recipes: Recipes) => string][] = [
  ['an expired token', (r) => r.forge({ exp: Math.floor(Date.now() / 1_000) - 60 })],
  ['a token that never expires', (r) => r.forge({ exp: undefined })],
  ['a token of another issuer', (r) => r.forge({ iss: 'https://login.example.com' })],
  ['a token for another audience', (r) => r.forge({ aud: 'warehouse' })],
  ['a token of another type', (r) => r.forge({}, { typ: 'JWT' })],
  ['a token of no type', (r) => r.forge({}, { typ: undefined })],
  ['a token without a signature', (r) => r.forge({}, { alg: 'none' }, () => Buffer.alloc(0))],
  ['a token signed with the public key as a password', (r) => r.forge({}, { alg: 'HS256' }, byPublicKey)],
  ['a token signed by a stranger under our kid', (r) => r.forge({}, {}, es256(stranger))],
  ['a token of an unknown key', (r) => r.forge({}, { kid: 'unknown' })],
  ['a token whose claims were changed', tampered],
  ['a token of a test number', (r) => r.forge({ test: true })],
  ['garbage', () => 'garbage'],
];

/** What every recipe does. The forged good token shows that the bad ones are refused for what is bad about them. */
export function itVerifies(recipe: string, recipes: () => Recipes, start: () => Promise<Verify>): void {
  let verify: Verify;
  beforeAll(async () => {
    verify = await start();
  });

  it(`${recipe} accepts the token of a login`, async () => {
    const { accessToken, user } = await recipes().login();
    expect(await verify(accessToken)).toBe(user.id);
  });
  it(`${recipe} accepts a token that the test signed with the key of the service`, async () => {
    expect(await verify(recipes().forge())).toBe('u'.repeat(22));
  });
  // Forged anew for each try, so that a slow machine does not use up the leeway.
  it(`${recipe} accepts a token of a service whose clock is four seconds ahead`, async () => {
    const accepted = (): Promise<string | undefined> => {
      const ahead = Math.floor(Date.now() / 1_000) + 4;
      return verify(recipes().forge({ iat: ahead, auth_time: ahead, exp: ahead + 600 }));
    };
    await until(async () => (await accepted()) === 'u'.repeat(22), 'the accepted token of a clock ahead');
  });
  it(`${recipe} accepts a token that ended two seconds ago by its own clock, because that of the service may be behind`, async () => {
    const accepted = (): Promise<string | undefined> =>
      verify(recipes().forge({ exp: Math.floor(Date.now() / 1_000) - 2 }));
    await until(async () => (await accepted()) === 'u'.repeat(22), 'the accepted token of a clock behind');
  });
  it.each(BAD)(`${recipe} refuses a token with this fault: %s`, async (_, make) => {
    expect(await verify(make(recipes()))).toBeUndefined();
  });
}
