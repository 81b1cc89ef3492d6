/** A Redis-compatible server inside this process, on a free loopback port. */
export interface EmbeddedStore {
  url: string;
  close(): Promise<void>;
}

/**
 * Starts the embedded store: a real RESP server with Lua, so that development runs the very scripts that production
 * runs. Everything in it ends with the process. Throws when it is not installed: it is a development dependency.
 */
export async function startEmbeddedStore(): Promise<EmbeddedStore> {
  const { createRedisServer } = await import('js-redis-server').catch((cause: unknown) => {
    throw new Error('REDIS_URL is not set, and the embedded store is not installed here. Set REDIS_URL.', {
      cause,
    });
  });
  const server = await createRedisServer();
  return { url: `redis://127.0.0.1:${server.port}/0`, close: () => server.close() };
}
