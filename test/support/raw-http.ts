import { connect } from 'node:net';
import fc from 'fast-check';
import { HANG_MS } from './hang';

// HTTP that no HTTP client would send. Bytes are latin1 strings here, a character a byte.

/** An answer, however it was asked for. */
export interface RawAnswer {
  status: number;
  /** By lower-case name; of several of one name, the last. */
  headers: Record<string, string>;
  body: string;
}

/**
 * A request whose last header is the one in question, so that all else was said before its bytes end anything. Without
 * a body it has none, with one it is JSON unless a header says otherwise.
 */
export function requestWith(
  line: string,
  [name, value]: [name: string, value: string],
  { body = '', headers = {} }: { body?: string; headers?: Record<string, string> } = {},
): string {
  const ofBody = {
    'Content-Length': String(Buffer.byteLength(body)),
    ...(name === 'Content-Type' ? {} : { 'Content-Type': 'application/json' }),
  };
  const before = { Host: 'x', Connection: 'close', ...(body === '' ? {} : ofBody), ...headers };
  const lines = Object.entries(before).map(([key, text]) => `${key}: ${text}\r\n`);
  return `${line} HTTP/1.1\r\n${lines.join('')}${name}: ${value}\r\n\r\n${body}`;
}

/**
 * Writes one request as it stands, and reads until the server closes: the request says `Connection: close`. Throws when
 * it closes without an answer, answers twice, or hangs.
 */
export async function exchange(url: string, request: string): Promise<RawAnswer> {
  const text = await new Promise<string>((resolve, reject) => {
    let read = '';
    const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write(request, 'latin1'));
    socket.setEncoding('latin1');
    socket.setTimeout(HANG_MS, () => socket.destroy(new Error(`hang: no end of the answer came: ${read}`)));
    socket.on('data', (chunk: string) => (read += chunk));
    // A server that answers and closes before everything is read resets the connection behind the answer.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error);
    });
    socket.on('close', () => {
      resolve(read);
    });
  });
  const [head = '', ...rest] = text.split('\r\n\r\n');
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1];
  const body = rest.join('\r\n\r\n');
  if (status === undefined || body.includes('HTTP/1.1 ')) throw new Error(`Not one answer: ${text}`);
  const fields = head
    .split('\r\n')
    .slice(1)
    .map((line) => /^([^:]*): *(.*)$/.exec(line)?.slice(1) ?? [line, '']);
  return {
    status: Number(status),
    headers: Object.fromEntries(fields.map(([name = '', value = '']) => [name.toLowerCase(), value])),
    body,
  };
}

const LETTERS = Array.from('abcXYZ019-_.~ \xe9\xff');
const SYMBOLS = Array.from('\0\t\r\n\x7f\x80\xa0\xff ,;:="\'%{}[]()<>/\\@?*&#');

/** Any bytes, and mixtures of pieces that mean something to whoever reads the header; the first piece begins some. */
export function garbage(first: string, ...more: string[]): fc.Arbitrary<string> {
  const pieces = [first, ...more];
  // Without what ends a request before anything of ours sees it.
  const harmless = SYMBOLS.filter((c) => c >= ' ' && c !== '\x7f');
  return fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc.string({ unit: fc.constantFrom(...SYMBOLS, ...LETTERS, ...pieces), maxLength: 25 }),
    fc.string({ unit: fc.constantFrom(...harmless, ...pieces, ...pieces, ...pieces) }),
    fc.string({ unit: fc.constantFrom(...LETTERS, ...pieces), maxLength: 80 }).map((text) => first + text),
    fc.string({ unit: fc.constantFrom(...harmless, ...pieces), maxLength: 4 }).map((text) => first + text),
    fc.tuple(fc.constantFrom(...pieces), fc.nat(9_000)).map(([piece, times]) => piece + 'x'.repeat(times)),
  );
}
