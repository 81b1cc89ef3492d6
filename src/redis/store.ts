import { ApiError } from '../errors/api-error';
import type { Logger } from '../logging/logger';
import type { RedisClient } from './connection';
import { primariesOf, type Primary } from './primaries';
import type { Script } from './script';

/** The one prefix of every key. */
export const KEY_PREFIX = 'otp-login:';

/** A step over Redis takes a millisecond; after this long the caller is told 503, within the second that was promised. */
const COMMAND_TIMEOUT_MS = 750;
const RETRY_AFTER_SECONDS = 2;

/** Redis as the rest of the house sees it: an answer, or an {@link ApiError} `store_unavailable`. Never anything else. */
export class Store {
  #reached = false;

  constructor(
    private readonly client: RedisClient,
    private readonly logger: Logger,
  ) {
    client.on('ready', () => {
      this.#reached = true;
      logger.info('Redis is reached');
    });
    // Without a listener an error event would end the process.
    client.on('error', (error: Error) => {
      logger.warn('Redis connection failed', { error });
    });
    // ioredis leaves the timer of `socketTimeout` running when a socket closes under a command, and it would destroy the
    // next, healthy socket.
    client.on('close', () => {
      const timed = client as unknown as { socketTimeoutTimer?: NodeJS.Timeout | undefined };
      clearTimeout(timed.socketTimeoutTimer);
      timed.socketTimeoutTimer = undefined;
    });
    client.on('end', () => {
      logger.warn('The connection to Redis has ended');
    });
  }

  /** True from the first time that Redis was reached. */
  get reached(): boolean {
    return this.#reached;
  }

  /** True while a command could be sent. */
  get available(): boolean {
    return this.client.status === 'ready';
  }

  /** Every server that is written to, to be asked about itself, off every request's path. */
  get primaries(): Primary[] {
    return primariesOf(this.client);
  }

  /** Tells of every connection that is made from now on, and of the one that there is. */
  onReached(listener: () => void): void {
    this.client.on('ready', listener);
    if (this.available) setImmediate(listener);
  }

  /** Starts connecting, and goes on trying in the background: a service that starts before its Redis is no fault. */
  connect(): void {
    this.client.connect().catch((error: unknown) => {
      this.logger.warn('Redis is not reached yet', { error });
    });
  }

  /**
   * Runs a script as one command (EVALSHA), or two where the server does not know it: after a restart, a failover
   * or SCRIPT FLUSH. A step that timed out may still run: each script bears that.
   */
  async run(script: Script, keys: string[], args: (string | number)[]): Promise<unknown> {
    return this.#answer(
      this.client.evalsha(script.sha1, keys.length, ...keys, ...args).catch((error: unknown) => {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
        return this.client.eval(script.source, keys.length, ...keys, ...args);
      }),
      script.name,
    );
  }

  /** Runs one plain command. */
  async command<Answer>(name: string, send: (client: RedisClient) => Promise<Answer>): Promise<Answer> {
    return this.#answer(send(this.client), name);
  }

  /** Ends the connection at once: what is under way was answered, or its caller is gone. */
  close(): void {
    this.client.disconnect();
  }

  async #answer<Answer>(sent: Promise<Answer>, name: string): Promise<Answer> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        // After a stall of this process the timer fires before the sockets are read: the answer may be there already.
        setImmediate(() =>
          setImmediate(() => {
            reject(new Error(`Redis did not answer ${name} in time`));
          }),
        );
      }, COMMAND_TIMEOUT_MS);
    });
    try {
      return await Promise.race([sent, late]);
    } catch (cause) {
      this.logger.error('A step over Redis failed', { step: name, error: cause });
      throw new ApiError('store_unavailable', { cause, retryAfterSeconds: RETRY_AFTER_SECONDS });
    } finally {
      clearTimeout(timer);
    }
  }
}
