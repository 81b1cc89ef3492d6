import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { freePort } from './free-port';
import { clientOf } from './redis-cluster';
import { startRedis, unref, watch, type RedisServer } from './redis-server';
import { TcpLink } from './tcp-link';
import { until } from './hang';

const NAME = 'otp';
/** How long the primary is silent before the sentinels look for another. */
export const DOWN_AFTER_MS = 1_000;

/** A primary, a replica and three sentinels, all real and on loopback. */
export class RedisSentinels {
  /** Each with what stops its watch. */
  private readonly processes = new Map<ChildProcess, () => void>();
  private readonly clients = new Map<number, Redis>();
  private readonly folder = mkdtempSync(join(tmpdir(), 'otp-login-sentinel-'));
  private readonly ports: number[] = [];

  private constructor(
    readonly nodes: readonly [RedisServer, RedisServer],
    /** Of each node in this order, where they were asked for. */
    private readonly links: readonly TcpLink[],
    private readonly password: string,
    private readonly sentinelsAsk: boolean,
  ) {}

  get url(): string {
    const userinfo = this.password === '' ? '' : `default:${this.password}@`;
    return `redis+sentinel://${userinfo}${this.ports.map((port) => `127.0.0.1:${port}`).join(',')}/${NAME}`;
  }

  /**
   * With a password the nodes ask for it, and the sentinels only if they are told to. With `linked` each node is known by
   * the address of a wire to it: clients, the replica and the sentinels come that way.
   */
  static async start({ password = '', sentinelsAsk = false, linked = false } = {}): Promise<RedisSentinels> {
    const args = ['--repl-diskless-sync-delay', '0'];
    if (password !== '') args.push('--requirepass', password, '--masterauth', password);
    const links = linked ? [await TcpLink.to({ port: 0 }), await TcpLink.to({ port: 0 })] : [];
    const announced = links.map(({ port }) => [
      ...['--replica-announce-ip', '127.0.0.1'],
      ...['--replica-announce-port', String(port)],
    ]);
    const first = await startRedis({ args: [...args, ...(announced[0] ?? [])] });
    links[0]?.leadTo(first);
    const firstPort = links[0]?.port ?? first.port;
    const second = await startRedis({ args: [...args, ...(announced[1] ?? [])] });
    links[1]?.leadTo(second);
    const sentinels = new RedisSentinels([first, second], links, password, sentinelsAsk);
    try {
      // Not by an argument: as a primary that comes back it would obey it.
      await sentinels.command(second.port, 'REPLICAOF', '127.0.0.1', String(firstPort));
      for (let i = 0; i < 3; i++) await sentinels.startSentinel(firstPort);
      await sentinels.settled();
      return sentinels;
    } catch (error) {
      await sentinels.stop();
      throw error;
    }
  }

  private async startSentinel(primaryPort: number): Promise<void> {
    const port = await freePort();
    const file = join(this.folder, `${port}.conf`);
    const lines = [
      `port ${port}`,
      'bind 127.0.0.1',
      `dir ${this.folder}`,
      `sentinel monitor ${NAME} 127.0.0.1 ${primaryPort} 2`,
      `sentinel down-after-milliseconds ${NAME} ${DOWN_AFTER_MS}`,
      `sentinel failover-timeout ${NAME} 5000`,
      ...(this.password === '' ? [] : [`sentinel auth-pass ${NAME} ${this.password}`]),
      ...(this.sentinelsAsk
        ? [`requirepass ${this.password}`, `sentinel sentinel-pass ${this.password}`]
        : []),
    ];
    writeFileSync(file, lines.join('\n'));
    const child = spawn(process.env.REDIS_SERVER_BIN ?? 'redis-server', [file, '--sentinel'], {
      stdio: 'ignore',
    });
    unref(child);
    this.processes.set(child, watch(child, this.folder));
    this.ports.push(port);
  }

  /** One command to a node or a sentinel by its port. */
  async command(port: number, name: string, ...args: string[]): Promise<unknown> {
    let client = this.clients.get(port);
    if (client === undefined) {
      const asks = this.sentinelsAsk || !this.ports.includes(port);
      client = clientOf({ port }, asks ? this.password : '');
      this.clients.set(port, client);
    }
    return client.call(name, ...args);
  }

  /** Where the sentinels say that the primary is. */
  async primary(): Promise<RedisServer> {
    const [, port] = (await this.command(
      this.ports[0] ?? 0,
      'SENTINEL',
      'GET-MASTER-ADDR-BY-NAME',
      NAME,
    )) as [string, string];
    const node = this.nodes.find((one, i) => (this.links[i]?.port ?? one.port) === Number(port));
    if (node === undefined) throw new Error('The sentinels name a node that is none of ours');
    return node;
  }

  /** The wire that leads to a node of those that were started with `linked`. */
  linkTo(node: RedisServer): TcpLink {
    const link = this.links[this.nodes.indexOf(node)];
    if (link === undefined) throw new Error('This node has no wire of its own');
    return link;
  }

  /** How long the sentinels bear with a silent primary from now on. */
  async bearWith(silentMs: number): Promise<void> {
    for (const port of this.ports)
      await this.command(port, 'SENTINEL', 'SET', NAME, 'down-after-milliseconds', String(silentMs));
  }

  async replica(): Promise<RedisServer> {
    const primary = await this.primary();
    return this.nodes[0] === primary ? this.nodes[1] : this.nodes[0];
  }

  /** Resolves when all three sentinels know each other, and the primary has its replica. */
  async settled(): Promise<void> {
    await until(async () => {
      for (const port of this.ports) {
        const state = (await this.command(port, 'SENTINEL', 'MASTER', NAME)) as string[];
        const fields = Object.fromEntries(
          state.flatMap((value, i) => (i % 2 === 0 ? [[value, state[i + 1]]] : [])),
        ) as Record<string, string>;
        if (fields['num-other-sentinels'] !== '2' || fields['num-slaves'] !== '1') return false;
        if (fields.flags !== 'master') return false;
      }
      const { port } = await this.primary();
      const replication = String(await this.command(port, 'INFO', 'replication'));
      return replication.includes('role:master') && replication.includes('state=online');
    }, 'sentinels that know a primary and its replica');
  }

  /** A failover that somebody asked for. Resolves when the other node is the primary. */
  async failOver(): Promise<void> {
    const before = await this.primary();
    await this.command(this.ports[0] ?? 0, 'SENTINEL', 'FAILOVER', NAME);
    await until(async () => (await this.primary()) !== before, 'the failover');
  }

  async stop(): Promise<void> {
    for (const client of this.clients.values()) client.disconnect();
    for (const [child, stopWatching] of this.processes) {
      stopWatching();
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
    await Promise.all(this.links.map((link) => link.close()));
    await Promise.all(this.nodes.map((node) => node.stop()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}
