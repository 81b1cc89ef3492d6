import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { freePort } from '../support/free-port';
import { call, freshNumber, type Instance, login, startInstance, startWorld, until } from '../support/world';
import type { World } from '../support/world';

// The recipes of docs/resource-servers.md, taken from the page and run against the service.

const ROOT = join(__dirname, '../..');
const CACHE = join(ROOT, 'node_modules', '.cache');
const AUDIENCE = 'shop';
const CLIENT = 'shop:introspection-secret';
const KID = '20200101T0000Z-test';

let world: World;
let instance: Instance;
let issuer: string;
/** Below the checkout, so that the recipes find their packages. */
let folder: string;
let environment: Record<string, string>;
const running = new Set<Program>();

const pem = { type: 'pkcs8', format: 'pem' } as const;
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

beforeAll(async () => {
  mkdirSync(CACHE, { recursive: true });
  folder = mkdtempSync(join(CACHE, 'otp-login-recipes-'));
  for (const [name, text] of recipes()) write(name, text);
  write(`keys/${KID}.pem`, privateKey.export(pem));
  world = await startWorld({ count: 0 });
  instance = await startIssuer();
  issuer = instance.url;
  environment = { ISSUER: issuer, AUDIENCE, OTP_LOGIN_CLIENT: CLIENT };
});
afterAll(async () => {
  for (const program of running) program.kill();
  await instance.close();
  await world.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The blocks of the page that name a file. */
function recipes(): Map<string, string> {
  const page = readFileSync(join(ROOT, 'docs/resource-servers.md'), 'utf8');
  const blocks = page.matchAll(/<!-- file: (\S+) -->\n+```\w+\n(.*?)\n```/gs);
  return new Map([...blocks].map(([, name = '', text = '']) => [name, `${text}\n`]));
}

function write(name: string, text: string | Buffer): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), text);
}

/** An instance whose ISSUER is its own address. */
async function startIssuer(): Promise<Instance> {
  const port = await freePort();
  const variables = {
    ISSUER: `http://127.0.0.1:${port}`,
    AUDIENCE,
    INTROSPECTION_CLIENTS: CLIENT,
    JWT_KEYS_DIR: join(folder, 'keys'),
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
  };
  return startInstance(variables, port);
}

/** A process that answers each line with a line. */
class Program {
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  constructor(command: string, args: string[], variables: Record<string, string>) {
    this.child = spawn(command, args, {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', ...variables },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.child.stderr.on('data', (text: Buffer) => (this.errors += text.toString()));
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
    running.add(this);
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

/** What a recipe makes of a token: the user it belongs to, or undefined when it is refused. */
type Verify = (token: string) => Promise<string | undefined>;

/** The page's middleware in front of a route, in a process of its own: the address to ask. */
async function serve(file: string, variables: Record<string, string>): Promise<string> {
  const text = `
    import express from 'express';
    import { authenticate } from './${file}';
    const app = express();
    app.get('/', authenticate, (request, response) => {
      response.json({ user: (request.user ?? request.auth.payload).sub });
    });
    const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));`;
  write(`serve-${file}`, text);
  return `http://127.0.0.1:${await new Program(process.execPath, [`serve-${file}`], variables).line()}/`;
}

const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

async function verifyByHttp(url: string, token: string): Promise<string | undefined> {
  const { status, body, headers } = await call('GET', url, undefined, bearer(token));
  if (status === 200) return body.user as string;
  expect([status, headers.get('www-authenticate')]).toEqual([401, expect.stringMatching(/^Bearer /)]);
  return undefined;
}

type Fields = Record<string, unknown>;
type Sign = (input: string) => Buffer;
const es256 =
  (key: KeyObject): Sign =>
  (input) =>
    sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });

/** A token that is good but for what is given. */
function forge(claims: Fields = {}, header: Fields = {}, by: Sign = es256(privateKey)): string {
  const now = Math.floor(Date.now() / 1_000);
  const good = { iss: issuer, aud: AUDIENCE, sub: 'u'.repeat(22), sid: 's'.repeat(22), jti: 'j', iat: now };
  const part = (fields: Fields): string => Buffer.from(JSON.stringify(fields)).toString('base64url');
  const input = [
    part({ alg: 'ES256', typ: 'at+jwt', kid: KID, ...header }),
    part({ ...good, exp: now + 600, client_id: AUDIENCE, ...claims }),
  ].join('.');
  return `${input}.${by(input).toString('base64url')}`;
}

function tampered(): string {
  const [header, , signature] = forge().split('.');
  return [header, forge({ sub: 'v'.repeat(22) }).split('.')[1], signature].join('.');
}

const BAD: [what: string, make: () => string][] = [
  ['an expired token', () => forge({ exp: Math.floor(Date.now() / 1_000) - 60 })],
  ['a token that never expires', () => forge({ exp: undefined })],
  ['a token of another issuer', () => forge({ iss: 'https://login.example.com' })],
  ['a token for another audience', () => forge({ aud: 'warehouse' })],
  ['a token of another type', () => forge({}, { typ: 'JWT' })],
  ['a token of no type', () => forge({}, { typ: undefined })],
  ['a token without a signature', () => forge({}, { alg: 'none' }, () => Buffer.alloc(0))],
  ['a token signed with the public key as a password', () => forge({}, { alg: 'HS256' }, byPublicKey)],
  ['a token signed by a stranger under our kid', () => forge({}, {}, es256(stranger))],
  ['a token of a key that we do not have', () => forge({}, { kid: 'unknown' })],
  ['a token whose claims were changed', tampered],
  ['a token of a test number', () => forge({ test: true })],
  ['garbage', () => 'garbage'],
];
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const byPublicKey: Sign = (input) =>
  createHmac('sha256', publicKey.export({ type: 'spki', format: 'pem' }))
    .update(input)
    .digest();

/** What every recipe does. The forged good token shows that the bad ones are refused for what is bad about them. */
function itVerifies(start: () => Promise<Verify>): void {
  let verify: Verify;
  beforeAll(async () => {
    verify = await start();
  }, 180_000);

  it('accepts the token of a login', async () => {
    const { body } = await login(world, freshNumber(), issuer);
    expect(await verify(body.accessToken as string)).toBe(body.user.id);
  });
  it('accepts a good token', async () => {
    expect(await verify(forge())).toBe('u'.repeat(22));
  });
  it.each(BAD)('refuses %s', async (_, make) => {
    expect(await verify(make())).toBeUndefined();
  });
}

describe('the recipe for Node.js', () => {
  let url: string;
  itVerifies(async () => {
    url = await serve('authenticate.mjs', environment);
    return (token) => verifyByHttp(url, token);
  });

  it('refuses the tokens of ended sessions within seconds, and no others', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [
      await login(world, phoneNumber, issuer),
      await login(world, phoneNumber, issuer),
    ];
    const other = await login(world, freshNumber(), issuer);
    const tokens = [first, second].map(({ body }) => body.accessToken as string);
    for (const token of tokens) expect(await verifyByHttp(url, token)).toBe(first.body.user.id);

    const ended = await call('DELETE', `${issuer}/auth/sessions`, undefined, bearer(tokens[0]!));
    expect(ended.status).toBe(204);
    for (const token of tokens) {
      await until(async () => (await verifyByHttp(url, token)) === undefined, 5_000);
    }
    expect(await verifyByHttp(url, other.body.accessToken as string)).toBe(other.body.user.id);
  });

  it('asks for a token by WWW-Authenticate', async () => {
    const { status, headers } = await call('GET', url);
    expect([status, headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
  });

  it.each([
    ['when otp-login is away', async () => ({ ISSUER: `http://127.0.0.1:${await freePort()}` })],
    ['when the keys cannot be had', () => ({ ISSUER: `${issuer}/nowhere` })],
    ['when it may not read the feed', () => ({ OTP_LOGIN_CLIENT: 'shop:wrong' })],
  ])('answers 503, and logs nobody out, %s', async (_, broken) => {
    const url = await serve('authenticate.mjs', { ...environment, ...(await broken()) });
    expect((await call('GET', url, undefined, bearer(forge()))).status).toBe(503);
  });
});

describe('the recipe for express-oauth2-jwt-bearer', () => {
  itVerifies(async () => {
    const url = await serve('bearer.mjs', environment);
    return (token) => verifyByHttp(url, token);
  });
});

/** A recipe in another language: run where the language is to be had, else skipped with the reason in its name. */
function describeWith(name: string, missing: string | undefined, tests: () => void): void {
  if (missing === undefined) describe(name, tests);
  else it.skip(`${name}: ${missing}`, () => undefined);
}

const succeeds = (command: string, ...args: string[]): boolean =>
  spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/** Tries once, as root on Debian; false when it is not to be had. */
function installByApt(...packages: string[]): boolean {
  if (process.getuid?.() !== 0 || !succeeds('apt-get', '--version')) return false;
  const run = (...args: string[]): boolean =>
    spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=60', ...args], {
      stdio: 'ignore',
      timeout: 60_000,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    }).status === 0;
  const install = (): boolean => run('install', '-y', '--no-install-recommends', ...packages);
  return install() || (run('update') && install());
}

const PYTHONS = ['/usr/bin/python3', 'python3'];
const findPython = (): string | undefined =>
  PYTHONS.find((name) => succeeds(name, '-c', 'import jwt, cryptography; jwt.PyJWKClient'));
let python = findPython();
if (python === undefined && installByApt('python3-jwt', 'python3-cryptography')) python = findPython();

describeWith(
  'the recipe for Python',
  python === undefined ? 'no python3 with PyJWT and cryptography here, and none from apt-get' : undefined,
  () => {
    itVerifies(async () => {
      const text = `
import sys
import jwt
from access_token import verify

for line in sys.stdin:
    try:
        print(verify(line.strip())["sub"], flush=True)
    except jwt.PyJWTError:
        print("refused", flush=True)
`;
      write('verify.py', text);
      const program = new Program(python!, ['verify.py'], environment);
      return verifyByLine(program);
    });
  },
);

async function verifyByLine(program: Program): Promise<Verify> {
  expect(await program.ask('')).toBe('refused');
  return async (token) => {
    const answer = await program.ask(token);
    return answer === 'refused' ? undefined : answer;
  };
}

// Debian's Go takes 464 MB: it is used where it is, and not installed for this. The library is 200 KB.
const GOPATH = '/usr/share/gocode';
const GO = ['/usr/lib/go/bin/go', 'go'].find((name) => succeeds(name, 'version'));
const findGoJwt = (): string | undefined =>
  ['/v5', '/v4', '']
    .map((version) => `github.com/golang-jwt/jwt${version}`)
    .find((path) => existsSync(join(GOPATH, 'src', path, 'parser.go')));
let goJwt = findGoJwt();
if (GO !== undefined && goJwt === undefined) {
  const newest = installByApt('golang-github-golang-jwt-jwt-v5-dev');
  if (newest || installByApt('golang-github-golang-jwt-jwt-dev')) goJwt = findGoJwt();
}

function whyNoGo(): string | undefined {
  if (GO === undefined) return 'no Go here; with `apt-get install golang-go` (464 MB) it runs';
  return goJwt === undefined ? 'no golang-jwt here, and none from apt-get' : undefined;
}

describeWith('the recipe for Go', whyNoGo(), () => {
  itVerifies(async () => {
    // The page imports the version that one would choose today; Debian may ship the one before.
    const recipe = recipes().get('accesstoken.go')!.replace('github.com/golang-jwt/jwt/v5', goJwt!);
    write('go/src/accesstoken/accesstoken.go', recipe);
    write('go/src/verify/main.go', readKeysAndVerify(goJwt!));
    await build();
    return verifyByLine(new Program(join(folder, 'verify'), [], environment));
  });
});

async function build(): Promise<void> {
  const child = spawn(GO!, ['build', '-o', join(folder, 'verify'), 'verify'], {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      HOME: folder,
      GOPATH: `${join(folder, 'go')}:${GOPATH}`,
      GO111MODULE: 'off',
      GOFLAGS: '',
      GOCACHE: join(folder, 'go-cache'),
      CGO_ENABLED: '0',
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = (await once(child, 'close')) as [number | null];
  expect(code).toBe(0);
}

/** The page takes its keys from keyfunc, which Debian does not ship: its work in a few lines, and lines in and out. */
function readKeysAndVerify(library: string): string {
  return `
package main

import (
	"accesstoken"
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"

	"${library}"
)

func number(text string) *big.Int {
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return new(big.Int).SetBytes(bytes)
}

func main() {
	response, err := http.Get(os.Getenv("ISSUER") + "/.well-known/jwks.json")
	if err != nil {
		panic(err)
	}
	var set struct{ Keys []struct{ Kid, X, Y string } }
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		panic(err)
	}
	find := func(token *jwt.Token) (interface{}, error) {
		for _, key := range set.Keys {
			if key.Kid == token.Header["kid"] {
				return &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(key.X), Y: number(key.Y)}, nil
			}
		}
		return nil, errors.New("unknown key")
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		claims, err := accesstoken.Verify(lines.Text(), find, os.Getenv("ISSUER"), os.Getenv("AUDIENCE"))
		if err != nil {
			fmt.Println("refused")
		} else {
			fmt.Println(claims.Subject)
		}
	}
}
`;
}
