import { type Browser, type BrowserContext, chromium, type Locator, type Page } from 'playwright-core';
import { HANG_MS } from '../support/hang';
import { startWorld, type World } from '../support/world';

const CHROMIUM = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

let world: World;
let browser: Browser;
let context: BrowserContext;
/** What a developer would see in red: console errors, exceptions, refused by the content security policy. */
let complaints: string[];

beforeAll(async () => {
  [world, browser] = await Promise.all([
    startWorld(),
    chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS, timeout: HANG_MS }),
  ]);
});
afterAll(async () => {
  await browser.close();
  await world.close();
});

beforeEach(async () => {
  complaints = [];
  context = await browser.newContext();
  context.setDefaultTimeout(HANG_MS);
  // Before any script of the page: a violation may come with the first of them.
  await context.addInitScript(`addEventListener('securitypolicyviolation', (event) =>
    console.error('content security policy: ' + event.violatedDirective + ' ' + event.blockedURI))`);
});
afterEach(() => context.close());

async function open(url: string): Promise<Page> {
  const page = await context.newPage();
  const complain = (what: string): void => {
    complaints.push(`${url}: ${what}`);
  };
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complain(message.text());
  });
  page.on('pageerror', (error) => {
    complain(error.message);
  });
  page.on('requestfailed', (request) => {
    // The inbox follows its events until it is closed.
    if (!request.url().endsWith('/_emulator/events')) complain(`${request.url()} failed`);
  });
  page.on('response', (response) => {
    if (response.status() >= 400) complain(`${response.url()} answered ${String(response.status())}`);
  });
  await page.goto(url);
  return page;
}

/** Unfolds an operation by its path. */
async function unfold(docs: Page, path: string): Promise<Locator> {
  const block = docs.locator('.opblock', { has: docs.locator(`[data-path="${path}"]`) });
  await block.locator('.opblock-summary-control').click();
  return block;
}

/** Presses Execute, and reads the status and the body that are shown. */
async function execute(block: Locator): Promise<{ status: string; body: string }> {
  await block.getByRole('button', { name: 'Execute' }).click();
  const answer = block.locator('.live-responses-table');
  return {
    status: (await answer.locator('.response-col_status').last().innerText()).trim(),
    body: await answer.locator('.highlight-code code').first().innerText(),
  };
}

it('Swagger UI leads a new developer from the example to a login, with the code from the phone inbox', async () => {
  const docs = await open(`${world.url}/docs`);
  const description = docs.locator('.info .description');
  await description.getByText('POST /auth/send-otp').waitFor();
  expect(await description.getByRole('link', { name: 'phone inbox' }).getAttribute('href')).toBe(
    world.upstream.url.replace('127.0.0.1', 'localhost'),
  );

  // 1. The example as it stands.
  const send = await unfold(docs, '/auth/send-otp');
  expect(JSON.parse(await send.locator('textarea').inputValue())).toEqual({ phoneNumber: '+919876543210' });
  const sent = await execute(send);
  expect(sent.status).toBe('200');
  const { requestId } = JSON.parse(sent.body) as { requestId: string };

  // 2. The code, from the inbox in another tab.
  const inbox = await open(world.upstream.url);
  const phone = inbox.locator('article', { hasText: '+91 98765 43210' });
  const code = await phone.locator('output').first().innerText();
  expect(code).toMatch(/^\d{6}$/);

  // A tab in the background draws one frame a second, and every click waits for two.
  await docs.bringToFront();

  // 3. The code and the request id in place of the example's.
  const verify = await unfold(docs, '/auth/verify-otp');
  await verify.locator('textarea').fill(JSON.stringify({ requestId, otpCode: code }));
  const verified = await execute(verify);
  expect(verified.status).toBe('200');
  const { accessToken } = JSON.parse(verified.body) as { accessToken: string };

  // 4. Authorize, and see who is logged in.
  await docs.locator('.auth-wrapper > .btn.authorize').click();
  const dialog = docs.locator('.dialog-ux');
  await dialog.getByText('that verify-otp answered').waitFor();
  // The first of the ways to authorize: the other one is for resource servers.
  const bearer = dialog.locator('.auth-container form').first();
  await bearer.locator('#auth-bearer-value').fill(accessToken);
  await bearer.locator('button.authorize').click();
  await bearer.getByText('Logout').waitFor();
  await bearer.locator('button.btn-done').click();
  const me = await execute(await unfold(docs, '/auth/me'));
  expect(me.status).toBe('200');
  expect(JSON.parse(me.body)).toMatchObject({ phoneNumber: '+919876543210' });

  expect(complaints).toEqual([]);
});

it('the phone inbox shows an SMS that arrives while it is open', async () => {
  const inbox = await open(world.upstream.url);
  world.upstream.reset();
  await inbox.getByText('No SMS yet').waitFor();
  await inbox.getByRole('status').getByText('Live').waitFor();
  const docs = await open(`${world.url}/docs`);
  await execute(await unfold(docs, '/auth/send-otp'));
  const code = await inbox.locator('output').first().innerText();
  expect(world.upstream.lastMessageTo('+919876543210')?.code).toBe(code);
  expect(complaints).toEqual([]);
});

it('Swagger UI shows an error response with its code', async () => {
  const docs = await open(`${world.url}/docs`);
  // The request id of the example is nobody's.
  const { status, body } = await execute(await unfold(docs, '/auth/verify-otp'));
  expect(status).toBe('410');
  expect(JSON.parse(body)).toMatchObject({ code: 'otp_expired' });
});

it('the browser does not run a script that was injected into the documentation', async () => {
  const docs = await open(`${world.url}/docs`);
  await docs.locator('.opblock').first().waitFor();
  // As text, because these tests are compiled without a browser's types.
  const ran = await docs.evaluate<boolean>(`
    const script = document.createElement('script');
    script.textContent = 'window.ran = true';
    document.body.append(script);
    'ran' in window;`);
  expect(ran).toBe(false);
  expect(complaints.join('\n')).toContain('script-src');
});
