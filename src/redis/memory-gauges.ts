import type { Metrics } from '../metrics/metrics';
import type { Store } from './store';

/** A scrape waits no longer for a server that does not answer. */
const WAIT_MS = 750;

/**
 * Tells at each scrape how much memory every primary uses and may use. A full Redis refuses writes, and then every send
 * and every verification is a 503. A server that refuses INFO has no figures.
 */
export function watchMemory(store: Store, metrics: Metrics): void {
  metrics.onScrape(async () => {
    const primaries = store.available ? store.primaries : [];
    const answers = await Promise.all(
      primaries.map(async ({ name, client }) => {
        const late = new Promise<string>((resolve) => setTimeout(resolve, WAIT_MS, '').unref());
        const info = await Promise.race([client.info('memory').catch(() => ''), late]);
        return { name, info };
      }),
    );
    metrics.redisMemory.reset();
    for (const { name, info } of answers) {
      const [, used] = /^used_memory:(\d+)/m.exec(info) ?? [];
      const [, most] = /^maxmemory:(\d+)/m.exec(info) ?? [];
      if (used !== undefined) metrics.redisMemory.set({ node: name, memory: 'used' }, Number(used));
      if (most !== undefined) metrics.redisMemory.set({ node: name, memory: 'most' }, Number(most));
    }
  });
}
