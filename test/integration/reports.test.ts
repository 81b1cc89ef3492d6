import { Reports } from '../../src/admin/reports';
import type { Config } from '../../src/config/config';
import type { AbuseControl } from '../../src/abuse/abuse-control';
import { Ledger } from '../../src/ledger/ledger';
import { UsageReader } from '../../src/ledger/usage';
import { Logger } from '../../src/logging/logger';
import type { Store } from '../../src/redis/store';
import { redisOfWorker } from '../support/redis-of-worker';
import { startRedis } from '../support/redis-server';
import { connectedStores } from '../support/stores';
import type { WalletWatch } from '../../src/wallet/wallet-watch';
import { settings } from '../support/settings';

it('the report of the usage does not wait for a write of the ledger that hangs', async () => {
  const logger = new Logger('silent', { write: () => undefined });
  // The ledger writes to a Redis that hangs, and the report reads from another one.
  const hanging = await startRedis();
  const [written, read] = [
    ...(await connectedStores(hanging.url, 1, logger)),
    ...(await connectedStores((await redisOfWorker()).url, 1, logger)),
  ] as [Store, Store];
  const ledger = new Ledger(settings(), written, logger);
  const wallet = { state: () => Promise.resolve({}) } as unknown as WalletWatch;
  const reports = new Reports({} as Config, ledger, new UsageReader(read), {} as AbuseControl, wallet);
  try {
    hanging.pause();
    ledger.record({ what: 'wrong', quiet: 0, tried: [] });
    let ended = false;
    const flushed = ledger.flush().then(() => (ended = true));
    expect((await reports.usage({})).total).toMatchObject({ sent: 0 });
    expect(ended).toBe(false);
    hanging.resume();
    await flushed;
  } finally {
    hanging.resume();
    await ledger.onApplicationShutdown();
    for (const store of [written, read]) store.close();
    await hanging.stop();
  }
});
