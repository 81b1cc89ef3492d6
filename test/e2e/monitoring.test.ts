import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ERROR_CODES } from '../../src/errors/api-error';
import { type Family, readExposition, seriesOf } from '../support/exposition';
import { readObjects } from '../support/kustomize';
import { type Known, knownFrom, readExpression, TARGET } from '../support/promql';
import {
  call,
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  type World,
  wrongCode,
} from '../support/world';

// The rules and the dashboard are checked against what the service really exports: an expression that asks for a name, a
// label or a value that is not there is never wrong and never right, and nobody hears of it.

const ROOT = join(__dirname, '../..');
const read = (name: string): string => readFileSync(join(ROOT, name), 'utf8');
const DAY_MS = 86_400_000;
const PRICE = 25;

const error = (status: number, code: string) => ({ kind: 'error', status, code }) as const;

let world: World;
let folder: string;
let signsFrom: number;
let atStart: Map<string, Family>;
let families: Map<string, Family>;
let known: Known;

const scrape = async (): Promise<Map<string, Family>> =>
  readExposition(String((await call('GET', `${world.url}/metrics`)).body));

/** The only sample of a metric that has these labels. */
function sample(of: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const found = [...of.values()]
    .flatMap(({ samples }) => samples)
    .filter((each) => each.name === name && Object.entries(labels).every(([k, v]) => each.labels[k] === v));
  if (found.length !== 1) throw new Error(`${found.length} samples of ${name} ${JSON.stringify(labels)}`);
  return found[0]!.value;
}

function putKey(activeFrom: Date): number {
  const kid = `${activeFrom.toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-key`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return Math.floor(activeFrom.getTime() / 60_000) * 60;
}

/** A login, and the refresh token that it gave. */
async function loginBy(phoneNumber: string): Promise<{ accessToken: string; refreshToken: string }> {
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  expect((await verifyOtp(world.url, body.requestId, wrongCode(code))).status).toBe(400);
  const verified = await verifyOtp(world.url, body.requestId, code);
  expect(verified.status).toBe(200);
  return verified.body as { accessToken: string; refreshToken: string };
}

const refresh = (refreshToken: string) => call('POST', `${world.url}/auth/refresh`, { refreshToken });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  putKey(new Date(Date.now() - 200 * DAY_MS));
  putKey(new Date(Date.now() - 100 * DAY_MS));
  signsFrom = putKey(new Date(Date.now() + DAY_MS));
  world = await startWorld({
    variables: {
      JWT_KEYS_DIR: folder,
      STARTMESSAGING_CONTRACT: 'caller',
      PROVIDERS: 'startmessaging,sendwithses',
      SENDWITHSES_TEMPLATE_KEY: 'tk_0123456789',
      SENDWITHSES_SENT_IF: 'success=true',
      SENDWITHSES_VERIFIED_IF: 'data.verified=true',
      BUDGET_PAISE_PER_HOUR: '2500',
      BUDGET_PAISE_PER_DAY: '10000',
      SMS_PRICE_PAISE: String(PRICE),
      BUDGET_RESERVE_PERCENT: '30',
    },
  });
  atStart = await scrape();

  const { accessToken, refreshToken } = await loginBy(freshNumber());
  await call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${accessToken}` });
  const second = await refresh(refreshToken);
  await refresh(String(second.body.refreshToken));
  expect((await refresh(refreshToken)).body.code).toBe('refresh_token_reused');
  // Handed to the second provider; then taken by none, and given back.
  world.upstream.fault({ on: 'send', provider: 'startmessaging', fault: error(401, 'UNAUTHORIZED') });
  await loginBy(freshNumber());
  world.upstream.fault({ on: 'send', provider: 'startmessaging', fault: error(402, 'INSUFFICIENT_BALANCE') });
  world.upstream.fault({ on: 'send', provider: 'sendwithses', fault: error(402, 'NO_MONEY') });
  expect((await sendOtp(world.url, freshNumber())).status).toBe(503);
  await storm();
  world.redis.pause();
  expect((await sendOtp(world.url, freshNumber())).body.code).toBe('store_unavailable');
  world.redis.resume();
  // The ledger has written that somebody logged in, so that there is a reserve.
  await until(async () => {
    families = await scrape();
    return sample(families, 'otp_login_budget_left_paise', { window: 'hour', numbers: 'new' }) < 2_000;
  });
  known = knownFrom(families.values());
});
afterAll(async () => {
  await world.close();
  rmSync(folder, { recursive: true, force: true });
});

/** What strangers choose: paths, methods, ids, numbers, tokens, headers. No two storms are alike. */
async function storm(): Promise<void> {
  const random = (): string => randomBytes(9).toString('base64url');
  for (let i = 0; i < 5; i++) {
    await call('GET', `${world.url}/${random()}?${random()}=${random()}`);
    await call('GET', `${world.url}/auth/otp/${random()}`);
    await call('DELETE', `${world.url}/auth/send-otp/${random()}`);
    await call('POST', `${world.url}/auth/${random()}`, { [random()]: random() });
    await call('OPTIONS', `${world.url}/${random()}`);
    await sendOtp(world.url, random(), { 'idempotency-key': random(), 'x-request-id': random() });
    await verifyOtp(world.url, random(), random());
    await refresh(`${random()}.${random()}`);
    await call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${random()}` });
    await call('POST', `${world.url}/oauth/revoke`, `token=${random()}`, {
      'content-type': 'application/x-www-form-urlencoded',
    });
  }
  for (const method of ['PROPFIND', 'MKCOL', 'SEARCH', 'TRACE', 'PATCH']) {
    await new Promise((resolve, reject) => {
      const sent = request(`${world.url}/${random()}`, { method }, (answer) =>
        answer.resume().on('end', resolve),
      );
      sent.on('error', reject).end();
    });
  }
}

/** What Node tells of itself comes as prom-client names it. */
const ours = (of: Map<string, Family>): Family[] =>
  [...of.values()].filter(({ name }) => !/^otp_login_(nodejs|process)_/.test(name));

const ERRORS = Object.keys(ERROR_CODES);
const words = (text: string): ((value: string) => boolean) => {
  const all = new Set(text.split(' '));
  return (value) => all.has(value);
};
/** Every label that there is, and what bounds its values. A new one needs a line here, and so a thought about who chooses it. */
const BOUNDS: Record<string, (value: string) => boolean> = {
  method: words('GET HEAD POST PUT PATCH DELETE OPTIONS other'),
  // Patterns from our code: the one about requests below compares them with the routes that there are.
  route: () => true,
  status: (value) => /^[2-5]\d\d$/.test(value),
  outcome: (value) =>
    ERRORS.includes(value) ||
    words(
      // Of deliveries and verifications, of refreshes, of steps over Redis, and of calls of a provider.
      'accepted sent delivered failed unknown verified rotated repeated answered not_verified phone_rejected ' +
        'request_malformed wallet_empty number_limited send_refused credentials_refused contract_mismatch duplicate ' +
        'request_expired throttled unconfirmed breaker_open unreachable timed_out ' +
        // Of webhooks: delivered and failed as above, and
        'held_back',
    )(value),
  provider: words('startmessaging sendwithses'),
  operation: words('send verify message wallet'),
  delivery: words('delivered failed'),
  limit: words(
    'phone service budget denied challenge address_send address_verify address_status in_flight event_loop connections ' +
      'pipelined',
  ),
  window: words('hour day'),
  numbers: words('new returning'),
  source: words('files signing_keys redis'),
  signal: words('conversion wrong_codes unsolved quiet'),
  // Of the guard, and of Redis: the names of our scripts and commands.
  step: (value) => /^[a-z][a-z -]{1,20}$/.test(value),
  state: words('signing next retired'),
  alert: (value) => loggedAlerts().includes(value),
  check: (value) => /^redis_[a-z]+$/.test(value),
  le: (value) => value === '+Inf' || Number(value) > 0,
};

/** The values of `alert` in a log line. */
function loggedAlerts(): string[] {
  const [, union = ''] = /export type Alert =((?:\s*\| '\w+')+);/.exec(read('src/logging/logger.ts')) ?? [];
  return [...union.matchAll(/'(\w+)'/g)].map(([, name]) => name!);
}

describe('what is exported', () => {
  test('has a help text and a name as Prometheus wants them', () => {
    const faults = ours(families).filter(({ name, type, help }) => {
      const timed =
        type === 'histogram' ? /_seconds$/ : type === 'counter' ? /_total$/ : /(?<!_total|_count|_sum)$/;
      return (
        !/^otp_login(_[a-z\d]+)+$/.test(name) ||
        !timed.test(name) ||
        /_(ms|millis|milliseconds|minutes|hours|rupees|percent|counter|gauge|histogram)(_|$)/.test(name) ||
        (/timestamp|duration|age/.test(name) && !name.endsWith('_seconds')) ||
        !['counter', 'gauge', 'histogram'].includes(type) ||
        help.length < 10
      );
    });
    expect(faults.map(({ name }) => name)).toEqual([]);
    expect([...families.keys()].filter((name) => !name.startsWith('otp_login_'))).toEqual([]);
    expect(ours(families).length).toBeGreaterThan(20);
  });

  test('has no label without a bound', async () => {
    const samples = ours(families).flatMap((family) => family.samples);
    const faults = samples.flatMap(({ name, labels }) =>
      Object.entries(labels)
        .filter(([label, value]) => !BOUNDS[label]?.(value))
        .map(([label, value]) => `${name}{${label}="${value}"}`),
    );
    expect([...new Set(faults)]).toEqual([]);

    const { body } = await call('GET', `${world.url}/docs-json`);
    const patterns = Object.keys(body.paths as object).map((path) => path.replace(/\{(\w+)\}/g, ':$1'));
    const routes = new Set(samples.flatMap(({ labels }) => labels.route ?? []));
    const others = ['/metrics', '/docs-json', '*', 'unknown'];
    expect([...routes].filter((route) => !patterns.includes(route) && !others.includes(route))).toEqual([]);
    expect([...routes]).toEqual(expect.arrayContaining(['/auth/otp/:requestId', 'unknown']));
  });

  test('does not grow by what strangers choose', async () => {
    const before = ours(await scrape()).flatMap((family) => family.samples.map(seriesOf));
    await storm();
    const after = ours(await scrape()).flatMap((family) => family.samples.map(seriesOf));
    const had = new Set(before);
    expect(after.filter((series) => !had.has(series) && !series.includes('route="/docs-json"'))).toEqual([]);
    expect(before.join()).toContain('method="other"');
  });

  test('has every counter from the start, so that the first event is a rise', () => {
    const had = new Set(ours(atStart).flatMap(({ samples }) => samples.map(seriesOf)));
    const counters = ours(families).filter(({ type }) => type === 'counter');
    const missing = counters.flatMap(({ samples }) => samples.filter((each) => !had.has(seriesOf(each))));
    expect(missing).toEqual([]);
    const alerts = atStart.get('otp_login_alerts_total')!.samples;
    expect(alerts.map(({ labels }) => labels.alert).sort()).toEqual(loggedAlerts().sort());
    expect(alerts.map(({ value }) => value)).toEqual(alerts.map(() => 0));
  });

  test('holds no number, code or token', async () => {
    const values = [...(await scrape()).values()].flatMap(({ samples }) =>
      samples.flatMap(({ labels }) => Object.values(labels)),
    );
    const codes = new Set(world.upstream.messages.map(({ code }) => code));
    expect(codes.size).toBeGreaterThan(0);
    expect(values.filter((value) => codes.has(value) || /[6-9]\d{9}|eyJ|sm_live/.test(value))).toEqual([]);
  });

  test('counts what was paid for and what came back, by the provider that sent it', () => {
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

  test('tells what is left of each budget, and what of it new numbers may use', () => {
    const left = (window: string, numbers: string): number =>
      sample(families, 'otp_login_budget_left_paise', { window, numbers });
    const spent = 2 * PRICE;
    expect([left('hour', 'returning'), left('hour', 'new')]).toEqual([2_500 - spent, 1_750 - spent]);
    expect([left('day', 'returning'), left('day', 'new')]).toEqual([10_000 - spent, 7_000 - spent]);
    expect(sample(families, 'otp_login_budget_paise', { window: 'day' })).toBe(10_000);
  });

  test('tells since when the signing key signs, and from when the next one will', () => {
    const since = sample(families, 'otp_login_signing_key_active_timestamp_seconds');
    expect(Math.abs(since - (Date.now() - 100 * DAY_MS) / 1_000)).toBeLessThan(600);
    expect(sample(families, 'otp_login_signing_key_next_timestamp_seconds')).toBe(signsFrom);
    const keys = ['signing', 'next', 'retired'].map((state) =>
      sample(families, 'otp_login_signing_keys', { state }),
    );
    expect(keys).toEqual([1, 1, 1]);
  });

  test('tells of round trips to Redis, and that it is away', async () => {
    const steps = 'otp_login_redis_step_duration_seconds_count';
    expect(sample(families, steps, { step: 'consume', outcome: 'answered' })).toBe(2);
    expect(sample(families, steps, { step: 'find session', outcome: 'answered' })).toBe(1);
    // In the background the ledger and the audit may have tried, too.
    const failed = known
      .get(steps)!
      .series.filter(({ outcome, step }) => outcome === 'failed' && step !== 'record');
    expect(failed).toHaveLength(1);
    expect(sample(families, 'otp_login_redis_available')).toBe(1);

    const lonely = await startWorld({ variables: { BUDGET_PAISE_PER_DAY: '100' } });
    try {
      const look = async () => readExposition(String((await call('GET', `${lonely.url}/metrics`)).body));
      expect(sample(await look(), 'otp_login_budget_left_paise', { numbers: 'new' })).toBe(100);
      await lonely.redis.kill();
      await until(async () => sample(await look(), 'otp_login_redis_available') === 0);
      // An old figure would be worse than none.
      expect((await look()).get('otp_login_budget_left_paise')?.samples).toEqual([]);
    } finally {
      await lonely.close();
    }
  });

  test('tells of the delay of the event loop', async () => {
    const someTicks = () => new Promise((resolve) => setTimeout(resolve, 50));
    // A scrape starts the measurement afresh. Its own timer must have come once before, and comes late after.
    await scrape();
    await someTicks();
    const end = performance.now() + 200;
    while (performance.now() < end);
    await someTicks();
    const delay = await scrape();
    expect(sample(delay, 'otp_login_nodejs_eventloop_lag_max_seconds')).toBeGreaterThan(0.15);
    expect(sample(delay, 'otp_login_nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0.15);
  });
});

interface Rule {
  record?: string;
  alert?: string;
  expr: string;
  for?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}
const [resource, ...others] = readObjects(join(ROOT, 'deploy/monitoring/alerts.yaml'));
const groups = resource!.spec.groups as { name: string; rules: Rule[] }[];
const rules = groups.flatMap((group) => group.rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);

/** With the series that the recording rules make. */
function withRecorded(): Known {
  const all = new Map(known);
  for (const { record, expr } of rules) {
    if (record === undefined) continue;
    const labels = [...readExpression(expr, known).labels].map((label) => [label, 'x'] as const);
    all.set(record, { counts: false, series: [Object.fromEntries(labels)] });
  }
  return all;
}

describe('the alert rules', () => {
  test('are one PrometheusRule of known fields', () => {
    expect(others).toEqual([]);
    expect(resource).toMatchObject({ apiVersion: 'monitoring.coreos.com/v1', kind: 'PrometheusRule' });
    expect(Object.keys(resource!).sort()).toEqual(['apiVersion', 'kind', 'metadata', 'spec']);
    expect(Object.keys(resource!.spec as object)).toEqual(['groups']);
    for (const group of groups) expect(Object.keys(group)).toEqual(['name', 'rules']);
    for (const rule of rules) {
      const fields = Object.keys(rule).filter((field) => field !== 'for');
      expect(fields).toEqual(rule.record ? ['record', 'expr'] : ['alert', 'expr', 'labels', 'annotations']);
      expect(rule.for ?? '1m').toMatch(/^\d+[smh]$/);
    }
    const names = rules.map(({ alert, record }) => alert ?? record);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names)
      expect(name).toMatch(/^OtpLogin[A-Z]\w+$|^[a-z_]+:otp_login_[a-z_]+:[a-z\d_]+$/);
  });

  test.each(rules.map((rule) => [rule.alert ?? rule.record ?? '', rule] as const))(
    '%s asks for what is exported',
    (_, { expr, annotations }) => {
      const { faults, labels } = readExpression(expr, withRecorded());
      expect(faults).toEqual([]);
      const told = Object.values(annotations ?? {}).flatMap((text) => [...text.matchAll(/\$labels\.(\w+)/g)]);
      expect(told.map(([, label]) => label).filter((label) => !labels.has(label!))).toEqual([]);
    },
  );

  test.each(alerts.map((rule) => [rule.alert!, rule] as const))(
    '%s has a severity, a summary, and a section of the runbook',
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

  test('have no section of the runbook left over', () => {
    const sections = [...read('docs/operations.md').matchAll(/^### (OtpLogin\w+)$/gm)].map(
      ([, name]) => name,
    );
    expect(sections.sort()).toEqual(alerts.map(({ alert }) => alert).sort());
  });

  /** Told by a state that ends, or by a share, and not by an event in the log. */
  const OTHERWISE: Record<string, string> = {
    provider_down: 'OtpLoginProviderDown',
    wallet_exhausted: 'OtpLoginWalletEmpty',
    token_reused: 'OtpLoginRefreshTokenReuse',
  };
  test('there is one for each alert of the log', () => {
    expect(loggedAlerts().length).toBeGreaterThan(5);
    const covered = loggedAlerts().map((name) => {
      const [rule] = alerts.filter(({ alert, expr }) =>
        name in OTHERWISE
          ? alert === OTHERWISE[name]
          : expr.includes(`otp_login_alerts_total{alert="${name}"}`),
      );
      return [name, rule !== undefined];
    });
    expect(covered).toEqual(loggedAlerts().map((name) => [name, true]));
  });
});

interface Panel {
  id: number;
  title: string;
  type: string;
  datasource?: { type: string; uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; legendFormat: string; datasource: { uid: string } }[];
}
const dashboard = JSON.parse(read('deploy/monitoring/dashboard.json')) as {
  title: string;
  uid: string;
  panels: Panel[];
  templating: { list: { name: string; type: string; query: { query: string } | string }[] };
};
/** As Grafana would put its variables in. */
const filled = (expr: string): string =>
  expr.replaceAll('$__rate_interval', '5m').replace(/\$(namespace|job)\b/g, '.*');

describe('the dashboard', () => {
  const shown = dashboard.panels.filter(({ type }) => type !== 'row');
  const targets = shown.flatMap((panel) =>
    panel.targets!.map((target, i) => [`${panel.title} ${i + 1}`, target] as const),
  );

  test.each(targets)('%s asks for what is exported', (_, { expr, legendFormat }) => {
    const { faults, labels } = readExpression(filled(expr), withRecorded());
    expect(faults).toEqual([]);
    expect(filled(expr)).not.toContain('$');
    const told = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!);
    expect(told.filter((label) => !labels.has(label))).toEqual([]);
    // Every selector is of the deployment that was chosen.
    expect(expr.match(/otp_login\w*(?!\w*:)[^{\w:]/g)).toBeNull();
  });

  test('can be imported: whoever imports it chooses the data source', () => {
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
      expect(readExpression(filled(selector), known).faults).toEqual([]);
      expect(TARGET).toContain(label);
    }
    for (const { datasource } of [...shown, ...targets.map(([, target]) => target)])
      expect(datasource?.uid).toBe('${datasource}');
  });

  test('has its panels beside each other, none over another', () => {
    const { panels } = dashboard;
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const over = panels.flatMap(({ id, gridPos: a }) =>
      panels
        .filter((other) => other.id > id)
        .filter(({ gridPos: b }) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h)
        .map((other) => `${id} and ${other.id}`),
    );
    expect(over).toEqual([]);
    expect(panels.filter(({ gridPos: { x, w } }) => x + w > 24)).toEqual([]);
  });
});

describe('an expression is found to be wrong', () => {
  const CALLS = 'otp_login_http_request_duration_seconds_count';
  test.each([
    ['of a metric that there is not', 'otp_login_sendz_total', 'otp_login_sendz_total is not exported'],
    [
      'of a histogram by its bare name',
      'rate(otp_login_http_request_duration_seconds[5m])',
      'is not exported',
    ],
    ['that selects by a label that there is not', `${CALLS}{code="200"}`, 'has no code that is 200'],
    ['that selects a value that there is not', 'otp_login_alerts_total{alert="wallet"}', 'has no alert'],
    ['that selects no value by a pattern', `${CALLS}{status=~"6.."}`, 'has no status that is 6..'],
    ['that leaves out a value that there is not', `${CALLS}{route!~"/healthz"}`, 'has no route'],
    ['that groups by a label that there is not', `sum by (path) (${CALLS})`, 'path is no label'],
    [
      'that groups by one that is summed away',
      `sum by (route) (sum by (job) (${CALLS}))`,
      'route is no label',
    ],
    ['that matches on a label that there is not', `${CALLS} / on (le) ${CALLS}`, 'le is no label'],
    ['whose sides never meet', `sum(${CALLS}) / sum by (job) (${CALLS})`, 'never meet'],
    ['that is the rate of a gauge', 'rate(otp_login_breaker_open[5m])', 'is a gauge'],
    [
      'that is a quantile without buckets',
      `histogram_quantile(0.9, sum(rate(${CALLS}[5m])))`,
      'le is no label',
    ],
    ['that does not parse', `sum by (route) (rate(${CALLS}[5m])`, 'does not parse'],
    ['that does not parse, in its braces', `${CALLS}{route="/metrics"`, 'does not parse'],
  ])('%s', (_, expr, fault) => {
    expect(readExpression(expr, known).faults).toEqual([expect.stringContaining(fault)]);
  });

  test.each([
    'otp_login_x_total 1',
    '# HELP a b\n# TYPE a counter\na 1\na 2',
    '# HELP a b\n# TYPE a counter\na{b="c} 1',
    '# HELP a b\n# TYPE a counter\na one',
    '# HELP a b\n# TYPE a histogram\na 1',
    '# TYPE a counter\na 1',
  ])('and so is what Prometheus could not read: %j', (text) => {
    expect(() => readExposition(text)).toThrow();
  });
});
