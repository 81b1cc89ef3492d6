import { Module } from '@nestjs/common';
import { Ledger } from './ledger';
import { UsageReader } from './usage';

/** Every SMS with its price and its outcome, and the totals of the bill. */
@Module({ providers: [Ledger, UsageReader], exports: [Ledger, UsageReader] })
export class LedgerModule {}
