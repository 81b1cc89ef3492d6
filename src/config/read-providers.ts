import { listOf, oneOf, type Rule, wholeNumber } from './rules';
import type { Settings } from './settings';

export type ProviderName = 'startmessaging' | 'sendwithses';

const names = listOf(oneOf<ProviderName>('startmessaging', 'sendwithses'));
const providers: Rule<readonly ProviderName[]> = {
  expected: `${names.expected}, none of them twice`,
  read(text) {
    const list = names.read(text);
    return new Set(list).size === list?.length ? list : undefined;
  },
};

/** The providers that send messages, the preferred one first, and the timeouts of their calls. */
export function readProviders(settings: Settings) {
  return {
    providers: settings.withDefault('PROVIDERS', providers, ['startmessaging']),
    upstreamTimeoutMs: settings.withDefault('UPSTREAM_TIMEOUT_MS', wholeNumber(1, 45_000), 10_000),
    upstreamConnectTimeoutMs: settings.withDefault(
      'UPSTREAM_CONNECT_TIMEOUT_MS',
      wholeNumber(1, 45_000),
      3000,
    ),
    upstreamRetryDelayMs: settings.withDefault('UPSTREAM_RETRY_DELAY_MS', wholeNumber(0, 45_000), 1000),
    // An Idempotency-Key is held five seconds longer than this, and no client shall wait for more than a minute.
    upstreamDeadlineMs: settings.withDefault('UPSTREAM_DEADLINE_MS', wholeNumber(1, 45_000), 20_000),
  };
}
