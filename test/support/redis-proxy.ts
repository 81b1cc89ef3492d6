import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { Script } from '../../src/redis/script';
import { anotherInstance, until, type Instance, type Variables, type World } from './world';

const SRC = join(__dirname, '../../src');

/** Scripts that a test may stop at: the room where each lies, and the rooms whose functions it takes. */
const STEPS = {
  create: ['challenges', 'devices', 'challenges'],
  reassign: ['challenges'],
  activate: ['challenges'],
  'take-attempt': ['challenges', 'devices', 'challenges'],
  consume: ['challenges', 'challenges'],
  release: ['challenges'],
  'store-outcome': ['challenges'],
  'revoke-devices': ['devices', 'devices'],
  admission: ['throttling', 'ledger', 'abuse'],
  open: ['sessions'],
  block: ['sessions'],
  record: ['ledger', 'ledger', 'abuse'],
} as const;
export type ScriptCall = keyof typeof STEPS;

const NAMES = new Map(
  Object.entries(STEPS).map(([name, [room, ...functions]]) => {
    const parts = functions.map((other) => Script.library(join(SRC, other)));
    return [Script.load(join(SRC, room), name, ...parts).sha1, name];
  }),
);

/**
 * What befalls a step: `hold` keeps the command from Redis until it is let go, `late` keeps the answer, `cut` resets the
 * connection instead of answering a step that ran, `lose` one that did not run.
 */
export type Fate = 'hold' | 'late' | 'cut' | 'lose';

export interface Caught {
  /** Resolves when the command came: held, or run with its answer kept. */
  caught(): Promise<void>;
  letGo(): void;
}

interface Trap {
  step: string;
  left: number;
  fate: Fate;
  sprung: boolean;
  gone: Promise<void>;
}

/** Stands between one instance and Redis, and knows where each command and each answer ends. */
export class RedisProxy {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private readonly letGo = new Set<() => void>();
  private traps: Trap[] = [];
  private severed = false;

  private constructor(private readonly redis: URL) {
    this.server = createServer((client) => {
      if (this.severed) client.destroy();
      else this.join(client);
    });
  }

  get url(): string {
    return `redis://127.0.0.1:${(this.server.address() as AddressInfo).port}${this.redis.pathname}`;
  }

  /** The address may name a database. */
  static async before({ url }: { url: string }): Promise<RedisProxy> {
    const proxy = new RedisProxy(new URL(url));
    await once(proxy.server.listen(0, '127.0.0.1'), 'listening');
    return proxy;
  }

  /** Lays a trap for the n-th time that a script, or a plain command such as `ZRANGE`, comes by from now on. */
  trap(step: ScriptCall | Uppercase<string>, fate: Fate, nth = 1): Caught {
    let letGo = (): void => undefined;
    const gone = new Promise<void>((resolve) => (letGo = resolve));
    this.letGo.add(letGo);
    const trap: Trap = { step, left: nth, fate, sprung: false, gone };
    this.traps.push(trap);
    return { caught: () => until(() => trap.sprung, `the step ${step} at the proxy`), letGo };
  }

  /** From now on the instance reaches Redis no more, as if its process had died. */
  sever(): void {
    this.severed = true;
    for (const socket of this.sockets) socket.destroy();
  }

  async close(): Promise<void> {
    for (const letGo of this.letGo) letGo();
    this.sever();
    this.server.close();
    await once(this.server, 'close');
  }

  private join(client: Socket): void {
    const redis = connect(Number(this.redis.port), this.redis.hostname);
    const unanswered: (Trap | undefined)[] = [];
    const end = (): void => {
      for (const socket of [client, redis]) {
        this.sockets.delete(socket);
        socket.destroy();
      }
    };
    for (const socket of [client, redis]) {
      this.sockets.add(socket.setNoDelay());
      socket.on('error', end).on('close', end);
    }
    const command = async (frame: Buffer): Promise<void> => {
      const trap = this.sprungBy(nameOf(frame));
      if (trap?.fate === 'lose') {
        trap.sprung = true;
        end();
        return;
      }
      if (trap?.fate === 'hold') {
        trap.sprung = true;
        await trap.gone;
      }
      unanswered.push(trap);
      redis.write(frame);
    };
    const answer = async (frame: Buffer): Promise<void> => {
      let trap = unanswered.shift();
      // It did not run: the script is sent next, and befallen then.
      if (trap !== undefined && frame.toString('latin1', 0, 9) === '-NOSCRIPT') {
        trap.left = 1;
        this.traps.unshift(trap);
        trap = undefined;
      }
      if (trap?.fate === 'cut' || trap?.fate === 'late') trap.sprung = true;
      if (trap?.fate === 'cut') end();
      if (trap?.fate === 'late') await trap.gone;
      if (!client.destroyed) client.write(frame);
    };
    void eachFrame(client, command).catch(end);
    void eachFrame(redis, answer).catch(end);
  }

  private sprungBy(name: string): Trap | undefined {
    const trap = this.traps.find(({ step }) => step === name);
    if (trap === undefined || (trap.left -= 1) > 0) return undefined;
    this.traps = this.traps.filter((other) => other !== trap);
    return trap;
  }
}

/** One more instance of a world, which alone reaches Redis through a proxy. */
export async function behindProxy(
  world: World,
  variables: Variables,
): Promise<{ proxy: RedisProxy; instance: Instance }> {
  const proxy = await RedisProxy.before(world.redis);
  const instance = await anotherInstance(world, { ...variables, REDIS_URL: proxy.url });
  return { proxy, instance };
}

async function eachFrame(socket: Socket, take: (frame: Buffer) => Promise<void>): Promise<void> {
  let rest = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = frameEnd(rest, 0); end > 0; end = frameEnd(rest, 0)) {
      await take(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
  }
}

/** Where the value of the Redis protocol (RESP2) that begins at `from` ends, or -1 while it is not all there. */
function frameEnd(bytes: Buffer, from: number): number {
  const line = bytes.indexOf('\r\n', from);
  if (line < 0) return -1;
  const kind = String.fromCharCode(bytes[from] ?? 0);
  const length = Number(bytes.toString('latin1', from + 1, line));
  let end = line + 2;
  if (kind === '$' && length >= 0) end += length + 2;
  if (kind === '*') for (let i = 0; i < length && end > 0; i++) end = frameEnd(bytes, end);
  return end <= bytes.length ? end : -1;
}

/** The script that a command runs, or its own name. */
function nameOf(command: Buffer): string {
  const [name = '', first = ''] = commandWords(command);
  if (name === 'EVALSHA') return NAMES.get(first) ?? name;
  if (name === 'EVAL') return NAMES.get(createHash('sha1').update(first).digest('hex')) ?? name;
  return name;
}

/** The first two words of a command. */
function commandWords(command: Buffer): string[] {
  const words: string[] = [];
  for (let at = command.indexOf('\r\n') + 2; at < command.length && words.length < 2;) {
    const line = command.indexOf('\r\n', at);
    const length = Number(command.toString('latin1', at + 1, line));
    words.push(command.toString('utf8', line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
  return [words[0]?.toUpperCase() ?? '', words[1] ?? ''];
}
