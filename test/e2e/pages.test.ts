import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_CODES } from '../../src/errors/api-error';
import { HOSTILE_RETURNS } from '../support/pages';
import { anotherInstance, call, startWorld, statusAndCode, type World } from '../support/world';

const APP = 'https://app.example.com';
const SOURCES = join(__dirname, '../../src/pages');
let world: World;

beforeAll(async () => {
  world = await startWorld({
    variables: { CORS_ORIGINS: APP, LOGIN_APP_NAME: 'Chai & "Shop"', LOGIN_ACCENT: '#7a1fa2' },
  });
});
afterAll(() => world.close());

const page = (path: string, headers: Record<string, string> = {}) =>
  call('GET', `${world.url}${path}`, undefined, headers);
const filesOf = (html: string): string[] =>
  [...html.matchAll(/(?:href|src)="(pages\/[^"]+)"/g)].map(([, file]) => file!);

it('the address of the service leads a browser to the login page', async () => {
  const answer = await fetch(`${world.url}/`, { redirect: 'manual' });
  expect([answer.status, answer.headers.get('location')]).toEqual([302, '/login']);
});

it('the pages allow nothing but their own files and calls, and stay in no cache', async () => {
  for (const path of ['/login', '/account']) {
    const { status, headers } = await page(path);
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(headers.get('content-security-policy')).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    );
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('cross-origin-opener-policy')).toBe('same-origin');
    expect(headers.get('cache-control')).toBe('no-store');
  }
});

it('the name of the application is text, and never markup', async () => {
  const { body } = await page('/login');
  expect(body).toContain('Chai &#38; &#34;Shop&#34;');
  expect(body).not.toMatch(/\{\{/);
});

it('the files of a page are kept for ever, and are compressed as the browser wants', async () => {
  const { body } = await page('/login');
  const files = [...new Set(filesOf(body as string))];
  expect(files.length).toBeGreaterThan(5);
  for (const file of files) {
    const plain = await fetch(`${world.url}/${file}`, { headers: { 'accept-encoding': 'identity' } });
    expect(plain.headers.get('cache-control')).toBe('public, max-age=31536000, immutable');
    expect(plain.headers.get('content-encoding')).toBeNull();
    expect((await plain.arrayBuffer()).byteLength).toBeGreaterThan(0);
    const packed = await fetch(`${world.url}/${file}`, { headers: { 'accept-encoding': 'gzip, br' } });
    expect(packed.headers.get('content-encoding')).toBe('br');
    expect(packed.headers.get('vary')).toContain('Accept-Encoding');
  }
  expect(statusAndCode(await page('/pages/login.js'))).toEqual([404, 'not_found']);
  expect(statusAndCode(await page('/pages/..%2f..%2fpackage.json'))).toEqual([404, 'not_found']);
});

it('the page comes in the language that the browser prefers', async () => {
  const { body } = await page('/login', { 'accept-language': 'ta, hi-IN;q=0.9, en;q=0.8' });
  expect(body).toContain('<html lang="hi"');
  expect(body).toMatch(/rel="preload"[^>]*href="pages\/hi\./);
  expect((await page('/login', { 'accept-language': 'ta' })).body).toContain('<html lang="en"');
});

it('the login page leads back to allowed origins only', async () => {
  const to = async (address: string): Promise<string> =>
    (await page(`/login?return=${encodeURIComponent(address)}`)).body as string;
  expect(await to(`${APP}/x?y=1#z`)).toContain('data-return="https://app.example.com/x?y=1#z"');
  expect(await to('http://localhost:5173/x')).toContain('data-return="http://localhost:5173/x"');
  expect(HOSTILE_RETURNS).toHaveLength(40);
  const followed = [];
  for (const address of HOSTILE_RETURNS) {
    const body = await to(address);
    if (body.includes('data-return') || !body.includes('data-refused')) followed.push(address);
  }
  expect(followed).toEqual([]);
  expect((await page(`/login?return=${APP}&return=https://evil.example`)).body).toContain('data-refused');
});

it('a page with its files is under 12 KB', async () => {
  for (const path of ['/login', '/account']) {
    const html = await fetch(`${world.url}${path}`, { headers: { 'accept-encoding': 'br' } });
    const sizes = new Map([[path, Number(html.headers.get('content-length'))]]);
    const text = await html.text();
    for (const file of new Set(filesOf(text).filter((name) => !name.includes('/hi.')))) {
      const answer = await fetch(`${world.url}/${file}`, { headers: { 'accept-encoding': 'br' } });
      sizes.set(file, Number(answer.headers.get('content-length')));
    }
    const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    process.stdout.write(`${path}: ${String(total)} bytes\n`);
    expect(total).toBeLessThan(12 * 1_024);
  }
});

it('production serves no pages unless LOGIN_PAGE says so', async () => {
  const off = await anotherInstance(world, { LOGIN_PAGE: 'false' });
  try {
    for (const path of ['/', '/login', '/account', '/pages/x.js']) {
      expect(statusAndCode(await call('GET', `${off.url}${path}`))).toEqual([404, 'not_found']);
    }
  } finally {
    await off.close();
  }
});

describe('the texts', () => {
  const languages = new Map(
    ['en', 'hi'].map((tag) => [
      tag,
      JSON.parse(readFileSync(join(SOURCES, 'languages', `${tag}.json`), 'utf8')) as Record<
        string,
        string | Record<string, string>
      >,
    ]),
  );
  const placeholders = (text: string): string[] =>
    [...text.matchAll(/\{\w+\}/g)].map(([name]) => name).sort();

  it('the languages have the same keys, the same placeholders, and every plural form', () => {
    const english = languages.get('en')!;
    for (const [tag, texts] of languages) {
      expect(Object.keys(texts)).toEqual(Object.keys(english));
      for (const [key, value] of Object.entries(texts)) {
        const other = english[key]!;
        if (typeof value === 'string') expect(placeholders(value)).toEqual(placeholders(other as string));
        else {
          expect(Object.keys(value)).toEqual(
            new Intl.PluralRules(tag).resolvedOptions().pluralCategories.filter((form) => form in value),
          );
          for (const form of Object.values(value)) expect(placeholders(form)).toEqual(['{count}']);
        }
      }
    }
  });

  it('every error code has a text', () => {
    const script = readFileSync(join(SOURCES, 'static', 'page.ts'), 'utf8');
    // These are faults of the application or of the settings: the text gives the request id for support.
    const faults = [
      'origin_not_allowed',
      'not_found',
      'method_not_allowed',
      'payload_too_large',
      'unsupported_media_type',
      'idempotency_key_reused',
    ];
    const missing = Object.keys(ERROR_CODES).filter(
      (code) => !faults.includes(code) && !script.includes(`'${code}'`),
    );
    expect(missing).toEqual([]);
  });
});

it('the compressed files hold what the plain ones hold', async () => {
  const { body } = await page('/login');
  const file = filesOf(body as string)[0]!;
  const get = async (encoding: string): Promise<Buffer> => {
    const answer = await fetch(`${world.url}/${file}`, { headers: { 'accept-encoding': encoding } });
    return Buffer.from(await answer.arrayBuffer());
  };
  // fetch decodes by itself.
  expect(await get('br')).toEqual(await get('identity'));
  expect(await get('gzip')).toEqual(await get('identity'));
});
