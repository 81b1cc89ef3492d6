import fc from 'fast-check';

// Answers that are nearly the one that opens a session, and what they are worth by a reading of its own.

/** One answer as its bytes go onto the wire, and what it says to whoever reads HTTP by the letter. */
export interface HostileAnswer {
  status: number;
  headers: [name: string, value: string][];
  framing: Framing;
  body: Buffer;
}

/** How the end of the body is told. */
type Framing = 'length' | 'chunks' | 'close' | 'too long' | 'two lengths' | 'length and chunks' | 'followed';
const READABLE: readonly Framing[] = ['length', 'chunks', 'close'];

export function onTheWire({ status, headers, framing, body }: HostileAnswer): Buffer {
  const length = (bytes: number): string => `Content-Length: ${bytes}\r\n`;
  const chunked = 'Transfer-Encoding: chunked\r\n';
  const ends: Record<Framing, string> = {
    length: length(body.length),
    chunks: chunked,
    close: '',
    'too long': length(body.length + 7),
    'two lengths': length(body.length) + length(body.length + 1),
    'length and chunks': length(body.length) + chunked,
    followed: length(body.length),
  };
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  const head = Buffer.from(`HTTP/1.1 ${status} x\r\n${lines}${ends[framing]}\r\n`, 'latin1');
  if (framing === 'followed')
    return Buffer.concat([head, body, head, Buffer.from('{"data":{"verified":true}}')]);
  if (!ends[framing].includes('chunked')) return Buffer.concat([head, body]);
  const half = body.length >> 1;
  const chunks = [body.subarray(0, half), body.subarray(half)]
    .filter((piece) => piece.length > 0)
    .flatMap((piece) => [Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]);
  return Buffer.concat([head, ...chunks, Buffer.from('0\r\n\r\n')]);
}

const VERIFIED = [
  'true',
  'true',
  'true',
  'true',
  'false',
  'null',
  '"true"',
  '1',
  '[true]',
  '{}',
  '{"verified":true}',
  'TRUE',
];
const VALUES = [
  ...VERIFIED,
  '0',
  '""',
  '"x"',
  '[]',
  '-0',
  '1e999',
  'NaN',
  '9'.repeat(400),
  '200',
  '401',
  '"200"',
  '{"code":"ODD"}',
];
const CODES = [
  'VALIDATION_ERROR',
  'INSUFFICIENT_BALANCE',
  'OTP_SEND_FAILED',
  'UNAUTHORIZED',
  'NOT_FOUND',
  'INVALID_OTP',
];
const ERRORS = CODES.map((code) => `{"code":"${code}","message":"variables"}`);
const RIGHT = '"data":{"verified":true}';

/** Written by hand, because no object holds a name twice. */
const objectOf = (pairs: fc.Arbitrary<string>, maxLength: number): fc.Arbitrary<string> =>
  fc.array(pairs, { maxLength }).map((list) => `{${list.join()}}`);
const pair = (names: string[], values: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...names), values).map(([name, value]) => `"${name}":${value}`);
const value = fc.constantFrom(...VALUES);
const VERIFIED_NAMES = [
  'verified',
  'verified',
  'verified',
  'Verified',
  'verif\\u0069ed',
  '__proto__',
  'constructor',
];

const data = fc.oneof(
  { weight: 4, arbitrary: fc.constant('{"verified":true}') },
  {
    weight: 6,
    arbitrary: objectOf(
      fc.oneof(
        pair(VERIFIED_NAMES, fc.constantFrom(...VERIFIED)),
        pair(['success', 'error', 'requestId', 'attemptsLeft', 'x'], value),
      ),
      3,
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom('[{"verified":true}]', '"{\\"verified\\":true}"', 'true', 'null') },
);
const envelope = fc.oneof(
  { weight: 4, arbitrary: pair(['data', 'data', 'data', '__proto__', 'result', 'd\\u0061ta'], data) },
  {
    weight: 1,
    arbitrary: pair(['success', 'success', 'verified', 'statusCode', 'error', 'requestId'], value),
  },
  { weight: 1, arbitrary: fc.constantFrom(...ERRORS).map((error) => `"error":${error}`) },
  { weight: 1, arbitrary: fc.constant('"success":true,"statusCode":200') },
);
const texts = fc.oneof(
  { weight: 3, arbitrary: fc.constant(`{${RIGHT}}`) },
  { weight: 8, arbitrary: objectOf(envelope, 4) },
  { weight: 4, arbitrary: objectOf(envelope, 3).map((text) => text.replace(/^\{(?=.)/, `{${RIGHT},`)) },
  { weight: 1, arbitrary: fc.json({ maxDepth: 3 }) },
  { weight: 1, arbitrary: objectOf(envelope, 2).map((text) => `[${text}]`) },
  { weight: 1, arbitrary: objectOf(envelope, 2).map((text) => JSON.stringify(text)) },
);

const DEBRIS = [
  '\ufeff',
  '\0',
  ' ',
  '\n',
  '//',
  ")]}'\n",
  ',',
  '}',
  '"',
  '\u00a0',
  '\\',
  '{"data":{"verified":true}}',
];
const bodies: fc.Arbitrary<Buffer> = texts.chain((text) => {
  const bytes = Buffer.from(text);
  const place = fc.nat(bytes.length);
  const spliced = (at: number, piece: Uint8Array): Buffer =>
    Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
  return fc.oneof(
    { weight: 12, arbitrary: fc.constant(bytes) },
    { weight: 1, arbitrary: place.map((end) => bytes.subarray(0, end)) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(fc.oneof(place, fc.constantFrom(0, bytes.length)), fc.constantFrom(...DEBRIS))
        .map(([at, piece]) => spliced(at, Buffer.from(piece))),
    },
    {
      weight: 1,
      arbitrary: fc.tuple(place, fc.uint8Array({ maxLength: 3 })).map(([at, piece]) => spliced(at, piece)),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(Buffer.from(text, 'utf16le'), Buffer.from(`\ufeff${text}`, 'utf16le')),
    },
  );
});
/** Seldom, because they are large. */
const largeBodies: fc.Arbitrary<Buffer> = fc
  .tuple(texts, fc.integer({ min: 65_000, max: 66_000 }))
  .map(([text, size]) => Buffer.from(text + ' '.repeat(size - Buffer.byteLength(text))));

const headerLines = fc.array(
  fc.oneof(
    fc.constantFrom<[string, string]>(
      ['Content-Type', 'application/json'],
      ['Content-Type', 'text/html; charset=utf-16'],
      ['Content-Encoding', 'identity'],
      ['Content-Encoding', 'gzip'],
      ['Content-Encoding', 'br'],
      ['Content-Encoding', 'gzip, gzip'],
      ['Retry-After', '9'],
      ['Location', '/otp/verify'],
      ['Connection', 'keep-alive'],
      ['Set-Cookie', 'verified=true'],
      ['X', 'x'.repeat(3_000)],
    ),
    fc.stringMatching(/^[!-~]{0,20}$/).map((text): [string, string] => ['X-Odd', text]),
  ),
  { maxLength: 3 },
);

const statuses = fc.oneof(
  { weight: 6, arbitrary: fc.constant(200) },
  { weight: 2, arbitrary: fc.integer({ min: 200, max: 299 }) },
  { weight: 2, arbitrary: fc.integer({ min: 100, max: 599 }) },
  { weight: 1, arbitrary: fc.constantFrom(400, 401, 402, 403, 404, 409, 410, 422, 429, 500, 502, 503) },
);

export const hostileAnswers: fc.Arbitrary<HostileAnswer> = fc.record({
  status: statuses,
  headers: fc.oneof(
    { weight: 2, arbitrary: fc.constant<[string, string][]>([]) },
    { weight: 1, arbitrary: headerLines },
  ),
  framing: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom<Framing>(...READABLE) },
    {
      weight: 1,
      arbitrary: fc.constantFrom<Framing>('too long', 'two lengths', 'length and chunks', 'followed'),
    },
  ),
  body: fc.oneof({ weight: 200, arbitrary: bodies }, { weight: 1, arbitrary: largeBodies }),
});

/** Whether this is the one answer that opens a session; `perhaps` where its reader may be as strict as it likes. */
export function isVerification(answer: HostileAnswer): 'yes' | 'no' | 'perhaps' {
  const { status, headers, framing, body } = answer;
  if (status < 200 || status > 299 || status === 204 || body.length > 65_536) return 'no';
  if (headers.some(([name, value]) => name === 'Content-Encoding' && value !== 'identity')) return 'no';
  if (!READABLE.includes(framing) && framing !== 'followed') return 'no';
  const top = asObject(parsed(body));
  const inner = asObject(top?.get('data'));
  if (!top || inner?.get('verified') !== true) return 'no';
  const silent = (said: unknown): boolean => said === undefined || said === null;
  const agrees = [top.get('success'), inner.get('success'), top.get('verified')].every(
    (said) => silent(said) || said === true,
  );
  if (!agrees || top.get('error') || inner.get('error')) return 'no';
  const code = top.get('statusCode');
  if (!silent(code) && (typeof code === 'number' ? code < 200 || code > 299 : code !== '200')) return 'no';
  // What follows it may come too late to be seen; two headers of encoding may be read as one.
  const odd =
    framing === 'followed' ||
    code === '200' ||
    headers.filter(([name]) => name === 'Content-Encoding').length > 1;
  return odd ? 'perhaps' : 'yes';
}

/** Whether the answer may say to a person that the code was wrong: not what is about our key, or upstream's trouble. */
export function mayBlame({ status, body }: HostileAnswer): boolean {
  return (
    ((status >= 200 && status < 300) || status === 400 || status === 422) &&
    asObject(parsed(body)) !== undefined
  );
}

type Fields = ReadonlyMap<string, unknown>;
const asObject = (value: unknown): Fields | undefined =>
  value instanceof Map ? (value as Fields) : undefined;

/** RFC 8259 by the letter, and no name twice; `undefined` for anything else. Not `JSON.parse`, which is what is tested. */
export function parsed(bytes: Buffer): unknown {
  const text = bytes.toString('utf8').replace(/^\ufeff/, '');
  let at = 0;
  const fail = (): never => {
    throw new SyntaxError(`at ${at}`);
  };
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const space = (): void => void take(/[ \t\n\r]*/y);
  const string = (): string => {
    const quoted = take(/"(?:[^"\\\0-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/y) ?? fail();
    return quoted
      .slice(1, -1)
      .replace(/\\(?:u(.{4})|(.))/g, (_all, hex: string | undefined, letter: string) =>
        hex
          ? String.fromCharCode(parseInt(hex, 16))
          : ({ b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }[letter] ?? letter),
      );
  };
  const members = <T>(close: string, member: () => T): T[] => {
    const list: T[] = [];
    at += 1;
    space();
    if (text[at] === close) return ((at += 1), list);
    for (;;) {
      list.push(member());
      space();
      if (text[at] === close) return ((at += 1), list);
      if (text[at] !== ',') fail();
      at += 1;
      space();
    }
  };
  const value = (): unknown => {
    if (text[at] === '{') {
      const fields = members('}', (): [string, unknown] => {
        const name = string();
        space();
        if (text[at] !== ':') fail();
        at += 1;
        space();
        return [name, value()];
      });
      const map = new Map(fields);
      return map.size === fields.length ? map : fail();
    }
    if (text[at] === '[') return members(']', value);
    if (text[at] === '"') return string();
    const number = take(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y);
    if (number !== undefined) return Number(number);
    const word = take(/true|false|null/y) ?? fail();
    return word === 'null' ? null : word === 'true';
  };
  try {
    space();
    const whole = value();
    space();
    return at === text.length ? whole : undefined;
  } catch {
    return undefined;
  }
}
