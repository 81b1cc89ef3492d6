import net, { type Socket } from 'node:net';
import tls from 'node:tls';
import type { Answer, Exchange } from './exchange';
import { NeverSent, OnCancel } from './exchange';
import { Http1Connection } from './http1';
import { Http2Connection } from './http2';

/**
 * The connections to one server.
 *
 * An HTTP/1.1 answer does not name its request. On a kept connection a second `verified: true` after the first answer would
 * be taken for the answer about the next user's code. A call therefore has an HTTP/1.1 connection of its own if its answer
 * decides about a user. Only a call that says `keep` may use a connection after another one, within a second of its last
 * answer: a connection that the server has just closed would make a send look possibly sent. Over HTTP/2 a stream names its
 * request, so all calls share one connection.
 */
export class Connections {
  private readonly url: URL;
  private readonly idle = new Set<Http1Connection>();
  private shared: Http2Connection | undefined;
  /** The newest TLS session of the server, which shortens the next handshake. */
  private session: Buffer | undefined;

  constructor(
    baseUrl: string,
    private readonly connectTimeoutMs: number,
  ) {
    this.url = new URL(baseUrl);
  }

  /** Makes one call. Throws {@link NeverSent} if certainly no byte of the request has left. */
  async call(exchange: Exchange, onCancel: OnCancel): Promise<Answer> {
    if (this.shared?.usable) return this.shared.call(exchange, onCancel);
    if (exchange.keep) {
      for (const connection of [...this.idle].reverse()) {
        this.idle.delete(connection);
        if (!connection.reusable) continue;
        try {
          return await this.callOver(connection, exchange, onCancel);
        } catch (error) {
          // The server closed it a moment ago: nothing has left, and another connection may do.
          if (!(error instanceof NeverSent)) throw error;
        }
      }
    }
    const socket = await this.open(onCancel);
    if ((socket as Partial<tls.TLSSocket>).alpnProtocol !== 'h2') {
      const connection = new Http1Connection(this.url.origin, socket);
      connection.onClose(() => this.idle.delete(connection));
      return this.callOver(connection, exchange, onCancel);
    }
    const connection = new Http2Connection(this.url.origin, socket);
    const answer = connection.call(exchange, onCancel);
    if (this.shared?.usable) connection.closeWhenDone();
    else this.shared = connection;
    return answer;
  }

  private async callOver(
    connection: Http1Connection,
    exchange: Exchange,
    onCancel: OnCancel,
  ): Promise<Answer> {
    try {
      return await connection.call(exchange, onCancel);
    } finally {
      if (exchange.keep && connection.reusable) this.idle.add(connection);
      else connection.close();
    }
  }

  /** A socket that is connected; with TLS, the handshake is done. */
  private open(onCancel: OnCancel): Promise<Socket> {
    const { protocol, hostname, port } = this.url;
    const host = hostname.replace(/^\[|\]$/g, '');
    const secure = protocol === 'https:';
    return new Promise((resolve, reject) => {
      const socket = secure
        ? tls.connect({
            host,
            port: Number(port || 443),
            servername: net.isIP(host) ? '' : host,
            ALPNProtocols: ['h2', 'http/1.1'],
            ...(this.session && { session: this.session }),
          })
        : net.connect({ host, port: Number(port || 80) });
      const fail = (cause: unknown): void => {
        clearTimeout(timer);
        socket.destroy();
        reject(new NeverSent({ cause }));
      };
      const timer = setTimeout(() => {
        fail(new Error('connect timeout'));
      }, this.connectTimeoutMs);
      onCancel(() => {
        fail(new Error('the call has ended'));
      });
      socket.setNoDelay(true).on('session', (session: Buffer) => (this.session = session));
      // A fault of TLS after the handshake is told by this event alone.
      socket.on('error', () => socket.destroy());
      socket.once('error', fail).once('close', fail);
      socket.once(secure ? 'secureConnect' : 'connect', () => {
        clearTimeout(timer);
        socket.off('error', fail).off('close', fail);
        resolve(socket);
      });
    });
  }
}
