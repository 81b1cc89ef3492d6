import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { canonicalAddress, includes, originOf, PRIVATE } from '../net/addresses';

/** How many connections there may be, and how many requests that are still being read. */
export interface ConnectionBounds {
  connections: number;
  /** From one public address (IPv6: /64). Private and loopback peers are proxies, so they have the total bound only. */
  connectionsOfAddress: number;
  unread: number;
  unreadOfAddress: number;
}

/** A request whose body has not arrived yet. */
interface Reader {
  readonly socket: Socket;
  readonly since: number;
  readonly bytesBefore: number;
}

/** The connections of all peers, or of one public address. Both sets are in order: the oldest first. */
class Group {
  readonly idle = new Set<Socket>();
  readonly readers = new Set<Reader>();
  connections = 0;
}

/**
 * Bounds the connections of a server, so that no client can take all of them. At a bound it closes the connection that is
 * idle for the longest time: an attacker who holds connections open loses them, and a client that just connected does not.
 * Among requests that are being read it closes the one that arrives most slowly.
 */
export class Connections {
  private readonly all = new Group();
  private readonly addresses = new Map<string, Group>();
  /** The groups of each open connection. */
  private readonly groups = new Map<Socket, [Group, ...Group[]]>();

  /** @param closed called for each connection that is closed at a bound */
  constructor(
    server: Server,
    private readonly bounds: ConnectionBounds,
    private readonly closed: (limit: 'connections' | 'unread') => void,
  ) {
    // Node.js closes what comes faster than connections can be closed here.
    server.maxConnections = bounds.connections + 100;
    server.on('drop', () => {
      closed('connections');
    });
    server.on('connection', (socket: Socket) => {
      this.open(socket);
    });
  }

  /** A request came on the connection. */
  busy(socket: Socket): void {
    for (const group of this.groups.get(socket) ?? []) group.idle.delete(socket);
  }

  /** The connection waits for a request: from now on it may be closed, but after those that wait for longer. */
  idle(socket: Socket): void {
    for (const group of this.groups.get(socket) ?? []) group.idle.add(socket);
  }

  /** A request is being read. Returns what to call when its body has arrived, or the connection is gone. */
  read(socket: Socket): () => void {
    const groups = this.groups.get(socket) ?? [];
    const reader = { socket, since: performance.now(), bytesBefore: socket.bytesRead };
    for (const group of groups) {
      group.readers.add(reader);
      const most = group === this.all ? this.bounds.unread : this.bounds.unreadOfAddress;
      if (group.readers.size > most) this.close(slowest(group.readers).socket, 'unread');
    }
    return () => {
      for (const group of groups) group.readers.delete(reader);
    };
  }

  /** Requests that are being read. */
  get unread(): number {
    return this.all.readers.size;
  }

  private open(socket: Socket): void {
    const peer = canonicalAddress(socket.remoteAddress ?? '');
    const origin = peer === undefined || includes(PRIVATE, peer) ? undefined : originOf(peer);
    const groups: [Group, ...Group[]] = [this.all];
    if (origin !== undefined) {
      const known = this.addresses.get(origin) ?? new Group();
      this.addresses.set(origin, known);
      groups.push(known);
    }
    this.groups.set(socket, groups);
    for (const group of groups) {
      group.connections += 1;
      group.idle.add(socket);
    }
    socket.once('close', () => {
      this.forget(socket);
      const [, own] = groups;
      if (origin !== undefined && own?.connections === 0) this.addresses.delete(origin);
    });
    for (const group of groups) {
      const most = group === this.all ? this.bounds.connections : this.bounds.connectionsOfAddress;
      if (group.connections > most) this.makeRoom(group, socket);
    }
  }

  /** The longest idle connection, else the slowest reader, else the one that just came. */
  private makeRoom(group: Group, latest: Socket): void {
    const [longest] = group.idle;
    if (longest !== undefined && longest !== latest) this.close(longest, 'connections');
    else if (group.readers.size > 0) this.close(slowest(group.readers).socket, 'connections');
    else this.close(latest, 'connections');
  }

  private close(socket: Socket, limit: 'connections' | 'unread'): void {
    this.closed(limit);
    // At once, and not with the event: until then further connections may come.
    this.forget(socket);
    socket.destroy();
  }

  private forget(socket: Socket): void {
    for (const group of this.groups.get(socket) ?? []) {
      group.connections -= 1;
      group.idle.delete(socket);
      for (const reader of group.readers) if (reader.socket === socket) group.readers.delete(reader);
    }
    this.groups.delete(socket);
  }
}

/** The reader of the fewest bytes a millisecond. One that has just begun counts as if it had a byte in a millisecond. */
function slowest(readers: ReadonlySet<Reader>): Reader {
  const now = performance.now();
  const speed = ({ socket, since, bytesBefore }: Reader): number =>
    (socket.bytesRead - bytesBefore + 1) / (now - since + 1);
  return [...readers].reduce((slow, reader) => (speed(reader) < speed(slow) ? reader : slow));
}
