import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A script with what it is run on. */
export interface ScriptCall {
  script: Script;
  keys: string[];
  args: (string | number)[];
}

const PRELUDE = readFileSync(join(__dirname, 'prelude.lua'), 'utf8');

/** A Lua script: one atomic step over keys of one slot. Its head says what its keys, arguments and answer are. */
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
   * Reads `name.lua` that lies beside its user, with the functions of other rooms that take part in its step. Throws at
   * start when it is missing from the build.
   */
  static load(folder: string, name: string, ...functions: string[]): Script {
    return new Script(name, [...functions, readFileSync(join(folder, `${name}.lua`), 'utf8')].join('\n'));
  }

  /** A room's `functions.lua`: its part of scripts that must decide several things in one step. */
  static functions(folder: string): string {
    return readFileSync(join(folder, 'functions.lua'), 'utf8');
  }
}

/** The limits as the scripts read them: how many, then count and milliseconds of each. */
export function limitArguments(limits: readonly { count: number; seconds: number }[]): number[] {
  return [limits.length, ...limits.flatMap(({ count, seconds }) => [count, seconds * 1_000])];
}
