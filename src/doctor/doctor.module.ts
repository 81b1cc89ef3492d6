import { Module } from '@nestjs/common';
import { StartChecks } from './start-checks';

/** The checks that run by themselves. All of them runs who calls `npm run doctor`. */
@Module({ providers: [StartChecks] })
export class DoctorModule {}
