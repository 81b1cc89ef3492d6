import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ApiError, ERROR_CODES, type ErrorCode } from '../../src/errors/api-error';
import { problemBody } from '../../src/http/problem';

const codes = Object.keys(ERROR_CODES) as ErrorCode[];
const root = join(__dirname, '../..');

describe('the table of error codes', () => {
  test('the table of error codes is the one in docs/api.md, with the same statuses in the same order', () => {
    const page = readFileSync(join(root, 'docs/api.md'), 'utf8');
    const chapter = page.slice(page.indexOf('## Errors'));
    const rows = [...chapter.matchAll(/^\| `(\w+)` \| (\d+) \|/gm)].map(([, code, status]) => [
      code,
      Number(status),
    ]);
    expect(rows.sort()).toEqual(codes.map((code) => [code, ERROR_CODES[code].status]).sort());
  });

  test('docs/frontend.md says of every error code what it means for the page and for the session', () => {
    const page = readFileSync(join(root, 'docs/frontend.md'), 'utf8');
    const rows = [
      ...page.matchAll(/^\| `(\w+)` \| \S[^|]+ \| (?:stays|none yet|there was none|ended[^|]*) \|$/gm),
    ];
    expect(rows.map(([, code]) => code).sort()).toEqual([...codes].sort());
  });

  test.each(codes)('the error code %s is produced by a test over HTTP', (code) => {
    const folder = join(root, 'test/e2e');
    const tests = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'));
    expect(tests.some((text) => text.includes(`'${code}'`))).toBe(true);
  });
});

describe('an error', () => {
  test('an error response shows nothing of its cause', () => {
    const error = new ApiError('internal_error', { cause: new Error('canary') });
    expect(JSON.stringify(problemBody(error))).not.toContain('canary');
  });

  test.each(codes.filter((code) => [429, 503].includes(ERROR_CODES[code].status)))(
    'the error %s has a Retry-After in whole seconds, at least one',
    (code) => {
      expect(new ApiError(code).retryAfterSeconds).toBe(1);
      expect(new ApiError(code, { retryAfterSeconds: 0.2 }).retryAfterSeconds).toBe(1);
      expect(new ApiError(code, { retryAfterSeconds: 29.001 }).retryAfterSeconds).toBe(30);
    },
  );
});
