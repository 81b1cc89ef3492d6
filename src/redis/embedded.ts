import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

/** A Redis-compatible server inside this process, on a free loopback port. */
export interface EmbeddedStore {
  /** With the password. */
  url: string;
  close(): Promise<void>;
}

const DATABASES = 16;

/**
 * Starts the embedded store: a real RESP server with Lua, so that development runs the same scripts as production. It
 * holds sessions and the keyed hashes of everything, so nothing but this process may talk to it: it listens on 127.0.0.1
 * alone, and asks for a random password, because other programs of this machine reach 127.0.0.1 too. Everything in it ends
 * with the process. Throws when it is not installed: it is a development dependency.
 */
export async function startEmbeddedStore(): Promise<EmbeddedStore> {
  const { createRedisCommandExecutor, RedisServerState, Resp2Server } =
    await import('js-redis-server/core').catch((cause: unknown) => {
      throw new Error('REDIS_URL is not set, and the embedded store is not installed here. Set REDIS_URL.', {
        cause,
      });
    });
  const password = randomBytes(24).toString('base64url');
  const state = new RedisServerState({ databaseCount: DATABASES, requirepass: password });
  const embedded = new Resp2Server({ server: state, executor: createRedisCommandExecutor() });
  // Not by its own `listen`, which takes no host and would listen on every interface.
  embedded.server.listen(0, '127.0.0.1');
  await once(embedded.server, 'listening');
  const { port } = embedded.server.address() as AddressInfo;
  return { url: `redis://:${password}@127.0.0.1:${port}/0`, close: () => embedded.close() };
}
