import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SETTING_NAMES } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';

const read = (name: string) => readFileSync(join(__dirname, '../..', name), 'utf8');

describe('.env.example', () => {
  const settings = [...read('.env.example').matchAll(/^(#? ?)([A-Z][A-Z\d_]+)=(.*)$/gm)];

  test('.env.example names every setting once, and nothing else', () => {
    expect(settings.map((match) => match[2]!).sort()).toEqual([...SETTING_NAMES].sort());
  });

  test('.env.example leaves only the API key to be set', () => {
    expect(settings.filter((match) => match[1] === '').map((match) => match[0])).toEqual([
      'STARTMESSAGING_API_KEY=',
    ]);
  });

  test('.env.example shows the default of every setting', () => {
    const shown = Object.fromEntries(settings.map((match) => [match[2]!, match[3]!]));
    const own = { STARTMESSAGING_API_KEY: 'k', SECRET: 's', SUBJECT_SECRET: 't' };
    expect(Object.entries(readConfig({ ...shown, ...own }))).toEqual(Object.entries(readConfig(own)));
  });
});

describe('docs/configuration.md', () => {
  test('docs/configuration.md has every setting in its table, and nothing else', () => {
    const chapter = read('docs/configuration.md');
    const firstCells = chapter.split('\n').flatMap((line) => /^\| *(\*{0,2}`[^|]*)\|/.exec(line)?.[1] ?? []);
    const names = firstCells.flatMap((cell) =>
      [...cell.matchAll(/`([A-Z][A-Z\d_]+)`/g)].map((match) => match[1]!),
    );
    expect(names.sort()).toEqual([...SETTING_NAMES].sort());
  });
});
