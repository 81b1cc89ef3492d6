import { KEYS } from './keys';
import { clientOf, NODE_TIMEOUT_MS, RedisCluster } from './redis-cluster';
import { DOWN_AFTER_MS, RedisSentinels } from './redis-sentinels';
import { startRedis, type RedisServer } from './redis-server';
import { TcpLink } from './tcp-link';

/** Longer than any test. */
export const PATIENT_MS = 600_000;

/** Real servers as one of the three forms of REDIS_URL names them, each behind a wire of its own. */
export interface Topology {
  readonly url: string;
  readonly nodes: readonly RedisServer[];
  /** Every server that takes writes now. */
  primaries(): Promise<RedisServer[]>;
  /** The one of them that every send asks. */
  asked(): Promise<RedisServer>;
  linkTo(node: RedisServer): TcpLink;
  command(node: RedisServer, name: string, ...args: string[]): Promise<unknown>;
  /** Whether a primary that is away is waited for, rather than replaced. */
  beingPatient(patient: boolean): Promise<void>;
  settled(): Promise<void>;
  stop(): Promise<void>;
}

const STARTS = { standalone, sentinel, cluster };
export type Kind = keyof typeof STARTS;
export const KINDS = Object.keys(STARTS) as Kind[];

export const startTopology = (kind: Kind): Promise<Topology> => STARTS[kind]();

async function standalone(): Promise<Topology> {
  const server = await startRedis();
  const link = await TcpLink.to(server);
  const client = clientOf(server);
  return {
    url: `redis://127.0.0.1:${link.port}`,
    nodes: [server],
    primaries: () => Promise.resolve([server]),
    asked: () => Promise.resolve(server),
    linkTo: () => link,
    command: (_node, name, ...args) => client.call(name, ...args),
    beingPatient: () => Promise.resolve(),
    settled: () => Promise.resolve(),
    stop: async () => {
      client.disconnect();
      await link.close();
      await server.stop();
    },
  };
}

async function sentinel(): Promise<Topology> {
  const sentinels = await RedisSentinels.start({ linked: true });
  return {
    url: sentinels.url,
    nodes: sentinels.nodes,
    primaries: async () => [await sentinels.primary()],
    asked: () => sentinels.primary(),
    linkTo: (node) => sentinels.linkTo(node),
    command: ({ port }, name, ...args) => sentinels.command(port, name, ...args),
    beingPatient: (patient) => sentinels.bearWith(patient ? PATIENT_MS : DOWN_AFTER_MS),
    settled: () => sentinels.settled(),
    stop: () => sentinels.stop(),
  };
}

async function cluster(): Promise<Topology> {
  const nodes = await RedisCluster.start({ linked: true });
  return {
    url: nodes.url,
    nodes: nodes.nodes,
    primaries: async () => (await nodes.shards()).map(({ primary }) => primary),
    asked: async () => (await nodes.shardOf(KEYS.serviceLimit)).primary,
    linkTo: (node) => nodes.linkTo(node),
    command: (node, name, ...args) => nodes.command(node, name, ...args),
    beingPatient: async (patient) => {
      await nodes.bearWith(patient ? PATIENT_MS : NODE_TIMEOUT_MS);
    },
    settled: () => nodes.settled(),
    stop: () => nodes.stop(),
  };
}
