import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A script with what it is run on. */
export interface ScriptCall {
  script: Script;
  keys: string[];
  args: (string | number)[];
}

const PRELUDE = readFileSync(join(__dirname, 'prelude.lua'), 'utf8');

/** The Lua functions of a room, for scripts of other rooms that must decide several things in one step. */
interface LuaLibrary {
  /** The room. */
  readonly name: string;
  /** The functions that scripts may call. */
  readonly functions: readonly string[];
  readonly source: string;
}

/** A Lua script: one atomic step over keys of one slot. Its head states its keys, arguments and answer. */
export class Script {
  readonly source: string;
  readonly sha1: string;

  private constructor(
    readonly name: string,
    body: string,
  ) {
    this.source = `${PRELUDE}\n${body}`;
    this.sha1 = createHash('sha1').update(this.source).digest('hex');
  }

  /**
   * Reads `name.lua` in the folder, and puts the libraries of other rooms that it calls before it. Throws at the start of the
   * service when the file is missing from the build.
   */
  static load(folder: string, name: string, ...libraries: LuaLibrary[]): Script {
    const sources = libraries.map(({ source }) => source);
    return new Script(name, [...sources, readFileSync(join(folder, `${name}.lua`), 'utf8')].join('\n'));
  }

  /** Reads `functions.lua` of the folder, and declares the functions in it that scripts may call. */
  static library(folder: string, ...functions: string[]): LuaLibrary {
    const source = readFileSync(join(folder, 'functions.lua'), 'utf8');
    return { name: basename(folder), functions, source };
  }
}

/** The limits as the scripts read them: how many, then count and milliseconds of each. */
export function limitArguments(limits: readonly { count: number; seconds: number }[]): number[] {
  return [limits.length, ...limits.flatMap(({ count, seconds }) => [count, seconds * 1_000])];
}
