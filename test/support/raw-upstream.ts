import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import tls from 'node:tls';

// An upstream that knows no HTTP beyond where a request ends, so that it can answer what no HTTP server would.

/** A request that arrived whole. */
export interface RawRequest {
  /** Its place among those of its connection, from 1. */
  place: number;
  path: string;
  head: string;
  body: string;
}

export interface RawUpstream {
  url: string;
  /** How many connections were made so far, and how many requests came whole. */
  seen: { connections: number; requests: number };
  /** The connections that are open now. */
  open: Set<Socket>;
  close(): Promise<void>;
}

/** What is written onto the connection of a request is up to `answer`. Texts are latin1, a character a byte. */
export async function startRawUpstream(
  answer: (socket: Socket, request: RawRequest) => void,
  secure?: tls.TlsOptions,
): Promise<RawUpstream> {
  const seen = { connections: 0, requests: 0 };
  const open = new Set<Socket>();
  const serve = (socket: Socket): void => {
    seen.connections += 1;
    open.add(socket);
    let read = '';
    let place = 0;
    socket.setEncoding('latin1').on('data', (bytes: string | Buffer) => {
      read += String(bytes);
      for (;;) {
        const end = read.indexOf('\r\n\r\n');
        if (end < 0) return;
        const head = read.slice(0, end);
        const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
        if (read.length < end + 4 + length) return;
        const body = read.slice(end + 4, end + 4 + length);
        read = read.slice(end + 4 + length);
        seen.requests += 1;
        place += 1;
        answer(socket, { place, path: head.split(' ')[1] ?? '', head, body });
      }
    });
    // The client may go at any moment: that is what is tested.
    socket.on('error', () => undefined).on('close', () => open.delete(socket));
  };
  const server = secure
    ? tls.createServer(secure, serve).on('tlsClientError', () => undefined)
    : net.createServer(serve);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `${secure ? 'https' : 'http'}://127.0.0.1:${port}`,
    seen,
    open,
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

/** An answer as it should be, but for what is said. */
export function rawAnswer(
  body: string | Buffer,
  { status = '200 OK', headers = {} }: { status?: string; headers?: Record<string, string> } = {},
): Buffer {
  const fields = { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(body)) };
  const lines = Object.entries({ ...fields, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status}\r\n${lines.join('')}\r\n`, 'latin1'),
    Buffer.from(body),
  ]);
}

/** Writes pieces for as long as the connection takes them. */
export function pour(socket: Socket, piece: string | Buffer): void {
  const more = (): void => {
    // A turn of the event loop between two pieces: the client may be in the same process.
    if (!socket.writable) return;
    if (socket.write(piece)) setImmediate(more);
    else socket.once('drain', more);
  };
  more();
}

/** Writes a piece every few milliseconds. */
export function trickle(socket: Socket, piece: string, everyMs: number): void {
  const timer = setInterval(() => socket.writable && socket.write(piece), everyMs);
  socket.on('close', () => {
    clearInterval(timer);
  });
}
