import { isLoopback, webAddress } from './addresses';
import { matching, oneOf, wholeNumber } from './rules';
import type { Settings } from './settings';

export type StartMessagingContract = 'caller' | 'provider';

// It becomes a header: a line break in it would be a second one.
const apiKey = matching(/^[!-~]{1,512}$/, '1 to 512 visible ASCII characters');
const uuid = matching(/^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i, 'a UUID');
// It becomes the text of an SMS, in any script.
const appName = matching(/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,50}$/u, '1 to 50 printable characters');

/** The API that sends the messages, and how patient the service is with it. */
export function readStartMessaging(settings: Settings) {
  const key = settings.optional('STARTMESSAGING_API_KEY', apiKey);
  settings.demand(key !== undefined, 'STARTMESSAGING_API_KEY', 'is required');
  // Keys of other shapes may exist: that is for the upstream to say.
  if (key !== undefined && !/^sm_live_[\da-f]{40}$/.test(key)) {
    settings.warn('STARTMESSAGING_API_KEY', 'does not look like sm_live_<40 hex>');
  }

  const baseUrl = settings.withDefault(
    'STARTMESSAGING_BASE_URL',
    webAddress,
    'https://api.startmessaging.com',
  );
  // The API key and, under `caller`, the codes would be readable on the way.
  settings.demand(
    !settings.production || baseUrl.startsWith('https:') || isLoopback(new URL(baseUrl).hostname),
    'STARTMESSAGING_BASE_URL',
    'must be https in production, except to a loopback address',
  );

  // No default in production: under the wrong contract no login works, and every SMS is paid for all the same.
  const contract = settings.requiredInProduction('STARTMESSAGING_CONTRACT', oneOf('caller', 'provider'));

  return {
    startMessagingApiKey: key ?? '',
    startMessagingBaseUrl: baseUrl.replace(/\/+$/, ''),
    startMessagingContract: contract ?? 'provider',
    startMessagingTemplateId: settings.optional('STARTMESSAGING_TEMPLATE_ID', uuid),
    startMessagingAppName: settings.withDefault('STARTMESSAGING_APP_NAME', appName, 'otp-login'),
    upstreamTimeoutMs: settings.withDefault('UPSTREAM_TIMEOUT_MS', wholeNumber(1, 45_000), 10_000),
    upstreamConnectTimeoutMs: settings.withDefault(
      'UPSTREAM_CONNECT_TIMEOUT_MS',
      wholeNumber(1, 45_000),
      3000,
    ),
    upstreamRetryDelayMs: settings.withDefault('UPSTREAM_RETRY_DELAY_MS', wholeNumber(0, 45_000), 1000),
    upstreamMaxAttempts: settings.withDefault('UPSTREAM_MAX_ATTEMPTS', wholeNumber(1, 10), 3),
    // An idempotency key in flight is held for 60 s at most: a send that outlived it could be sent twice.
    upstreamDeadlineMs: settings.withDefault('UPSTREAM_DEADLINE_MS', wholeNumber(1, 45_000), 20_000),
  };
}
