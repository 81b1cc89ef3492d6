// How a module of the pages is compiled: for `npm run build`, and for tests.
import ts from 'typescript';

/** JavaScript without types, comments and indentation: what is served is as small as possible. */
export function compilePageModule(text) {
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ES2022,
      removeComments: true,
      isolatedModules: true,
    },
  });
  return outputText.replace(/^\s+/gm, '');
}
