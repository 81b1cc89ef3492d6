import type { Rule } from './rules';

/** One thing that an answer must say: at this path stands exactly this value. */
export interface Condition {
  readonly path: readonly string[];
  readonly equals: string | number | boolean | null;
}

// A text in quotes may hold commas, so the list is read from its beginning and not split.
const NEXT = / *([\w-]+(?:\.[\w-]+)*) *= *("(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null) *(,|$)/y;
/** Members that every object inherits: a condition on one of them would hold for every answer. */
const INHERITED = ['__proto__', 'constructor', 'prototype'];

/** Comma-separated `path=JSON value`, all of which must hold, such as `success=true,data.status="sent"`. */
export const conditions: Rule<readonly Condition[]> = {
  expected:
    'a comma-separated list of path=value such as data.verified=true, each value a JSON text, number, true, false or null',
  read(text) {
    const found: Condition[] = [];
    for (let at = 0; ; at = NEXT.lastIndex) {
      NEXT.lastIndex = at;
      const [, path = '', value = '', end] = NEXT.exec(text) ?? [];
      const condition = readCondition(path.split('.'), value);
      if (condition === undefined) return undefined;
      found.push(condition);
      if (end === '') return found;
    }
  },
};

function readCondition(path: readonly string[], value: string): Condition | undefined {
  if (path.some((name) => INHERITED.includes(name))) return undefined;
  try {
    return { path, equals: JSON.parse(value) as Condition['equals'] };
  } catch {
    return undefined;
  }
}
