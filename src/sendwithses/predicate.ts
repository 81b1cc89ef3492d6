/** One thing that an answer must say: at this path of own properties stands exactly this value. */
export interface Condition {
  path: readonly string[];
  equals: string | number | boolean | null;
}

/**
 * Whether the answer says all of it. No type is turned into another, and only what the answer itself holds counts, not what
 * every object or text inherits: a `"true"`, a 1 or a `constructor` is not `true`.
 */
export function meets(body: unknown, conditions: readonly Condition[]): boolean {
  return (
    conditions.length > 0 &&
    conditions.every(({ path, equals }) => {
      let value: unknown = body;
      for (const name of path) {
        if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return false;
        value = (value as Record<string, unknown>)[name];
      }
      return value === equals;
    })
  );
}
