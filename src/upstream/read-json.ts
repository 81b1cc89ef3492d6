/**
 * The JSON value of a text, or the text itself when it is not JSON.
 *
 * JSON that names a field twice is not JSON either (RFC 8259, section 4: its meaning is unpredictable). `JSON.parse` takes the
 * last one, so `{"verified": false, "verified": true}` would confirm a code.
 */
export function readJson(text: string): unknown {
  try {
    const value = JSON.parse(text) as unknown;
    return namesTwice(text) ? text : value;
  } catch {
    return text;
  }
}

// In valid JSON nothing but an object's ends, its names and its texts can match, and only a name is before a colon.
const TOKENS = /[{}]|("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?/g;

function namesTwice(json: string): boolean {
  const open: Set<unknown>[] = [];
  for (const [token, text, colon] of json.matchAll(TOKENS)) {
    if (token === '{') open.push(new Set());
    else if (token === '}') open.pop();
    else if (text !== undefined && colon !== undefined) {
      // As it is read, because "verif\u0069ed" is the same name.
      const name: unknown = JSON.parse(text);
      const names = open.at(-1);
      if (names?.has(name)) return true;
      names?.add(name);
    }
  }
  return false;
}
