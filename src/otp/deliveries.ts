import { Injectable } from '@nestjs/common';
import { Alerts } from '../alerts/alerts';
import { Config } from '../config/config';
import { Ledger } from '../ledger/ledger';
import { readSms, type Sms } from '../ledger/sms';
import { Logger } from '../logging/logger';
import { Metrics, startAtZero } from '../metrics/metrics';
import { AdmissionControl } from '../throttling/admission';
import { Challenges, type DeliveryLookup } from '../challenges/challenges';
import type { OtpProvider } from '../providers/otp-provider';
import { Providers } from '../providers/providers';

/** A provider that answers slowly must not pile up lookups. A later request finds a free place. */
const MOST_LOOKUPS = 16;

/** Looks up what became of SMS: when a client asks for the status, once for many requests, off every request's path. */
@Injectable()
export class Deliveries {
  private lookups = 0;
  private priceAlerted = false;

  constructor(
    private readonly providers: Providers,
    private readonly challenges: Challenges,
    private readonly admissionControl: AdmissionControl,
    private readonly ledger: Ledger,
    private readonly config: Config,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly alerts: Alerts,
  ) {
    startAtZero(metrics.deliveries, 'delivery', ['delivered', 'failed']);
  }

  /** Looks an SMS up in the background. A lookup that fails changes nothing: the next request looks it up again. */
  refresh(lookup: DeliveryLookup): void {
    const [sms, provider] = [readSms(lookup.sms), this.providers.of(lookup)];
    if (sms === undefined || provider?.delivery === undefined || this.lookups >= MOST_LOOKUPS) return;
    this.lookups += 1;
    void this.follow(lookup, sms, provider)
      .catch((error: unknown) => {
        this.logger.warn('The state of an SMS could not be read', { error });
      })
      .finally(() => (this.lookups -= 1));
  }

  private async follow(lookup: DeliveryLookup, sms: Sms, provider: OtpProvider): Promise<void> {
    const found = await provider.delivery?.(sms.message);
    if (found === undefined || found.delivery === 'accepted') return;
    const { delivery, cost } = found;
    // Before the failure is recorded: a page that reads the failure must find that it may ask again.
    const forgiven =
      delivery === 'failed'
        ? await this.admissionControl.uncountFailedSms(lookup.id.pseudonym, sms)
        : undefined;
    const news = await this.challenges.recordDelivery(lookup, delivery, forgiven);
    if (!news || (delivery !== 'delivered' && delivery !== 'failed')) return;
    this.metrics.deliveries.inc({ delivery });
    const charged = this.config.smsPricePaise * 100;
    if (cost !== undefined && cost > charged) this.alertPriceOnce(cost / 100);
    const more = cost === undefined ? 0 : cost - charged;
    this.ledger.record({ what: 'delivery', sms: sms.entry, at: sms.at, delivery, cost: more });
  }

  /** Once: the budgets count with a price that is too low, until an operator corrects it. */
  private alertPriceOnce(pricePaise: number): void {
    if (this.priceAlerted) return;
    this.priceAlerted = true;
    this.alerts.raise('sms_price', 'An SMS costs more than SMS_PRICE_PAISE: the budgets count too little', {
      pricePaise,
    });
  }
}
