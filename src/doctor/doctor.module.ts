import { Module } from '@nestjs/common';
import { StartChecks } from './start-checks';

/** The checks that the service runs by itself. `npm run doctor` runs all checks. */
@Module({ providers: [StartChecks] })
export class DoctorModule {}
