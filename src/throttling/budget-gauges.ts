import { Injectable, type OnModuleInit } from '@nestjs/common';
import { Config } from '../config/config';
import { REGULARS_KEY } from '../ledger/ledger';
import { Metrics } from '../metrics/metrics';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { BUDGET } from './admission';

const SPENT = Script.load(__dirname, 'budget');

/**
 * Gauges of the rest of the budgets. They are read at each scrape and not kept from the last send, because a budget refills
 * without sends, and each replica would show the last state that it has seen itself.
 */
@Injectable()
export class BudgetGauges implements OnModuleInit {
  private readonly budgets: readonly { window: 'hour' | 'day'; paise: number | undefined }[];

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly metrics: Metrics,
  ) {
    this.budgets = [
      { window: 'hour', paise: config.budgetPaisePerHour },
      { window: 'day', paise: config.budgetPaisePerDay },
    ];
  }

  onModuleInit(): void {
    for (const { window, paise } of this.budgets)
      if (paise !== undefined) this.metrics.budget.set({ window }, paise);
    if (this.budgets.some(({ paise }) => paise !== undefined)) this.metrics.onScrape(() => this.lookUp());
  }

  private async lookUp(): Promise<void> {
    const { budgetLeft } = this.metrics;
    // After any error no figure is shown: an old figure is worse than none.
    const answer = this.store.available
      ? await this.store.run(SPENT, [...BUDGET, REGULARS_KEY], []).catch(() => undefined)
      : undefined;
    budgetLeft.reset();
    if (answer === undefined) return;
    const [hour, day, known] = answer as [number, number, number];
    const spent = { hour, day };
    for (const { window, paise } of this.budgets) {
      if (paise === undefined) continue;
      // The reserve, which admission keeps from new numbers.
      const reserved = known === 1 ? Math.floor((paise * this.config.budgetReservePercent) / 100) : 0;
      budgetLeft.set({ window, numbers: 'new' }, Math.max(0, paise - reserved - spent[window]));
      budgetLeft.set({ window, numbers: 'returning' }, Math.max(0, paise - spent[window]));
    }
  }
}
