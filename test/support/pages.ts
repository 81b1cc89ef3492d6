import { readFileSync } from 'node:fs';
import type { Page } from 'playwright-core';
import { freshNumber, textedCode, type World } from './world';

// The login and account pages as a person uses them in a browser.

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** The address that a browser uses: its cookies are Secure, and `localhost` is the name that browsers trust. */
export const local = (url: string): string => url.replace('127.0.0.1', 'localhost');

/** Types the number and sends. Resolves on the code screen. */
export async function send(page: Page, phoneNumber = freshNumber()): Promise<string> {
  await page.fill('#phone', phoneNumber.slice(3));
  await page.click('#submit');
  await page.locator('#otp').waitFor();
  return phoneNumber;
}

export async function logIn({ upstream }: World, page: Page, phoneNumber = freshNumber()): Promise<string> {
  await send(page, phoneNumber);
  await page.fill('#otp', textedCode(upstream, phoneNumber));
  await page.locator('#who').waitFor();
  return phoneNumber;
}

export const errorOn = (page: Page): Promise<string> => page.locator('#error:not(:empty)').innerText();

/** What axe finds, and whether the page is wider than the screen. */
export async function faultsOf(page: Page): Promise<unknown[]> {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate<{ violations: { id: string; nodes: { html: string }[] }[] }>(
    'axe.run()',
  );
  const overflows = await page.evaluate<boolean>('document.documentElement.scrollWidth > innerWidth');
  return [
    ...violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]),
    ...(overflows ? ['overflows'] : []),
  ];
}

/** Forty addresses to which no login page may lead, with `https://app.example.com` allowed. */
export const HOSTILE_RETURNS = [
  '//evil.example',
  '///evil.example',
  '\\\\evil.example',
  '/\\evil.example',
  '/account',
  'https:evil.example',
  'https:/evil.example',
  'https:\\\\evil.example',
  'https://evil.example',
  'https://app.example.com@evil.example',
  'https://user@app.example.com/',
  'https://user:secret@app.example.com/',
  'https://app.example.com.evil.example',
  'https://app.example.com:8443/',
  'http://app.example.com/',
  'https://app.example.com\\@evil.example',
  'https://evil.example#https://app.example.com',
  'https://evil.example?https://app.example.com',
  'https://xn--pp-example-o5a.com',
  'https://аpp.example.com',
  'https://app.example.com%2eevil.example',
  'https://app%2eexample.com@evil.example',
  'https://localhost.evil.example',
  'http://127.0.0.1.evil.example',
  'javascript:alert(1)',
  'JaVaScRiPt:alert(1)',
  ' javascript:alert(1)',
  'java\nscript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'blob:https://app.example.com/1',
  'filesystem:https://app.example.com/1',
  'vbscript:x',
  'file:///etc/passwd',
  'ftp://app.example.com',
  'ws://app.example.com',
  'https://[::1',
  'https://',
  'https:///evil.example',
  '\thttps://app.example.com',
  'null',
];
