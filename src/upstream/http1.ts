import type { Socket } from 'node:net';
import { Client } from 'undici';
import {
  type Answer,
  type Exchange,
  LARGEST_ANSWER,
  LARGEST_HEAD,
  NeverSent,
  type OnCancel,
} from './exchange';

// All that one call may bring: its body, its head, and some. Answers before the answer (1xx), chunk sizes, their extensions
// and trailers are counted nowhere else.
const LARGEST_ON_WIRE = 98_304;
// RFC 9110 section 15.2: a client skips a 100 that it did not ask for. undici takes it for a fault.
const CONTINUE = /^(?:HTTP\/1\.[01] 100[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+/;
/** Shorter than any server keeps an idle connection. */
const REUSE_WITHIN_MS = 1_000;

/** A connection that carries one call at a time. */
export class Http1Connection {
  private readonly client: Client;
  private read = 0;
  private awaitsHead = false;
  private answeredAt = -Infinity;

  /** @param socket is connected */
  constructor(
    origin: string,
    private readonly socket: Socket,
  ) {
    this.boundWire();
    let taken = false;
    this.client = new Client(origin, {
      connect: (_options, callback) => {
        // After the end of its connection undici would make another one, and send again what it thinks can be repeated.
        const ended = taken;
        taken = true;
        // undici does not go on if this is called before `connect` has returned.
        queueMicrotask(() => {
          if (ended) callback(new Error('the connection has ended'), null);
          else callback(null, socket);
        });
      },
      // The caller has one deadline for all.
      headersTimeout: 0,
      bodyTimeout: 0,
      maxResponseSize: LARGEST_ANSWER,
      maxHeaderSize: LARGEST_HEAD,
      keepAliveTimeout: REUSE_WITHIN_MS,
      keepAliveMaxTimeout: REUSE_WITHIN_MS,
      // A second less than the server's own `Keep-Alive: timeout` says.
      keepAliveTimeoutThreshold: 1_000,
    });
  }

  /** Whether its last answer was whole, came not long ago, and left the connection open. */
  get reusable(): boolean {
    return !this.socket.destroyed && performance.now() - this.answeredAt < REUSE_WITHIN_MS;
  }

  /** Throws {@link NeverSent}, or another error if there is no status. */
  call({ method, path, headers, body, keep }: Exchange, onCancel: OnCancel): Promise<Answer> {
    this.read = 0;
    this.awaitsHead = true;
    this.answeredAt = -Infinity;
    return new Promise((resolve, reject) => {
      let sent = false;
      let head: Omit<Answer, 'body'> | undefined;
      const chunks: Buffer[] = [];
      const request = { method, path, headers, body: body ?? null, reset: !keep };
      onCancel(() => {
        this.close();
      });
      this.client.dispatch(request, {
        // undici calls it right before the first byte is written.
        onRequestStart: () => {
          sent = true;
        },
        onResponseStart: (_controller, status, answered) => {
          if (status < 200) return;
          this.awaitsHead = false;
          head = { status, headers: answered };
        },
        onResponseData: (_controller, chunk) => {
          chunks.push(chunk);
        },
        onResponseEnd: () => {
          if (head === undefined) return;
          this.answeredAt = performance.now();
          resolve({ ...head, body: Buffer.concat(chunks) });
        },
        onResponseError: (_controller, cause) => {
          if (head !== undefined) resolve({ ...head, body: undefined });
          else reject(sent ? cause : new NeverSent({ cause }));
        },
      });
    });
  }

  onClose(listener: () => void): void {
    this.socket.once('close', listener);
  }

  close(): void {
    this.socket.destroy();
    this.client.destroy().catch(() => undefined);
  }

  /** undici takes what has arrived by `read`. */
  private boundWire(): void {
    const read = this.socket.read.bind(this.socket);
    this.socket.read = (size?: number) => {
      const bytes = read(size) as Buffer | null;
      if (bytes === null) return null;
      this.read += bytes.length;
      if (this.read > LARGEST_ON_WIRE) {
        this.socket.destroy(new Error('answer too large'));
        return null;
      }
      const early = this.awaitsHead
        ? CONTINUE.exec(bytes.toString('latin1', 0, LARGEST_HEAD))?.[0].length
        : undefined;
      if (early === undefined) return bytes;
      return early < bytes.length ? bytes.subarray(early) : (this.socket.read(size) as Buffer | null);
    };
  }
}
