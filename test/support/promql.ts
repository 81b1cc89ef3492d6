import { parser } from '@prometheus-io/lezer-promql';
import type { Family } from './exposition';

type Tree = ReturnType<typeof parser.parse>;
type Node = Tree['topNode'];

/** What there is to ask for, by the name in an expression: a histogram's parts are three. */
export type Known = ReadonlyMap<string, { counts: boolean; series: readonly Record<string, string>[] }>;

/** Labels that Prometheus adds to whatever it scrapes: their values are the deployment's own. */
export const TARGET = ['namespace', 'job', 'instance', 'pod'];

export function knownFrom(families: Iterable<Family>): Known {
  const known = new Map<string, { counts: boolean; series: Record<string, string>[] }>();
  for (const { name, type, samples } of families) {
    if (type !== 'histogram') known.set(name, { counts: type === 'counter', series: [] });
    for (const sample of samples) {
      const its = known.get(sample.name) ?? { counts: true, series: [] };
      its.series.push(sample.labels);
      known.set(sample.name, its);
    }
  }
  return known;
}

/** What is wrong with an expression, the metrics that it asks for, and the labels that its answer has. */
export interface Read {
  faults: string[];
  metrics: Set<string>;
  labels: ReadonlySet<string>;
}

/** Reads an expression against what is known. A name or a label that nobody exports is a fault: it would be silent for ever. */
export function readExpression(expression: string, known: Known): Read {
  const faults: string[] = [];
  const metrics = new Set<string>();
  const text = (node: Node): string => expression.slice(node.from, node.to);
  const tree = parser.parse(expression);
  const within = (node: Node, name: string): Node[] => {
    const found: Node[] = node.name === name ? [node] : [];
    for (let child = node.firstChild; child; child = child.nextSibling) found.push(...within(child, name));
    return found;
  };
  const parts = (node: Node): Node[] => {
    const found: Node[] = [];
    for (let child = node.firstChild; child; child = child.nextSibling) found.push(child);
    return found;
  };
  const unquoted = (node: Node): string => JSON.parse(text(node)) as string;
  const has = (labels: ReadonlySet<string>, wanted: readonly string[], where: Node): void => {
    for (const label of wanted)
      if (!labels.has(label)) faults.push(`${label} is no label of ${text(where).trim()}`);
  };

  function select(node: Node): Set<string> {
    const name = text(node.getChild('Identifier') ?? node);
    metrics.add(name);
    const metric = known.get(name);
    if (metric === undefined) {
      faults.push(`${name} is not exported`);
      return new Set();
    }
    const labels = new Set(metric.series.flatMap((series) => Object.keys(series)));
    for (const matcher of within(node, 'UnquotedLabelMatcher')) {
      const [label, op, value] = parts(matcher).map((part) =>
        part.name === 'StringLiteral' ? unquoted(part) : text(part),
      ) as [string, string, string];
      if (TARGET.includes(label)) continue;
      const regex = new RegExp(`^(?:${value})$`);
      const hits = metric.series.filter((series) => {
        const its = series[label] ?? '';
        return op.includes('~') ? regex.test(its) : its === value;
      });
      // Of what is left out, too: a value that nobody exports is misspelt, or not there any more.
      if (hits.length === 0) faults.push(`${name} has no ${label} that is ${value}`);
    }
    return new Set([...labels, ...TARGET]);
  }

  function aggregate(node: Node): Set<string> {
    const [body] = node.getChildren('FunctionCallBody');
    const inner = body ? labelsOf(body) : new Set<string>();
    const modifier = node.getChild('AggregateModifier');
    const labels = modifier ? within(modifier, 'LabelName').map(text) : [];
    has(inner, labels, node);
    if (modifier?.getChild('Without')) return new Set([...inner].filter((label) => !labels.includes(label)));
    return new Set(labels);
  }

  function binary(node: Node): Set<string> {
    const [left, ...more] = parts(node);
    const right = more.at(-1);
    const [a, b] = [left ? labelsOf(left) : new Set<string>(), right ? labelsOf(right) : new Set<string>()];
    const matching = node.getChild('MatchingModifierClause');
    const on = matching?.getChild('On') ? within(matching, 'LabelName').map(text) : undefined;
    if (on) for (const side of [a, b]) has(side, on, node);
    const scalar = (side: Node | undefined): boolean =>
      side !== undefined && within(side, 'VectorSelector').length === 0;
    if (scalar(left)) return b;
    if (scalar(right)) return a;
    // Without `on` only series with the same labels meet: two sides that differ never do.
    if (!on && [...a].sort().join() !== [...b].sort().join())
      faults.push(`the sides of ${text(node).trim()} never meet`);
    return a;
  }

  function called(node: Node): Set<string> {
    const name = text(node.getChild('FunctionIdentifier') ?? node);
    const [body] = node.getChildren('FunctionCallBody');
    const inner = body ? labelsOf(body) : new Set<string>();
    if (['rate', 'increase'].includes(name)) {
      for (const selector of within(node, 'VectorSelector')) {
        const metric = text(selector.getChild('Identifier') ?? selector);
        if (known.get(metric)?.counts === false) faults.push(`${metric} is a gauge, and has no ${name}`);
      }
    }
    if (name === 'histogram_quantile') {
      has(inner, ['le'], node);
      return new Set([...inner].filter((label) => label !== 'le'));
    }
    return name === 'absent' ? new Set() : inner;
  }

  function labelsOf(node: Node): Set<string> {
    if (node.name === 'VectorSelector') return select(node);
    if (node.name === 'AggregateExpr') return aggregate(node);
    if (node.name === 'BinaryExpr') return binary(node);
    if (node.name === 'FunctionCall') return called(node);
    return new Set(parts(node).flatMap((part) => [...labelsOf(part)]));
  }

  if (within(tree.topNode, '⚠').length > 0) faults.push(`it does not parse: ${expression.trim()}`);
  const labels = labelsOf(tree.topNode);
  return { faults: [...new Set(faults)], metrics, labels };
}
