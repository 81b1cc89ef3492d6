import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// The maps of docs/design.md, compared with the source.

const ROOT = join(__dirname, '../..');
const design = readFileSync(join(ROOT, 'docs/design.md'), 'utf8');
const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  // The scripts of the pages run in browsers, and their imports name files of the page.
  .filter((path) => path.endsWith('.ts') && !path.startsWith('pages/static/'))
  .map((path) => ({ path, text: readFileSync(join(ROOT, 'src', path), 'utf8') }));

/** The section under a heading. */
function section(heading: string): string {
  const [, text] = design.split(`\n## ${heading}\n`);
  return text?.split('\n## ')[0] ?? '';
}

/** Rooms that every other one may import; the text before the map names them. */
const BASE = ['config', 'crypto', 'net', 'errors', 'redis', 'logging', 'metrics', 'audit', 'alerts'];

/** `from -> to` of every import between two rooms that are no base. */
function importsOfRooms(): Set<string> {
  const found = new Set<string>();
  for (const { path, text } of sources) {
    const [from, inner] = path.split('/');
    if (inner === undefined) continue;
    for (const [, to] of text.matchAll(/from '\.\.\/([\w-]+)\//g))
      if (to !== from && !BASE.includes(to!) && !BASE.includes(from!)) found.add(`${from} -> ${to}`);
  }
  return found;
}

const map = section('The rooms');
const arrows = [...map.matchAll(/^ {4}([\w-]+) --> ([\w-]+)$/gm)].map(
  ([, from, to]) => [from!, to!] as const,
);

/** Every room that can be reached along the arrows of the map. */
function reachable(from: string, seen = new Set<string>()): Set<string> {
  for (const [start, end] of arrows)
    if (start === from && !seen.has(end)) {
      seen.add(end);
      reachable(end, seen);
    }
  return seen;
}

test('each arrow on the map of the rooms is an import', () => {
  const imports = importsOfRooms();
  expect(arrows.length).toBeGreaterThan(20);
  expect(arrows.map((each) => each.join(' -> ')).filter((each) => !imports.has(each))).toEqual([]);
});

test('the map of the rooms shows a path for each import between rooms', () => {
  const unseen = [...importsOfRooms()].filter((each) => {
    const [from, to] = each.split(' -> ') as [string, string];
    return !reachable(from).has(to);
  });
  expect(unseen).toEqual([]);
});

test('the table of the rooms lists every folder of the source', () => {
  const rooms = new Set(sources.flatMap(({ path }) => (path.includes('/') ? [path.split('/')[0]!] : [])));
  expect([...rooms].filter((room) => !map.includes(`\`${room}/\``))).toEqual([]);
});

test('the map of the keys names every hash tag and every key of the source', () => {
  const keys = section('The keys in Redis');
  const names = sources.flatMap(({ text }) =>
    [...text.matchAll(/\$\{(?:KEY_PREFIX|SLOT)\}([^`]+)`/g)].flatMap(([, rest]) => {
      const plain = rest!.replace(/\$\{[^}]*\}/g, '');
      const tag = /^\{(\w+)\}/.exec(plain)?.[0];
      const name = plain
        .replace(/^\{\w*\}/, '')
        .split(':')
        .find((part) => part !== '');
      return [tag, ['events'].includes(name ?? '') ? undefined : name].filter((each) => each !== undefined);
    }),
  );
  expect(names.length).toBeGreaterThan(10);
  expect([...new Set(names)].filter((name) => !keys.includes(name))).toEqual([]);
});
