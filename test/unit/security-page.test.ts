import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const page = read('docs/security.md');

const PATH = '(?:src|test|docs|deploy|tools|scripts)/[\\w./-]+|\\.npmrc';
/** Every path, and the line of code or the title of a test that stands behind it. */
const named = [...page.matchAll(new RegExp(`\`(${PATH})\`(?: \`([^\`]+)\`| "([^"]+)")?`, 'g'))].map(
  ([, path = '', line, title]) => ({ path, line, title }),
);
const rowsOf = (heading: string): string[][] =>
  (page.split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(1)
    .map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '')));

test('each path that docs/security.md names exists', () => {
  expect(named.length).toBeGreaterThan(100);
  expect(named.filter(({ path }) => !existsSync(join(ROOT, path)))).toEqual([]);
});

test('each line of code that docs/security.md names is in its file', () => {
  const lines = named.filter(({ line }) => line !== undefined);
  expect(lines.length).toBeGreaterThan(10);
  expect(lines.filter(({ path, line = '' }) => !read(path).includes(line))).toEqual([]);
});

test('each test that docs/security.md names is in its file', () => {
  const titles = named.filter(({ title }) => title !== undefined);
  expect(titles.length).toBeGreaterThan(70);
  expect(titles.filter(({ path, title = '' }) => !read(path).includes(title))).toEqual([]);
});

test('each attack of docs/security.md has a place in the code and a test', () => {
  const rows = rowsOf('Attacks');
  expect(rows.length).toBeGreaterThan(20);
  for (const [attack, place, evidence] of rows) {
    expect([attack, place]).toEqual([attack, expect.stringMatching(/`(src|deploy|\.npmrc)/)]);
    expect([attack, evidence]).toEqual([attack, expect.stringMatching(/^`test\/[^`]+` "/)]);
  }
});

test('each requirement of ASVS is listed once, and is held by a test or a page, or not held with a reason', () => {
  const rows = rowsOf('OWASP ASVS 5.0, level 2');
  const ids = rows.flatMap(([cell = '']) => cell.split(', '));
  expect(ids.length).toBeGreaterThan(60);
  expect(ids.filter((id) => !/^V\d{1,2}\.\d\.\d{1,2}$/.test(id))).toEqual([]);
  expect(new Set(ids).size).toBe(ids.length);
  for (const [id, , verdict, evidence = ''] of rows) {
    expect([id, verdict]).toEqual([id, expect.stringMatching(/^(not )?held$/)]);
    const shown = verdict === 'held' ? /`(test|docs)\/|\]\(/ : /\w{3,}.{20,}/;
    expect([id, evidence]).toEqual([id, expect.stringMatching(shown)]);
  }
});
