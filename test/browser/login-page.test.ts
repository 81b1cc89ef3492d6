import type { Browser, BrowserContextOptions } from 'playwright-core';
import { launchBrowser, openBrowser, type UserBrowser } from '../support/browser';
import { until } from '../support/hang';
import { errorOn, faultsOf, HOSTILE_RETURNS, local, logIn, send } from '../support/pages';
import {
  anotherInstance,
  freshNumber,
  type Instance,
  startWorld,
  textedCode,
  wrongCode,
  type World,
} from '../support/world';

// The pages of the service as people use them. Requests of the page that fail are answered on the network, between Chromium
// and the service.

let world: World;
/** The same service with a pause between two SMS to a number. */
let slow: Instance;
let browser: Browser;
const users: UserBrowser[] = [];

beforeAll(async () => {
  [world, browser] = await Promise.all([
    startWorld({
      variables: {
        LOGIN_APP_NAME: 'Chai Shop',
        STARTMESSAGING_CONTRACT: 'provider',
      },
    }),
    launchBrowser(),
  ]);
  slow = await anotherInstance(world, {
    LIMIT_PHONE: '1/30,1000/60',
    STARTMESSAGING_CONTRACT: 'provider',
    LOGIN_APP_NAME: 'Chai Shop',
  });
});
afterAll(async () => {
  await browser.close();
  await slow.close();
  await world.close();
});
afterEach(async () => {
  for (const { context, complaints } of users.splice(0)) {
    await context.close();
    expect(complaints).toEqual([]);
  }
});

async function user(options: BrowserContextOptions = {}, url = local(world.url)): Promise<UserBrowser> {
  const one = await openBrowser(browser, url, options);
  users.push(one);
  return one;
}
const smsTo = (phoneNumber: string): number =>
  world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;

it.each([
  [
    'a pasted SMS with a space in the code',
    (code: string) => `Your code is ${code.slice(0, 3)} ${code.slice(3)}.`,
  ],
  ['a whole SMS with other digits', (code: string) => `Chai24: ${code} is your code. Valid for 5 min.`],
  [
    'the digits of a Hindi keyboard',
    (code: string) => code.replace(/\d/g, (digit) => String.fromCharCode(0x966 + Number(digit))),
  ],
])('the code field takes %s in one input event, and sends it once', async (_, textOf) => {
  const page = await (await user()).open('/login');
  const calls: string[] = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/auth/verify-otp')) calls.push(request.url());
  });
  const phoneNumber = await send(page);
  await page.fill('#otp', textOf(textedCode(world.upstream, phoneNumber)));
  await page.locator('#who').waitFor();
  expect(calls).toHaveLength(1);
});

it('every screen is accessible and fits 320 px, in Hindi and English, light and dark, and at 400 % zoom', async () => {
  for (const [locale, colorScheme, width] of [
    ['hi-IN', 'light', 320],
    ['en-IN', 'dark', 320],
    ['hi-IN', 'dark', 1280],
  ] as const) {
    const page = await (await user({ locale, colorScheme, viewport: { width, height: 640 } })).open('/login');
    const faults: unknown[] = [];
    const look = async (): Promise<unknown> => faults.push(...(await faultsOf(page)));
    await page.locator('#phone').waitFor();
    expect(await page.locator('html').getAttribute('lang')).toBe(locale.slice(0, 2));
    await look();
    await page.fill('#phone', '12345');
    await page.click('#submit');
    await errorOn(page);
    await look();
    const phoneNumber = await send(page);
    await look();
    const code = textedCode(world.upstream, phoneNumber);
    await page.fill('#otp', wrongCode(code));
    await errorOn(page);
    await look();
    await page.fill('#otp', code);
    await page.locator('#who').waitFor();
    await look();
    await page.goto(`${local(world.url)}/account`);
    await page.locator('#sessions li').waitFor();
    await look();
    await page.goto(`${local(world.url)}/login`);
    await page.locator('#continue').waitFor();
    await look();
    await page.goto(`${local(world.url)}/login?return=https://evil.example`);
    await page.locator('h1').waitFor();
    await look();
    expect({ locale, colorScheme, width, faults }).toEqual({ locale, colorScheme, width, faults: [] });
  }
});

it('the pages keep their borders where the system forces its colours', async () => {
  const page = await (await user({ forcedColors: 'active', reducedMotion: 'reduce' })).open('/login');
  await page.locator('#phone').waitFor();
  const width = await page.evaluate<string>(
    "getComputedStyle(document.querySelector('#submit')).borderTopWidth",
  );
  expect(width).toBe('1px');
  expect(await page.locator('main').ariaSnapshot()).toContain('textbox "Mobile number"');
});

it('a wrong code says what is left, the right code still works, and a code without attempts asks for a new one', async () => {
  const page = await (await user()).open('/login');
  const phoneNumber = await send(page);
  const code = textedCode(world.upstream, phoneNumber);
  const wrong = wrongCode(code);
  await page.fill('#otp', wrong);
  expect(await errorOn(page)).toBe('The code is wrong. 2 attempts are left.');
  await page.fill('#otp', wrong.slice(0, 5));
  await page.fill('#otp', wrongCode(wrong) === code ? wrongCode(code.slice(0, 5) + '0') : wrongCode(wrong));
  await page.getByText('1 attempt is left').waitFor();
  await page.fill('#otp', code);
  await page.locator('#who').waitFor();

  const other = await (await user()).open('/login');
  const second = await send(other);
  const right = textedCode(world.upstream, second);
  for (const left of ['2 attempts', '1 attempt', 'No attempts']) {
    await other.fill('#otp', wrongCode(right));
    await other.getByText(left).waitFor();
  }
  // Nothing of this request is left: a reload begins anew.
  await other.reload();
  await other.locator('#phone').waitFor();
});

it('a reload on the code screen sends nothing, and the wait for the next SMS goes on', async () => {
  const page = await (await user({}, local(slow.url))).open('/login');
  const phoneNumber = await send(page);
  await page
    .getByText(/Send again in \d+ seconds/)
    .first()
    .waitFor();
  await page.reload();
  await page.locator('#otp').waitFor();
  await page
    .getByText(/Send again in \d+ seconds/)
    .first()
    .waitFor();
  expect(await page.locator('#again').isVisible()).toBe(false);
  expect(smsTo(phoneNumber)).toBe(1);
  await page.click('#change');
  await page.locator('#phone').waitFor();
  expect(await page.inputValue('#phone')).toBe(phoneNumber.slice(3));
  await page.reload();
  await page.locator('#phone').waitFor();
  expect(smsTo(phoneNumber)).toBe(1);
});

it('the page counts with its own clock: an hour wrong in either direction changes neither the countdown nor the session', async () => {
  for (const shift of [-3_600_000, 3_600_000]) {
    const one = await user({}, local(slow.url));
    await one.context.clock.install({ time: Date.now() + shift });
    const page = await one.open('/login');
    const phoneNumber = await send(page);
    await page
      .getByText(/Send again in (30|2\d) seconds/)
      .first()
      .waitFor();
    await page.clock.runFor(31_000);
    await page.locator('#again').waitFor();
    await page.fill('#otp', textedCode(world.upstream, phoneNumber));
    await page.locator('#who').waitFor();
    await page.goto(`${local(slow.url)}/account`);
    await page.locator('#sessions li').waitFor();
  }
});

it('a lost answer to the send, and a connection that comes back, cost one SMS', async () => {
  const page = await (await user()).open('/login');
  const phoneNumber = freshNumber();
  let calls = 0;
  await page.route('**/auth/send-otp', async (route) => {
    if ((calls += 1) === 1) {
      // It arrives, and its answer is lost.
      await route.fetch();
      await route.abort('connectionreset');
    } else if (calls === 2) await route.abort('internetdisconnected');
    else await route.continue();
  });
  await send(page, phoneNumber);
  expect(calls).toBe(3);
  expect(smsTo(phoneNumber)).toBe(1);
});

it.each([
  ['phone_locked', 429, { retryAfterSeconds: 7_200 }, /^Too many attempts. Try again at \d/],
  ['rate_limited', 429, { retryAfterSeconds: 40 }, /^Too many attempts. Try again in 40 seconds.$/],
  ['sms_unavailable', 503, { retryAfterSeconds: 60 }, /^We cannot send SMS now/],
  ['phone_number_rejected', 400, {}, /^This number cannot get a code/],
  ['origin_not_allowed', 403, {}, /^Something went wrong. Tell support this number: the-request$/],
])('the page says what the user can do about %s', async (code, status, more, words) => {
  const one = await user();
  const page = await one.open('/login');
  await page.route('**/auth/send-otp', (route) =>
    route.fulfill({
      status,
      contentType: 'application/problem+json',
      headers: { 'x-request-id': 'the-request' },
      body: JSON.stringify({ code, status, ...more }),
    }),
  );
  await page.fill('#phone', '9876543210');
  await page.click('#submit');
  expect(await errorOn(page)).toMatch(words);
  expect(await page.locator('#submit').isEnabled()).toBe(true);
  // The console names the fix to the developer, once.
  const faults = one.complaints.splice(0);
  expect(faults.length).toBe(status === 403 ? 1 : 0);
});

it('an SMS that failed can be sent again at once, and polls end at the first refusal', async () => {
  const one = await user();
  await one.context.clock.install();
  const page = await one.open('/login');
  let polls = 0;
  let delivery = 'failed';
  await page.route('**/auth/otp/*', async (route) => {
    polls += 1;
    if (delivery === 'none') {
      await route.fulfill({
        status: 429,
        contentType: 'application/problem+json',
        body: '{"code":"rate_limited","retryAfterSeconds":600}',
      });
      return;
    }
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...((await answer.json()) as object), delivery } });
  });
  await send(page);
  await page.clock.runFor(3_000);
  await page.getByText('could not be delivered').waitFor();
  await page.locator('#again').waitFor();
  await page.clock.runFor(120_000);
  expect(polls).toBe(1);
  delivery = 'none';
  await page.click('#change');
  await send(page);
  await page.clock.runFor(3_000);
  await until(() => polls === 2);
  await page.clock.runFor(120_000);
  expect(polls).toBe(2);
  expect(await page.locator('#error').innerText()).toBe('');
});

it('the page solves the proof of work by itself, and says so where the browser cannot', async () => {
  const guarded = await anotherInstance(world, { LIMIT_FAILED_CODES: '2/3600' });
  const url = local(guarded.url);
  try {
    for (const able of [true, false]) {
      const one = await user({}, url);
      if (!able)
        await one.context.addInitScript("Object.defineProperty(crypto, 'subtle', { value: undefined })");
      const page = await one.open('/login');
      const phoneNumber = await send(page);
      // Half of the wrong codes are used up: from now on a stranger must work for an SMS.
      await page.fill('#otp', wrongCode(textedCode(world.upstream, phoneNumber)));
      await errorOn(page);
      await page.click('#change');
      await page.clock.install();
      await page.click('#submit');
      if (able) {
        await page.locator('#otp').waitFor();
        await until(() => smsTo(phoneNumber) === 2);
      } else expect(await errorOn(page)).toMatch(/^This browser cannot do the check/);
    }
  } finally {
    await guarded.close();
  }
});

it('a log-out in one tab leads the others to the login page, and no cookie is left', async () => {
  const one = await user();
  const login = await one.open('/login');
  await logIn(world, login);
  const tabs = [await one.open('/account'), await one.open('/account')];
  for (const tab of tabs) await tab.locator('#sessions li').waitFor();
  expect((await one.context.cookies()).map(({ name }) => name).sort()).toEqual([
    '__Host-device',
    '__Host-refresh',
  ]);
  await tabs[0]!.click('#log-out');
  for (const tab of tabs) await tab.locator('#phone').waitFor();
  expect((await one.context.cookies()).map(({ name }) => name)).toEqual(['__Host-device']);
});

it('three tabs of one browser refresh once, and a session that another device ended says so', async () => {
  // Another device of the same user, without a browser.
  const post = async (path: string, body: object): Promise<Record<string, string>> => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${world.url}${path}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    });
    return (await answer.json()) as Record<string, string>;
  };
  const elsewhere = async (phoneNumber: string): Promise<Record<string, string>> => {
    const { requestId } = await post('/auth/send-otp', { phoneNumber });
    return post('/auth/verify-otp', { requestId, otpCode: textedCode(world.upstream, phoneNumber) });
  };
  const one = await user();
  // No wait of the page ends by itself: on a slow machine a tab would else stop waiting for the others.
  await one.context.addInitScript('AbortSignal.timeout = () => new AbortController().signal');
  await one.context.clock.install();
  const phoneNumber = await logIn(world, await one.open('/login'));
  await elsewhere(phoneNumber);
  const tabs = [await one.open('/account'), await one.open('/account'), await one.open('/account')];
  for (const tab of tabs) await tab.locator('#sessions li').nth(1).waitFor();
  const calls: string[] = [];
  one.context.on('request', (request) => {
    if (request.url().endsWith('/auth/refresh')) calls.push(request.url());
  });
  // The access tokens are due in all of them.
  await one.context.clock.pauseAt(Date.now() + 575_000);
  await Promise.all(tabs.map((tab) => tab.evaluate("document.querySelector('#log-out-others').click()")));
  for (const tab of tabs) await tab.getByText('All other devices are logged out').waitFor();
  expect(calls).toHaveLength(1);
  await one.context.clock.resume();

  const tokens = await elsewhere(phoneNumber);
  await fetch(`${world.url}/auth/sessions?others=true`, {
    method: 'DELETE',
    headers: { authorization: `Bearer ${tokens.accessToken!}` },
  });
  await tabs[1]!.reload();
  for (const tab of tabs) await tab.locator('#phone').waitFor();
  await tabs[1]!.getByText('You were logged out on another device').waitFor();
});

it('the first visit makes no call: only a known user is worth a request', async () => {
  const one = await user();
  const calls: string[] = [];
  one.context.on('request', (request) => {
    if (request.url().includes('/auth/')) calls.push(request.url());
  });
  const page = await one.open('/login');
  await page.locator('#phone').waitFor();
  await page.goto(`${local(world.url)}/account`);
  await page.waitForURL('**/login*');
  await page.locator('#phone').waitFor();
  expect(calls).toEqual([]);
});

it('the language stays as the user chose it, and the number that was typed stays, too', async () => {
  const one = await user();
  const page = await one.open('/login');
  await page.fill('#phone', '98765');
  await page.getByRole('button', { name: 'हिन्दी' }).click();
  await page.getByText('मोबाइल नंबर').waitFor();
  expect(await page.inputValue('#phone')).toBe('98765');
  await page.reload();
  await page.getByText('मोबाइल नंबर').waitFor();
  await page.goto(`${local(world.url)}/login?ui_locales=en`);
  await page.getByText('Mobile number').waitFor();
});

it('a known user continues to the address that the application asked for', async () => {
  const one = await user();
  const app = 'http://localhost:5173/orders?x=1#y';
  await one.context.route('http://localhost:5173/**', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<p id="app"></p>' }),
  );
  const page = await one.open(`/login?return=${encodeURIComponent(app)}`);
  const phoneNumber = await send(page);
  await page.fill('#otp', textedCode(world.upstream, phoneNumber));
  await page.locator('#app').waitFor({ state: 'attached' });
  expect(page.url()).toBe(app);
  expect(await page.evaluate<string>('document.referrer')).toBe(`${local(world.url)}/`);
  await page.goto(`${local(world.url)}/login?return=${encodeURIComponent(app)}`);
  await page.click('#continue');
  await page.locator('#app').waitFor({ state: 'attached' });
  expect(
    one.complaints.splice(0).filter((complaint) => !complaint.startsWith('http://localhost:5173/')),
  ).toEqual([]);
});

it('the login page follows none of forty hostile addresses, and has no link to one', async () => {
  const strict = await anotherInstance(world, { LOGIN_RETURN_ORIGINS: 'https://app.example.com' });
  try {
    const one = await user({}, local(strict.url));
    const page = await one.open('/login');
    await logIn(world, page);
    for (const address of HOSTILE_RETURNS) {
      await page.goto(`${local(strict.url)}/login?return=${encodeURIComponent(address)}`);
      await page.getByText('This link is not safe').waitFor();
      expect(await page.getByRole('link').count()).toBe(1);
      expect(await page.getByRole('link').getAttribute('href')).toBe('login');
    }
  } finally {
    await strict.close();
  }
});
