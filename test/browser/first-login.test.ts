import type { Browser, BrowserContextOptions } from 'playwright-core';
import { launchBrowser, openBrowser, type UserBrowser } from '../support/browser';
import { until } from '../support/hang';
import { errorOn, faultsOf, local, send } from '../support/pages';
import { freshNumber, startWorld, textedCode, wrongCode, type World } from '../support/world';

// The short tests of the pages: `npm test` runs this file, where it has Chromium. The others are in login-page.test.ts.

let world: World;
let browser: Browser;
const users: UserBrowser[] = [];

beforeAll(async () => {
  [world, browser] = await Promise.all([
    startWorld({
      variables: { LOGIN_APP_NAME: 'Chai Shop', LOGIN_RETURN_ORIGINS: 'https://app.example.com' },
    }),
    launchBrowser(),
  ]);
});
afterAll(async () => {
  await browser.close();
  await world.close();
});
afterEach(async () => {
  for (const { context, complaints } of users.splice(0)) {
    await context.close();
    expect(complaints).toEqual([]);
  }
});

async function user(options: BrowserContextOptions = {}): Promise<UserBrowser> {
  const one = await openBrowser(browser, local(world.url), options);
  users.push(one);
  return one;
}

it('the login works with the keyboard alone, and leads to the account', async () => {
  const page = await (await user()).open('/login');
  const phoneNumber = freshNumber();
  await page.locator('#phone').waitFor();
  // The field has the focus already.
  await page.keyboard.type(` 0${phoneNumber.slice(3, 8)}-${phoneNumber.slice(8)}`);
  await page.keyboard.press('Enter');
  await page.locator('#otp').waitFor();
  await page.keyboard.type(textedCode(world.upstream, phoneNumber));
  await page.locator('#who').waitFor();
  expect(await page.locator('h1').innerText()).toBe('You are logged in');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.locator('#sessions li').waitFor();
  expect(await page.locator('#who').innerText()).toContain(phoneNumber.slice(3, 8));
  expect(await page.locator('#sessions').innerText()).toContain('This device');
  expect(await faultsOf(page)).toEqual([]);
});

it('a login in Hindi at 320 px in the dark is accessible on every screen, and a wrong code leaves attempts', async () => {
  const options = { locale: 'hi-IN', colorScheme: 'dark', viewport: { width: 320, height: 640 } } as const;
  const page = await (await user(options)).open('/login');
  await page.fill('#phone', '12345');
  expect(await page.locator('#error').innerText()).toBe('');
  // The page checks the number when the user leaves the field.
  await page.locator('#phone').blur();
  expect(await errorOn(page)).toContain('भारतीय मोबाइल नंबर नहीं');
  const faults = await faultsOf(page);
  const phoneNumber = await send(page);
  const code = textedCode(world.upstream, phoneNumber);
  await page.fill('#otp', wrongCode(code));
  expect(await errorOn(page)).toBe('कोड गलत है। 2 मौके बाकी हैं।');
  faults.push(...(await faultsOf(page)));
  await page.fill('#otp', code);
  await page.locator('#who').waitFor();
  await page.goto(`${local(world.url)}/account`);
  await page.locator('#sessions li').waitFor();
  faults.push(...(await faultsOf(page)));
  expect(faults).toEqual([]);
});

it('the browser runs no script, style, frame, base or form that was injected, and text never becomes markup', async () => {
  const one = await user();
  const page = await one.open('/login');
  await page.locator('#phone').waitFor();
  const ran = await page.evaluate<string[]>(`(async () => {
    const done = [];
    const attempt = (name, work) => { try { work(); } catch { return; } done.push(name); };
    attempt('markup', () => { document.body.innerHTML = '<img src=x onerror="window.ran = 1">'; });
    attempt('script text', () => { const script = document.createElement('script'); script.textContent = 'window.ran = 1'; document.body.append(script); });
    const frame = document.createElement('iframe'); frame.src = '/login'; document.body.append(frame);
    const form = document.createElement('form'); form.action = '/stolen'; document.body.append(form); form.submit();
    const base = document.createElement('base'); base.href = 'https://evil.example/'; document.head.append(base);
    const style = document.createElement('style'); style.textContent = 'h1 { display: none }'; document.head.append(style);
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (window.ran) done.push('ran');
    if (getComputedStyle(document.querySelector('h1')).display === 'none') done.push('style');
    if (document.baseURI.includes('evil')) done.push('base');
    return done;
  })()`);
  expect(ran).toEqual([]);
  // The browser reports each violation when it has come to it.
  for (const directive of ['style-src', 'frame', 'form-action', 'base-uri']) {
    await until(() => one.complaints.some((complaint) => complaint.includes(directive)), directive);
  }
  // Others may still be on their way.
  users.splice(users.indexOf(one), 1);
  await one.context.close();
});
