import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

// A title is read in a report of CI, by itself: it is a sentence that names its subject.

const TESTS = join(__dirname, '..');
const FEWEST_WORDS = 4;
const UNWANTED = ['should', 'who', 'whoever', 'nobody', 'somebody', 'anybody'];

/** Also test/support: some of it makes the tests of several files. */
const testFiles = readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .sort();

/** Whether this is `it`, `it.only`, `it.each(rows)` or one of those of `test`. */
function makesTests(callee: ts.Expression): boolean {
  if (ts.isIdentifier(callee)) return ['it', 'test'].includes(callee.text);
  if (ts.isPropertyAccessExpression(callee)) return makesTests(callee.expression);
  if (ts.isCallExpression(callee)) return makesTests(callee.expression);
  return ts.isTaggedTemplateExpression(callee) && makesTests(callee.tag);
}

/** The text of a title, in which a value that is put in is one word. */
function textOf(title: ts.Expression, constants: Map<string, ts.Expression>): string {
  if (ts.isStringLiteralLike(title)) return title.text;
  if (ts.isTemplateExpression(title))
    return title.head.text + title.templateSpans.map(({ literal }) => `value${literal.text}`).join('');
  const constant = ts.isIdentifier(title) ? constants.get(title.text) : undefined;
  return constant === undefined ? 'unreadable' : textOf(constant, constants);
}

/** The titles of all tests of a file. */
function titlesIn(text: string): string[] {
  const file = ts.createSourceFile('x.test.ts', text, ts.ScriptTarget.Latest, true);
  const constants = new Map<string, ts.Expression>();
  const titles: ts.Expression[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && node.initializer)
      constants.set(node.name.text, node.initializer);
    if (ts.isCallExpression(node) && makesTests(node.expression)) {
      const [title, body] = node.arguments;
      // Of `it.each(rows)` the call with the rows has no body.
      if (title && body && (ts.isStringLiteralLike(title) || ts.isFunctionLike(body))) titles.push(title);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return titles.map((title) => textOf(title, constants));
}

function faultsOf(title: string): string[] {
  const words = title.split(/\s+/).filter((word) => word !== '');
  const bare = words.map((word) => word.toLowerCase().replace(/^\W+|(['’]\w+)?\W*$/g, ''));
  return [
    ...(words.length < FEWEST_WORDS ? [`"${title}" has fewer than ${FEWEST_WORDS} words`] : []),
    ...UNWANTED.filter((word) => bare.includes(word)).map((word) => `"${title}" says "${word}"`),
  ];
}

test('the check of the titles finds every test file', () => {
  expect(testFiles.length).toBeGreaterThan(50);
  expect(testFiles).toContain(join('unit', 'titles.test.ts'));
});

test('every test title is a whole sentence in plain words', () => {
  const faults: Record<string, string[]> = {};
  for (const path of testFiles) {
    const found = titlesIn(readFileSync(join(TESTS, path), 'utf8')).flatMap(faultsOf);
    if (found.length > 0) faults[path] = found;
  }
  expect(faults).toEqual({});
});

test.each([
  ["it('works', () => {})", ['"works" has fewer than 4 words']],
  ["test.each([1])('%s is good', () => {})", ['"%s is good" has fewer than 4 words']],
  [
    "it('the code that nobody’s app has is unknown', () => {})",
    ['"the code that nobody’s app has is unknown" says "nobody"'],
  ],
  [
    "it('a person who waits, should wait', () => {})",
    ['should', 'who'].map((word) => `"a person who waits, should wait" says "${word}"`),
  ],
  ['it(title, () => {})', ['"unreadable" has fewer than 4 words']],
  ["const TITLE = 'a title that is known'; it(TITLE, () => {})", []],
  ['it.each(rows)(`a code of ${digits} digits`, () => {})', []],
])('the check of the titles judges the text %s', (text, faults) => {
  expect(titlesIn(text).flatMap(faultsOf)).toEqual(faults);
});
