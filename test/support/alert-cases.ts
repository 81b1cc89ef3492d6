import { type Rule, alertRules } from './monitoring-files';

export interface Series {
  name: string;
  labels: Record<string, string>;
  /** One value a minute, as promtool has it: `0x9 1x60` is ten times 0, then 1; `0+5x60` rises by 5; `_` is no sample. */
  values: string;
}
/** One situation, and whether an alert fires in it. */
export interface Case {
  alert: string;
  /** Continues the sentence `<alert> fires when ...`. */
  when: string;
  series: Series[];
  /** After how long the alert is looked at. */
  at: string;
  /** The labels and the summary with which it fires, if it does. */
  fires?: Record<string, string>;
}

const of = (name: string, labels: Record<string, string>, values: string, instance = 'a'): Series => ({
  name: `otp_login_${name}`,
  labels: { ...labels, namespace: 'n', job: 'otp-login', instance },
  values,
});
const fires = (
  alert: string,
  when: string,
  series: Series[],
  at: string,
  more: Record<string, string> = {},
): Case => ({ alert, when, series, at, fires: more });
const silent = (alert: string, when: string, series: Series[], at: string): Case => ({
  alert,
  when,
  series,
  at,
});

const DAY = 86_400;
const SM = { provider: 'startmessaging' };

/** Alerts about single events, each with the counter of its events. */
const COUNTED: [alert: string, event: string, name: string, labels: Record<string, string>][] = [
  ...Object.entries({
    upstream_credentials: 'OtpLoginCredentialsRefused',
    contract_mismatch: 'OtpLoginContractMismatch',
    request_malformed: 'OtpLoginRequestMalformed',
    budget_exhausted: 'OtpLoginBudgetUsedUp',
    abuse_conversion: 'OtpLoginAbusePumping',
    abuse_wrong_codes: 'OtpLoginAbuseGuessing',
  }).map(([label, alert]): (typeof COUNTED)[number] => [
    alert,
    `the log alert ${label}`,
    'alerts_total',
    { alert: label },
  ]),
  [
    'OtpLoginRevocationsUnconfirmed',
    'an ended session that no replica of Redis confirmed',
    'unconfirmed_revocations_total',
    {},
  ],
  ['OtpLoginAuditDropped', 'a dropped audit event', 'audit_dropped_total', {}],
  ['OtpLoginWebhookUndelivered', 'a failed webhook', 'alert_webhooks_total', { outcome: 'failed' }],
];
const counted = COUNTED.flatMap(([alert, event, name, labels]): Case[] => [
  fires(alert, `a pod counted ${event} two minutes ago`, [of(name, labels, '0x9 1x60')], '12m'),
  fires(alert, `a new pod counted ${event} before its first scrape`, [of(name, labels, '_x9 1x60')], '12m'),
  fires(
    alert,
    `a new pod beside an old one counted ${event} before its first scrape`,
    [of(name, labels, '5x60'), of(name, labels, '_x9 1x60', 'b')],
    '12m',
  ),
  silent(alert, `no pod counted ${event}`, [of(name, labels, '0x60')], '30m'),
  silent(alert, `a pod counted ${event} half an hour ago`, [of(name, labels, '0x9 1x60')], '40m'),
  silent(
    alert,
    `a pod counted ${event} before its first scrape, half an hour ago`,
    [of(name, labels, '_x9 1x60')],
    '40m',
  ),
]);

const budget = (all: number, left: number): Series[] =>
  ['a', 'b'].flatMap((instance) => [
    of('budget_paise', { window: 'day' }, `${all}x60`, instance),
    of('budget_left_paise', { window: 'day', numbers: 'new' }, `${left}x60`, instance),
    of('budget_left_paise', { window: 'day', numbers: 'returning' }, `${left + 3_000}x60`, instance),
  ]);
const wallet = (balance: number): Series[] =>
  ['a', 'b'].flatMap((instance) => [
    of('wallet_alert_paise', {}, '10000x60', instance),
    of('wallet_balance_paise', {}, `${balance}x60`, instance),
  ]);
/** A day in which eight of ten codes came back, and an hour in which `share` of them did. */
const conversion = (aMinute: number, share: number): Series[] => [
  of('sms_sent_total', SM, `0+${aMinute}x1600`),
  of('sms_verified_total', SM, `0+${aMinute * 0.8}x1440 ${aMinute * 0.8 * 1_440}+${aMinute * share}x160`),
];
const refreshes = (reused: number, rotated: number): Series[] => [
  of('refreshes_total', { outcome: 'refresh_token_reused' }, `0+${reused}x60`),
  of('refreshes_total', { outcome: 'rotated' }, `0+${rotated}x60`),
];
/** The clock of a case begins at 0. */
const keys = (activeFrom: number, next: number, nextOfOtherPod = next): Series[] => [
  of('signing_key_active_timestamp_seconds', {}, `${activeFrom}x60`),
  of('signing_key_next_timestamp_seconds', {}, `${next}x60`),
  of('signing_key_next_timestamp_seconds', {}, `${nextOfOtherPod}x60`, 'b'),
];
const steps = (failed: string, answered: number): Series[] => [
  of('redis_command_duration_seconds_count', { outcome: 'failed' }, failed),
  of('redis_command_duration_seconds_count', { outcome: 'answered' }, `0+${answered}x60`),
];
const requests = (failed: string, answered: number, route = '/auth/send-otp'): Series[] => [
  of('http_request_duration_seconds_count', { route, status: '503' }, failed),
  of('http_request_duration_seconds_count', { route: '/auth/me', status: '200' }, `0+${answered}x60`),
];
const connected = of('redis_available', {}, '1x60');
const inFlight = (values: string): Series => of('limits_hit_total', { limit: 'in_flight' }, values);
const overloaded = { limit: 'in_flight', summary: 'Replicas refuse what is too much for them (in_flight)' };

export const CASES: Case[] = [
  ...counted,
  fires(
    'OtpLoginSmsPriceTooLow',
    'a pod counted the alert an hour ago',
    [of('alerts_total', { alert: 'sms_price' }, '1x60')],
    '60m',
  ),
  silent(
    'OtpLoginSmsPriceTooLow',
    'no pod counted the alert',
    [of('alerts_total', { alert: 'sms_price' }, '0x60')],
    '60m',
  ),
  fires(
    'OtpLoginWalletEmpty',
    'one of two pods found the wallet empty',
    [of('wallet_exhausted', SM, '1x60'), of('wallet_exhausted', SM, '0x60', 'b')],
    '12m',
    { ...SM, summary: 'The wallet of startmessaging is empty' },
  ),
  silent('OtpLoginWalletEmpty', 'no pod found the wallet empty', [of('wallet_exhausted', SM, '0x60')], '12m'),
  fires('OtpLoginWalletLow', 'the balance is below the threshold', wallet(9_999), '12m', {
    summary: '9999 paise are left in the wallet',
  }),
  silent('OtpLoginWalletLow', 'the balance is at the threshold', wallet(10_000), '12m'),
  silent('OtpLoginWalletLow', 'no balance is known', [of('wallet_alert_paise', {}, '10000x60')], '12m'),
  fires('OtpLoginProviderDown', 'a breaker stays open', [of('breaker_open', SM, '1x60')], '12m', {
    ...SM,
    summary: 'startmessaging does not work: its breaker is open',
  }),
  silent('OtpLoginProviderDown', 'a breaker opened just now', [of('breaker_open', SM, '0x11 1x60')], '12m'),
  fires('OtpLoginBudgetNearlyUsed', 'a tenth of the budget is left', budget(10_000, 1_000), '12m', {
    window: 'day',
    summary: '10% of the budget of the day is left for numbers that are new here',
  }),
  silent('OtpLoginBudgetNearlyUsed', 'a sixth of the budget is left', budget(10_000, 1_600), '12m'),
  silent('OtpLoginBudgetNearlyUsed', 'the budget is 0', budget(0, 0), '12m'),
  fires(
    'OtpLoginConversionFalling',
    'a quarter of the usual number of codes comes back',
    conversion(10, 0.2),
    '1505m',
    { summary: '20% of the codes of the last hour came back, less than half of the day before' },
  ),
  silent('OtpLoginConversionFalling', 'as many codes come back as before', conversion(10, 0.8), '1505m'),
  silent(
    'OtpLoginConversionFalling',
    'fewer than 50 SMS were sent in the hour',
    conversion(0.5, 0.1),
    '1505m',
  ),
  fires('OtpLoginRefreshTokenReuse', 'a tenth of the uses are reuse', refreshes(1, 10), '30m', {
    summary: '15 refresh tokens were used again within 15 minutes: each ended its session',
  }),
  fires(
    'OtpLoginRefreshTokenReuse',
    'a new pod counted six reuses before its first scrape',
    [
      of('refreshes_total', { outcome: 'refresh_token_reused' }, '_x9 6x60'),
      of('refreshes_total', { outcome: 'rotated' }, '_x9 100x60'),
    ],
    '12m',
    {
      summary: '6 refresh tokens were used again within 15 minutes: each ended its session',
    },
  ),
  silent(
    'OtpLoginRefreshTokenReuse',
    'a new pod counted six reuses before its first scrape, half an hour ago',
    [
      of('refreshes_total', { outcome: 'refresh_token_reused' }, '_x9 6x60'),
      of('refreshes_total', { outcome: 'rotated' }, '_x9 100x60'),
    ],
    '40m',
  ),
  silent('OtpLoginRefreshTokenReuse', 'one use of a thousand is reuse', refreshes(1, 1_000), '30m'),
  silent('OtpLoginRefreshTokenReuse', 'three uses were reuse', refreshes(0.2, 1), '30m'),
  fires(
    'OtpLoginSigningKeyActivatesSoon',
    'one of two pods knows of a key that signs in ten minutes',
    keys(0, 1_200, 0),
    '10m',
    { summary: 'A new signing key takes over in 10m 0s' },
  ),
  silent('OtpLoginSigningKeyActivatesSoon', 'the next key signs tomorrow', keys(0, DAY), '10m'),
  silent('OtpLoginSigningKeyActivatesSoon', 'no next key is published', keys(0, 0), '10m'),
  fires('OtpLoginSigningKeyWithoutSuccessor', 'the key is older than 90 days', keys(-90 * DAY, 0), '30m', {
    summary: 'The signing key is 90d 0h 30m 0s old, and no next one is published',
  }),
  silent('OtpLoginSigningKeyWithoutSuccessor', 'the next key is published', keys(-90 * DAY, DAY), '30m'),
  silent('OtpLoginSigningKeyWithoutSuccessor', 'the key is 89 days old', keys(-89 * DAY, 0), '30m'),
  fires(
    'OtpLoginRedisAway',
    'one of two pods has no connection to Redis',
    [connected, of('redis_available', {}, '0x60', 'b'), ...steps('0x60', 10)],
    '12m',
  ),
  fires('OtpLoginRedisAway', 'a sixth of the steps fails', [connected, ...steps('0+2x60', 10)], '12m'),
  fires(
    'OtpLoginRedisAway',
    'the first steps fail that ever failed',
    [connected, ...steps('_x7 20+20x50', 10)],
    '12m',
  ),
  fires(
    'OtpLoginRedisAway',
    'a new pod counted failed steps before its first scrape',
    [
      connected,
      of('redis_command_duration_seconds_count', { outcome: 'failed' }, '_x9 20x60'),
      of('redis_command_duration_seconds_count', { outcome: 'answered' }, '_x9 10x60'),
    ],
    '12m',
  ),
  silent('OtpLoginRedisAway', 'one of a hundred steps fails', [connected, ...steps('0+1x60', 100)], '12m'),
  fires(
    'OtpLoginRedisMemoryNearlyFull',
    'a primary uses 90 % of its memory',
    [
      of('redis_memory_bytes', { node: 'Redis', memory: 'used' }, '90x60'),
      of('redis_memory_bytes', { node: 'Redis', memory: 'most' }, '100x60'),
    ],
    '12m',
    { node: 'Redis', summary: 'Redis uses 90% of its maxmemory' },
  ),
  silent(
    'OtpLoginRedisMemoryNearlyFull',
    'Redis has no maxmemory',
    [
      of('redis_memory_bytes', { node: 'Redis', memory: 'used' }, '90x60'),
      of('redis_memory_bytes', { node: 'Redis', memory: 'most' }, '0x60'),
    ],
    '12m',
  ),
  fires(
    'OtpLoginRedisCheckFailed',
    'a check failed',
    [of('check_failed', { check: 'redis_eviction' }, '1x60')],
    '12m',
    {
      check: 'redis_eviction',
      summary: 'Redis is set up in a way that needs mending (redis_eviction)',
    },
  ),
  silent(
    'OtpLoginRedisCheckFailed',
    'no check failed',
    [of('check_failed', { check: 'redis_eviction' }, '0x60')],
    '12m',
  ),
  fires(
    'OtpLoginSecretsRefused',
    'the file of a signing key is broken',
    [of('secrets_refused', { source: 'signing_keys' }, '1x60')],
    '12m',
    {
      source: 'signing_keys',
      summary: 'Changed secrets are refused (signing_keys); those before are in use',
    },
  ),
  silent(
    'OtpLoginSecretsRefused',
    'no file of a signing key is broken',
    [of('secrets_refused', { source: 'signing_keys' }, '0x60')],
    '12m',
  ),
  fires('OtpLoginOverloaded', 'a pod goes on refusing requests', [inFlight('0+5x60')], '12m', overloaded),
  fires(
    'OtpLoginOverloaded',
    'a new pod refused requests before its first scrape',
    [inFlight('_x9 1x60')],
    '12m',
    overloaded,
  ),
  fires(
    'OtpLoginConnectionsHeld',
    'a pod closes half-sent requests',
    [of('limits_hit_total', { limit: 'unread' }, '0+5x60')],
    '12m',
    { limit: 'unread', summary: 'Clients hold connections or half-sent requests open (unread)' },
  ),
  fires(
    'OtpLoginConnectionsHeld',
    'a new pod closed connections before its first scrape',
    [of('limits_hit_total', { limit: 'connections' }, '_x9 1x60')],
    '12m',
    { limit: 'connections', summary: 'Clients hold connections or half-sent requests open (connections)' },
  ),
  silent(
    'OtpLoginConnectionsHeld',
    'no pod closes any',
    [of('limits_hit_total', { limit: 'unread' }, '0x60')],
    '12m',
  ),
  silent('OtpLoginOverloaded', 'no pod refuses requests', [inFlight('0x60')], '12m'),
  silent(
    'OtpLoginOverloaded',
    'the limit of a phone number is hit',
    [of('limits_hit_total', { limit: 'phone' }, '0+5x60')],
    '12m',
  ),
  silent(
    'OtpLoginWebhookUndelivered',
    'all webhooks arrive',
    [of('alert_webhooks_total', { outcome: 'delivered' }, '0+1x60')],
    '12m',
  ),
  fires('OtpLoginServerErrors', 'one of ten responses is a 503', requests('0+10x60', 90), '12m', {
    summary: '10% of all requests are answered with 5xx',
  }),
  fires(
    'OtpLoginServerErrors',
    'the first requests fail that ever failed',
    requests('_x4 10+10x60', 90),
    '14m',
    { summary: '10% of all requests are answered with 5xx' },
  ),
  silent('OtpLoginServerErrors', 'one of a hundred responses is a 503', requests('0+1x60', 99), '12m'),
  silent(
    'OtpLoginServerErrors',
    'only health probes are answered with 503',
    requests('0+90x60', 90, '/health/ready'),
    '12m',
  ),
  fires('OtpLoginNotScraped', 'no metric of the service is scraped', [], '12m', { namespace: '', job: '' }),
  silent('OtpLoginNotScraped', 'a pod is scraped', [of('signing_keys', { state: 'signing' }, '1x60')], '12m'),
];

/** A case as `promtool test rules` takes it. */
export function promtoolTest({ alert, when, series, at, fires }: Case): object {
  const { labels: own, annotations } = alertRules.find((rule) => rule.alert === alert) as Required<Rule>;
  const { summary = annotations.summary, ...more } = fires ?? {};
  const labels = { ...own, namespace: 'n', job: 'otp-login', ...more };
  const alertFired = {
    exp_labels: Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== '')),
    exp_annotations: { ...annotations, summary },
  };
  return {
    name: `${alert}: ${when}`,
    interval: '1m',
    input_series: series.map(({ name, labels, values }) => ({
      series: `${name}{${Object.entries(labels)
        .map(([label, value]) => `${label}="${value}"`)
        .join()}}`,
      values,
    })),
    alert_rule_test: [{ eval_time: at, alertname: alert, exp_alerts: fires ? [alertFired] : [] }],
  };
}
