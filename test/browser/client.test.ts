import type { Browser, BrowserContext, Page } from 'playwright-core';
import { launchBrowser, openBrowser } from '../support/browser';
import { freshNumber, startWorld, textedCode, type World } from '../support/world';

// What only a browser has: tabs, locks, storage that is full or forbidden, pages that are frozen.

let world: World;
let browser: Browser;

beforeAll(async () => {
  [world, browser] = await Promise.all([startWorld(), launchBrowser()]);
});
afterAll(async () => {
  await browser.close();
  await world.close();
});

interface Tabs {
  context: BrowserContext;
  open: () => Promise<Page>;
  /** How many refreshes the service was asked for. */
  refreshes: string[];
}

/** Tabs of one browser, each with a client in body mode as `client`. */
async function tabs(prepare = ''): Promise<Tabs> {
  const user = await openBrowser(browser, world.url.replace('127.0.0.1', 'localhost'));
  await user.context.clock.install();
  await user.context.addInitScript(prepare);
  const refreshes: string[] = [];
  user.context.on('request', (request) => {
    if (request.url().endsWith('/auth/refresh')) refreshes.push(request.url());
  });
  return {
    context: user.context,
    refreshes,
    async open() {
      const page = await user.open('/login');
      await page.locator('#phone').waitFor();
      await page.evaluate(`(async () => {
        const link = document.querySelector('link[href*="client-index"]');
        const { createOtpLogin } = await import(link.href);
        window.client = createOtpLogin({ url: location.origin, key: 'app' });
        window.told = [];
        client.onChange((login) => told.push(login.state));
        await client.login();
      })()`);
      return page;
    },
  };
}

async function logIn(page: Page): Promise<void> {
  const phoneNumber = freshNumber();
  const sent = await page.evaluate<object>(`client.sendOtp('${phoneNumber}')`);
  const code = textedCode(world.upstream, phoneNumber);
  await page.evaluate(`client.verifyOtp(${JSON.stringify(sent)}, '${code}')`);
}
const token = (page: Page): Promise<string> => page.evaluate('client.accessToken()');
const login = (page: Page): Promise<{ state: string }> => page.evaluate('client.login()');

it('nine calls in three tabs make one refresh, and all tabs have the same token', async () => {
  // No wait for the lock ends by itself: on a slow machine a tab would else go on without it.
  const { context, open, refreshes } = await tabs('AbortSignal.timeout = () => new AbortController().signal');
  const pages = [await open(), await open(), await open()];
  await logIn(pages[0]!);
  await context.clock.fastForward(575_000);
  const got = await Promise.all(pages.flatMap((page) => [token(page), token(page), token(page)]));
  expect(new Set(got).size).toBe(1);
  expect(refreshes).toHaveLength(1);
  await context.close();
});

it('a tab that holds the lock for ever delays the others, and stops none of them', async () => {
  const { context, open, refreshes } = await tabs();
  const [frozen, page] = [await open(), await open()];
  await logIn(page);
  await frozen.evaluate("void navigator.locks.request('app:refresh', () => new Promise(() => {}))");
  const session = await context.newCDPSession(frozen);
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  await context.clock.fastForward(575_000).catch(() => undefined);
  await page.evaluate(
    "localStorage.setItem('app.session', localStorage['app.session'].replace(/,\\\\d{13}\\\\]/, ',0]'))",
  );
  expect(await token(page)).toEqual(expect.any(String));
  expect(refreshes.length).toBeGreaterThan(0);
  expect(await login(page)).toMatchObject({ state: 'in' });
  await context.close();
});

it('a log-out in one tab is seen in the others, and so is a login', async () => {
  const { context, open } = await tabs();
  const [one, two] = [await open(), await open()];
  await logIn(one);
  await two.waitForFunction("told.at(-1) === 'in'");
  await two.evaluate('client.logout()');
  await one.waitForFunction("told.at(-1) === 'out'");
  expect(await one.evaluate('told')).toEqual(['out', 'in', 'out']);
  await context.close();
});

it('a browser that forbids storage has a session as long as the page lives', async () => {
  const { context, open } = await tabs(
    "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })",
  );
  const page = await open();
  await logIn(page);
  await context.clock.fastForward(575_000);
  expect(await token(page)).toEqual(expect.any(String));
  expect(await login(page)).toMatchObject({ state: 'in' });
  await context.close();
});

it('a full storage ends no session: the next write that fits stores it again', async () => {
  const { context, open } = await tabs();
  const page = await open();
  await logIn(page);
  await page.evaluate(`(() => {
    const { setItem } = Storage.prototype;
    Storage.prototype.setItem = function () { throw new DOMException('full', 'QuotaExceededError'); };
    window.recover = () => { Storage.prototype.setItem = setItem; };
  })()`);
  await context.clock.fastForward(575_000);
  await token(page);
  expect(await login(page)).toMatchObject({ state: 'in' });
  await page.evaluate('recover()');
  await context.clock.fastForward(575_000);
  const last = await token(page);
  // Another tab finds what was stored.
  const other = await open();
  expect(await token(other)).toBe(last);
  await context.close();
});
