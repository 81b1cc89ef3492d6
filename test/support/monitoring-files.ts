import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readObjects } from './kustomize';

const FOLDER = join(__dirname, '../../deploy/monitoring');

export interface Rule {
  record?: string;
  alert?: string;
  expr: string;
  for?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}
export interface Target {
  expr: string;
  legendFormat: string;
  datasource: { uid: string };
}
export interface Panel {
  id: number;
  title: string;
  type: string;
  datasource?: { type: string; uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: Target[];
}
interface Dashboard {
  title: string;
  uid: string;
  panels: Panel[];
  templating: { list: { name: string; type: string; query: { query: string } | string }[] };
}

/** The objects of deploy/monitoring/alerts.yaml, of which there is one. */
export const ruleObjects = readObjects(join(FOLDER, 'alerts.yaml'));
/** What Prometheus takes as a rule file. */
export const ruleFile = ruleObjects[0]!.spec as { groups: { name: string; rules: Rule[] }[] };
export const rules = ruleFile.groups.flatMap((group) => group.rules);
export const alertRules = rules.filter((rule): rule is Rule & { alert: string } => rule.alert !== undefined);

export const dashboard = JSON.parse(readFileSync(join(FOLDER, 'dashboard.json'), 'utf8')) as Dashboard;
export const panels = dashboard.panels.filter(({ type }) => type !== 'row');
/** Every query of the dashboard, by a name for it. */
export const targets = panels.flatMap((panel) =>
  panel.targets!.map((target, i) => [`${panel.title} ${i + 1}`, target] as const),
);

/** A dashboard's expression as Grafana asks it. */
export const filled = (expr: string): string =>
  expr.replaceAll('$__rate_interval', '5m').replace(/\$(namespace|job)\b/g, '.*');

/** A metric that an expression names, with the labels by which it selects. */
export interface Selector {
  metric: string;
  matchers: { label: string; pattern: RegExp }[];
}

/**
 * The selectors of an expression. This finds names and does no more than that: promtool reads the expressions, in
 * test/commands. A matcher that leaves series out is read as its opposite, so that a value that does not exist is found.
 */
export function selectorsOf(expr: string): Selector[] {
  return [...expr.matchAll(/([\w:]*otp_login_[\w:]+)(?:\{([^}]*)\})?/g)].map(
    ([, metric = '', inside = '']) => ({
      metric,
      matchers: [...inside.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)].map(
        ([, label = '', operator = '', value = '']) => ({
          label,
          pattern: operator.includes('~')
            ? new RegExp(`^(?:${value})$`)
            : new RegExp(`^${value.replace(/[^\w]/g, '\\$&')}$`),
        }),
      ),
    }),
  );
}

/** The labels by which an expression groups and joins. */
export const groupingsOf = (expr: string): string[] =>
  [...expr.matchAll(/\b(?:by|without|on|ignoring) \(([^)]*)\)/g)].flatMap(([, labels = '']) =>
    labels.split(',').map((label) => label.trim()),
  );
