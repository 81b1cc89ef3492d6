import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import ts from 'typescript';

const ROOT = join(__dirname, '../..');

/** A piece of text that people read, and its place. */
export interface Prose {
  place: string;
  text: string;
}

function filesIn(path: string): string[] {
  const absolute = join(ROOT, path);
  if (!statSync(absolute).isDirectory()) return [path];
  return readdirSync(absolute, { recursive: true, encoding: 'utf8' })
    .map((each) => join(path, each))
    .filter((each) => !/(^|\/)(node_modules|dist)\//.test(each))
    .filter((each) => statSync(join(ROOT, each)).isFile());
}

/** Comments and texts of TypeScript. A value that is put into a text is one word. */
export function proseOfTypeScript(text: string, place: string): Prose[] {
  const file = ts.createSourceFile('x.ts', text, ts.ScriptTarget.Latest, true);
  const found: Prose[] = [];
  const add = (at: number, each: string): void => {
    found.push({ place: `${place}:${file.getLineAndCharacterOfPosition(at).line + 1}`, text: each });
  };
  const seen = new Set<number>();
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) return;
    for (const { pos, end } of ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []) {
      if (seen.has(pos)) continue;
      seen.add(pos);
      add(pos, text.slice(pos, end).replace(/^\s*(?:\/\*\*?|\*\/|\*|\/\/)|\*\/$/gm, ' '));
    }
    // One word is a name or a key, not prose.
    if (ts.isStringLiteralLike(node) && /\s/.test(node.text)) add(node.getStart(), node.text);
    if (ts.isTemplateExpression(node))
      add(
        node.getStart(),
        node.head.text + node.templateSpans.map(({ literal }) => `value${literal.text}`).join(''),
      );
    ts.forEachChild(node, visit);
  };
  visit(file);
  const line = /(?<![:'"`\w])\/\/(.*)$/;
  text.split('\n').forEach((each, i) => {
    const [, comment] = line.exec(each) ?? [];
    const at = file.getPositionOfLineAndCharacter(i, 0) + each.indexOf('//');
    if (comment !== undefined && !seen.has(at)) add(at, comment);
  });
  return mergeLines(found);
}

/** Comments of several lines are one text, in which sentences go on over the end of a line. */
function mergeLines(prose: Prose[]): Prose[] {
  const sorted = [...prose].sort((a, b) => lineOf(a) - lineOf(b));
  return sorted.reduce<Prose[]>((merged, each) => {
    const last = merged.at(-1);
    if (last && each.text.startsWith(' ') && lineOf(each) === lineOf(last) + last.text.split('\n').length)
      last.text += `\n${each.text}`;
    else merged.push({ ...each });
    return merged;
  }, []);
}
const lineOf = ({ place }: Prose): number => Number(place.split(':').at(-1));

/** The comments of a file whose comments begin with this sign, one text for each block of lines. */
function proseOfComments(text: string, place: string, sign: string): Prose[] {
  const lines = text.split('\n').map((each) => each.trim());
  const found = lines.flatMap((each, i) =>
    each.startsWith(sign) ? [{ place: `${place}:${i + 1}`, text: ` ${each.slice(sign.length)}` }] : [],
  );
  return mergeLines(found);
}

/** The text of Markdown without code, links' addresses and HTML. */
function proseOfMarkdown(text: string, place: string): Prose[] {
  const lines = text.replace(/^```[\s\S]*?^```/gm, (block) => block.replace(/[^\n]/g, '')).split('\n');
  return lines.map((each, i) => ({
    place: `${place}:${i + 1}`,
    text: each
      .replace(/`[^`]*`/g, 'code')
      .replace(/\]\([^)]*\)/g, ']')
      .replace(/<[^>]*>/g, ' '),
  }));
}

/** Everything that people read in this repository, except test titles, which titles.test.ts checks. */
export function allProse(): Prose[] {
  return [
    'README.md',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    '.env.example',
    'Dockerfile',
    'docs',
    'deploy',
    'src',
    'scripts',
    'serverless',
    'tools',
  ]
    .flatMap(filesIn)
    .flatMap((path) => {
      const place = relative('.', path);
      const text = (): string => readFileSync(join(ROOT, path), 'utf8');
      if (/\.(ts|mjs|cjs)$/.test(path)) return proseOfTypeScript(text(), place);
      if (path.endsWith('.lua')) return proseOfComments(text(), place, '--');
      if (/\.(ya?ml|env|example|sh)$|Dockerfile$/.test(path)) return proseOfComments(text(), place, '#');
      if (path.endsWith('.md')) return proseOfMarkdown(text(), place);
      return [];
    });
}

const PRONOUN =
  /\b(?:who|whom|whose|whoever|whomever|whatever|nobody|no one|somebody|someone|anybody|anyone|everybody|everyone)(?:['’]s)?\b/gi;
/** At the start of a text or after a full stop, colon or semicolon. */
const OPENING =
  /(?:^|[.;:!?]\s+|\|\s+)(?:What|Who|Whoever|Of|Also|Else|Nor|Nobody)\b(?!\s+(?:is|are|it|to do)\b[^.]*\?)/g;

/** The places of pronouns that name no actor, and of clauses that open with a word that makes a riddle of the sentence. */
export function faultsOfProse({ place, text }: Prose): string[] {
  const plain = text.replace(/`[^`]*`/g, 'code').trim();
  return [...(plain.match(PRONOUN) ?? []), ...(plain.match(OPENING) ?? [])].map(
    (fault) => `${place}: ${fault.trim()}`,
  );
}

export function wordsOf({ text }: Prose): number {
  return text.match(/[a-z][\w’'-]*/gi)?.length ?? 0;
}
