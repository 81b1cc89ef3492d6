import { HttpModule, HttpService } from '@nestjs/axios';
import { Module } from '@nestjs/common';
import { Config } from '../config/config';
import { GuardModule } from '../guard/guard.module';
import { LedgerModule } from '../ledger/ledger.module';
import { SendWithSesClient } from '../sendwithses/sendwithses.client';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { ThrottlingModule } from '../throttling/throttling.module';
import { Attempts } from './attempts';
import { CallerContract } from './caller-contract';
import { ChallengeRecords } from './challenge-records';
import { Challenges } from './challenges';
import { Claims } from './claims';
import { Codes } from './codes';
import { Deliveries } from './deliveries';
import { DeviceTokens } from './device-tokens';
import { Failover } from './failover';
import { Numbers } from './numbers';
import { OtpService } from './otp.service';
import { PendingChallenges } from './pending-challenges';
import { ProviderContract } from './provider-contract';
import { Providers } from './providers';
import { SendWithSes } from './send-with-ses';
import { Sends } from './sends';
import { TestNumbers } from './test-numbers';
import { UpstreamFaults } from './upstream-faults';

const patience = (config: Config) => ({
  timeoutMs: config.upstreamTimeoutMs,
  connectTimeoutMs: config.upstreamConnectTimeoutMs,
  retryDelayMs: config.upstreamRetryDelayMs,
  maxAttempts: config.upstreamMaxAttempts,
  deadlineMs: config.upstreamDeadlineMs,
});

/** Request a code, verify a code. Wraps the clients of StartMessaging and Send With SES as providers. */
@Module({
  imports: [HttpModule, ThrottlingModule, GuardModule, LedgerModule],
  providers: [
    {
      provide: StartMessagingClient,
      inject: [HttpService, Config, UpstreamFaults],
      useFactory: (http: HttpService, config: Config, faults: UpstreamFaults) =>
        new StartMessagingClient(http, {
          baseUrl: config.startMessagingBaseUrl,
          // Asked at each call: a key that is rotated counts without a restart. Without a key it is none of the providers,
          // and is not called.
          get apiKey() {
            return config.startMessagingApiKey ?? '';
          },
          templateId: config.startMessagingTemplateId,
          appName: config.startMessagingAppName,
          ...patience(config),
          ...faults.watch('startmessaging'),
        }),
    },
    {
      provide: Providers,
      inject: [HttpService, Config, UpstreamFaults, CallerContract, ProviderContract, TestNumbers],
      useFactory: (
        http: HttpService,
        config: Config,
        faults: UpstreamFaults,
        caller: CallerContract,
        provider: ProviderContract,
        testNumbers: TestNumbers,
      ) => {
        const settings = config.sendWithSes;
        const options = settings && {
          ...settings,
          get templateKey() {
            return config.sendWithSes?.templateKey ?? '';
          },
          ...patience(config),
          ...faults.watch('sendwithses'),
        };
        const sendWithSes = options && new SendWithSes(new SendWithSesClient(http, options), faults);
        return new Providers(config, { caller, provider, sendWithSes, testNumbers });
      },
    },
    CallerContract,
    ProviderContract,
    UpstreamFaults,
    Claims,
    Codes,
    ChallengeRecords,
    Challenges,
    PendingChallenges,
    Attempts,
    DeviceTokens,
    Numbers,
    Deliveries,
    TestNumbers,
    Failover,
    Sends,
    OtpService,
  ],
  exports: [OtpService, Numbers],
})
export class OtpModule {}
