import { Redis } from 'ioredis';
import { startRedis, type RedisServer } from './redis-server';
import { TcpLink } from './tcp-link';
import { until } from './hang';

const SLOTS = 16_384;
const SHARDS = 3;
/** How long a node is silent before the others call it dead. */
export const NODE_TIMEOUT_MS = 1_500;

const NODE_ARGS = [
  ['--cluster-enabled', 'yes'],
  ['--cluster-config-file', 'nodes.conf'],
  ['--cluster-node-timeout', String(NODE_TIMEOUT_MS)],
  // However long it was cut off, a replica may stand for election.
  ['--cluster-replica-validity-factor', '0'],
  ['--repl-diskless-sync-delay', '0'],
  // CLUSTER SLOTS does not name a replica that has heard nothing yet.
  ['--repl-ping-replica-period', '1'],
].flat();

/** A primary and its replicas as a node of the cluster sees them now. */
interface Shard {
  primary: RedisServer;
  replicas: RedisServer[];
}

/** A real Redis Cluster of six nodes on loopback: three shards with a replica each. */
export class RedisCluster {
  private constructor(
    readonly nodes: readonly RedisServer[],
    private readonly clients: Map<RedisServer, Redis>,
    private readonly links: Map<RedisServer, TcpLink>,
  ) {}

  get url(): string {
    return `redis+cluster://${this.nodes.map((node) => `127.0.0.1:${this.portOf(node)}`).join(',')}`;
  }

  /** With `linked` each node is known by the address of a wire to it: clients and replicas come that way, not the bus. */
  static async start({
    args = [],
    linked = false,
  }: { args?: readonly string[]; linked?: boolean } = {}): Promise<RedisCluster> {
    const nodes: RedisServer[] = [];
    const clients = new Map<RedisServer, Redis>();
    const links = new Map<RedisServer, TcpLink>();
    const cluster = new RedisCluster(nodes, clients, links);
    try {
      for (let i = 0; i < SHARDS * 2; i++) {
        const link = linked ? await TcpLink.to({ port: 0 }) : undefined;
        const announced = link === undefined ? [] : ['--cluster-announce-port', String(link.port)];
        const node = await startRedis({ args: [...NODE_ARGS, ...announced, ...args] });
        link?.leadTo(node);
        if (link !== undefined) links.set(node, link);
        nodes.push(node);
        clients.set(node, clientOf(node));
      }
      await cluster.form();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  private async form(): Promise<void> {
    const [first] = this.nodes as [RedisServer];
    // Of all before any has met another: then it is refused.
    for (const [i, node] of this.nodes.entries())
      await this.command(node, 'CLUSTER', 'SET-CONFIG-EPOCH', String(i + 1));
    for (const [i, node] of this.nodes.entries()) {
      // All to all: that they hear of each other by the way would take seconds.
      for (const { port } of this.nodes.slice(i + 1))
        await this.command(node, 'CLUSTER', 'MEET', '127.0.0.1', String(port));
    }
    const primaries = this.nodes.slice(0, SHARDS);
    for (const [i, primary] of primaries.entries()) {
      const from = Math.floor((i * SLOTS) / SHARDS);
      const to = Math.floor(((i + 1) * SLOTS) / SHARDS) - 1;
      await this.command(primary, 'CLUSTER', 'ADDSLOTSRANGE', String(from), String(to));
    }
    for (const [i, primary] of primaries.entries()) {
      const replica = this.nodes[SHARDS + i] ?? first;
      const id = String(await this.command(primary, 'CLUSTER', 'MYID'));
      await until(
        async () => String(await this.command(replica, 'CLUSTER', 'NODES')).includes(id),
        'the first meeting of the nodes',
      );
      await this.command(replica, 'CLUSTER', 'REPLICATE', id);
    }
    await this.settled();
  }

  /** One command to one node, past the service. */
  async command(node: RedisServer, name: string, ...args: string[]): Promise<unknown> {
    const client = this.clients.get(node);
    if (client === undefined) throw new Error('This node is none of the cluster');
    return client.call(name, ...args);
  }

  /** How long the nodes bear with a silent one from now on. */
  async bearWith(silentMs: number): Promise<void> {
    for (const node of this.nodes)
      await this.command(node, 'CONFIG', 'SET', 'cluster-node-timeout', String(silentMs));
  }

  /** The wire that leads to a node of a cluster that was started with `linked`. */
  linkTo(node: RedisServer): TcpLink {
    const link = this.links.get(node);
    if (link === undefined) throw new Error('This node has no wire of its own');
    return link;
  }

  /** The shards as the living nodes see them. Throws while no node answers. */
  async shards(): Promise<Shard[]> {
    for (const node of this.nodes) {
      const slots = (await this.command(node, 'CLUSTER', 'SLOTS').catch(() => undefined)) as
        [number, number, ...[string, number][]][] | undefined;
      if (slots === undefined) continue;
      const shards = new Map<RedisServer, Set<RedisServer>>();
      for (const [, , [, port], ...replicas] of slots as unknown as [
        number,
        number,
        [string, number],
        ...[string, number][],
      ][]) {
        const known = shards.get(this.byPort(port)) ?? new Set();
        for (const [, replica] of replicas) known.add(this.byPort(replica));
        shards.set(this.byPort(port), known);
      }
      return [...shards].map(([primary, replicas]) => ({ primary, replicas: [...replicas] }));
    }
    throw new Error('No node of the cluster answers');
  }

  /** The shard that holds a key now. */
  async shardOf(key: string): Promise<Shard> {
    const slot = await this.slotOf(key);
    const ranges = (await this.anyCommand('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
    const range = ranges.find(([from, to]) => from <= slot && slot <= to);
    const primary = this.byPort(range?.[2][1] ?? 0);
    const shards = await this.shards();
    return shards.find((shard) => shard.primary === primary) ?? { primary, replicas: [] };
  }

  async slotOf(key: string): Promise<number> {
    return Number(await this.anyCommand('CLUSTER', 'KEYSLOT', key));
  }

  /** Resolves when every running node agrees that all is well, and every replica has what its primary has. */
  async settled(): Promise<void> {
    await until(async () => {
      const running = this.nodes.filter(({ pid }) => pid !== undefined);
      for (const node of running) {
        const info = String(await this.command(node, 'CLUSTER', 'INFO'));
        if (!info.includes('cluster_state:ok')) return false;
        const replication = String(await this.command(node, 'INFO', 'replication'));
        if (replication.includes('role:slave') && !replication.includes('master_link_status:up'))
          return false;
        if (replication.includes('role:slave') && replication.includes('master_sync_in_progress:1'))
          return false;
      }
      const shards = await this.shards();
      const members = shards.reduce((sum, { replicas }) => sum + 1 + replicas.length, 0);
      return shards.length === SHARDS && members === running.length;
    }, 'a cluster that is whole');
  }

  /** A planned failover: the replica takes over with everything that its primary has. Resolves when it is the primary. */
  async failOver({ replicas: [replica] }: Shard): Promise<void> {
    if (replica === undefined) throw new Error('This shard has no replica');
    await this.command(replica, 'CLUSTER', 'FAILOVER');
    await until(async () => (await this.shards()).some(({ primary }) => primary === replica), 'the failover');
  }

  /**
   * Moves a slot to another primary, key by key as `redis-cli --cluster reshard` does; `between` runs while the slot is
   * at both.
   */
  async moveSlot(
    slot: number,
    to: RedisServer,
    between: () => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    const ranges = (await this.anyCommand('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
    const from = this.byPort(ranges.find(([low, high]) => low <= slot && slot <= high)?.[2][1] ?? 0);
    if (from === to) return;
    const [fromId, toId] = [
      String(await this.command(from, 'CLUSTER', 'MYID')),
      String(await this.command(to, 'CLUSTER', 'MYID')),
    ];
    await this.command(to, 'CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', fromId);
    await this.command(from, 'CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', toId);
    await between();
    for (;;) {
      const keys = (await this.command(from, 'CLUSTER', 'GETKEYSINSLOT', String(slot), '10')) as string[];
      if (keys.length === 0) break;
      await this.command(from, 'MIGRATE', '127.0.0.1', String(to.port), '', '0', '5000', 'KEYS', ...keys);
    }
    for (const node of [to, from]) await this.command(node, 'CLUSTER', 'SETSLOT', String(slot), 'NODE', toId);
  }

  /** Every key of every primary, with the node that has it. */
  async keys(): Promise<{ key: string; node: RedisServer }[]> {
    const found: { key: string; node: RedisServer }[] = [];
    for (const { primary } of await this.shards()) {
      for (const key of (await this.command(primary, 'KEYS', '*')) as string[])
        found.push({ key, node: primary });
    }
    return found;
  }

  async stop(): Promise<void> {
    for (const client of this.clients.values()) client.disconnect();
    await Promise.all([...this.links.values()].map((link) => link.close()));
    await Promise.all(this.nodes.map((node) => node.stop()));
  }

  private portOf(node: RedisServer): number {
    return this.links.get(node)?.port ?? node.port;
  }

  private async anyCommand(name: string, ...args: string[]): Promise<unknown> {
    for (const node of this.nodes) {
      const answer = await this.command(node, name, ...args).catch(() => undefined);
      if (answer !== undefined) return answer;
    }
    throw new Error('No node of the cluster answers');
  }

  private byPort(port: number): RedisServer {
    const node = this.nodes.find((one) => this.portOf(one) === port);
    if (node === undefined) throw new Error(`No node of the cluster listens on ${port}`);
    return node;
  }
}

/** Fails where its node stands still, and is back by itself after its node was away. */
export function clientOf({ port }: { port: number }, password = ''): Redis {
  const client = new Redis({
    port,
    password,
    host: '127.0.0.1',
    maxRetriesPerRequest: 1,
    commandTimeout: 5_000,
    connectTimeout: 5_000,
    retryStrategy: () => 100,
    // It would keep Jest waiting for two seconds where the node is gone.
    disconnectTimeout: 100,
  });
  client.on('error', () => undefined);
  return client;
}
