import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { client } from '../support/client';

// The parts of the client that need no service. The service is in test/e2e/client.test.ts, browsers are in test/browser.

const SOURCES = join(__dirname, '../../client/src');
const { toE164, memoryStore, secureStore, asyncStore, mmkvStore, localStore, readOtpFromSms, OtpLoginError } =
  client();

/** The size of these entries as one file for a browser, minified and compressed. */
async function sizeOf(entries: string[], external: string[]): Promise<number> {
  const contents = entries.map((entry) => `export * from './${entry}.ts';`).join('\n');
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: SOURCES },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    external,
    write: false,
  });
  const size = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  process.stdout.write(`${entries.join(', ')}: ${String(size)} bytes\n`);
  return size;
}

it('toE164 reads every usual spelling of an Indian mobile number', () => {
  const spellings = [
    '9876543210',
    ' 98765 43210 ',
    '098765-43210',
    '98765.43210',
    '(+91) 98765 43210',
    '+91-9876543210',
    '+91 (0) 98765 43210',
    '919876543210',
    '00919876543210',
    '\u202a+91 98765\u00a043210\u202c',
    '98765–43210',
  ];
  expect(spellings.filter((spelling) => toE164(spelling) !== '+919876543210')).toEqual([]);
  // A number that begins with 91 is no number with a country code.
  expect(toE164('9198765432')).toBe('+919198765432');
});

it('toE164 refuses what is no Indian mobile number', () => {
  const others = [
    '',
    '12345',
    '5876543210',
    '98765432101',
    '+1 987 654 3210',
    '+9876543210',
    '98765x43210',
    'call me',
  ];
  expect(others.filter((other) => toE164(other) !== undefined)).toEqual([]);
});

it('readOtpFromSms gives nothing where there is no WebOTP', async () => {
  expect(await readOtpFromSms(new AbortController().signal)).toBeUndefined();
});

it('an error of the client carries the fields of the problem, and is an Error with a name', () => {
  const error = new OtpLoginError('otp_incorrect', 400, {
    detail: 'The code is wrong',
    attemptsLeft: 2,
  } as object);
  expect(error).toMatchObject({ name: 'OtpLoginError', code: 'otp_incorrect', status: 400, attemptsLeft: 2 });
  expect(error.message).toBe('The code is wrong');
});

it('the stores of React Native and of a process without localStorage keep, replace and remove a string', async () => {
  const values = new Map<string, string>();
  const remove = (key: string): Promise<boolean> => Promise.resolve(values.delete(key));
  const set = (key: string, value: string): Promise<unknown> => Promise.resolve(values.set(key, value));
  const get = (key: string): Promise<string | null> => Promise.resolve(values.get(key) ?? null);
  const stores = [
    memoryStore(),
    localStore(),
    secureStore({ getItemAsync: get, setItemAsync: set, deleteItemAsync: remove }),
    asyncStore({ getItem: get, setItem: set, removeItem: remove }),
    mmkvStore({
      getString: (key: string) => values.get(key),
      set: (key: string, value: string) => values.set(key, value),
      delete: (key: string) => values.delete(key),
    }),
  ];
  for (const store of stores) {
    expect(await store.get('key')).toBeNull();
    await store.set('key', 'one');
    await store.set('key', 'two');
    expect(await store.get('key')).toBe('two');
    await store.remove('key');
    expect(await store.get('key')).toBeNull();
  }
});

it('the core of the client is under 3 KB', async () => {
  // The solver is a file of its own, which browsers load when a proof of work is asked for.
  expect(await sizeOf(['index'], ['./pow.js'])).toBeLessThan(3 * 1_024);
});

it('all entries of the client in one file are under 4.7 KB', async () => {
  expect(await sizeOf(['index', 'pow', 'flow', 'react', 'stores'], ['react'])).toBeLessThan(4.7 * 1_024);
});

it('every public function of the client has a docstring with an example', () => {
  const missing = ['index', 'phone', 'web-otp', 'pow', 'flow', 'react', 'stores', 'errors'].flatMap((file) =>
    [
      ...readFileSync(join(SOURCES, `${file}.ts`), 'utf8').matchAll(
        /(\/\*\*(?:(?!\*\/)[^])*\*\/\n)?export (?:async )?(?:function|const|class) (\w+)/g,
      ),
    ]
      .filter(([, docstring]) => !docstring?.includes('@example'))
      .map(([, , name]) => `${file}: ${name ?? ''}`),
  );
  // The page of the service uses it, and no entry exports it.
  expect(missing).toEqual(['phone: asciiDigits']);
});
