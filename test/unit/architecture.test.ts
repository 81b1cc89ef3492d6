import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join, posix } from 'node:path';
import ts from 'typescript';

// The rules of the house, read from what its files import. Each has its reason, and each is shown a file that breaks it.

const ROOT = join(__dirname, '../..');
/** By path below src/, with slashes. */
type House = Map<string, string>;

/** Rooms that every other room may use; among themselves they have an order, too. */
const BASE = ['config', 'crypto', 'net', 'errors', 'redis', 'logging', 'metrics', 'audit', 'alerts'];
/** Rooms about the API of another company. */
const OUTSIDE = ['upstream', 'startmessaging', 'sendwithses'];
/** What each room may import. A new room needs a line here, and so a thought about its place. */
const ARROWS: Record<string, string[]> = {
  // The foundation: none of these knows what the service does.
  net: [],
  crypto: [],
  config: ['net'],
  metrics: [],
  logging: ['config'],
  errors: ['logging'],
  redis: ['config', 'logging', 'errors', 'metrics'],
  // Every room reports to these two, and they ask no room.
  audit: ['config', 'logging', 'metrics', 'redis'],
  alerts: ['config', 'logging', 'metrics', 'redis'],
  'phone-number': ['config', 'crypto'],
  upstream: [],
  startmessaging: ['upstream'],
  sendwithses: ['upstream'],
  emulator: [],
  secrets: BASE,
  health: [...BASE, 'http'],
  // The validation of a body applies EXTRA_MOBILE_SERIES to its phone number.
  http: [...BASE, 'phone-number'],
  abuse: [...BASE, 'phone-number'],
  ledger: [...BASE, 'abuse'],
  // A device token of the number raises the limit of a client address.
  throttling: [...BASE, 'http', 'phone-number', 'abuse', 'ledger', 'devices'],
  // A challenge knows its number's devices; it does not know how a code is sent.
  devices: BASE,
  challenges: [...BASE, 'devices', 'phone-number'],
  providers: [...BASE, 'challenges', 'phone-number', ...OUTSIDE],
  // The client of StartMessaging reads the balance; the ledger knows what was spent since.
  wallet: [...BASE, 'ledger', 'providers', 'startmessaging', 'upstream'],
  otp: [...BASE, 'challenges', 'providers', 'devices', 'phone-number', 'throttling', 'abuse', 'ledger'],
  sessions: [...BASE, 'otp', 'phone-number'],
  tokens: [...BASE, 'http', 'sessions'],
  auth: [...BASE, 'http', 'sessions', 'tokens', 'otp', 'challenges', 'devices', 'throttling', 'phone-number'],
  // The pages are a client of the API: they know no other room of it.
  pages: [...BASE],
  admin: [
    ...BASE,
    'http',
    'sessions',
    'challenges',
    'devices',
    'throttling',
    'phone-number',
    'abuse',
    'ledger',
    'wallet',
  ],
  // The hosted login shows the login page.
  oauth: [...BASE, 'http', 'sessions', 'tokens', 'otp', 'throttling', 'phone-number', 'pages'],
  doctor: [...BASE, 'http', 'upstream', 'startmessaging', 'tokens', 'phone-number', 'wallet'],
};
/** The files at the top: they put the rooms together, and no room knows them. */
const TOP: Record<string, string[]> = {
  'app.module.ts': Object.keys(ARROWS).filter((room) => room !== 'emulator'),
  'app.ts': [...BASE, 'health', 'http', 'throttling'],
  'main.ts': [...BASE, 'health'],
};

/** Dependencies that no file of ours imports, each with its reason. */
const NOT_IMPORTED: Record<string, string> = {
  '@fastify/static': '@nestjs/swagger serves its page by it',
  'class-transformer': 'the ValidationPipe of Nest loads it by name',
  axios: '@nestjs/axios needs it beside itself',
};
/** Imports of what `npm install --omit=dev` leaves out, each with its reason. */
const DEVELOPMENT_ONLY: Record<string, string> = {
  'js-redis-server': 'the embedded store exists in development only, and says so where it is missing',
};

interface Import {
  from: string;
  /** `startmessaging/answers.ts`, or the name of a package. */
  to: string;
  ours: boolean;
  typeOnly: boolean;
}

// The scripts of the pages run in browsers, and have a compiler's project of their own.
const files: House = new Map(
  [...readHouse(join(ROOT, 'src'))].filter(([path]) => !path.startsWith('pages/static/')),
);
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
};

function readHouse(folder: string, below = ''): House {
  const house: House = new Map();
  for (const entry of readdirSync(join(folder, below), { withFileTypes: true })) {
    const path = posix.join(below, entry.name);
    if (entry.isDirectory()) for (const [inner, text] of readHouse(folder, path)) house.set(inner, text);
    else house.set(path, readFileSync(join(folder, path), 'utf8'));
  }
  return house;
}

/** The serverless edition: files of its own, and files of src/ that it shares with the service. */
const edition: House = new Map(
  ['core', 'worker', 'lambda', 'desk']
    .filter((folder) => existsSync(join(ROOT, 'serverless', folder)))
    .flatMap((folder) => [...readHouse(join(ROOT, 'serverless'), folder)]),
);
/** Packages that run on Cloudflare Workers as well as on Node.js. */
const PORTABLE = ['libphonenumber-js', 'bowser'];

/** What the edition loads of src/ at run time, types left out: `from` is the file of src/ that imports it. */
function sharedImports(house: House): Import[] {
  const roots = importsIn(edition)
    .filter(({ to, ours, typeOnly }) => ours && !typeOnly && to.startsWith('../src/'))
    .map(({ to }) => to.slice('../src/'.length));
  const byFile = new Map<string, Import[]>();
  for (const each of importsIn(house)) byFile.set(each.from, [...(byFile.get(each.from) ?? []), each]);
  const found: Import[] = [];
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const each of byFile.get(path) ?? []) {
      if (each.typeOnly) continue;
      found.push(each);
      if (each.ours) visit(each.to);
    }
  };
  roots.forEach(visit);
  return found;
}

const parsed = new Map<string, ts.SourceFile>();
function parse(path: string, text: string): ts.SourceFile {
  const key = `${path}\n${text}`;
  const file = parsed.get(key) ?? ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  parsed.set(key, file);
  return file;
}

function sources(house: House): ts.SourceFile[] {
  return [...house].filter(([path]) => path.endsWith('.ts')).map(([path, text]) => parse(path, text));
}

/** Every node of the file. */
function nodesOf(file: ts.SourceFile): ts.Node[] {
  const nodes: ts.Node[] = [];
  const visit = (node: ts.Node): void => {
    nodes.push(node);
    ts.forEachChild(node, visit);
  };
  visit(file);
  return nodes;
}

/** Every import, export from, import(), require() and import type of the file. */
function importsOf(file: ts.SourceFile): Import[] {
  return nodesOf(file).flatMap((node): Import[] => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      return node.moduleSpecifier ? [read(file, node.moduleSpecifier, isTypeOnly(node))] : [];
    }
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      return [read(file, node.argument.literal, true)];
    }
    if (ts.isImportEqualsDeclaration(node) && ts.isExternalModuleReference(node.moduleReference)) {
      return [read(file, node.moduleReference.expression, node.isTypeOnly)];
    }
    if (!ts.isCallExpression(node)) return [];
    const loads =
      node.expression.kind === ts.SyntaxKind.ImportKeyword || node.expression.getText(file) === 'require';
    return loads && node.arguments[0] ? [read(file, node.arguments[0], false)] : [];
  });
}

function isTypeOnly(node: ts.ImportDeclaration | ts.ExportDeclaration): boolean {
  if (ts.isExportDeclaration(node)) return node.isTypeOnly;
  const clause = node.importClause;
  if (clause === undefined) return false;
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true;
  const { namedBindings } = clause;
  if (clause.name !== undefined || namedBindings === undefined || !ts.isNamedImports(namedBindings))
    return false;
  return namedBindings.elements.every((element) => element.isTypeOnly);
}

function read(file: ts.SourceFile, specifier: ts.Node, typeOnly: boolean): Import {
  // What is computed cannot be checked, so it breaks every rule that asks for a name.
  const name = ts.isStringLiteralLike(specifier) ? specifier.text : `computed: ${specifier.getText(file)}`;
  if (name.startsWith('.')) {
    const to = `${posix.join(posix.dirname(file.fileName), name).replace(/\.[jt]s$/, '')}.ts`;
    return { from: file.fileName, to, ours: true, typeOnly };
  }
  return { from: file.fileName, to: name, ours: false, typeOnly };
}

const imports = new WeakMap<ts.SourceFile, Import[]>();
function importsIn(house: House): Import[] {
  return sources(house).flatMap((file) => {
    const found = imports.get(file) ?? importsOf(file);
    imports.set(file, found);
    return found;
  });
}
const roomOf = (path: string): string => (path.includes('/') ? path.slice(0, path.indexOf('/')) : '');
/** `libphonenumber-js/max` is of the package `libphonenumber-js`. */
const packageOf = (name: string): string => name.split('/', name.startsWith('@') ? 2 : 1).join('/');
const isBuiltIn = (name: string): boolean => name.startsWith('node:') || builtinModules.includes(name);
const told = ({ from, to, typeOnly }: Import): string => `${from} imports ${to}${typeOnly ? ' (types)' : ''}`;

/** Where the file reads the environment of the process. */
function readsEnvironment(file: ts.SourceFile): boolean {
  return nodesOf(file).some((node) => {
    if (ts.isPropertyAccessExpression(node))
      return /^(globalThis\.)?process$/.test(node.expression.getText(file)) && node.name.text === 'env';
    if (ts.isElementAccessExpression(node)) return node.expression.getText(file).endsWith('process');
    if (ts.isVariableDeclaration(node))
      return ts.isObjectBindingPattern(node.name) && node.initializer?.getText(file) === 'process';
    return (
      ts.isImportDeclaration(node) &&
      /^(node:)?process$/.test((node.moduleSpecifier as ts.StringLiteral).text)
    );
  });
}

/** A text that is, or writes, the media type of an error; prose that mentions it is not. */
function writesProblems(file: ts.SourceFile): boolean {
  return nodesOf(file).some(
    (node) =>
      (ts.isStringLiteralLike(node) || ts.isTemplateHead(node)) &&
      /^(content-type: *)?application\/problem\+json/i.test(node.text),
  );
}

/** The files of each circle of imports. */
function circles(house: House): string[] {
  const edges = new Map<string, string[]>();
  for (const { from, to, ours } of importsIn(house))
    if (ours) edges.set(from, [...(edges.get(from) ?? []), to]);
  const found: string[] = [];
  const done = new Set<string>();
  const walk = (path: string, trail: string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) found.push([...trail.slice(at), path].join(' -> '));
    if (at >= 0 || done.has(path)) return;
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path]);
    done.add(path);
  };
  for (const path of edges.keys()) walk(path, []);
  return found;
}

function brokenHeads(house: House): string[] {
  const parts = [/^-- \S/, /^-- KEYS /m, /^-- ARGV /m, /^-- Returns /m, /^-- One script, because /m];
  return [...house]
    .filter(
      ([path]) => path.endsWith('.lua') && path !== 'redis/prelude.lua' && !path.endsWith('/functions.lua'),
    )
    .flatMap(([path, text]) => {
      const head = /^(--.*\n)*/.exec(text)?.[0] ?? '';
      return parts.filter((part) => !part.test(head)).map((part) => `${path}: its head lacks ${part.source}`);
    });
}

interface Rule {
  rule: string;
  reason: string;
  /** What breaks the rule. */
  check: (house: House) => string[];
  /** A file that breaks it, and its path. */
  broken: [path: string, text: string];
}

const RULES: Rule[] = [
  {
    rule: 'arrows run one way',
    reason: 'a room that knows who uses it cannot be read, tested or replaced alone',
    check: (house) =>
      importsIn(house)
        .filter(({ from, to, ours }) => {
          const allowed = from.includes('/') ? ARROWS[roomOf(from)] : TOP[from];
          return ours && roomOf(from) !== roomOf(to) && !allowed?.includes(roomOf(to));
        })
        .map(told),
    broken: ['otp/x.ts', `import { AuthController } from '../auth/auth.controller';`],
  },
  {
    rule: 'every room and every file at the top has its place in this test',
    reason: 'a room that nobody placed may point anywhere',
    check: (house) =>
      [...house.keys()].filter((path) => (path.includes('/') ? !(roomOf(path) in ARROWS) : !(path in TOP))),
    broken: ['common/x.ts', ''],
  },
  {
    rule: 'what is imported is there',
    reason: 'an arrow to a file that these rules do not see is not checked',
    check: (house) =>
      importsIn(house)
        .filter(({ to, ours }) => ours && !house.has(to))
        .map(told),
    broken: ['otp/x.ts', `import '../../test/support/world';`],
  },
  {
    rule: 'only app.module.ts sees auth/',
    reason: 'auth/ is the HTTP face of login: the domain must work without HTTP',
    check: (house) =>
      importsIn(house)
        .filter(
          ({ from, to }) => roomOf(to) === 'auth' && roomOf(from) !== 'auth' && from !== 'app.module.ts',
        )
        .map(told),
    broken: ['tokens/x.ts', `import type { MeAnswer } from '../auth/answers';`],
  },
  {
    rule: 'sessions/ takes types of otp/ only',
    reason: 'it is handed a proof (VerifiedPhone), and calls nobody to get one',
    check: (house) =>
      importsIn(house)
        .filter(({ from, to, typeOnly }) => roomOf(from) === 'sessions' && roomOf(to) === 'otp' && !typeOnly)
        .map(told),
    broken: ['sessions/x.ts', `import { OtpService } from '../otp/otp.service';`],
  },
  {
    rule: 'providers’ clients, their wire and phone-number/ know nothing of ours, and of Nest the HTTP client only',
    reason: 'they are somebody else’s API and a fact about numbers: all can be lifted out as they are',
    check: (house) =>
      importsIn(house)
        // The pseudonym of a number is ours: it hangs on a secret of the configuration.
        .filter(
          ({ from }) =>
            !['phone-number/phone-identity.ts', 'phone-number/phone-number.module.ts'].includes(from),
        )
        .filter(({ from }) => [...OUTSIDE, 'phone-number'].includes(roomOf(from)))
        .filter(({ from, to, ours }) =>
          ours
            ? roomOf(to) !== roomOf(from) && !(roomOf(to) === 'upstream' && OUTSIDE.includes(roomOf(from)))
            : packageOf(to).startsWith('@nestjs/') && to !== '@nestjs/axios',
        )
        .map(told),
    broken: ['startmessaging/x.ts', `import { Injectable } from '@nestjs/common';`],
  },
  {
    rule: 'emulator/ imports nothing of the other rooms, and nobody imports it',
    reason:
      'an upstream that shares code with its client shares its mistakes, and it is no part of the service',
    check: (house) =>
      importsIn(house)
        .filter(({ from, to, ours }) => ours && (roomOf(from) === 'emulator') !== (roomOf(to) === 'emulator'))
        .map(told),
    broken: ['emulator/x.ts', `import { isPhoneNumber } from '../phone-number/phone-number';`],
  },
  {
    rule: 'the environment is read in config/, and in emulator/ for itself',
    reason: 'a setting that is read elsewhere is neither validated nor documented',
    check: (house) =>
      sources(house)
        .filter((file) => !['config', 'emulator'].includes(roomOf(file.fileName)) && readsEnvironment(file))
        .map(({ fileName }) => fileName),
    broken: ['http/x.ts', `const { env } = process;`],
  },
  {
    rule: 'axios is used by providers’ clients, their wire and alerts/webhook.ts, and registered where these are put together',
    reason: 'one place calls upstream, one the webhook, and an axios error carries the API key or the URL',
    check: (house) =>
      importsIn(house)
        .filter(({ to }) => ['axios', '@nestjs/axios'].includes(packageOf(to)))
        .filter(({ from }) => !OUTSIDE.includes(roomOf(from)) && from !== 'providers/providers.module.ts')
        .filter(({ from }) => !['alerts/webhook.ts', 'alerts/alerts.module.ts'].includes(from))
        .map(told),
    broken: ['health/x.ts', `import axios from 'axios';`],
  },
  {
    rule: 'nothing but upstream/ speaks to the outside, and doctor/ask-service.ts to a service of ours',
    reason: 'timeouts, retries, breakers and API keys are handled there and nowhere else',
    check: (house) =>
      sources(house)
        .filter(({ fileName }) => !['upstream', 'emulator'].includes(roomOf(fileName)))
        .filter(({ fileName }) => fileName !== 'doctor/ask-service.ts')
        .filter((file) =>
          nodesOf(file).some((node) => {
            if (ts.isCallExpression(node))
              return /^((globalThis\.)?fetch|https?\.(request|get))$/.test(node.expression.getText(file));
            return (
              ts.isImportDeclaration(node) &&
              ['undici', 'node:https'].includes((node.moduleSpecifier as ts.StringLiteral).text)
            );
          }),
        )
        .map(({ fileName }) => fileName),
    broken: ['otp/x.ts', `export const wallet = () => fetch('https://api.startmessaging.com/wallet');`],
  },
  {
    rule: 'error bodies are written by http/problem.ts, described by http/api-problems.ts, and written by http/server.ts on a bare socket',
    reason: 'nothing that leaks can be written by a place that does not write',
    check: (house) =>
      sources(house)
        .filter(
          ({ fileName }) => !['http/problem.ts', 'http/api-problems.ts', 'http/server.ts'].includes(fileName),
        )
        .filter(writesProblems)
        .map(({ fileName }) => fileName),
    broken: ['auth/x.ts', `export const type = 'application/problem+json; charset=utf-8';`],
  },
  {
    rule: 'libphonenumber is imported in one file',
    reason: 'two rules of what a phone number is are two buckets for one person',
    check: (house) => {
      const found = importsIn(house).filter(({ to }) => to.includes('libphonenumber'));
      return found.length === 1 ? [] : found.map(told);
    },
    broken: ['auth/x.ts', `import { isValidNumber } from 'libphonenumber-js';`],
  },
  {
    rule: 'ioredis is used in redis/',
    reason: 'one connection, with no queue, and one place that turns its faults into 503',
    check: (house) =>
      importsIn(house)
        .filter(({ from, to }) => to === 'ioredis' && roomOf(from) !== 'redis')
        .map(told),
    broken: ['sessions/x.ts', `import { Redis } from 'ioredis';`],
  },
  {
    rule: 'the files that the serverless edition shares load neither Nest nor Fastify, axios, cockatiel or Redis',
    reason: 'Cloudflare Workers cannot load them, and a cold start on Lambda would load them for nothing',
    check: (house) =>
      sharedImports(house)
        .filter(({ to, ours }) => !ours && !isBuiltIn(to) && !PORTABLE.includes(packageOf(to)))
        .map(told),
    broken: ['challenges/codes.ts', `import { Injectable } from '@nestjs/common';`],
  },
  {
    rule: 'no file of code is longer than 300 lines',
    reason: 'each can be read in two minutes',
    check: (house) =>
      [...house]
        .filter(([path]) => /\.(ts|lua)$/.test(path))
        .map(([path, text]) => [path, text.split('\n').length - 1] as const)
        .filter(([, lines]) => lines > 300)
        .map(([path, lines]) => `${path}: ${lines} lines`),
    broken: ['otp/x.ts', '\n'.repeat(301)],
  },
  {
    rule: 'no file of code but a module is shorter than 10 lines',
    reason: 'a fragment makes readers open two files for one idea',
    check: (house) =>
      [...house]
        .filter(([path]) => /\.(ts|lua)$/.test(path) && !path.endsWith('.module.ts'))
        .map(([path, text]) => [path, text.split('\n').length - 1] as const)
        .filter(([, lines]) => lines < 10)
        .map(([path, lines]) => `${path}: ${lines} lines`),
    broken: ['otp/x.ts', '\n'.repeat(9)],
  },
  {
    rule: 'there are no barrels',
    reason: 'the import says where a thing lives, and nothing is loaded that nobody asked for',
    check: (house) =>
      sources(house)
        .filter(({ fileName, statements }) => {
          const passedOn = statements.filter((node) => ts.isExportDeclaration(node) && node.moduleSpecifier);
          return (
            /(^|\/)index\.ts$/.test(fileName) ||
            (passedOn.length > 0 && passedOn.length === statements.length)
          );
        })
        .map(({ fileName }) => fileName),
    broken: ['otp/all.ts', `export * from './codes';`],
  },
  {
    rule: 'every Lua script states what it does, its keys, arguments and answer, and why it is one',
    reason: 'a script is a contract between replicas of two versions',
    check: brokenHeads,
    broken: ['otp/x.lua', '-- Takes an attempt.\n-- KEYS challenge\n-- Returns 1.\nreturn 1\n'],
  },
  {
    rule: 'every Lua script is loaded by a file beside it',
    reason:
      'a script that nobody runs is not tested, and a name that is misspelt stops the service at its start',
    check: (house) => {
      const loaded = [...house].flatMap(([path, text]) =>
        [...text.matchAll(/Script\.(?:load\(\s*__dirname,\s*'([\w-]+)'|library\(\s*__dirname,)/g)].map(
          ([, name = 'functions']) => posix.join(posix.dirname(path), `${name}.lua`),
        ),
      );
      const scripts = [...house.keys()].filter(
        (path) => path.endsWith('.lua') && path !== 'redis/prelude.lua',
      );
      return [
        ...scripts.filter((path) => !loaded.includes(path)).map((path) => `${path} is not loaded`),
        ...loaded.filter((path) => !scripts.includes(path)).map((path) => `${path} is missing`),
      ];
    },
    broken: ['otp/x.lua', 'return 1\n'],
  },
  {
    rule: 'every import of a package is in package.json, among the dependencies',
    reason: 'it would be there by chance, or be missing where only dependencies are installed',
    check: (house) =>
      importsIn(house)
        .filter(({ to, ours }) => !ours && !isBuiltIn(to))
        .filter(({ to }) => !(packageOf(to) in manifest.dependencies) && !(packageOf(to) in DEVELOPMENT_ONLY))
        .map(told),
    broken: ['otp/x.ts', `import { merge } from 'lodash';`],
  },
  {
    rule: 'Node’s own modules are imported by their full names',
    reason: 'a package of the same name must not be able to take their place',
    check: (house) =>
      importsIn(house)
        .filter(({ to, ours }) => !ours && builtinModules.includes(to) && !to.startsWith('node:'))
        .map(told),
    broken: ['otp/x.ts', `import { readFileSync } from 'fs';`],
  },
  {
    rule: 'no files import each other in a circle, types included',
    reason: 'of two files in a circle neither can be understood first',
    check: circles,
    broken: ['otp/x.ts', `import './x';`],
  },
];

describe('the house', () => {
  test('the check of the architecture reads every source file of src/', () => {
    expect(files.size).toBeGreaterThan(50);
    expect(importsIn(files).length).toBeGreaterThan(200);
    expect(sources(files).every((file) => !/^\s*$/.test(file.text))).toBe(true);
  });

  // One object, so that a failure prints the reason beside what breaks the rule.
  test.each(RULES.map((each) => [each.rule, each] as const))(
    'the source keeps the rule: %s',
    (rule, { reason, check }) => {
      expect({ rule, reason, broken: check(files) }).toEqual({ rule, reason, broken: [] });
    },
  );

  test('every dependency is imported by the source, or listed here with its reason', () => {
    const imported = new Set(importsIn(files).map(({ to }) => packageOf(to)));
    const needed = [...imported, ...Object.keys(NOT_IMPORTED)];
    expect(Object.keys(manifest.dependencies).filter((name) => !needed.includes(name))).toEqual([]);
    // And the lists hold nothing that has become untrue.
    expect(Object.keys(NOT_IMPORTED).filter((name) => !(name in manifest.dependencies))).toEqual([]);
    expect(Object.keys(NOT_IMPORTED).filter((name) => imported.has(name))).toEqual([]);
    expect(Object.keys(DEVELOPMENT_ONLY).filter((name) => !(name in manifest.devDependencies))).toEqual([]);
    expect(Object.keys(DEVELOPMENT_ONLY).filter((name) => !imported.has(name))).toEqual([]);
  });

  test('every dependency of package.json has an exact version', () => {
    const versions = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([]);
  });

  test('the build copies every file of src/ that is not TypeScript', () => {
    const { compilerOptions } = JSON.parse(readFileSync(join(ROOT, 'nest-cli.json'), 'utf8')) as {
      compilerOptions: { assets: { include: string }[] };
    };
    const copied = new Set(['**/*.ts', ...compilerOptions.assets.map(({ include }) => include)]);
    expect([...files.keys()].filter((path) => !copied.has(`**/*${posix.extname(path)}`))).toEqual([]);
  });
});

/** The rules that hold for every file of code, also in serverless/. */
const EVERYWHERE = RULES.filter(({ rule }) =>
  /longer than 300|shorter than 10|barrels|circle|full names/.test(rule),
);
/** What each folder of the edition may import of the edition, and which packages. */
const EDITION_ARROWS: Record<string, { rooms: string[]; packages: RegExp }> = {
  core: { rooms: ['../src'], packages: /^hono$/ },
  worker: { rooms: ['core'], packages: /^cloudflare:workers$/ },
  lambda: {
    rooms: ['core', '../src'],
    packages: /^(hono\/aws-lambda|@aws-sdk\/client-(dynamodb|secrets-manager))$/,
  },
  desk: { rooms: [], packages: /^$/ },
};

describe('the serverless edition', () => {
  it('the check of the architecture reads every source file of serverless/', () => {
    expect(sources(edition).length).toBeGreaterThan(5);
    expect(EVERYWHERE).toHaveLength(5);
    expect(sharedImports(files).length).toBeGreaterThan(0);
  });

  test.each(EVERYWHERE.map((each) => [each.rule, each] as const))(
    'the serverless edition keeps the rule: %s',
    (rule, { reason, check }) => {
      expect({ rule, reason, broken: check(edition) }).toEqual({ rule, reason, broken: [] });
    },
  );

  const strangers = (house: House): string[] =>
    importsIn(house)
      .filter(({ from, to, ours, typeOnly }) => {
        const { rooms, packages } = EDITION_ARROWS[roomOf(from)]!;
        const room = to.startsWith('../src/') ? '../src' : roomOf(to);
        if (ours) return room !== roomOf(from) && !rooms.includes(room) && !(room === '../src' && typeOnly);
        return !isBuiltIn(to) && !packages.test(to);
      })
      .map(told);

  it('each target of the serverless edition stands on the core, and the core knows no target', () => {
    expect(strangers(edition)).toEqual([]);
    expect(strangers(new Map([['core/x.ts', `import '../worker/worker';`]]))).toHaveLength(1);
    expect(strangers(new Map([['core/x.ts', `import '@aws-sdk/client-dynamodb';`]]))).toHaveLength(1);
  });
});

describe('the rules can be broken', () => {
  test.each(RULES.map(({ rule, check, broken }) => [rule, check, broken] as const))(
    'the check of the architecture finds a broken rule: %s',
    (_, check, [path, text]) => {
      expect(check(new Map([...files, [path, text]])).length).toBeGreaterThan(check(files).length);
    },
  );

  test.each([
    `import { x } from '../auth/answers';`,
    `import type { x } from '../auth/answers';`,
    `import { type x } from '../auth/answers';`,
    `import '../auth/answers';`,
    `export { x } from '../auth/answers';`,
    `export * from '../auth/answers';`,
    `export const x = import('../auth/answers');`,
    `export const x = require('../auth/answers');`,
    `import x = require('../auth/answers');`,
    `export type X = import('../auth/answers').MeAnswer;`,
    `import { x } from '../auth/answers.js';`,
    `import { x } from '../auth/answers';`,
  ])('the check of the architecture sees an import in %s', (text) => {
    const [arrows] = RULES;
    expect(arrows!.check(new Map([['otp/x.ts', text]]))).toHaveLength(1);
  });

  test.each([
    'process.env.X',
    "process.env['X']",
    "process['env']",
    'globalThis.process.env.X',
    '({ ...process.env })',
  ])('the check of the architecture sees the environment read by %s', (expression) => {
    expect(readsEnvironment(parse('otp/x.ts', `export const x = ${expression};`))).toBe(true);
  });

  test('the check of the architecture takes no comment for code', () => {
    const text = `// process.env.X, import '../auth/x', 'application/problem+json'\nexport const y = 1;\n`;
    expect(readsEnvironment(parse('otp/x.ts', text))).toBe(false);
    expect(writesProblems(parse('otp/x.ts', text))).toBe(false);
    expect(importsOf(parse('otp/x.ts', text))).toEqual([]);
  });

  test('the check of the architecture finds an import circle over several files', () => {
    const house: House = new Map([
      ['otp/a.ts', `import './b';`],
      ['otp/b.ts', `import './c';`],
      ['otp/c.ts', `import type { A } from './a';`],
      ['otp/d.ts', `import './a';`],
    ]);
    expect(circles(house)).toEqual(['otp/a.ts -> otp/b.ts -> otp/c.ts -> otp/a.ts']);
  });
});
