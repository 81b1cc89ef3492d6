import { Module, type DynamicModule } from '@nestjs/common';
import type { DestinationStream } from 'pino';
import { AdminModule } from './admin/admin.module';
import { AlertsModule } from './alerts/alerts.module';
import { AuditModule } from './audit/audit.module';
import { AuthModule } from './auth/auth.module';
import type { Config, Environment } from './config/config';
import { ConfigModule } from './config/config.module';
import { DoctorModule } from './doctor/doctor.module';
import { HealthModule } from './health/health.module';
import { LoggingModule } from './logging/logging.module';
import { MetricsModule } from './metrics/metrics.module';
import { OAuthModule } from './oauth/oauth.module';
import { PagesModule } from './pages/pages.module';
import { PhoneNumberModule } from './phone-number/phone-number.module';
import { RedisModule } from './redis/redis.module';
import { SecretsModule } from './secrets/secrets.module';
import { WalletModule } from './wallet/wallet.module';

/** The composition root, the one file that sees every module. */
@Module({})
export class AppModule {
  static register(
    environment: Environment | undefined,
    logs: DestinationStream,
    redisTimeoutMs?: number,
  ): { config: Config; module: DynamicModule } {
    const { config, ...configModule } = ConfigModule.register(environment);
    const module = {
      module: AppModule,
      imports: [
        configModule,
        LoggingModule.register(logs),
        MetricsModule,
        RedisModule.register(redisTimeoutMs),
        PhoneNumberModule,
        AuditModule,
        AlertsModule,
        SecretsModule,
        HealthModule,
        DoctorModule,
        WalletModule,
        AuthModule,
        OAuthModule.register(config.oauthClients.length > 0),
        ...(config.adminTokens.length > 0 ? [AdminModule] : []),
        ...(config.loginPage ? [PagesModule] : []),
      ],
    };
    return { config, module };
  }
}
