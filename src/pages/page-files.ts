import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, gzip } from 'node:zlib';

const compressors = { br: promisify(brotliCompress), gzip: promisify(gzip) };
export type Encoding = keyof typeof compressors | 'identity';

const TYPES: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  json: 'application/json; charset=utf-8',
  png: 'image/png',
  svg: 'image/svg+xml',
};
/** `from './page.js'`, `import './page.js'` and `import('./pow.js')` of compiled modules. */
const IMPORTS = /(from\s*|import\s*|import\()(["'])(@otp-login\/client(?:\/\w+)?|\.\/[\w-]+\.js)\2/g;

/** One file as browsers get it. Its name holds a hash of its content, so it may be kept for ever. */
export interface PageFile {
  readonly name: string;
  readonly type: string;
  /** The files that a browser loads with it. */
  readonly imports: readonly string[];
  /** Its content in an encoding, compressed once. */
  content(encoding: Encoding): Promise<Buffer> | Buffer;
}

/** The files of /pages: scripts, styles, texts and the logo, all known at start. No request reaches the disk. */
export class PageFiles {
  readonly #byName = new Map<string, PageFile>();
  readonly #byPath = new Map<string, PageFile>();

  /** @param folder where the compiled modules lie, with those of the client in `client/` */
  constructor(private readonly folder: string) {}

  /** The file of this name, hash included. */
  find(name: string): PageFile | undefined {
    return this.#byName.get(name);
  }

  /** Adds a file, and answers its name. */
  add(name: string, extension: string, bytes: Buffer, imports: readonly string[] = []): PageFile {
    const hash = createHash('sha256').update(bytes).digest('base64url').slice(0, 8);
    const compressed = new Map<Encoding, Promise<Buffer>>();
    const file: PageFile = {
      name: `${name}.${hash}.${extension}`,
      type: TYPES[extension] ?? 'application/octet-stream',
      imports,
      content(encoding) {
        if (encoding === 'identity') return bytes;
        const found = compressed.get(encoding) ?? compressors[encoding](bytes);
        compressed.set(encoding, found);
        return found;
      },
    };
    this.#byName.set(file.name, file);
    return file;
  }

  /** Adds a compiled module and, before it, those that it imports: their names stand in its text. */
  addModule(path: string): PageFile {
    const known = this.#byPath.get(path);
    if (known) return known;
    const imports = new Set<string>();
    const text = readFileSync(join(this.folder, path), 'utf8');
    const rewritten = text.replace(IMPORTS, (_, keyword: string, quote: string, to: string) => {
      const file = this.addModule(pathOf(path, to));
      // What is imported on demand is not loaded with the page.
      if (keyword !== 'import(') for (const name of [...file.imports, file.name]) imports.add(name);
      return `${keyword}${quote}./${file.name}${quote}`;
    });
    const name = path.replace(/\.js$/, '').replace('/', '-');
    const file = this.add(name, 'js', Buffer.from(rewritten), [...imports]);
    this.#byPath.set(path, file);
    return file;
  }

  /** The texts of a language by its tag, from `languages/hi.json`. */
  static languages(folder: string): Map<string, Buffer> {
    const names = readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .sort();
    // Without the spaces of the source.
    const compact = (name: string): Buffer =>
      Buffer.from(JSON.stringify(JSON.parse(readFileSync(join(folder, name), 'utf8'))));
    return new Map(names.map((name) => [name.replace('.json', ''), compact(name)]));
  }
}

function pathOf(from: string, to: string): string {
  const [, entry = 'index'] = /^@otp-login\/client(?:\/(\w+))?$/.exec(to) ?? [];
  if (to.startsWith('@')) return `client/${entry}.js`;
  return from.startsWith('client/') ? `client/${to.slice(2)}` : to.slice(2);
}

/** The best encoding that the client takes (RFC 9110 section 12.5.3). */
export function encodingFor(accepted = ''): Encoding {
  const takes = (name: string): boolean =>
    accepted.split(',').some((part) => {
      const [coding = '', ...parameters] = part
        .trim()
        .toLowerCase()
        .split(/\s*;\s*/);
      return coding === name && !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter));
    });
  return takes('br') ? 'br' : takes('gzip') ? 'gzip' : 'identity';
}
