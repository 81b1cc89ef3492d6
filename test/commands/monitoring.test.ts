import { readExposition } from '../support/exposition';
import { type Monitored, startMonitored } from '../support/monitored';
import { filled, ruleFile, targets } from '../support/monitoring-files';
import { promtool } from '../support/promtool';

let monitored: Monitored;
beforeAll(async () => {
  monitored = await startMonitored();
});
afterAll(() => monitored.close());

test('promtool accepts the format, the names and the help texts of all metrics', () => {
  // Node.js exports its own under names of prom-client.
  const own = monitored.exported.split('\n').filter((line) => !/\botp_login_(nodejs|process)_/.test(line));
  expect(promtool(['check', 'metrics'], {}, own.join('\n'))).toEqual({ ok: true, output: '' });
});

/** Every series that the service exports, rising from 1. */
const exportedSeries = (): object[] =>
  [...readExposition(monitored.exported).values()]
    .flatMap(({ samples }) => samples)
    .map(({ name, labels }) => {
      const all = { ...labels, namespace: 'n', job: 'otp-login', instance: 'a', pod: 'a' };
      const text = Object.entries(all).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
      return { series: `${name}{${text.join()}}`, values: '1+1x10' };
    });

/** What promtool says of queries that must find something, each of whose results must have these labels. */
function ask(queries: { expr: string; labels: string[] }[]): ReturnType<typeof promtool> {
  const tests = queries.flatMap(({ expr, labels }) => [
    { expr: `group(${expr})`, exp_samples: [{ labels: '{}', value: 1 }] },
    ...labels.map((label) => ({
      expr: `group by (has_label) (label_replace(${expr}, "has_label", "yes", "${label}", ".+"))`,
      exp_samples: [{ labels: '{has_label="yes"}', value: 1 }],
    })),
  ]);
  const group = {
    interval: '1m',
    input_series: exportedSeries(),
    promql_expr_test: tests.map((each) => ({ ...each, eval_time: '10m' })),
  };
  return promtool(['test', 'rules', 'test.yaml'], {
    'rules.yaml': ruleFile,
    'test.yaml': { rule_files: ['rules.yaml'], tests: [group] },
  });
}

test('each query of the dashboard finds series of the service with the labels of its legend', () => {
  const queries = targets.map(([, { expr, legendFormat }]) => ({
    expr: filled(expr),
    labels: [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!),
  }));
  expect(queries.length).toBeGreaterThan(20);
  expect(ask(queries)).toEqual({ ok: true, output: expect.stringContaining('SUCCESS') });
});

const CALLS = 'otp_login_http_request_duration_seconds_count';
test.each([
  ['a metric that is not exported', 'otp_login_sendz_total', []],
  ['a histogram without its buckets', `histogram_quantile(0.9, sum(rate(${CALLS}[5m])))`, []],
  ['two sides that have no labels in common', `sum(${CALLS}) / sum by (job) (${CALLS})`, []],
  ['a legend with a label that the query sums away', `sum by (job) (${CALLS})`, ['route']],
  ['a query that does not parse', `sum by (route) (rate(${CALLS}[5m])`, []],
])('promtool reports a fault of the dashboard: %s', (_, expr, labels) => {
  const { ok, output } = ask([{ expr, labels }]);
  expect([ok, output]).toEqual([false, expect.stringContaining('FAILED')]);
});
