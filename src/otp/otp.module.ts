import { HttpModule, HttpService } from '@nestjs/axios';
import { Module } from '@nestjs/common';
import { Config } from '../config/config';
import { GuardModule } from '../guard/guard.module';
import { LedgerModule } from '../ledger/ledger.module';
import { Metrics } from '../metrics/metrics';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { ThrottlingModule } from '../throttling/throttling.module';
import { Attempts } from './attempts';
import { CallerContract } from './caller-contract';
import { ChallengeRecords } from './challenge-records';
import { Challenges } from './challenges';
import { Codes } from './codes';
import { Deliveries } from './deliveries';
import { DeviceTokens } from './device-tokens';
import { Numbers } from './numbers';
import { OTP_PROVIDER, type OtpProvider } from './otp-provider';
import { OtpService } from './otp.service';
import { ProviderContract } from './provider-contract';
import { Sends } from './sends';
import { TestNumbers } from './test-numbers';
import { UpstreamFaults } from './upstream-faults';

/** Request a code, verify a code. Wraps the StartMessaging client as a provider, under the contract that is configured. */
@Module({
  imports: [HttpModule, ThrottlingModule, GuardModule, LedgerModule],
  providers: [
    {
      provide: StartMessagingClient,
      inject: [HttpService, Config, Metrics],
      useFactory: (http: HttpService, config: Config, metrics: Metrics) =>
        new StartMessagingClient(http, {
          baseUrl: config.startMessagingBaseUrl,
          apiKey: config.startMessagingApiKey,
          templateId: config.startMessagingTemplateId,
          appName: config.startMessagingAppName,
          timeoutMs: config.upstreamTimeoutMs,
          connectTimeoutMs: config.upstreamConnectTimeoutMs,
          retryDelayMs: config.upstreamRetryDelayMs,
          maxAttempts: config.upstreamMaxAttempts,
          deadlineMs: config.upstreamDeadlineMs,
          onCall: ({ operation, outcome, seconds }) => {
            metrics.upstreamCalls.observe({ operation, outcome }, seconds);
          },
        }),
    },
    {
      provide: OTP_PROVIDER,
      inject: [Config, CallerContract, ProviderContract],
      useFactory: (config: Config, caller: CallerContract, provider: ProviderContract): OtpProvider =>
        config.startMessagingContract === 'caller' ? caller : provider,
    },
    CallerContract,
    ProviderContract,
    UpstreamFaults,
    Codes,
    ChallengeRecords,
    Challenges,
    Attempts,
    DeviceTokens,
    Numbers,
    Deliveries,
    TestNumbers,
    Sends,
    OtpService,
  ],
  exports: [OtpService, Numbers],
})
export class OtpModule {}
