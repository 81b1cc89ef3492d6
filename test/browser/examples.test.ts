import { spawnSync } from 'node:child_process';
import { cpSync, createReadStream, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { launchBrowser } from '../support/browser';
import { freshNumber, startWorld, textedCode, type World } from '../support/world';

// The pages of examples/, in a browser, on an origin of their own.

const ROOT = join(__dirname, '../..');
let world: World;
let browser: Browser;
const folder = mkdtempSync(join(tmpdir(), 'otp-login-examples-'));
const servers: Server[] = [];

beforeAll(async () => {
  [world, browser] = await Promise.all([startWorld(), launchBrowser()]);
});
afterAll(async () => {
  for (const server of servers) server.close();
  await browser.close();
  await world.close();
  rmSync(folder, { recursive: true });
});

/** Serves the files of a folder, and answers the address. */
async function serve(from: string): Promise<string> {
  const types: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript' };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const file = join(from, pathname === '/' ? 'index.html' : pathname);
    if (!existsSync(file)) response.writeHead(404).end();
    else {
      response.setHeader('Content-Type', types[extname(file)] ?? 'text/plain');
      createReadStream(file).pipe(response);
    }
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://localhost:${String((server.address() as AddressInfo).port)}`;
}

async function logIn(page: Page): Promise<string> {
  const phoneNumber = freshNumber();
  await page.locator('input').fill(phoneNumber.slice(3));
  await page.getByRole('button', { name: 'Send code' }).click();
  await page.getByText('Code').first().waitFor();
  await page.getByRole('button', { name: 'Log in' }).waitFor();
  await page.locator('input').fill(textedCode(world.upstream, phoneNumber));
  return phoneNumber;
}

it('the example in one HTML file logs a user in and out', async () => {
  cpSync(join(ROOT, 'examples', 'plain'), join(folder, 'plain'), { recursive: true });
  cpSync(join(process.env.COMPILED_SERVICE!, 'client'), join(folder, 'plain', 'client'), { recursive: true });
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${await serve(join(folder, 'plain'))}/?login=${world.url}`);
  const phoneNumber = await logIn(page);
  await page.getByRole('button', { name: `Log out ${phoneNumber}` }).click();
  await page.getByRole('button', { name: 'Log out' }).waitFor({ state: 'hidden' });
});

it('the example with React and Vite logs a user in, calls an API and survives a reload', async () => {
  const out = join(folder, 'react');
  // Vite is made of ES modules, which Jest's own loader does not take.
  const script = join(folder, 'build.mjs');
  writeFileSync(
    script,
    `import { build } from ${JSON.stringify(join(ROOT, 'node_modules/vite/dist/node/index.js'))};
    const client = ${JSON.stringify(join(ROOT, 'client', 'src'))};
    await build({
      root: ${JSON.stringify(join(ROOT, 'examples', 'react'))},
      configFile: false,
      logLevel: 'error',
      resolve: { alias: [
        { find: /^@otp-login\\/client$/, replacement: client + '/index.ts' },
        { find: /^@otp-login\\/client\\/(.*)$/, replacement: client + '/$1.ts' },
      ] },
      build: { outDir: ${JSON.stringify(out)}, emptyOutDir: true },
    });`,
  );
  const built = spawnSync(process.execPath, [script], {
    env: { ...process.env, VITE_LOGIN_URL: world.url, NODE_ENV: 'production' },
    encoding: 'utf8',
  });
  expect(built.stderr).toBe('');
  const page = await (await browser.newContext()).newPage();
  await page.goto(await serve(out));
  const phoneNumber = await logIn(page);
  await page.getByRole('heading', { name: phoneNumber }).waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Call the API' }).click();
  await page.getByText('"sessionId"').waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByRole('button', { name: 'Send code' }).waitFor();
});
