import { Cluster } from 'ioredis';
import { ApiError } from '../errors/api-error';
import type { Logger } from '../logging/logger';
import { requestContext } from '../logging/request-context';
import { isComplete, settled } from './cluster';
import { DatabaseRefused, type RedisClient } from './connection';
import { Deadlines } from './deadlines';
import { primariesOf, type Primary } from './primaries';
import { Replication } from './replication';
import { refusedRights } from './rights';
import type { Script, ScriptCall } from './script';

/** The one prefix of every key. */
export const KEY_PREFIX = 'otp-login:';

/** A step over Redis takes a millisecond; after this long the caller is told 503, within the second that was promised. */
const COMMAND_TIMEOUT_MS = 750;
export const RETRY_AFTER_SECONDS = 2;
/** Rights are given by an operator, at a time of the operator's own. */
const CHECK_RIGHTS_EVERY_MS = 1_500;
/** A node that is away fails several times a second. */
const NODE_WARNING_EVERY_MS = 5_000;

/** One command to Redis, as it is given to `onCommand`. Its name is a script's or a command's: a closed set. */
interface RedisCommand {
  command: string;
  outcome: 'answered' | 'failed';
  seconds: number;
}

/** Called for every command, for metrics; must not throw. */
export type OnCommand = (command: RedisCommand) => void;

/** Redis as the rest of the house sees it: an answer, or an {@link ApiError} `store_unavailable`. Never anything else. */
export class Store {
  #reached = false;
  /** The last refusal of Redis, so that it is logged once. */
  #refused = '';
  #checkingRights = false;
  #closed = false;
  readonly #listeners: (() => void)[] = [];
  #onDatabaseRefused: () => void = () => undefined;
  readonly #replication: Replication;
  readonly #deadlines: Deadlines;

  constructor(
    private readonly client: RedisClient,
    private readonly logger: Logger,
    private readonly onCommand: OnCommand = () => undefined,
    private readonly commandTimeoutMs = COMMAND_TIMEOUT_MS,
  ) {
    this.#replication = new Replication(client, logger);
    this.#deadlines = new Deadlines(commandTimeoutMs);
    client.on('ready', () => {
      // A cluster is ready when its map is read; a command that comes before its nodes are connected would be refused.
      const connected = client instanceof Cluster ? settled(client) : Promise.resolve();
      void connected.then(() => {
        this.#tellListeners();
        if (this.#reached) logger.info('Redis is reached');
        else void this.#checkRights();
      });
    });
    // Without a listener an error event would end the process.
    client.on('error', (error: Error) => {
      if (error instanceof DatabaseRefused) {
        this.#logRefusal(error.message);
        this.#onDatabaseRefused();
      } else logger.warn('Redis connection failed', { error });
    });
    client.on('end', () => {
      logger.warn('The connection to Redis has ended');
    });
    const warned = new Map<string, number>();
    client.on('node error', (error: Error, node: string) => {
      if (Date.now() - (warned.get(node) ?? 0) < NODE_WARNING_EVERY_MS) return;
      warned.set(node, Date.now());
      logger.warn('A node of the Redis Cluster failed', { node, error });
    });
  }

  /** True from the first time that Redis was reached and refused nothing that the service needs. */
  get reached(): boolean {
    return this.#reached;
  }

  /** True while any command could be sent: of a cluster, to the primary of every slot. */
  get available(): boolean {
    return this.client instanceof Cluster ? isComplete(this.client) : this.client.status === 'ready';
  }

  /** Every server that is written to, to be asked about itself, off every request's path. */
  get primaries(): Primary[] {
    return primariesOf(this.client);
  }

  /** Tells of every connection that is made from now on, and of the one that there is. */
  onConnected(listener: () => void): void {
    this.#listeners.push(listener);
    if (this.available) setImmediate(listener);
  }

  /** Tells of every connection that failed because Redis refuses the database of REDIS_URL. */
  onDatabaseRefused(listener: () => void): void {
    this.#onDatabaseRefused = listener;
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
    return this.#answer(script.name, (givenUp) =>
      this.client.evalsha(script.sha1, keys.length, ...keys, ...args).catch((error: unknown) => {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT') || givenUp()) throw error;
        return this.client.eval(script.source, keys.length, ...keys, ...args);
      }),
    );
  }

  /** Runs one plain command. */
  async command<Answer>(name: string, send: (client: RedisClient) => Promise<Answer>): Promise<Answer> {
    return this.#answer(name, () => send(this.client));
  }

  /**
   * Whether a replica has what these steps wrote, so that a failover cannot undo it; true also where there is none, or
   * none that was heard of late. See {@link Replication}.
   */
  async replicated(...commands: ScriptCall[]): Promise<boolean> {
    const answers = await Promise.all(commands.map((command) => this.#replication.confirm(command)));
    return answers.every(Boolean);
  }

  /** Ends the connection at once: what is under way was answered, or its caller is gone. */
  close(): void {
    this.#closed = true;
    this.#replication.close();
    this.client.disconnect();
  }

  #tellListeners(): void {
    for (const listener of this.#listeners) listener();
  }

  /**
   * Until Redis was reached once, its refusals keep this pod from being ready, so that a rollout with a wrong user stops.
   * No other trouble does: a Redis that is full or read-only would keep a pod away that could still answer.
   */
  async #checkRights(): Promise<void> {
    if (this.#checkingRights) return;
    this.#checkingRights = true;
    const refused = await this.#refusedRights();
    this.#checkingRights = false;
    // The connection was lost meanwhile: the next one is asked. A cluster that lacks a slot is connected.
    if (this.#reached || this.#closed || this.client.status !== 'ready') return;
    if (refused === undefined) {
      this.#reached = true;
      this.logger.info('Redis is reached');
      if (this.#refused !== '') this.#tellListeners();
      return;
    }
    this.#logRefusal(`Redis refuses the user of REDIS_URL what the service needs (${refused})`);
    setTimeout(() => {
      if (this.client.status === 'ready') void this.#checkRights();
    }, CHECK_RIGHTS_EVERY_MS).unref();
  }

  /** The refusal of the first primary that refuses something. A primary that gives no answer in time refuses nothing. */
  async #refusedRights(): Promise<string | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => {
        resolve(undefined);
      }, this.commandTimeoutMs);
    });
    const answers = this.primaries.map((primary) => refusedRights(primary).catch(() => undefined));
    const all = Promise.all(answers).then((refusals) => refusals.find((refused) => refused !== undefined));
    return Promise.race([all, late]).finally(() => {
      clearTimeout(timer);
    });
  }

  #logRefusal(message: string): void {
    if (message === this.#refused) return;
    this.#refused = message;
    this.logger.error(`${message}: ${this.#reached ? 'it is not used' : 'the service is not ready'}`);
  }

  #answer<Answer>(name: string, send: (givenUp: () => boolean) => Promise<Answer>): Promise<Answer> {
    const started = performance.now();
    const context = requestContext.getStore();
    return new Promise((resolve, reject) => {
      let open = true;
      const end = (outcome: RedisCommand['outcome']): void => {
        open = false;
        stop();
        this.onCommand({ command: name, outcome, seconds: (performance.now() - started) / 1_000 });
      };
      const fail = (cause: unknown): void => {
        if (!open) return;
        end('failed');
        const log = (): void => {
          this.logger.error('Redis command failed', { command: name, error: cause });
        };
        // The deadline fires in the context of another request.
        if (context) requestContext.run(context, log);
        else requestContext.exit(log);
        reject(new ApiError('store_unavailable', { cause, retryAfterSeconds: RETRY_AFTER_SECONDS }));
      };
      const stop = this.#deadlines.start(() => {
        fail(new Error(`Redis did not answer ${name} in time`));
      });
      // A promise that is made here also takes what is thrown.
      void (async () => send(() => !open))().then((answer) => {
        if (!open) return;
        end('answered');
        resolve(answer);
      }, fail);
    });
  }
}
