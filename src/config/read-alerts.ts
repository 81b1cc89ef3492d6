import { isLoopback } from '../net/addresses';
import { listOf, wholeNumber, type Rule } from './rules';
import type { Settings } from './settings';

const webhookAddress: Rule<string> = {
  expected: 'an http or https URL without credentials and fragment',
  read(text) {
    if (!/^https?:\/\/[^\s\\#]+$/.test(text) || !URL.canParse(text)) return undefined;
    const { username, password } = new URL(text);
    return username === '' && password === '' ? text : undefined;
  },
};

/** As Standard Webhooks writes them, so that its libraries take them. */
const webhookSecret: Rule<Buffer> = {
  expected: 'whsec_ and the base64 of 24 to 64 bytes',
  read(text) {
    const [, base64 = ''] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text) ?? [];
    const key = Buffer.from(base64, 'base64');
    return key.length >= 24 && key.length <= 64 && key.toString('base64') === base64 ? key : undefined;
  },
};

/** The stream of the audit and the webhook of the alerts. */
export function readAlerts(settings: Settings) {
  const url = settings.optional('ALERT_WEBHOOK_URL', webhookAddress);
  const secrets = settings.withDefault('ALERT_WEBHOOK_SECRET', listOf(webhookSecret), []);
  // An attacker on the way could hold alerts back, and one that redirects the call could send false alerts.
  settings.require(
    !settings.production ||
      url === undefined ||
      url.startsWith('https:') ||
      isLoopback(new URL(url).hostname),
    'ALERT_WEBHOOK_URL',
    'must be https in production, except to a loopback address',
  );
  // Without a signature the receiver could not tell these alerts from those of a stranger.
  settings.require(
    url === undefined || secrets.length > 0,
    'ALERT_WEBHOOK_SECRET',
    'is required with ALERT_WEBHOOK_URL',
    'ALERT_WEBHOOK_URL',
  );
  return {
    auditStreamEvents: settings.withDefault('AUDIT_STREAM_EVENTS', wholeNumber(0, 10_000_000), 100_000),
    alertWebhookUrl: url,
    alertWebhookSecrets: secrets,
  };
}
