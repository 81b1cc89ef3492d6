import http from 'node:http';
import https from 'node:https';
import type { Duplex } from 'node:stream';

// All that one call may bring: a body of 64 KB, Node's 16 KB of head, and some. Answers before the answer (1xx), chunk
// sizes, their extensions and trailers are counted nowhere else.
const LARGEST_ON_WIRE = 98_304;

// Sockets over which no byte of a request can have left yet. Those that never connect stay in it.
const connecting = new WeakSet<object>();
const flooded = new WeakSet<object>();

function limit(
  socket: Duplex | null | undefined,
  connected: 'connect' | 'secureConnect',
  connectTimeoutMs: number,
): void {
  if (!socket) return;
  let read = 0;
  socket.on('data', (bytes: Buffer) => {
    read += bytes.length;
    if (read <= LARGEST_ON_WIRE) return;
    flooded.add(socket);
    socket.destroy(new Error('answer too large'));
  });
  connecting.add(socket);
  const timer = setTimeout(() => socket.destroy(new Error('connect timeout')), connectTimeoutMs);
  socket.once('close', () => {
    clearTimeout(timer);
  });
  // Node holds a request back until these events, so this runs before its first byte leaves.
  socket.once(connected, () => {
    clearTimeout(timer);
    connecting.delete(socket);
  });
}

class PlainAgent extends http.Agent {
  constructor(private readonly connectTimeoutMs: number) {
    super({ keepAlive: false });
  }

  override createConnection(...args: Parameters<http.Agent['createConnection']>): Duplex | null | undefined {
    const socket = super.createConnection(...args);
    limit(socket, 'connect', this.connectTimeoutMs);
    return socket;
  }
}

class TlsAgent extends https.Agent {
  constructor(private readonly connectTimeoutMs: number) {
    super({ keepAlive: false });
  }

  override createConnection(...args: Parameters<https.Agent['createConnection']>): Duplex | null | undefined {
    const socket = super.createConnection(...args);
    limit(socket, 'secureConnect', this.connectTimeoutMs);
    return socket;
  }
}

/**
 * An agent that destroys sockets when they are not connected (with TLS: the handshake done) within `connectTimeoutMs`, and when
 * an answer floods them.
 *
 * A connection carries one call. An HTTP/1.1 answer does not name its request. On a kept connection a second `verified: true`
 * after the first answer would be taken for the answer about the next user's code. A check of the idle socket does not find an
 * answer that comes a moment after the next request. A kept connection that the server has just closed would also make a send
 * look possibly sent. The price is a handshake, which a TLS ticket shortens.
 */
export function createAgent(baseUrl: string, connectTimeoutMs: number): http.Agent {
  return new URL(baseUrl).protocol === 'https:'
    ? new TlsAgent(connectTimeoutMs)
    : new PlainAgent(connectTimeoutMs);
}

/** Whether more came for a request than any answer may hold, however little of it was the body. */
export function wasFlooded(request: unknown): boolean {
  const socket = request instanceof http.ClientRequest ? request.socket : null;
  return socket !== null && flooded.has(socket);
}

/**
 * Whether a request through one of our agents certainly never left: its own socket did not get as far as being
 * connected. `false` when that cannot be proved.
 */
export function neverConnected(request: unknown): boolean {
  const socket = request instanceof http.ClientRequest ? request.socket : null;
  return socket !== null && connecting.has(socket);
}
