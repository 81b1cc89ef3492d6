import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

// A title is read in a report of CI, by itself: it is a sentence that names its subject.

const TESTS = join(__dirname, '..');
const FEWEST_WORDS = 4;
const UNWANTED = ['should', 'who', 'whoever', 'nobody', 'somebody', 'anybody'];

const testFiles = readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.test.ts'))
  .sort();

/** The function that a call such as `it.each(rows)(title, ...)` is made of. */
function calledName(expression: ts.Expression): string {
  if (ts.isIdentifier(expression)) return expression.text;
  if (ts.isPropertyAccessExpression(expression) || ts.isCallExpression(expression))
    return calledName(expression.expression);
  return ts.isTaggedTemplateExpression(expression) ? calledName(expression.tag) : '';
}

/** The text of a title, in which a value that is put in is one word. */
function textOf(title: ts.Expression, file: ts.SourceFile): string {
  if (ts.isStringLiteralLike(title)) return title.text;
  if (!ts.isTemplateExpression(title)) return `computed: ${title.getText(file)}`;
  return title.head.text + title.templateSpans.map(({ literal }) => `value${literal.text}`).join('');
}

/** The titles of all tests of a file. Of `it.each(rows)` the call with the rows has none. */
function titlesIn(text: string): string[] {
  const file = ts.createSourceFile('x.test.ts', text, ts.ScriptTarget.Latest, true);
  const titles: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && ['it', 'test'].includes(calledName(node.expression))) {
      const [title] = node.arguments;
      const givesRows = ts.isCallExpression(node.parent) && node.parent.expression === node;
      if (title !== undefined && !givesRows) titles.push(textOf(title, file));
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return titles;
}

function faultsOf(title: string): string[] {
  const words = title.split(/\s+/).filter((word) => word !== '');
  const bare = words.map((word) => word.toLowerCase().replace(/^\W+|(['’]\w+)?\W*$/g, ''));
  return [
    ...(words.length < FEWEST_WORDS ? [`"${title}" has fewer than ${FEWEST_WORDS} words`] : []),
    ...UNWANTED.filter((word) => bare.includes(word)).map((word) => `"${title}" says "${word}"`),
    ...(title.startsWith('computed: ') ? [`"${title}" cannot be read`] : []),
  ];
}

test('the check of the titles finds every test file', () => {
  expect(testFiles.length).toBeGreaterThan(50);
  expect(testFiles).toContain(join('unit', 'titles.test.ts'));
});

test('every test title is a whole sentence in plain words', () => {
  const faults: Record<string, string[]> = {};
  for (const path of testFiles) {
    const titles = titlesIn(readFileSync(join(TESTS, path), 'utf8'));
    const found = titles.length === 0 ? ['it has no test'] : titles.flatMap(faultsOf);
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
  ['it(title, () => {})', ['"computed: title" has fewer than 4 words', '"computed: title" cannot be read']],
  ['it.each(rows)(`a code of ${digits} digits`, () => {})', []],
])('the check of the titles judges the text %s', (text, faults) => {
  expect(titlesIn(text).flatMap(faultsOf)).toEqual(faults);
});
