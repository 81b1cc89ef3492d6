// How a module of the pages is compiled: for `npm run build`, and for tests.
import ts from 'typescript';

/** JavaScript without types, comments and indentation: what is served is as small as possible. */
export function compilePageModule(text) {
  const { outputText } = ts.transpileModule(inlined(text), {
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ES2022,
      removeComments: true,
      isolatedModules: true,
    },
  });
  return outputText.replace(/^\s+/gm, '').replace(/([;{,(])\n/g, '$1');
}

/** Numbers in place of a `const enum`, which the compiler keeps when it sees one module alone. */
function inlined(text) {
  const [declaration, name, members] = /const enum (\w+) \{([^}]*)\}/.exec(text) ?? [];
  if (!declaration) return text;
  const values = new Map([...members.matchAll(/(\w+) = ([\d_]+)/g)].map(([, key, value]) => [key, value]));
  return text
    .replace(declaration, '')
    .replace(new RegExp(`\\b${name}\\.(\\w+)`, 'g'), (_, key) => values.get(key));
}
