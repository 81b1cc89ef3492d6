import { Module } from '@nestjs/common';
import { SecretsWatch } from './secrets-watch';

/** Secrets that change while the service runs. */
@Module({ providers: [SecretsWatch] })
export class SecretsModule {}
