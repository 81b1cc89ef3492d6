import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_CODES } from '../../src/errors/api-error';
import { CASES } from '../support/alert-cases';
import { type Family, readExposition, type Sample, seriesOf } from '../support/exposition';
import { type Monitored, sample, scrape, SMS_PRICE_PAISE, startMonitored, storm } from '../support/monitored';
import {
  alertRules,
  dashboard,
  filled,
  groupingsOf,
  panels,
  ruleFile,
  ruleObjects,
  rules,
  selectorsOf,
  targets,
} from '../support/monitoring-files';
import { call } from '../support/world';

// The rules and the dashboard are checked against what the service really exports: an expression that names a metric, a label
// or a value that is not exported fails silently. That promtool accepts them and what they say is shown in test/commands.

const read = (name: string): string => readFileSync(join(__dirname, '../..', name), 'utf8');
/** Labels that Prometheus adds at the scrape. */
const TARGET = ['namespace', 'job', 'instance', 'pod'];

let monitored: Monitored;
let atStart: Map<string, Family>;
let families: Map<string, Family>;
let samples: Sample[];

beforeAll(async () => {
  monitored = await startMonitored();
  atStart = readExposition(monitored.atStart);
  families = readExposition(monitored.exported);
  samples = [...families.values()].flatMap((family) => family.samples);
});
afterAll(() => monitored.close());

const look = async (): Promise<Map<string, Family>> => readExposition(await scrape(monitored.world.url));

/** Without the metrics of Node.js, which prom-client names. */
const ours = (of: Map<string, Family>): Family[] =>
  [...of.values()].filter(({ name }) => !/^otp_login_(nodejs|process)_/.test(name));

const ERRORS = Object.keys(ERROR_CODES);
const words = (text: string): ((value: string) => boolean) => {
  const all = new Set(text.split(' '));
  return (value) => all.has(value);
};
/** Every label, and what bounds its values. A new label needs a line here, and so a thought about who chooses its values. */
const BOUNDS: Record<string, (value: string) => boolean> = {
  method: words('GET HEAD POST PUT PATCH DELETE OPTIONS other'),
  // Patterns from our code: a test below compares them with the routes of the service.
  route: () => true,
  status: (value) => /^[2-5]\d\d$/.test(value),
  outcome: (value) =>
    ERRORS.includes(value) ||
    words(
      // Of deliveries and verifications, of refreshes, of steps over Redis, and of calls of a provider.
      'accepted sent delivered failed unknown verified rotated repeated repeated_elsewhere answered not_verified phone_rejected ' +
        'request_malformed wallet_empty number_limited send_refused credentials_refused contract_mismatch duplicate ' +
        'request_expired throttled unconfirmed breaker_open unreachable timed_out ' +
        // Of webhooks: delivered and failed as above, and
        'held_back',
    )(value),
  provider: words('startmessaging sendwithses'),
  operation: words('send verify message wallet'),
  delivery: words('delivered failed'),
  limit: words(
    'phone service budget denied challenge address_send address_verify address_status address_client ' +
      'unread address_send_refused address_verify_refused in_flight event_loop connections ' +
      'pipelined',
  ),
  counted: words('exactly shared'),
  // The primaries of Redis.
  node: (value) => /^Redis( \S+)?$/.test(value),
  memory: words('used most'),
  window: words('hour day'),
  numbers: words('new returning'),
  source: words('files signing_keys redis'),
  signal: words('conversion wrong_codes unsolved quiet'),
  level: words('none observe challenge deny'),
  // The names of our scripts and commands.
  command: (value) => /^[a-z][a-z -]{1,20}$/.test(value),
  state: words('signing next retired'),
  alert: (value) => loggedAlerts().includes(value),
  check: (value) => /^redis_[a-z]+$/.test(value),
  le: (value) => value === '+Inf' || Number(value) > 0,
};

/** The values of `alert` in a log line. */
function loggedAlerts(): string[] {
  const [, union = ''] =
    /export type Alert =((?:\s*\| '\w+')+);/.exec(read('src/alerts/alert-types.ts')) ?? [];
  return [...union.matchAll(/'(\w+)'/g)].map(([, name]) => name!);
}

describe('the metrics', () => {
  test('each metric has the prefix of the service, and a name with its unit', () => {
    expect([...families.keys()].filter((name) => !name.startsWith('otp_login_'))).toEqual([]);
    const faults = ours(families).filter(
      ({ name, type }) =>
        !['counter', 'gauge', 'histogram'].includes(type) ||
        (type === 'histogram' && !name.endsWith('_seconds')) ||
        (/timestamp|duration|age/.test(name) && !name.endsWith('_seconds')),
    );
    expect(faults.map(({ name }) => name)).toEqual([]);
    expect(ours(families).length).toBeGreaterThan(20);
  });

  test('no series is exported twice in one scrape', () => {
    const series = samples.map(seriesOf);
    expect(series.filter((each, i) => series.indexOf(each) !== i)).toEqual([]);
  });

  test('each label has a bounded set of values', async () => {
    const own = ours(families).flatMap((family) => family.samples);
    const faults = own.flatMap(({ name, labels }) =>
      Object.entries(labels)
        .filter(([label, value]) => !BOUNDS[label]?.(value))
        .map(([label, value]) => `${name}{${label}="${value}"}`),
    );
    expect([...new Set(faults)]).toEqual([]);

    const { body } = await call('GET', `${monitored.world.url}/docs-json`);
    const patterns = Object.keys(body.paths as object).map((path) => path.replace(/\{(\w+)\}/g, ':$1'));
    const routes = new Set(own.flatMap(({ labels }) => labels.route ?? []));
    const others = ['/metrics', '/docs-json', '*', 'unknown'];
    expect([...routes].filter((route) => !patterns.includes(route) && !others.includes(route))).toEqual([]);
    expect([...routes]).toEqual(expect.arrayContaining(['/auth/otp/:requestId', 'unknown']));
  });

  test('requests with random paths, methods, ids and tokens make no new series', async () => {
    const before = ours(await look()).flatMap((family) => family.samples.map(seriesOf));
    await storm(monitored.world.url);
    const after = ours(await look()).flatMap((family) => family.samples.map(seriesOf));
    const had = new Set(before);
    expect(after.filter((series) => !had.has(series) && !series.includes('route="/docs-json"'))).toEqual([]);
    expect(before.join()).toContain('method="other"');
  });

  test('each counter is exported from the start, so that Prometheus sees its first event as an increase', () => {
    const had = new Set(ours(atStart).flatMap((family) => family.samples.map(seriesOf)));
    const counters = ours(families).filter(({ type }) => type === 'counter');
    const missing = counters.flatMap((counter) => counter.samples.filter((each) => !had.has(seriesOf(each))));
    expect(missing).toEqual([]);
    const alerts = atStart.get('otp_login_alerts_total')!.samples;
    expect(alerts.map(({ labels }) => labels.alert).sort()).toEqual(loggedAlerts().sort());
    expect(alerts.map(({ value }) => value)).toEqual(alerts.map(() => 0));
  });

  test('no metric contains a phone number, a code or a token', async () => {
    const values = [...(await look()).values()].flatMap((family) =>
      family.samples.flatMap(({ labels }) => Object.values(labels)),
    );
    const codes = new Set(monitored.world.upstream.messages.map(({ code }) => code));
    expect(codes.size).toBeGreaterThan(0);
    expect(values.filter((value) => codes.has(value) || /[6-9]\d{9}|eyJ|sm_live/.test(value))).toEqual([]);
  });

  test('the metrics count paid SMS and verified codes by the provider that sent them', () => {
    const of = (name: string, provider: string): number => sample(families, name, { provider });
    for (const provider of ['startmessaging', 'sendwithses']) {
      expect(of('otp_login_sms_sent_total', provider)).toBe(1);
      expect(of('otp_login_sms_verified_total', provider)).toBe(1);
      expect(of('otp_login_wallet_exhausted', provider)).toBe(1);
      expect(of('otp_login_breaker_open', provider)).toBe(0);
    }
    const alert = (name: string): number => sample(families, 'otp_login_alerts_total', { alert: name });
    expect([alert('upstream_credentials'), alert('wallet_exhausted')]).toEqual([1, 2]);
    const refreshes = (outcome: string): number => sample(families, 'otp_login_refreshes_total', { outcome });
    expect([refreshes('rotated'), refreshes('refresh_token_reused')]).toEqual([2, 1]);
  });

  test('the metrics show what is left of each budget, and what of it new numbers may use', () => {
    const left = (window: string, numbers: string): number =>
      sample(families, 'otp_login_budget_left_paise', { window, numbers });
    const spent = 2 * SMS_PRICE_PAISE;
    expect([left('hour', 'returning'), left('hour', 'new')]).toEqual([2_500 - spent, 1_750 - spent]);
    expect([left('day', 'returning'), left('day', 'new')]).toEqual([10_000 - spent, 7_000 - spent]);
    expect(sample(families, 'otp_login_budget_paise', { window: 'day' })).toBe(10_000);
  });

  test('the metrics show since when the signing key signs, and from when the next key will', () => {
    const { since, next } = monitored.signs;
    expect(sample(families, 'otp_login_signing_key_active_timestamp_seconds')).toBe(since);
    expect(sample(families, 'otp_login_signing_key_next_timestamp_seconds')).toBe(next);
    const keys = ['signing', 'next', 'retired'].map((state) =>
      sample(families, 'otp_login_signing_keys', { state }),
    );
    expect(keys).toEqual([1, 1, 1]);
  });

  test('the metrics count the round trips to Redis by command and outcome', () => {
    const commands = 'otp_login_redis_command_duration_seconds_count';
    expect(sample(families, commands, { command: 'consume', outcome: 'answered' })).toBe(2);
    expect(sample(families, commands, { command: 'find session', outcome: 'answered' })).toBe(1);
    expect(sample(families, commands, { command: 'address', outcome: 'failed' })).toBe(1);
    expect(sample(families, 'otp_login_redis_available')).toBe(1);
  });

  test('the metrics show that Redis is away, and then no old figure of the budget', () => {
    const away = readExposition(monitored.withoutRedis);
    expect([sample(atStart, 'otp_login_redis_available'), sample(away, 'otp_login_redis_available')]).toEqual(
      [1, 0],
    );
    const left = (of: Map<string, Family>): number => of.get('otp_login_budget_left_paise')!.samples.length;
    expect([left(atStart), left(away)]).toEqual([4, 0]);
  });

  test('the metrics show the longest delay of the event loop since the last scrape', async () => {
    // The timer that measures the delay runs in this process, too: it has come when this one has.
    const someTicks = () => new Promise((resolve) => setTimeout(resolve, 50));
    await look();
    await someTicks();
    const end = performance.now() + 200;
    while (performance.now() < end);
    await someTicks();
    expect(sample(await look(), 'otp_login_nodejs_eventloop_lag_max_seconds')).toBeGreaterThan(0.15);
  });
});

/** What an expression names and the service does not export. It would be silent for ever. */
function faultsOf(expr: string): string[] {
  const recorded = rules.flatMap(({ record }) => record ?? []);
  const selectors = selectorsOf(expr);
  if (selectors.length === 0) return [`no metric is named in ${expr}`];
  const faults = selectors.flatMap(({ metric, matchers }) => {
    if (recorded.includes(metric)) return [];
    const its = samples.filter(({ name }) => name === metric);
    if (its.length === 0) return [`${metric} is not exported`];
    return matchers
      .filter(({ label }) => !TARGET.includes(label))
      .filter(({ label, pattern }) => !its.some(({ labels }) => pattern.test(labels[label] ?? '')))
      .map(({ label, pattern }) => `${metric} has no ${label} like ${pattern.source}`);
  });
  const metrics = selectors.map(({ metric }) => metric);
  const labels = samples
    .filter(({ name }) => metrics.includes(name))
    .flatMap((each) => Object.keys(each.labels));
  for (const label of groupingsOf(expr))
    if (![...TARGET, ...labels].includes(label)) faults.push(`${label} is no label of ${metrics.join()}`);
  for (const [, metric = ''] of expr.matchAll(/\b(?:rate|increase)\((\w+)/g))
    if (families.get(metric)?.type === 'gauge') faults.push(`${metric} is a gauge`);
  return faults;
}

describe('the alert rules', () => {
  test('the alert rules are one PrometheusRule of known fields', () => {
    const [resource, ...others] = ruleObjects;
    expect(others).toEqual([]);
    expect(resource).toMatchObject({ apiVersion: 'monitoring.coreos.com/v1', kind: 'PrometheusRule' });
    expect(Object.keys(resource!).sort()).toEqual(['apiVersion', 'kind', 'metadata', 'spec']);
    expect(Object.keys(ruleFile)).toEqual(['groups']);
    for (const group of ruleFile.groups) expect(Object.keys(group)).toEqual(['name', 'rules']);
    for (const rule of rules) {
      const fields = Object.keys(rule).filter((field) => field !== 'for');
      expect(fields).toEqual(rule.record ? ['record', 'expr'] : ['alert', 'expr', 'labels', 'annotations']);
    }
    const names = rules.map(({ alert, record }) => alert ?? record);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names)
      expect(name).toMatch(/^OtpLogin[A-Z]\w+$|^[a-z_]+:otp_login_[a-z_]+:[a-z\d_]+$/);
  });

  test.each(rules.map((rule) => [rule.alert ?? rule.record ?? '', rule] as const))(
    'the rule %s names only metrics, labels and values that the service exports',
    (_, { expr }) => {
      expect(faultsOf(expr)).toEqual([]);
    },
  );

  test('the service exports each metric, label and value in the cases of test/commands/alert-rules.test.ts', () => {
    const faults = CASES.flatMap(({ series }) => series).filter(({ name, labels }) => {
      const its = samples.filter((each) => each.name === name);
      const has = ([label, value]: [string, string]): boolean =>
        TARGET.includes(label) || its.some((each) => each.labels[label] === value);
      return its.length === 0 || !Object.entries(labels).every(has);
    });
    expect([...new Set(faults.map(seriesOf))]).toEqual([]);
  });

  test('each alert has a case in which it fires, and one in which it does not fire', () => {
    const names = new Set(alertRules.map(({ alert }) => alert));
    const having = (fires: boolean) =>
      new Set(CASES.filter((each) => (each.fires !== undefined) === fires).map(({ alert }) => alert));
    expect(having(true)).toEqual(names);
    expect(having(false)).toEqual(names);
  });

  test.each(alertRules.map((rule) => [rule.alert, rule] as const))(
    'the alert %s has a severity, a summary, and a section of the runbook',
    (name, { labels, annotations }) => {
      expect(['critical', 'warning', 'info']).toContain(labels?.severity);
      expect(Object.keys(labels ?? {})).toEqual(['severity']);
      expect(annotations).toEqual({
        summary: expect.stringMatching(/^\S.{10,}[^.]$/),
        runbook: `docs/operations.md#${name.toLowerCase()}`,
      });
      const section = new RegExp(`^### ${name}\\n([^#]+)`, 'm').exec(read('docs/operations.md'))?.[1] ?? '';
      // What it means, where to look, what to do.
      expect(section.trim().length).toBeGreaterThan(100);
    },
  );

  test('each section of the runbook belongs to an alert', () => {
    const sections = [...read('docs/operations.md').matchAll(/^### (OtpLogin\w+)$/gm)].map(
      ([, name]) => name,
    );
    expect(sections.sort()).toEqual(alertRules.map(({ alert }) => alert).sort());
  });

  /** Seen by a state that ends, or by a share, and not by an event in the log. */
  const OTHERWISE: Record<string, string> = {
    provider_down: 'OtpLoginProviderDown',
    wallet_exhausted: 'OtpLoginWalletEmpty',
    wallet_low: 'OtpLoginWalletLow',
    token_reused: 'OtpLoginRefreshTokenReuse',
  };
  test('each alert of the log has an alert rule', () => {
    expect(loggedAlerts().length).toBeGreaterThan(5);
    const covered = loggedAlerts().map((name) => {
      const rule = alertRules.find(({ alert, expr }) =>
        name in OTHERWISE
          ? alert === OTHERWISE[name]
          : expr.includes(`otp_login_alerts_total{alert="${name}"}`),
      );
      return [name, rule !== undefined];
    });
    expect(covered).toEqual(loggedAlerts().map((name) => [name, true]));
  });
});

describe('the dashboard', () => {
  test.each(targets)(
    'the dashboard query %s names only metrics, labels and values that the service exports',
    (_, { expr }) => {
      expect(faultsOf(filled(expr))).toEqual([]);
      expect(filled(expr)).not.toContain('$');
      // Every selector is of the deployment that was chosen.
      expect(expr.match(/otp_login\w*(?!\w*:)[^{\w:]/g)).toBeNull();
    },
  );

  test('the dashboard lets its reader choose the data source, the namespace and the job', () => {
    expect([dashboard.title, dashboard.uid]).toEqual(['otp-login', 'otp-login']);
    expect(dashboard).not.toHaveProperty('id');
    const { list } = dashboard.templating;
    expect(list.map(({ name, type }) => [name, type])).toEqual([
      ['datasource', 'datasource'],
      ['namespace', 'query'],
      ['job', 'query'],
    ]);
    for (const { query } of list.slice(1)) {
      const text = (query as { query: string }).query;
      const [, selector = '', label = ''] = /^label_values\((.+), (\w+)\)$/.exec(text) ?? [];
      expect(faultsOf(filled(selector))).toEqual([]);
      expect(TARGET).toContain(label);
    }
    for (const { datasource } of [...panels, ...targets.map(([, target]) => target)])
      expect(datasource?.uid).toBe('${datasource}');
  });

  test('no panel of the dashboard covers another', () => {
    const all = dashboard.panels;
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    const over = all.flatMap(({ id, gridPos: a }) =>
      all
        .filter((other) => other.id > id)
        .filter(({ gridPos: b }) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h)
        .map((other) => `${id} and ${other.id}`),
    );
    expect(over).toEqual([]);
    expect(all.filter(({ gridPos: { x, w } }) => x + w > 24)).toEqual([]);
  });
});

describe('the search for names', () => {
  const CALLS = 'otp_login_http_request_duration_seconds_count';
  test.each([
    ['a metric', 'otp_login_sendz_total', 'otp_login_sendz_total is not exported'],
    ['a label of a selector', `${CALLS}{code="200"}`, `${CALLS} has no code like 200`],
    ['a label value', `${CALLS}{status=~"6.."}`, `${CALLS} has no status like ^(?:6..)$`],
    ['an excluded label value', `${CALLS}{route!~"/healthz"}`, `${CALLS} has no route like ^(?:/healthz)$`],
    ['a label of a group', `sum by (path) (${CALLS})`, `path is no label of ${CALLS}`],
    ['a counter', 'rate(otp_login_breaker_open[5m])', 'otp_login_breaker_open is a gauge'],
  ])('the search finds %s that the service does not export', (_, expr, fault) => {
    expect(faultsOf(expr).map((each) => each.replace(/\\\//g, '/').replace('^200$', '200'))).toEqual([fault]);
  });
});
