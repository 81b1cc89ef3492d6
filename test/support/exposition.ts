/** What one metric exports, as Prometheus would read it. */
export interface Family {
  name: string;
  type: string;
  help: string;
  /** Under their own names: a histogram's end in `_bucket`, `_sum` and `_count`. */
  samples: Sample[];
}
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = `([a-zA-Z_]\\w*)="((?:[^"\\\\]|\\\\[\\\\"n])*)"`;
const SAMPLE = new RegExp(`^(${NAME})(?:\\{((?:${LABEL},?)*)\\})? (\\S+)$`);
const SUFFIXES: Record<string, readonly string[]> = { histogram: ['_bucket', '_sum', '_count'] };

/** Prometheus' text format, 0.0.4. Throws for a line that it does not have, and for a series that stands twice. */
export function readExposition(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let family: Family | undefined;
  for (const line of text.split('\n').filter(Boolean)) {
    const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === 'HELP') {
      if (families.has(name)) throw new Error(`${name} is told of twice`);
      family = { name, help: rest, type: '', samples: [] };
      families.set(name, family);
    } else if (keyword === 'TYPE') {
      if (family?.name !== name) throw new Error(`${name} has a type and no help`);
      family.type = rest;
    } else {
      const sample = readSample(line);
      const names = SUFFIXES[family?.type ?? '']?.map((suffix) => `${family?.name}${suffix}`);
      if (family === undefined || !(names ?? [family.name]).includes(sample.name))
        throw new Error(`${sample.name} stands under ${family?.name}`);
      const series = seriesOf(sample);
      if (seen.has(series)) throw new Error(`${series} stands twice`);
      seen.add(series);
      family.samples.push(sample);
    }
  }
  return families;
}

/** Name and labels in one text, the same whatever order the labels stand in. */
export function seriesOf({ name, labels }: Sample): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return `${name}{${sorted.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join()}}`;
}

function readSample(line: string): Sample {
  const [, name, labels = ''] = SAMPLE.exec(line) ?? [];
  const text = line.slice(line.lastIndexOf(' ') + 1);
  const value = { '+Inf': Infinity, '-Inf': -Infinity }[text] ?? Number(text);
  // prom-client writes Nan, and Prometheus reads it in any case.
  if (name === undefined || (Number.isNaN(value) && !/^nan$/i.test(text)))
    throw new Error(`No sample: ${line}`);
  const read = [...labels.matchAll(new RegExp(LABEL, 'g'))].map(([, label = '', quoted = '']) => [
    label,
    quoted.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped)),
  ]);
  return { name, labels: Object.fromEntries(read) as Record<string, string>, value };
}
