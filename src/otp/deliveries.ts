import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { Ledger } from '../ledger/ledger';
import { readSms, type Sms } from '../ledger/sms';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { Script } from '../redis/script';
import { Store } from '../redis/store';
import { Admission } from '../throttling/admission';
import { ChallengeRecords, pseudonymIn } from './challenge-records';
import type { Look } from './challenges';
import type { OtpProvider } from './otp-provider';
import { Providers } from './providers';

const DELIVER = Script.load(__dirname, 'deliver');

/** A provider that answers slowly must not pile up looks; who asks again finds a free place. */
const MOST_LOOKS = 16;

/** Looks up what became of SMS: when somebody asks, once for many askers, and while nobody waits for it. */
@Injectable()
export class Deliveries {
  private looks = 0;
  private toldOfPrice = false;

  constructor(
    private readonly providers: Providers,
    private readonly store: Store,
    private readonly records: ChallengeRecords,
    private readonly admission: Admission,
    private readonly ledger: Ledger,
    private readonly config: Config,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
  ) {
    startAtZero(metrics.deliveries, 'delivery', ['delivered', 'failed']);
    startAtZero(metrics.alerts, 'alert', ['sms_price']);
  }

  /** Looks in the background. A look that fails changes nothing: the next asker looks again. */
  look(requestId: string, look: Look): void {
    const [sms, provider] = [readSms(look.sms), this.providers.of(look)];
    if (sms === undefined || provider?.delivery === undefined || this.looks >= MOST_LOOKS) return;
    this.looks += 1;
    void this.follow(requestId, sms, provider)
      .catch((error: unknown) => {
        this.logger.warn('What became of an SMS is not known', { error });
      })
      .finally(() => (this.looks -= 1));
  }

  private async follow(requestId: string, sms: Sms, provider: OtpProvider): Promise<void> {
    const found = await provider.delivery?.(sms.message);
    if (found === undefined || found.delivery === 'accepted') return;
    const { delivery, cost } = found;
    // First: the page that is told of the failure shall find that it may ask again.
    const forgiven =
      delivery === 'failed' ? await this.admission.forgive(pseudonymIn(requestId), sms) : undefined;
    const { challenge } = this.records.keys(requestId);
    const news = await this.store.run(DELIVER, [challenge], [delivery, forgiven ?? -1]);
    if (news !== 1 || (delivery !== 'delivered' && delivery !== 'failed')) return;
    this.metrics.deliveries.inc({ delivery });
    const charged = this.config.smsPricePaise * 100;
    if (cost !== undefined && cost > charged) this.tellOfPrice(cost / 100);
    const more = cost === undefined ? 0 : cost - charged;
    this.ledger.record({ what: 'delivery', sms: sms.entry, at: sms.at, delivery, cost: more });
  }

  /** Once: the budgets count with a price that is too low, until somebody sets it right. */
  private tellOfPrice(pricePaise: number): void {
    if (this.toldOfPrice) return;
    this.toldOfPrice = true;
    this.metrics.alerts.inc({ alert: 'sms_price' });
    this.logger.alert('sms_price', 'An SMS costs more than SMS_PRICE_PAISE: the budgets count too little', {
      pricePaise,
    });
  }
}
