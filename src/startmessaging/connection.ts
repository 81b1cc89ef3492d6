import http from 'node:http';
import https from 'node:https';
import type { Duplex } from 'node:stream';

// Shorter than the 5 s after which a typical server closes an idle connection: a request written to a socket
// that the server has just closed looks like one that was possibly sent.
const IDLE_SOCKET_MS = 4_000;

// Sockets over which no byte of a request can have left yet. Those that never connect stay in it.
const connecting = new WeakSet<object>();

function limitConnecting(
  socket: Duplex | null | undefined,
  connected: 'connect' | 'secureConnect',
  connectTimeoutMs: number,
): void {
  if (!socket) return;
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
    super({ keepAlive: true, timeout: IDLE_SOCKET_MS });
  }

  override createConnection(...args: Parameters<http.Agent['createConnection']>): Duplex | null | undefined {
    const socket = super.createConnection(...args);
    limitConnecting(socket, 'connect', this.connectTimeoutMs);
    return socket;
  }
}

class TlsAgent extends https.Agent {
  constructor(private readonly connectTimeoutMs: number) {
    super({ keepAlive: true, timeout: IDLE_SOCKET_MS });
  }

  override createConnection(...args: Parameters<https.Agent['createConnection']>): Duplex | null | undefined {
    const socket = super.createConnection(...args);
    limitConnecting(socket, 'secureConnect', this.connectTimeoutMs);
    return socket;
  }
}

/**
 * A keep-alive agent whose sockets are destroyed when they are not connected (with TLS: the handshake done)
 * within `connectTimeoutMs`.
 */
export function createAgent(baseUrl: string, connectTimeoutMs: number): http.Agent {
  return new URL(baseUrl).protocol === 'https:'
    ? new TlsAgent(connectTimeoutMs)
    : new PlainAgent(connectTimeoutMs);
}

/** Ends the idle sockets only: to cut a send in flight would leave its fate unknown. */
export function closeIdleSockets(agent: http.Agent): void {
  for (const sockets of Object.values(agent.freeSockets)) {
    for (const socket of sockets ?? []) socket.destroy();
  }
}

/**
 * Whether a request through one of our agents certainly never left: its own socket, new and not a kept-alive
 * one, did not get as far as being connected. `false` when that cannot be proved.
 */
export function neverConnected(request: unknown): boolean {
  const socket = request instanceof http.ClientRequest ? request.socket : null;
  return socket !== null && connecting.has(socket);
}
