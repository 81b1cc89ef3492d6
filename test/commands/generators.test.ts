import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { call, freshNumber, startWorld, textedCode, type World } from '../support/world';

// Clients that are generated from the OpenAPI document compile under strict settings, and log in at the running service.

const ROOT = join(__dirname, '../..');
// By their packages: Redocly's command has the name `openapi`, too.
const MODULES = join(ROOT, 'node_modules');
const APP = 'https://app.example';

let world: World;
/** Outside of node_modules, of which tsc compiles nothing. */
let folder: string;
jest.setTimeout(600_000);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-generators-'));
  world = await startWorld({ variables: { CORS_ORIGINS: APP } });
  const { body } = await call('GET', `${world.url}/docs-json`);
  writeFileSync(join(folder, 'openapi.json'), JSON.stringify(body));
});
afterAll(async () => {
  await world.close();
  rmSync(folder, { recursive: true, force: true });
});

/** In a process that is waited for without a pause of this one: the service runs here, and would call itself overloaded. */
async function run(program: string, ...args: string[]): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [join(MODULES, program), ...args], { cwd: folder });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${program}\n${stdout}\n${stderr}`, { cause: error });
  }
}

/** Compiles a program under strict settings, and loads what it exports. */
async function compile(name: string, source: string): Promise<{ login: Login }> {
  writeFileSync(join(folder, `${name}.ts`), source);
  const settings = '--strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --skipLibCheck false';
  const target =
    '--target es2022 --module commonjs --moduleResolution node10 --ignoreDeprecations 6.0 --ignoreConfig';
  const types = `--typeRoots ${join(MODULES, '@types')} --lib es2023,dom,dom.iterable --types node`;
  await run('typescript/bin/tsc', ...`${settings} ${target} ${types} --outDir out`.split(' '), `${name}.ts`);
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  return require(join(folder, 'out', `${name}.js`)) as { login: Login };
}

/** A whole life of a session, as the compiled program calls the service. */
type Login = (
  url: string,
  phoneNumber: string,
  codeOf: (phoneNumber: string) => string,
) => Promise<{ user: string; me: string; refreshed: string; logout: number }>;

async function expectLogin(login: Login): Promise<void> {
  const phoneNumber = freshNumber();
  const life = await login(world.url, phoneNumber, (number) => textedCode(world.upstream, number));
  expect(life).toEqual({ user: phoneNumber, me: phoneNumber, refreshed: 'string', logout: 204 });
}

test('a client that is typed by openapi-typescript compiles and logs in', async () => {
  await run('openapi-typescript/bin/cli.js', 'openapi.json', '-o', 'api.d.ts');
  const { login } = await compile(
    'typed',
    `import type { operations } from './api';
type Json<T> = T extends { content: { 'application/json': infer Body } } ? Body : never;
type Request<Id extends keyof operations> = Json<NonNullable<operations[Id]['requestBody']>>;
type Response<Id extends keyof operations> = Json<operations[Id]['responses'] extends { 200: infer R } ? R : never>;

async function post<Id extends 'sendOtp' | 'verifyOtp' | 'refresh'>(
  url: string,
  body: Request<Id>,
): Promise<Response<Id>> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as Response<Id>;
}

export async function login(url: string, phoneNumber: string, codeOf: (phoneNumber: string) => string) {
  const { requestId, codeLength } = await post<'sendOtp'>(url + '/auth/send-otp', { phoneNumber, deviceToken: null });
  const otpCode = codeOf(phoneNumber);
  if (otpCode.length !== codeLength) throw new Error('codeLength');
  // Without tokenDelivery: the document must not make it a required field.
  const session = await post<'verifyOtp'>(url + '/auth/verify-otp', { requestId, otpCode, deviceName: 'Typed' });
  const authorization = 'Bearer ' + session.accessToken;
  const me = (await (await fetch(url + '/auth/me', { headers: { authorization } })).json()) as Response<'me'>;
  const next = await post<'refresh'>(url + '/auth/refresh', { refreshToken: session.refreshToken ?? null });
  // No body: a token in the header is enough.
  const body: operations['logout']['requestBody'] = undefined;
  const logout = await fetch(url + '/auth/logout', {
    method: 'POST',
    headers: { authorization: 'Bearer ' + next.accessToken },
    body: body ?? null,
  });
  return { user: session.user.phoneNumber, me: me.phoneNumber, refreshed: typeof next.refreshToken, logout: logout.status };
}
`,
  );
  await expectLogin(login);
});

test('a client that openapi-typescript-codegen generates compiles and logs in', async () => {
  await run(
    'openapi-typescript-codegen/bin/index.js',
    '--input',
    'openapi.json',
    '--output',
    'client',
    '--client',
    'fetch',
  );
  const { login } = await compile(
    'generated',
    `import { LogInService, OpenAPI, StayLoggedInService } from './client';

export async function login(url: string, phoneNumber: string, codeOf: (phoneNumber: string) => string) {
  OpenAPI.BASE = url;
  const { requestId } = await LogInService.sendOtp({ phoneNumber, altcha: null });
  const session = await LogInService.verifyOtp({ requestId, otpCode: codeOf(phoneNumber), tokenDelivery: null });
  OpenAPI.TOKEN = session.accessToken;
  const me = await LogInService.me();
  const next = await StayLoggedInService.refresh(crypto.randomUUID(), { refreshToken: session.refreshToken ?? null });
  const { sessions } = await StayLoggedInService.listSessions();
  // No body: the Bearer token is enough.
  await StayLoggedInService.logout();
  const logout = await StayLoggedInService.listSessions().then(() => 200, () => 204);
  return { user: session.user.phoneNumber, me: me.phoneNumber, refreshed: typeof next.refreshToken, logout: sessions.length === 1 ? logout : 0 };
}
`,
  );
  await expectLogin(login);
});
