import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

// What each script calls must be there when Redis runs it: Lua finds a missing function only in the moment of the call.

const SRC = join(__dirname, '../../src');
const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' });
const read = (path: string): string => readFileSync(join(SRC, path), 'utf8');

/** The functions of the language that Redis offers to scripts, and the words that stand before a bracket. */
const LUA = new Set(
  (
    'and elseif for function if in not or return until while ' +
    'error ipairs next pairs select tonumber tostring type unpack'
  ).split(' '),
);

function definedIn(lua: string): string[] {
  // A parameter may be a function, too.
  return [...lua.matchAll(/\bfunction (\w*)\s*\(([^)]*)\)/g)].flatMap(([, name, parameters]) => [
    name!,
    ...parameters!.split(/,\s*/),
  ]);
}

function calledIn(lua: string): string[] {
  const code = lua.replace(/--.*$/gm, '').replace(/'[^'\n]*'|"[^"\n]*"/g, "''");
  return [...code.matchAll(/(?<![.:\w])([a-z_]\w*)\s*\(/gi)].map(([, name]) => name!);
}

interface Library {
  room: string;
  declared: string[];
}
interface Loaded {
  script: string;
  libraries: string[];
}

/** The libraries by the names of their constants, and every script with the libraries that are put before it. */
function readSources(): { libraries: Map<string, Library>; scripts: Loaded[] } {
  const libraries = new Map<string, Library>();
  const scripts: Loaded[] = [];
  for (const path of files.filter((each) => each.endsWith('.ts'))) {
    const source = read(path);
    for (const [, name, list] of source.matchAll(/const (\w+) = Script\.library\(\s*__dirname,([^)]*)\)/g))
      libraries.set(name!, {
        room: basename(dirname(path)),
        declared: [...list!.matchAll(/'(\w+)'/g)].map(([, each]) => each!),
      });
    for (const [, name, list] of source.matchAll(
      /Script\.load\(\s*__dirname,\s*'([\w-]+)'((?:,\s*\w+)*),?\s*\)/g,
    ))
      scripts.push({
        script: `${dirname(path)}/${name}.lua`,
        libraries: list!.split(',').flatMap((each) => each.trim() || []),
      });
  }
  return { libraries, scripts };
}

const { libraries, scripts } = readSources();
const prelude = definedIn(read('redis/prelude.lua'));

/** The functions that a script calls, and that neither the script, the prelude nor a declaring library defines. */
function missing(lua: string, declared: readonly string[]): string[] {
  const there = new Set([...LUA, ...prelude, ...definedIn(lua), ...declared]);
  return calledIn(lua).filter((name) => !there.has(name));
}
const declaredBy = (names: readonly string[]): string[] =>
  names.flatMap((name) => libraries.get(name)?.declared ?? []);

test('this test reads every script and every library', () => {
  const lua = files.filter((path) => path.endsWith('.lua') && path !== 'redis/prelude.lua');
  expect([
    ...scripts.map(({ script }) => script),
    ...[...libraries.values()].map(({ room }) => `${room}/functions.lua`),
  ]).toEqual(expect.arrayContaining(lua));
});

test.each(scripts)('the included libraries define every function that $script calls', (loaded) => {
  expect(loaded.libraries.filter((name) => !libraries.has(name))).toEqual([]);
  expect(missing(read(loaded.script), declaredBy(loaded.libraries))).toEqual([]);
});

test.each(scripts)('$script calls a function of every library that it includes', (loaded) => {
  const calls = calledIn(read(loaded.script));
  for (const name of loaded.libraries)
    expect([name, declaredBy([name]).some((each) => calls.includes(each))]).toEqual([name, true]);
});

test.each([...libraries])('%s declares functions that its room defines and scripts call', (name, library) => {
  const { room, declared } = library;
  const source = read(`${room}/functions.lua`);
  expect(declared.filter((each) => !definedIn(source).includes(each))).toEqual([]);
  const users = scripts.filter((each) => each.libraries.includes(name)).map(({ script }) => read(script));
  expect(declared.filter((each) => !users.some((lua) => calledIn(lua).includes(each)))).toEqual([]);
});

test.each([...libraries.values()])(
  'the library of $room calls only functions of its own and of the prelude',
  ({ room }) => {
    expect(missing(read(`${room}/functions.lua`), [])).toEqual([]);
  },
);

test('a call of a function that is not included is found', () => {
  const lua = `-- usage_add(x)\nlocal function mine(n) return n end\nreturn mine(now_ms()) + abuse_mark('f(x)')\n`;
  expect(missing(lua, [])).toEqual(['abuse_mark']);
  expect(missing(lua, ['abuse_mark'])).toEqual([]);
});
