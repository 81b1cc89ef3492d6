import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { type PollResult, SecretFiles } from '../config/secret-files';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';

/** Polls the files of secrets. Each change and each fault is logged once; the metrics show the current state. */
@Injectable()
export class SecretsWatch implements OnModuleInit, OnModuleDestroy {
  /** The fault that was logged last; empty when there is none. */
  private loggedFault = '';

  constructor(
    private readonly files: SecretFiles,
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {}

  onModuleInit(): void {
    if (this.files.names.length === 0) return;
    this.metrics.secretsRead.set({ source: 'files' }, Date.now() / 1_000);
    this.metrics.secretsRefused.set({ source: 'files' }, 0);
    this.files.poller.start(() => {
      this.poll();
    });
  }

  onModuleDestroy(): void {
    this.files.poller.stop();
  }

  /** Reads the files again. A timer does it every two seconds. */
  poll(): void {
    try {
      this.apply(this.files.poll());
    } catch (error) {
      // An exception in a timer would end the process.
      this.refused('The files of secrets could not be read: the secrets in use stay', String(error), {
        error,
      });
    }
  }

  private apply(result: PollResult): void {
    if (result.state === 'changing') return;
    if (result.state === 'refused') {
      this.refused('Changed secrets are refused: the secrets in use stay', result.faults.join('\n'), {
        faults: result.faults,
      });
      return;
    }
    this.metrics.secretsRefused.set({ source: 'files' }, 0);
    const mended = this.loggedFault !== '';
    this.loggedFault = '';
    if (result.state === 'same') {
      // An operator took the refused change back. Without this line the refusal would stay the last word of the log.
      if (mended) this.logger.info('Secrets are valid again: the files hold the secrets in use');
      return;
    }
    this.metrics.secretsRead.set({ source: 'files' }, Date.now() / 1_000);
    this.logger.info('Secrets have changed', { names: result.names });
    for (const warning of result.warnings) this.logger.warn(warning);
  }

  private refused(message: string, fault: string, fields: Record<string, unknown>): void {
    this.metrics.secretsRefused.set({ source: 'files' }, 1);
    // The same line every two seconds would hide all others.
    if (fault === this.loggedFault) return;
    this.loggedFault = fault;
    this.logger.error(message, fields);
  }
}
