import { HttpModule, HttpService } from '@nestjs/axios';
import { Module } from '@nestjs/common';
import { ChallengesModule } from '../challenges/challenges.module';
import { Config } from '../config/config';
import { SendWithSesClient } from '../sendwithses/sendwithses.client';
import { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { CallerContract } from './caller-contract';
import { ProviderContract } from './provider-contract';
import { Providers } from './providers';
import { SendWithSes } from './send-with-ses';
import { TestNumbers } from './test-numbers';
import { UpstreamFaults } from './upstream-faults';

/** Calls in all, the first included. */
const MOST_CALLS = 3;

const patience = (config: Config) => ({
  timeoutMs: config.upstreamTimeoutMs,
  connectTimeoutMs: config.upstreamConnectTimeoutMs,
  retryDelayMs: config.upstreamRetryDelayMs,
  maxAttempts: MOST_CALLS,
  deadlineMs: config.upstreamDeadlineMs,
});

/** The providers that send SMS: StartMessaging under its two contracts, and Send With SES. */
@Module({
  imports: [HttpModule, ChallengesModule],
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
    TestNumbers,
    UpstreamFaults,
  ],
  // The wallet is read by the client, off every request's path.
  exports: [Providers, StartMessagingClient],
})
export class ProvidersModule {}
