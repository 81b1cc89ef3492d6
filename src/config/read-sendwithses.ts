import { upstreamAddress } from './addresses';
import { type Condition, conditions } from './condition';
import { matching } from './rules';
import type { SettingName, Settings } from './settings';

/** A second provider, experimental: what its answers mean is told by the operator, and not guessed. */
export interface SendWithSesSettings {
  readonly templateKey: string;
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly senderId: string | undefined;
  readonly originationNumber: string | undefined;
  /** All that the answer to a send must say for its SMS to be accepted. */
  readonly sentIf: readonly Condition[];
  /** All that the answer to a verification must say for its code to be right. */
  readonly verifiedIf: readonly Condition[];
}

// It becomes a header: a line break in it would be a second one.
const templateKey = matching(/^[!-~]{1,512}$/, '1 to 512 visible ASCII characters');
const short = matching(/^[!-~]{1,128}$/, '1 to 128 visible ASCII characters');

/** Undefined without its settings. They are required where it is `listed`; what it sent can be verified without that. */
export function readSendWithSes(settings: Settings, listed: boolean): SendWithSesSettings | undefined {
  const required = <T>(name: SettingName, value: T | undefined): T | undefined => {
    settings.require(!listed || value !== undefined, name, 'is required when PROVIDERS has sendwithses');
    return value;
  };
  if (listed) settings.warn('PROVIDERS', 'has sendwithses, which is experimental');
  const key = required(
    'SENDWITHSES_TEMPLATE_KEY',
    settings.optional('SENDWITHSES_TEMPLATE_KEY', templateKey),
  );
  const sentIf = required('SENDWITHSES_SENT_IF', settings.optional('SENDWITHSES_SENT_IF', conditions));
  const verifiedIf = required(
    'SENDWITHSES_VERIFIED_IF',
    settings.optional('SENDWITHSES_VERIFIED_IF', conditions),
  );
  const rest = {
    baseUrl: upstreamAddress(settings, 'SENDWITHSES_BASE_URL', 'https://api.sendwithses.com'),
    senderId: settings.optional('SENDWITHSES_SENDER_ID', short),
    originationNumber: settings.optional('SENDWITHSES_ORIGINATION_NUMBER', short),
  };
  if (key === undefined || sentIf === undefined || verifiedIf === undefined) return undefined;
  return { templateKey: key, sentIf, verifiedIf, ...rest };
}
