import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { readObjects } from '../support/kustomize';

// When each alert fires, and when it does not, by Prometheus' own arithmetic. That the metrics are there at all is shown in
// test/e2e/monitoring.test.ts.

const [resource] = readObjects(join(__dirname, '../../deploy/monitoring/alerts.yaml'));
const rules = (resource!.spec.groups as { rules: Rule[] }[]).flatMap((group) => group.rules);
interface Rule {
  alert?: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}
interface Series {
  series: string;
  values: string;
}
/** What is scraped, after how long it is looked at, and the labels and summary with which the alert fires, if it does. */
type Case = [alert: string, when: string, series: Series[], at: string, fires?: Record<string, string>];

/** One value a minute: `0x9 1x60` is ten times 0, then 1; `0+5x60` rises by 5. */
const of = (name: string, labels: string, values: string, instance = 'a'): Series => ({
  series: `otp_login_${name}{namespace="n", job="otp-login", instance="${instance}"${labels && `, ${labels}`}}`,
  values,
});
const SM = 'provider="startmessaging"';
const DAY = 86_400;

const budget = (all: number, left: number): Series[] =>
  ['a', 'b'].flatMap((replica) => [
    of('budget_paise', 'window="day"', `${all}x60`, replica),
    of('budget_left_paise', 'window="day", numbers="new"', `${left}x60`, replica),
    of('budget_left_paise', 'window="day", numbers="returning"', `${left + 3_000}x60`, replica),
  ]);
/** A day in which eight of ten codes came back, and an hour in which `share` of them did. */
const conversion = (aMinute: number, share: number): Series[] => [
  of('sms_sent_total', SM, `0+${aMinute}x1600`),
  of('sms_verified_total', SM, `0+${aMinute * 0.8}x1440 ${aMinute * 0.8 * 1_440}+${aMinute * share}x160`),
];
const refreshes = (reused: number, rotated: number): Series[] => [
  of('refreshes_total', 'outcome="refresh_token_reused"', `0+${reused}x60`),
  of('refreshes_total', 'outcome="rotated"', `0+${rotated}x60`),
];
/** The test's clock begins at 0. */
const keys = (activeFrom: number, next: number, otherReplicasNext = next): Series[] => [
  of('signing_key_active_timestamp_seconds', '', `${activeFrom}x60`),
  of('signing_key_next_timestamp_seconds', '', `${next}x60`),
  of('signing_key_next_timestamp_seconds', '', `${otherReplicasNext}x60`, 'b'),
];
const steps = (failed: number, answered: number): Series[] => [
  of('redis_step_duration_seconds_count', 'outcome="failed"', `0+${failed}x60`),
  of('redis_step_duration_seconds_count', 'outcome="answered"', `0+${answered}x60`),
];
const requests = (failed: number, answered: number, route = '/auth/send-otp'): Series[] => [
  of('http_request_duration_seconds_count', `route="${route}", status="503"`, `0+${failed}x60`),
  of('http_request_duration_seconds_count', 'route="/auth/me", status="200"', `0+${answered}x60`),
];

const LOGGED = {
  upstream_credentials: 'OtpLoginCredentialsRefused',
  contract_mismatch: 'OtpLoginContractMismatch',
  request_malformed: 'OtpLoginRequestMalformed',
  budget_exhausted: 'OtpLoginBudgetUsedUp',
  guard_conversion: 'OtpLoginGuardSeesPumping',
  guard_wrong_codes: 'OtpLoginGuardSeesGuessing',
};
const logged = Object.entries(LOGGED).flatMap(([name, alert]): Case[] => {
  const counted = (values: string): Series[] => [of('alerts_total', `alert="${name}"`, values)];
  return [
    [alert, 'it was just told', counted('0x9 1x60'), '12m', {}],
    [alert, 'it was never told', counted('0x60'), '12m'],
    [alert, 'it was told half an hour ago', counted('0x9 1x60'), '40m'],
  ];
});

const CASES: Case[] = [
  ...logged,
  ['OtpLoginSmsPriceTooLow', 'told long ago', [of('alerts_total', 'alert="sms_price"', '1x60')], '60m', {}],
  ['OtpLoginSmsPriceTooLow', 'never told', [of('alerts_total', 'alert="sms_price"', '0x60')], '60m'],
  [
    'OtpLoginWalletEmpty',
    'one replica says so',
    [of('wallet_exhausted', SM, '1x60'), of('wallet_exhausted', SM, '0x60', 'b')],
    '12m',
    { provider: 'startmessaging', summary: 'The wallet of startmessaging is empty' },
  ],
  ['OtpLoginWalletEmpty', 'none says so', [of('wallet_exhausted', SM, '0x60')], '12m'],
  [
    'OtpLoginProviderDown',
    'the breaker stays open',
    [of('breaker_open', SM, '1x60')],
    '12m',
    { provider: 'startmessaging', summary: 'startmessaging does not work: its breaker is open' },
  ],
  ['OtpLoginProviderDown', 'it opened just now', [of('breaker_open', SM, '0x11 1x60')], '12m'],
  [
    'OtpLoginBudgetNearlyUsed',
    'a tenth is left',
    budget(10_000, 1_000),
    '12m',
    { window: 'day', summary: '10% of the budget of the day is left for numbers that are new here' },
  ],
  ['OtpLoginBudgetNearlyUsed', 'enough is left', budget(10_000, 1_600), '12m'],
  ['OtpLoginBudgetNearlyUsed', 'the budget is none at all', budget(0, 0), '12m'],
  [
    'OtpLoginConversionFalling',
    'a quarter of the usual comes back',
    conversion(10, 0.2),
    '1505m',
    { summary: '20% of the codes of the last hour came back, less than half of the day before' },
  ],
  ['OtpLoginConversionFalling', 'as many come back as before', conversion(10, 0.8), '1505m'],
  ['OtpLoginConversionFalling', 'there were few SMS', conversion(0.5, 0.1), '1505m'],
  [
    'OtpLoginRefreshTokenReuse',
    'a tenth of the uses are reuse',
    refreshes(1, 10),
    '30m',
    { summary: '15 refresh tokens were used again within 15 minutes: each ended its session' },
  ],
  ['OtpLoginRefreshTokenReuse', 'it is one of a thousand', refreshes(1, 1_000), '30m'],
  ['OtpLoginRefreshTokenReuse', 'there were three', refreshes(0.2, 1), '30m'],
  [
    'OtpLoginRevocationsUnconfirmed',
    'there was one',
    [of('unconfirmed_revocations_total', '', '0x9 1x60')],
    '12m',
    {},
  ],
  ['OtpLoginRevocationsUnconfirmed', 'none', [of('unconfirmed_revocations_total', '', '1x60')], '12m'],
  [
    'OtpLoginSigningKeyActivatesSoon',
    'one replica knows of a key that signs in ten minutes',
    keys(0, 1_200, 0),
    '10m',
    { summary: 'A new signing key takes over in 10m 0s' },
  ],
  ['OtpLoginSigningKeyActivatesSoon', 'the key is for tomorrow', keys(0, DAY), '10m'],
  ['OtpLoginSigningKeyActivatesSoon', 'there is none', keys(0, 0), '10m'],
  [
    'OtpLoginSigningKeyWithoutSuccessor',
    'the key is older than 90 days',
    keys(-90 * DAY, 0),
    '30m',
    { summary: 'The signing key is 90d 0h 30m 0s old, and no next one is published' },
  ],
  ['OtpLoginSigningKeyWithoutSuccessor', 'the next one is there', keys(-90 * DAY, DAY), '30m'],
  ['OtpLoginSigningKeyWithoutSuccessor', 'the key is younger', keys(-89 * DAY, 0), '30m'],
  [
    'OtpLoginRedisAway',
    'one replica has no connection',
    [of('redis_available', '', '1x60'), of('redis_available', '', '0x60', 'b'), ...steps(0, 10)],
    '12m',
    {},
  ],
  ['OtpLoginRedisAway', 'steps fail', [of('redis_available', '', '1x60'), ...steps(2, 10)], '12m', {}],
  ['OtpLoginRedisAway', 'few steps fail', [of('redis_available', '', '1x60'), ...steps(1, 100)], '12m'],
  [
    'OtpLoginRedisCheckFailed',
    'one failed',
    [of('check_failed', 'check="redis_eviction"', '1x60')],
    '12m',
    { check: 'redis_eviction', summary: 'Redis is set up in a way that needs mending (redis_eviction)' },
  ],
  ['OtpLoginRedisCheckFailed', 'none', [of('check_failed', 'check="redis_eviction"', '0x60')], '12m'],
  [
    'OtpLoginSecretsRefused',
    'a file is broken',
    [of('secrets_refused', 'source="files"', '1x60')],
    '12m',
    { source: 'files', summary: 'Changed secrets are refused (files); those before are in use' },
  ],
  ['OtpLoginSecretsRefused', 'none is', [of('secrets_refused', 'source="files"', '0x60')], '12m'],
  [
    'OtpLoginOverloaded',
    'one replica refuses',
    [of('limits_hit_total', 'limit="in_flight"', '0+5x60')],
    '12m',
    { limit: 'in_flight', summary: 'Replicas refuse what is too much for them (in_flight)' },
  ],
  [
    'OtpLoginOverloaded',
    'a person’s limit was hit',
    [of('limits_hit_total', 'limit="phone"', '0+5x60')],
    '12m',
  ],
  ['OtpLoginAuditDropped', 'one was dropped', [of('audit_dropped_total', '', '0x9 1x60')], '12m', {}],
  ['OtpLoginAuditDropped', 'it was half an hour ago', [of('audit_dropped_total', '', '0x9 1x60')], '40m'],
  [
    'OtpLoginWebhookUndelivered',
    'one was given up',
    [of('alert_webhooks_total', 'outcome="failed"', '0x9 1x60')],
    '12m',
    {},
  ],
  [
    'OtpLoginWebhookUndelivered',
    'all arrive',
    [of('alert_webhooks_total', 'outcome="delivered"', '0+1x60')],
    '12m',
  ],
  [
    'OtpLoginServerErrors',
    'one of ten answers is a 503',
    requests(10, 90),
    '12m',
    { summary: '10% of all requests are answered with 5xx' },
  ],
  ['OtpLoginServerErrors', 'one of a hundred is', requests(1, 99), '12m'],
  ['OtpLoginServerErrors', 'they are probes’', requests(90, 90, '/health/ready'), '12m'],
  ['OtpLoginNotScraped', 'there is nothing', [of('other', '', '1x60')], '12m', { namespace: '', job: '' }],
  ['OtpLoginNotScraped', 'there is something', [of('signing_keys', 'state="signing"', '1x60')], '12m'],
];

/** What promtool says of a case; empty where it holds. */
function faultsOf([alert, , series, at, fires]: Case): string {
  const rule = rules.find((each) => each.alert === alert)!;
  const { summary = rule.annotations.summary, ...more } = fires ?? {};
  const labels = { ...rule.labels, namespace: 'n', job: 'otp-login', ...more };
  const fired = {
    exp_labels: Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== '')),
    exp_annotations: { ...rule.annotations, summary },
  };
  const test = {
    interval: '1m',
    input_series: series,
    alert_rule_test: [{ eval_time: at, alertname: alert, exp_alerts: fires ? [fired] : [] }],
  };
  const folder = mkdtempSync(join(tmpdir(), 'otp-login-rules-'));
  try {
    writeFileSync(join(folder, 'rules.yaml'), stringify(resource!.spec));
    writeFileSync(join(folder, 'test.yaml'), stringify({ rule_files: ['rules.yaml'], tests: [test] }));
    const ended = spawnSync('promtool', ['test', 'rules', 'test.yaml'], { cwd: folder, encoding: 'utf8' });
    return ended.status === 0 ? '' : `${ended.stdout}${ended.stderr}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('every alert has a case in which it fires, and one in which it does not', () => {
  const names = new Set(rules.flatMap(({ alert }) => alert ?? []));
  const having = (fires: boolean) =>
    new Set(CASES.filter((each) => (each[4] !== undefined) === fires).map(([alert]) => alert));
  expect(having(true)).toEqual(names);
  expect(having(false)).toEqual(names);
});

const promtool = spawnSync('promtool', ['--version']).status === 0;
(promtool ? describe : describe.skip)('by promtool (where it is present)', () => {
  test.each(CASES.filter((each) => each[4] !== undefined))('%s fires when %s', (...each) => {
    expect(faultsOf(each)).toBe('');
  });
  test.each(CASES.filter((each) => each[4] === undefined))('%s does not fire when %s', (...each) => {
    expect(faultsOf(each)).toBe('');
  });
});
