/** What one metric exports. */
export interface Family {
  name: string;
  type: string;
  /** Under their own names: a histogram's end in `_bucket`, `_sum` and `_count`. */
  samples: Sample[];
}
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** Reads Prometheus' text format. That the text is in this format shows `promtool check metrics`, in test/commands. */
export function readExposition(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  let samples: Sample[] = [];
  for (const line of text.split('\n')) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (name !== undefined && type !== undefined) families.set(name, { name, type, samples: (samples = []) });
    else if (line !== '' && !line.startsWith('#')) samples.push(readSample(line));
  }
  return families;
}

/** Name and labels in one text, the same in whatever order the labels stand. */
export function seriesOf({ name, labels }: Pick<Sample, 'name' | 'labels'>): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return `${name}{${sorted.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join()}}`;
}

function readSample(line: string): Sample {
  const [, name = '', labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  const read = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, quoted]) => [
    label,
    JSON.parse(`"${quoted}"`) as string,
  ]);
  return { name, labels: Object.fromEntries(read) as Record<string, string>, value: Number(value) };
}
