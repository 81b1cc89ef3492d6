import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { launchBrowser, openBrowser } from '../support/browser';
import { startWorld, textedCode, type World } from '../support/world';

// The pictures of README.md. With UPDATE_PICTURES=true they are written to docs/pictures.

const PHONE = '+919876543210';
let world: World;
let browser: Browser;
const temporary = mkdtempSync(join(tmpdir(), 'otp-login-pictures-'));
const folder = process.env.UPDATE_PICTURES === 'true' ? join(__dirname, '../../docs/pictures') : temporary;

beforeAll(async () => {
  mkdirSync(folder, { recursive: true });
  [world, browser] = await Promise.all([
    startWorld({ variables: { LOGIN_APP_NAME: 'Chai Shop' } }),
    launchBrowser(),
  ]);
});
afterAll(async () => {
  await browser.close();
  await world.close();
  rmSync(temporary, { recursive: true });
});

it('the pictures show the login page with the phone inbox beside it, and the account page', async () => {
  const url = world.url.replace('127.0.0.1', 'localhost');
  const user = await openBrowser(browser, url, { viewport: { width: 420, height: 620 } });
  const login = await user.open('/login');
  await login.fill('#phone', PHONE.slice(3));
  await login.click('#submit');
  await login.locator('#otp').waitFor();
  const inbox = await user.context.newPage();
  await inbox.goto(world.upstream.url);
  await inbox.locator('output').first().waitFor();
  // One picture of both, put together by the browser.
  const shots = [await login.screenshot(), await inbox.screenshot()];
  const both = await user.context.newPage();
  await both.setViewportSize({ width: 860, height: 620 });
  const images = shots.map((shot) => `<img src="data:image/png;base64,${shot.toString('base64')}">`);
  await both.setContent(`<body style="margin:0;display:flex;gap:20px">${images.join('')}`);
  writeFileSync(join(folder, 'login.png'), await both.screenshot());

  await login.fill('#otp', textedCode(world.upstream, PHONE));
  await login.locator('#who').waitFor();
  await login.goto(`${url}/account`);
  await login.locator('#sessions li').waitFor();
  writeFileSync(join(folder, 'account.png'), await login.screenshot());
  await user.context.close();
  for (const name of ['login.png', 'account.png']) {
    expect(readFileSync(join(folder, name)).subarray(1, 4).toString()).toBe('PNG');
  }
});
