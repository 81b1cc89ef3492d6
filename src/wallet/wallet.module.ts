import { Module } from '@nestjs/common';
import { LedgerModule } from '../ledger/ledger.module';
import { ProvidersModule } from '../providers/providers.module';
import { WalletWatch } from './wallet-watch';

/** The balance of the wallet at StartMessaging, before it is empty. */
@Module({ imports: [LedgerModule, ProvidersModule], providers: [WalletWatch], exports: [WalletWatch] })
export class WalletModule {}
