import { spawn, type ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../support/hang';
import { bearer } from '../support/tokens';
import { call, login, startWorld, statusAndCode, type World } from '../support/world';

// The APIs of examples/. The pages are in test/browser/examples.test.ts.

const EXAMPLES = join(__dirname, '../../examples');
const ISSUER = 'http://localhost:3000';
let world: World;

beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world.close());

/** A token of another key, with the claims of a good one. */
const forged = (token: string): string =>
  `${token.slice(0, -8)}${token.endsWith('AAAAAAAA') ? 'BBBBBBBB' : 'AAAAAAAA'}`;

it('the Express API takes access tokens of the service, and nothing else', async () => {
  const child: ChildProcess = spawn(process.execPath, [join(EXAMPLES, 'express-api', 'server.mjs')], {
    env: { PATH: process.env.PATH, PORT: '0', LOGIN_URL: world.url, LOGIN_ISSUER: ISSUER },
  });
  let printed = '';
  child.stdout!.on('data', (text: Buffer) => (printed += text.toString()));
  child.stderr!.on('data', (text: Buffer) => (printed += text.toString()));
  try {
    await until(() => /listens on \d+/.test(printed), 'the example');
    const url = `http://127.0.0.1:${/listens on (\d+)/.exec(printed)![1]!}/orders`;
    const { body } = await login(world);
    const answer = await call('GET', url, undefined, bearer(body.accessToken));
    expect([answer.status, answer.body.user]).toEqual([200, body.user.id]);
    for (const token of [forged(body.accessToken as string), body.refreshToken, 'none']) {
      expect((await call('GET', url, undefined, bearer(token))).status).toBe(401);
    }
    expect((await call('GET', url)).status).toBe(401);
  } finally {
    child.kill('SIGKILL');
  }
});

it('the Worker takes access tokens of the service, and nothing else', async () => {
  const { default: worker } = globalThis.loadModule('../../../../examples/worker/worker') as {
    default: { fetch(request: Request, env: object): Promise<Response> };
  };
  const env = { LOGIN_URL: world.url, LOGIN_ISSUER: ISSUER };
  const ask = (token?: unknown): Promise<Response> =>
    worker.fetch(
      new Request('https://api.example.com/orders', token === undefined ? {} : { headers: bearer(token) }),
      env,
    );
  const { body } = await login(world);
  const answer = await ask(body.accessToken);
  expect([answer.status, await answer.json()]).toEqual([200, { user: body.user.id, orders: [] }]);
  for (const token of [forged(body.accessToken as string), body.refreshToken, 'a.b.c', undefined]) {
    expect((await ask(token)).status).toBe(401);
  }
  const other = await worker.fetch(
    new Request('https://api.example.com', { headers: bearer(body.accessToken) }),
    {
      ...env,
      AUDIENCE: 'another',
    },
  );
  expect(other.status).toBe(401);
  expect(statusAndCode(await call('GET', `${world.url}/auth/me`))).toEqual([401, 'unauthenticated']);
});

it('every example has fewer than 61 lines', () => {
  const files = readdirSync(EXAMPLES, { recursive: true })
    .map(String)
    .filter((file) => statSync(join(EXAMPLES, file)).isFile() && !file.includes('node_modules'));
  const long = files.filter(
    (file) => readFileSync(join(EXAMPLES, file), 'utf8').trimEnd().split('\n').length > 60,
  );
  expect(long).toEqual([]);
});
