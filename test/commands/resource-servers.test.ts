import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { itVerifies, Recipes, type Program, type Verify } from '../support/recipes';

// The recipes of docs/resource-servers.md for other languages than Node.js, taken from the page and run against the service.

let recipes: Recipes;

beforeAll(async () => {
  recipes = await Recipes.start();
});
afterAll(() => recipes.close());

/** A recipe in another language: run where the language is to be had, else skipped with the reason in its name. */
function describeWith(name: string, missing: string | undefined, tests: () => void): void {
  if (missing === undefined) describe(name, tests);
  else it.skip(`${name} is not run on this machine: ${missing}`, () => undefined);
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
    itVerifies(
      'the recipe for Python',
      () => recipes,
      async () => {
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
        recipes.write('verify.py', text);
        return verifyByLine(recipes.run(python!, ['verify.py']));
      },
    );
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
  itVerifies(
    'the recipe for Go',
    () => recipes,
    async () => {
      // The page imports the version that one would choose today; Debian may ship the one before.
      const recipe = recipes.read('accesstoken.go').replace('github.com/golang-jwt/jwt/v5', goJwt!);
      recipes.write('go/src/accesstoken/accesstoken.go', recipe);
      recipes.write('go/src/verify/main.go', readKeysAndVerify(goJwt!));
      await build();
      return verifyByLine(recipes.run(join(recipes.folder, 'verify'), []));
    },
  );
});

async function build(): Promise<void> {
  const child = spawn(GO!, ['build', '-o', join(recipes.folder, 'verify'), 'verify'], {
    cwd: recipes.folder,
    env: {
      PATH: process.env.PATH,
      HOME: recipes.folder,
      GOPATH: `${join(recipes.folder, 'go')}:${GOPATH}`,
      GO111MODULE: 'off',
      GOFLAGS: '',
      GOCACHE: join(recipes.folder, 'go-cache'),
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
