import { Injectable, type OnModuleInit } from '@nestjs/common';
import { Metrics } from '../metrics/metrics';
import { SigningKeys } from './signing-keys';

/**
 * Tells how old the signing key is and when the next one takes over. Times and counts instead of a series per key: names
 * of keys would go on growing with each rotation.
 */
@Injectable()
export class SigningKeyGauges implements OnModuleInit {
  constructor(
    private readonly keys: SigningKeys,
    private readonly metrics: Metrics,
  ) {}

  onModuleInit(): void {
    this.metrics.onScrape(() => {
      this.set(Date.now());
    });
  }

  private set(now: number): void {
    const current = this.keys.current(now);
    // Keys of access tokens: every service has them.
    const all = this.keys.published.filter(({ alg }) => alg === current.alg);
    const next = all.filter((key) => key !== current && key.activeFrom > now);
    const { signingKeys, signingSince, signingNext } = this.metrics;
    signingKeys.set({ state: 'signing' }, 1);
    signingKeys.set({ state: 'next' }, next.length);
    signingKeys.set({ state: 'retired' }, all.length - 1 - next.length);
    signingSince.set(current.activeFrom / 1_000);
    signingNext.set((next[0]?.activeFrom ?? 0) / 1_000);
  }
}
