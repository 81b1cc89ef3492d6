import { Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { Alerts } from '../alerts/alerts';
import { Config } from '../config/config';
import { sum, UsageReader } from '../ledger/usage';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';
import { Store } from '../redis/store';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { UpstreamError, type UpstreamReason } from '../upstream/upstream.error';
import { paiseOfRecord, parseRecord, WALLET_KEY, withReading, type WalletRecord } from './wallet-record';

const LEASE_KEY = `${WALLET_KEY}:lease`;
const LOOK_EVERY_MS = 60_000;
/** A little less than five minutes, so that the fifth look of a replica finds the lease free. */
const LEASE_MS = 295_000;
/** After a failure that may pass, the next look of any replica reads again. */
const LEASE_AFTER_FAILURE_MS = 55_000;
/** Two readings were missed. */
const FRESH_MS = 900_000;
const KEEP_MS = 90 * 86_400_000;
/** The unit is inferred from readings of one week at most, because each day between is a key to read. */
const BASE_MS = 7 * 86_400_000;
const REMIND_EVERY_MS = 6 * 3_600_000;
const HOUR_MS = 3_600_000;
/** The API has no wallet for this key. Every other failure may pass. */
export const REFUSALS: ReadonlySet<UpstreamReason> = new Set([
  'credentials_refused',
  'contract_mismatch',
  'request_expired',
]);

export interface WalletState {
  /** Null until a balance was read. */
  balancePaise: number | null;
  /** `upstream`: as StartMessaging told it. `ledger`: the last balance less what the ledger counted since. */
  source: 'upstream' | 'ledger';
  /** At the rate of this hour and the one before. Null while nothing is spent, or the balance is not known. */
  hoursLeft: number | null;
}

/**
 * Reads the balance at StartMessaging every five minutes, by one replica for all, so that operators recharge the wallet before
 * it is empty. No request waits for it.
 */
@Injectable()
export class WalletWatch implements OnModuleInit, OnApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly config: Config,
    private readonly store: Store,
    private readonly usage: UsageReader,
    private readonly client: StartMessagingClient,
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly alerts: Alerts,
  ) {}

  onModuleInit(): void {
    const { providers, walletAlertPaise, startMessagingApiKey } = this.config;
    const { walletBalance, walletAlert } = this.metrics;
    walletBalance.remove();
    walletAlert.remove();
    if (!providers.includes('startmessaging') || !startMessagingApiKey || walletAlertPaise === 0) return;
    walletAlert.set(walletAlertPaise);
    this.metrics.onScrape(async () => {
      const { balancePaise } = await this.state().catch(() => ({ balancePaise: null }));
      // Without a figure there is no series: an old figure is worse than none.
      if (balancePaise === null) walletBalance.remove();
      else walletBalance.set(balancePaise);
    });
    this.store.onConnected(() => void this.look());
    this.timer = setInterval(() => void this.look(), LOOK_EVERY_MS).unref();
  }

  onApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  /** Reads the wallet, unless a replica has read it within the last five minutes. Never throws. */
  async look(): Promise<void> {
    try {
      const leased = await this.store.command('lease wallet', (client) =>
        client.set(LEASE_KEY, '1', 'PX', LEASE_MS, 'NX'),
      );
      if (leased === null) return;
      const before = await this.read();
      const record = await this.ask(before);
      if (record === undefined) {
        await this.store.command('lease wallet', (client) =>
          client.pexpire(LEASE_KEY, LEASE_AFTER_FAILURE_MS),
        );
        return;
      }
      const judged = await this.judge(record);
      await this.store.command('write wallet', (client) =>
        client.set(WALLET_KEY, JSON.stringify(judged), 'PX', KEEP_MS),
      );
    } catch (error) {
      this.logger.warn('The balance of the wallet could not be recorded', { error });
    }
  }

  /** The balance as it is known now. */
  async state(): Promise<WalletState> {
    const record = await this.read();
    const source = isFresh(record) ? 'upstream' : 'ledger';
    const balancePaise = await this.balanceOf(record);
    if (balancePaise === undefined) return { balancePaise: null, source, hoursLeft: null };
    const perHour = await this.paisePerHour(Date.now());
    const hoursLeft = perHour > 0 ? Math.round((balancePaise / perHour) * 10) / 10 : null;
    return { balancePaise, source, hoursLeft };
  }

  private async read(): Promise<WalletRecord> {
    return parseRecord(await this.store.command('read wallet', (client) => client.get(WALLET_KEY)));
  }

  /** The record with a new reading, or with the refusal of this key; undefined after a failure that may pass. */
  private async ask(record: WalletRecord): Promise<WalletRecord | undefined> {
    try {
      // The ledger first: an SMS of the moment between is then missing from `spent`, and the next reading has it.
      const day = UsageReader.dayOf(new Date());
      const cost = await this.costOf(day, day);
      const { balance } = await this.client.readWallet();
      if (balance === undefined) return undefined;
      const reading = { at: Date.now(), balance, day, cost };
      const { base } = record;
      if (base === undefined || reading.at - base.at > BASE_MS) {
        return withReading({ ...record, base: reading }, reading, 0);
      }
      return withReading(record, reading, await this.spentSince(base));
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      if (!REFUSALS.has(error.reason)) return undefined;
      // Once: the next five minutes bring no other answer.
      if (record.refused !== true)
        this.logger.warn('StartMessaging does not let this key read the wallet: the ledger estimates it', {
          upstreamStatus: error.status,
        });
      return { ...record, refused: true };
    }
  }

  /** Raises `wallet_low` when the balance falls below the threshold, and again every six hours while it stays there. */
  private async judge(record: WalletRecord): Promise<WalletRecord> {
    const { alertedAt, ...others } = record;
    const balancePaise = await this.balanceOf(record);
    const { walletAlertPaise } = this.config;
    if (balancePaise === undefined) return record;
    if (balancePaise >= walletAlertPaise) return others;
    const now = Date.now();
    if (alertedAt !== undefined && now - alertedAt < REMIND_EVERY_MS) return record;
    this.alerts.raise('wallet_low', 'The balance of the wallet is below WALLET_ALERT_PAISE: recharge it', {
      balancePaise,
      walletAlertPaise,
    });
    return { ...others, alertedAt: now };
  }

  private async balanceOf(record: WalletRecord): Promise<number | undefined> {
    const paise = paiseOfRecord(record, this.config.walletUnit);
    if (paise === undefined || record.reading === undefined || isFresh(record)) return paise;
    return Math.max(0, Math.round(paise - (await this.spentSince(record.reading)) / 100));
  }

  private async spentSince({ day, cost }: { day: string; cost: number }): Promise<number> {
    return (await this.costOf(day, UsageReader.dayOf(new Date()))) - cost;
  }

  /** Ten-thousandths of a rupee. */
  private async costOf(from: string, to: string): Promise<number> {
    return sum(await this.usage.read(from, to)).cost;
  }

  private async paisePerHour(now: number): Promise<number> {
    const before = new Date(now - HOUR_MS);
    const days = await this.usage.read(UsageReader.dayOf(before), UsageReader.dayOf(new Date(now)));
    const hours = [UsageReader.hourOf(before), UsageReader.hourOf(new Date(now))];
    const cost = days
      .flatMap(({ date, hours: used }) => used.map(({ hour, cost: paid }) => ({ date, hour, paid })))
      .filter(({ date, hour }) => hours.some((each) => each.day === date && each.hour === hour))
      .reduce((total, { paid }) => total + paid, 0);
    // Hours of Asia/Kolkata begin at half past.
    const elapsed = 1 + ((now + HOUR_MS / 2) % HOUR_MS) / HOUR_MS;
    return cost / 100 / elapsed;
  }
}

function isFresh({ reading, refused }: WalletRecord): boolean {
  return reading !== undefined && refused !== true && Date.now() - reading.at <= FRESH_MS;
}
