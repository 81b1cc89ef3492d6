import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A name for a Redis, or the wire to it: it may lead elsewhere, be slow, or swallow all that is sent. */
export class TcpLink {
  /** Milliseconds that each packet is under way; what is under way when the link is cut is lost. */
  delayMs = 0;
  /** True while nothing comes through and nobody is told, as by a firewall that drops. */
  dropping = false;
  /** True while what is asked comes through and no answer does. */
  losingAnswers = false;
  /** Connections to the server, and whether what it sends is kept back. */
  private readonly servers = new Set<Socket>();
  private withheld = false;
  /** How many connections were ever made. */
  connections = 0;
  private readonly sockets = new Set<Socket>();
  private readonly server: Server;

  private constructor(
    /** Where new connections lead to. */
    public target: number,
  ) {
    this.server = createServer((client) => {
      this.connections += 1;
      this.join(client, connect(this.target, '127.0.0.1'));
    });
  }

  static async to({ port }: { port: number }, at = 0): Promise<TcpLink> {
    const link = new TcpLink(port);
    await once(link.server.listen(at, '127.0.0.1'), 'listening');
    return link;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** From now on what the server sends is kept back, while what it is sent comes through. */
  withhold(): void {
    this.withheld = true;
    for (const server of this.servers) server.pause();
  }

  /** Ends `withhold`: what was kept back comes through. */
  release(): void {
    this.withheld = false;
    for (const server of this.servers) server.resume();
  }

  /** Ends every connection; what was under way is lost. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** From now on it leads there. */
  leadTo({ port }: { port: number }): void {
    this.target = port;
    this.cut();
  }

  async close(): Promise<void> {
    this.server.close();
    this.cut();
    await once(this.server, 'close');
  }

  private join(client: Socket, server: Socket): void {
    // TCP loses nothing from the middle: a connection of which something was swallowed is silent for good.
    let swallowed = false;
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.sockets.add(from.setNoDelay());
      const under: Buffer[] = [];
      const pass = (): void => {
        const bytes = under.shift();
        swallowed ||= this.dropping;
        if (bytes !== undefined && !swallowed && !to.destroyed && !from.destroyed) to.write(bytes);
      };
      let due = 0;
      from.on('data', (bytes: Buffer) => {
        swallowed ||= this.dropping || (this.losingAnswers && from === server);
        if (swallowed) return;
        under.push(bytes);
        // Nothing overtakes what is under way, also where the wire has become faster meanwhile.
        due = Math.max(due, Date.now() + this.delayMs);
        if (under.length === 1 && this.delayMs === 0) pass();
        else setTimeout(pass, Math.max(0, due - Date.now()));
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        this.sockets.delete(from);
        this.servers.delete(from);
        to.destroy();
      });
    }
    this.servers.add(server);
    if (this.withheld) server.pause();
  }
}
