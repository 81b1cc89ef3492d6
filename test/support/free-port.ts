import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/** Above it there is no room for the bus of a Redis Cluster node, which listens 10,000 ports higher. */
const HIGHEST_PORT = 55_535;

/** A loopback port that nobody listens on. Another process may take it before you do: retry if it matters. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    if (port <= HIGHEST_PORT) return port;
  }
}
