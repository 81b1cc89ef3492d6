import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Config } from '../config/config';
import { parseRedisUrl } from '../config/redis-url';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { Store } from '../redis/store';
import { examineRedis } from './examine-redis';
import { REDIS_CHECKS, type RedisKind } from './redis-checks';

/** A clock drifts, a disk fills, and the first snapshot comes when there was time for it. */
const RUN_AGAIN_MS = 3_600_000;

/**
 * Checks Redis after each connection, because a failover may have brought another server, and every hour. Each warning becomes
 * a log line and a gauge. No request waits for these checks or is refused because of them.
 */
@Injectable()
export class StartChecks implements OnModuleInit, OnModuleDestroy {
  private running = false;
  private again = false;
  private ended = false;
  /** The checks that failed when it last looked. */
  private failed: ReadonlySet<string> = new Set();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {}

  onModuleInit(): void {
    const target = parseRedisUrl(this.config.redisUrl ?? '');
    // The embedded store ends with the process, and knows little of INFO: development needs no warning of it.
    if (target === undefined) {
      for (const check of REDIS_CHECKS) this.metrics.checkFailed.set({ check }, 0);
      return;
    }
    this.store.onConnected(() => {
      // A new connection logs every warning again; the same connection logs only new ones.
      this.failed = new Set();
      void this.runChecks(target.kind);
    });
    // No connection is made then, and the store logs the reason.
    this.store.onDatabaseRefused(() => {
      this.metrics.checkFailed.set({ check: 'redis_reached' }, 1);
    });
    this.timer = setInterval(() => {
      if (this.store.available) void this.runChecks(target.kind);
    }, RUN_AGAIN_MS).unref();
  }

  onModuleDestroy(): void {
    this.ended = true;
    clearInterval(this.timer);
  }

  private async runChecks(kind: RedisKind): Promise<void> {
    // A connection that comes and goes must not pile up looks; but the last one counts.
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    await this.runChecksOnce(kind);
    this.running = false;
    if (!this.again) return;
    this.again = false;
    await this.runChecks(kind);
  }

  private async runChecksOnce(kind: RedisKind): Promise<void> {
    const findings = await examineRedis(kind, this.store.primaries);
    // A connection that was closed under it says nothing of Redis.
    if (this.ended) return;
    const toMend = findings.filter(({ level }) => level !== 'ok');
    for (const { check, level, message } of toMend) {
      if (!this.failed.has(check)) this.logger.warn(message, { check, severity: level });
    }
    this.failed = new Set(toMend.map(({ check }) => check));
    for (const check of REDIS_CHECKS) {
      this.metrics.checkFailed.set({ check }, this.failed.has(check) ? 1 : 0);
    }
  }
}
