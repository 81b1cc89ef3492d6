import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { type PollResult, SecretFiles } from '../config/secret-files';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';

/**
 * How soon a changed secret counts: after two looks. Looked at, not watched: Kubernetes swaps a symlink two folders up that
 * watchers lose sight of, and network file systems tell nobody.
 */
const POLL_EVERY_MS = 2_000;

/** Looks at the files of secrets again and again, and tells what came of it: in the log once, in the metrics always. */
@Injectable()
export class SecretsWatch implements OnModuleInit, OnModuleDestroy {
  private timer: NodeJS.Timeout | undefined;
  private told = '';

  constructor(
    private readonly files: SecretFiles,
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {}

  onModuleInit(): void {
    if (this.files.names.length === 0) return;
    this.metrics.secretsRead.set({ source: 'files' }, Date.now() / 1_000);
    this.metrics.secretsRefused.set({ source: 'files' }, 0);
    this.timer = setInterval(() => {
      this.poll();
    }, POLL_EVERY_MS).unref();
  }

  onModuleDestroy(): void {
    clearInterval(this.timer);
  }

  /** Reads the files again. A timer does it every two seconds. */
  poll(): void {
    try {
      this.apply(this.files.poll());
    } catch (error) {
      // A fault of ours in a timer would end the process.
      this.refused('The files of secrets could not be looked at: what was in use stays', String(error), {
        error,
      });
    }
  }

  private apply(result: PollResult): void {
    if (result.state === 'changing') return;
    if (result.state === 'refused') {
      this.refused('Changed secrets are refused: what was in use stays', result.faults.join('\n'), {
        faults: result.faults,
      });
      return;
    }
    this.metrics.secretsRefused.set({ source: 'files' }, 0);
    const mended = this.told !== '';
    this.told = '';
    if (result.state === 'same') {
      // Else the refusal would be the last line of a log where somebody took the change back.
      if (mended) this.logger.info('Secrets are good again: the files say what is in use');
      return;
    }
    this.metrics.secretsRead.set({ source: 'files' }, Date.now() / 1_000);
    this.logger.info('Secrets have changed', { names: result.names });
    for (const warning of result.warnings) this.logger.warn(warning);
  }

  private refused(message: string, what: string, fields: Record<string, unknown>): void {
    this.metrics.secretsRefused.set({ source: 'files' }, 1);
    // Every two seconds the same line would bury the others.
    if (what === this.told) return;
    this.told = what;
    this.logger.error(message, fields);
  }
}
