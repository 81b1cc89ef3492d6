import { type ClientHttp2Session, connect, constants } from 'node:http2';
import type { Socket } from 'node:net';
import { type Answer, type Exchange, LARGEST_ANSWER, NeverSent, type OnCancel } from './exchange';

/** Shorter than any server keeps an idle connection. */
const IDLE_MS = 4_000;
/** Fewer than after which servers close a connection: a call on its way at that moment could be lost. */
const MOST_CALLS = 500;
const MOST_AT_ONCE = 100;
const MOST_HEADERS = 64;
/** Answers before the answer (1xx). */
const MOST_EARLY = 16;

/** A connection that carries many calls at once. A stream names its request. */
export class Http2Connection {
  private readonly session: ClientHttp2Session;
  private calls = 0;
  private inFlight = 0;
  private leaving = false;
  private readonly idle: NodeJS.Timeout;

  /** @param socket is connected */
  constructor(
    private readonly origin: string,
    socket: Socket,
  ) {
    this.session = connect(origin, {
      createConnection: () => socket,
      settings: { enablePush: false },
      maxHeaderListPairs: MOST_HEADERS,
    });
    // Each call hears of it by its own stream.
    this.session.on('error', () => undefined);
    this.session.on('goaway', () => {
      this.closeWhenDone();
    });
    this.idle = setTimeout(() => {
      this.closeWhenDone();
    }, IDLE_MS).unref();
    this.session.once('close', () => {
      clearTimeout(this.idle);
    });
  }

  /** Whether one more call may use it. */
  get usable(): boolean {
    const { closed, destroyed, remoteSettings } = this.session;
    const most = Math.min(MOST_AT_ONCE, remoteSettings.maxConcurrentStreams ?? MOST_AT_ONCE);
    return !this.leaving && !closed && !destroyed && this.calls < MOST_CALLS && this.inFlight < most;
  }

  /** From here on it takes no call, and closes after the last answer. */
  closeWhenDone(): void {
    this.leaving = true;
    if (!this.session.closed) this.session.close();
  }

  /** Throws {@link NeverSent}, or another error if there is no status. */
  async call({ method, path, headers, body }: Exchange, onCancel: OnCancel): Promise<Answer> {
    this.calls += 1;
    this.inFlight += 1;
    try {
      return await this.exchange({ ':method': method, ':path': path, ...headers }, body, onCancel);
    } finally {
      this.inFlight -= 1;
      if (this.calls >= MOST_CALLS) this.closeWhenDone();
      else if (this.inFlight === 0) this.idle.refresh();
    }
  }

  private exchange(
    headers: Record<string, string>,
    body: string | undefined,
    onCancel: OnCancel,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      let stream: ReturnType<ClientHttp2Session['request']>;
      try {
        stream = this.session.request({ ':scheme': new URL(this.origin).protocol.slice(0, -1), ...headers });
      } catch (cause) {
        reject(new NeverSent({ cause }));
        return;
      }
      onCancel(() => {
        stream.close(constants.NGHTTP2_CANCEL);
      });
      let head: Omit<Answer, 'body'> | undefined;
      let fault: unknown;
      let [size, early, whole] = [0, 0, false];
      const chunks: Buffer[] = [];
      stream.on('headers', () => {
        if (++early > MOST_EARLY) stream.close(constants.NGHTTP2_CANCEL);
      });
      stream.once('response', (answered) => {
        head = { status: answered[':status'] ?? 0, headers: answered };
      });
      stream.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= LARGEST_ANSWER) chunks.push(chunk);
        else stream.close(constants.NGHTTP2_CANCEL);
      });
      stream.once('end', () => {
        whole = stream.rstCode === constants.NGHTTP2_NO_ERROR && !stream.aborted;
      });
      stream.once('error', (error) => {
        fault = error;
      });
      stream.once('close', () => {
        whole &&= fault === undefined && stream.rstCode === constants.NGHTTP2_NO_ERROR;
        if (head !== undefined) resolve({ ...head, body: whole ? Buffer.concat(chunks) : undefined });
        // RFC 9113 section 8.7: the server has not processed it. Node sets the same code for streams that a GOAWAY leaves out.
        else if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) reject(new NeverSent({ cause: fault }));
        else reject(fault instanceof Error ? fault : new Error('the stream ended without an answer'));
      });
      stream.end(body);
    });
  }
}
