import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { freePort } from './free-port';
import { clientOf } from './redis-cluster';
import { startRedis, unref, watch, type RedisServer } from './redis-server';
import { until } from './world';

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
    private readonly password: string,
    private readonly sentinelsAsk: boolean,
  ) {}

  get url(): string {
    const userinfo = this.password === '' ? '' : `default:${this.password}@`;
    return `redis+sentinel://${userinfo}${this.ports.map((port) => `127.0.0.1:${port}`).join(',')}/${NAME}`;
  }

  /** With a password the nodes ask for it, and the sentinels only if they are told to. */
  static async start({ password = '', sentinelsAsk = false } = {}): Promise<RedisSentinels> {
    const args = password === '' ? [] : ['--requirepass', password, '--masterauth', password];
    const first = await startRedis({ args: [...args, '--repl-diskless-sync-delay', '0'] });
    const second = await startRedis({
      args: [...args, '--repl-diskless-sync-delay', '0', '--replicaof', `127.0.0.1 ${first.port}`],
    });
    const sentinels = new RedisSentinels([first, second], password, sentinelsAsk);
    try {
      for (let i = 0; i < 3; i++) await sentinels.startSentinel(first.port);
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
      client = clientOf({ port });
      const asks = this.sentinelsAsk || !this.ports.includes(port);
      if (this.password !== '' && asks) client.options.password = this.password;
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
    const node = this.nodes.find((one) => one.port === Number(port));
    if (node === undefined) throw new Error('The sentinels name a node that is none of ours');
    return node;
  }

  async replica(): Promise<RedisServer> {
    const primary = await this.primary();
    return this.nodes[0] === primary ? this.nodes[1] : this.nodes[0];
  }

  /** Resolves when all three sentinels know each other, and the primary has its replica. */
  async settled(withinMs = 30_000): Promise<void> {
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
    }, withinMs);
  }

  /** A failover that somebody asked for. Resolves when the other node is the primary. */
  async failOver(): Promise<void> {
    const before = await this.primary();
    await this.command(this.ports[0] ?? 0, 'SENTINEL', 'FAILOVER', NAME);
    await until(async () => (await this.primary()) !== before, 20_000);
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
    await Promise.all(this.nodes.map((node) => node.stop()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}
