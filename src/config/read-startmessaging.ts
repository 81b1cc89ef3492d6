import { upstreamAddress } from './addresses';
import { matching, oneOf } from './rules';
import type { Settings } from './settings';

export type StartMessagingContract = 'caller' | 'provider';
/** The unit in which StartMessaging counts the balance of the wallet. The vendor does not document it. */
export type WalletUnit = 'rupees' | 'paise' | 'micro_rupees';

// It becomes a header: a line break in it would be a second one.
const apiKey = matching(/^[!-~]{1,512}$/, '1 to 512 visible ASCII characters');
const uuid = matching(/^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i, 'a UUID');
// It becomes the text of an SMS, in any script.
const appName = matching(/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,50}$/u, '1 to 50 printable characters');

/** The first provider. Its settings are required when it is `listed`; without that, it can still verify its codes. */
export function readStartMessaging(settings: Settings, listed: boolean) {
  const key = settings.optional('STARTMESSAGING_API_KEY', apiKey);
  settings.require(!listed || key !== undefined, 'STARTMESSAGING_API_KEY', 'is required');
  // Keys of other shapes may exist: that is for the upstream to say.
  if (key !== undefined && !/^sm_live_[\da-f]{40}$/.test(key)) {
    settings.warn('STARTMESSAGING_API_KEY', 'does not look like sm_live_<40 hex>');
  }

  // No default in production: under the wrong contract no login works, and every SMS is paid for all the same.
  const contracts = oneOf('caller', 'provider');
  const contract = listed
    ? settings.requiredInProduction('STARTMESSAGING_CONTRACT', contracts)
    : settings.optional('STARTMESSAGING_CONTRACT', contracts);

  return {
    startMessagingApiKey: key,
    startMessagingBaseUrl: upstreamAddress(
      settings,
      'STARTMESSAGING_BASE_URL',
      'https://api.startmessaging.com',
    ),
    startMessagingContract: contract ?? 'provider',
    startMessagingTemplateId: settings.optional('STARTMESSAGING_TEMPLATE_ID', uuid),
    startMessagingAppName: settings.withDefault('STARTMESSAGING_APP_NAME', appName, 'otp-login'),
    walletUnit: settings.optional<WalletUnit>(
      'STARTMESSAGING_WALLET_UNIT',
      oneOf('rupees', 'paise', 'micro_rupees'),
    ),
  };
}
