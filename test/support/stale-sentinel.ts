import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A sentinel that heard of no failover: whoever asks for the primary is sent to this port. */
export class StaleSentinel {
  /** How often it was asked. */
  asked = 0;
  private readonly sockets = new Set<Socket>();
  private readonly server: Server;

  private constructor(private readonly primaryPort: number) {
    this.server = createServer((socket) => {
      this.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('data', (bytes) => {
        for (const [, word = ''] of bytes
          .toString()
          .matchAll(/(setinfo|get-master-addr-by-name|sentinels)\r\n/gi))
          socket.write(this.answer(word.toLowerCase()));
      });
    });
  }

  static async naming({ port }: { port: number }): Promise<StaleSentinel> {
    const sentinel = new StaleSentinel(port);
    await once(sentinel.server.listen(0, '127.0.0.1'), 'listening');
    return sentinel;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
    await once(this.server, 'close');
  }

  private answer(word: string): string {
    if (word === 'setinfo') return '+OK\r\n';
    if (word === 'sentinels') return '*0\r\n';
    this.asked += 1;
    const port = String(this.primaryPort);
    return `*2\r\n$9\r\n127.0.0.1\r\n$${port.length}\r\n${port}\r\n`;
  }
}
