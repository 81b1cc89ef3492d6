import {
  type Browser,
  type BrowserContext,
  chromium,
  type BrowserContextOptions,
  type Page,
} from 'playwright-core';
import { HANG_MS } from './hang';

const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Debian's Chromium, or the one of CHROMIUM_PATH. */
export const launchBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: process.env.CHROMIUM_PATH ?? '/usr/bin/chromium',
    args: ARGUMENTS,
    timeout: HANG_MS,
  });

/** One user's browser: its pages share the store and the cookies. */
export interface UserBrowser {
  context: BrowserContext;
  /** What a developer would see in red, and every request to another origin. */
  complaints: string[];
  open(path: string): Promise<Page>;
}

/** @param url the service as the browser names it: `localhost`, because its cookies are Secure */
export async function openBrowser(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<UserBrowser> {
  const complaints: string[] = [];
  const context = await browser.newContext({ locale: 'en-IN', ...options });
  context.setDefaultTimeout(HANG_MS);
  // Before any script of the page: a violation may come with the first of them.
  await context.addInitScript(`addEventListener('securitypolicyviolation', (event) =>
    console.error('content security policy: ' + event.violatedDirective + ' ' + event.blockedURI))`);
  const open = async (path: string): Promise<Page> => {
    const page = await context.newPage();
    page.on('console', (message) => {
      // Chromium writes a line for every answer that is an error, also where the page expects it.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
        complaints.push(message.text());
      }
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('request', (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith('data:'))
        complaints.push(request.url());
    });
    await page.goto(`${url}${path}`);
    return page;
  };
  return { context, complaints, open };
}
