import { CASES, promtoolTest } from '../support/alert-cases';
import { alertRules, ruleFile, rules } from '../support/monitoring-files';
import { promtool } from '../support/promtool';

// When each alert fires, and when it does not, by Prometheus' own arithmetic. That the service exports the series of these
// cases is shown in test/e2e/monitoring.test.ts.

/** For each alert a rule file with it and the recording rules, because promtool evaluates all rules of a file in each case. */
const FILES = Object.fromEntries(
  alertRules.flatMap(({ alert }) => {
    const its = rules.filter((rule) => rule.record !== undefined || rule.alert === alert);
    const tests = CASES.filter((each) => each.alert === alert).map(promtoolTest);
    return [
      [`${alert}.rules.yaml`, { groups: [{ name: alert, rules: its }] }],
      [`${alert}.yaml`, { rule_files: [`${alert}.rules.yaml`], tests }],
    ];
  }),
);
let tested: ReturnType<typeof promtool>;
/** What promtool prints about each case that does not hold. */
const faults = new Map<string, string>();

beforeAll(() => {
  tested = promtool(['test', 'rules', ...alertRules.map(({ alert }) => `${alert}.yaml`)], FILES);
  for (const part of tested.output.split(/^ {4}name: /m).slice(1)) {
    const [name = ''] = part.split(',\n', 1);
    faults.set(name, part);
  }
});

test('promtool accepts the rule file without a warning', () => {
  const { ok, output } = promtool(['check', 'rules', '--lint=all', '--lint-fatal', 'rules.yaml'], {
    'rules.yaml': ruleFile,
  });
  expect([ok, output]).toEqual([true, expect.stringContaining('SUCCESS')]);
});

test.each(CASES.filter(({ fires }) => fires))('$alert fires when $when', ({ alert, when }) => {
  expect(faults.get(`${alert}: ${when}`)).toBeUndefined();
});

test.each(CASES.filter(({ fires }) => !fires))('$alert does not fire when $when', ({ alert, when }) => {
  expect(faults.get(`${alert}: ${when}`)).toBeUndefined();
});

test('promtool finds no other fault in the alert rules', () => {
  expect([tested.ok, faults.size, tested.output]).toEqual([true, 0, expect.stringContaining('SUCCESS')]);
});
