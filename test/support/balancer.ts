import { once } from 'node:events';
import { get } from 'node:http';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

const PROBE_EVERY_MS = 250;

interface Replica {
  port: number;
  ready: boolean;
}

/**
 * What Kubernetes puts before the replicas: it follows their readiness, gives each new connection to a ready one, knows
 * nothing of HTTP, and leaves connections that are open where they are.
 */
export class Balancer {
  private readonly replicas = new Map<string, Replica>();
  private readonly sockets = new Set<Socket>();
  private readonly server: Server;
  private readonly probes: NodeJS.Timeout;
  private turn = 0;

  private constructor() {
    this.server = createServer((client) => {
      const ready = [...this.replicas.values()].filter((replica) => replica.ready);
      const chosen = ready[(this.turn += 1) % ready.length];
      if (chosen === undefined) client.resetAndDestroy();
      else this.join(client, connect(chosen.port, '127.0.0.1'));
    });
    this.probes = setInterval(() => {
      for (const [url, replica] of this.replicas) probe(url, replica);
    }, PROBE_EVERY_MS);
  }

  static async start(): Promise<Balancer> {
    const balancer = new Balancer();
    await once(balancer.server.listen(0, '127.0.0.1'), 'listening');
    return balancer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** How many replicas it gives connections to. */
  get ready(): number {
    return [...this.replicas.values()].filter(({ ready }) => ready).length;
  }

  add(url: string): void {
    this.replicas.set(url, { port: Number(new URL(url).port), ready: false });
  }

  remove(url: string): void {
    this.replicas.delete(url);
  }

  async close(): Promise<void> {
    clearInterval(this.probes);
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }

  private join(client: Socket, replica: Socket): void {
    for (const [from, to] of [
      [client, replica],
      [replica, client],
    ] as const) {
      this.sockets.add(from);
      from.setNoDelay();
      from.pipe(to);
      // As a reset it goes on to the other side: a client must see what was done to it.
      from.on('error', () => to.resetAndDestroy());
      from.on('close', () => this.sockets.delete(from));
    }
  }
}

function probe(url: string, replica: Replica): void {
  const request = get(`${url}/health/ready`, { agent: false, timeout: 2_000 }, (answer) => {
    answer.resume();
    replica.ready = answer.statusCode === 200;
  });
  request.on('timeout', () => request.destroy());
  request.on('error', () => (replica.ready = false));
}
