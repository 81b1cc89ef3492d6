import { allProse, faultsOfProse, proseOfTypeScript, wordsOf } from '../support/prose';

// Pronouns such as "who" and "nobody", and clauses that open with "What", "Of" or "Else", make readers search for the actor.

/** Faults per 1,000 words. Lower it when you rewrite; never raise it. */
const CEILING = 0.5;

const prose = allProse();
const words = prose.reduce((sum, each) => sum + wordsOf(each), 0);
const faults = prose.flatMap(faultsOfProse);

test('the check of the prose reads the documentation, the comments and the messages', () => {
  expect(words).toBeGreaterThan(40_000);
  for (const path of [
    'README.md',
    'docs/api.md',
    'src/errors/api-error.ts',
    'src/redis/prelude.lua',
    '.env.example',
  ])
    expect(prose.map(({ place }) => place.split(':')[0])).toContain(path);
});

test(`the prose has fewer than ${CEILING} vague pronouns and openings per 1,000 words`, () => {
  const rate = (1_000 * faults.length) / words;
  expect({ rate, faults }).toEqual({ rate, faults: rate < CEILING ? faults : [] });
});

test.each([
  ['// The person who waits', ['x.ts:1: who']],
  ['// Nobody read the log', ['x.ts:1: Nobody', 'x.ts:1: Nobody']],
  ['// Of a key all is told. Else it is lost.', ['x.ts:1: Of', 'x.ts:1: . Else']],
  ['log("What was sent is counted")', ['x.ts:1: What']],
  ['log(`Sent to ${whom} by us`)', []],
  ['/** Throws when\n * whoever asks is unknown. */', ['x.ts:1: whoever']],
  ["import x from 'who is there';", []],
  ['const who = "nobody"; // a name is no prose', []],
])('the check of the prose finds the faults in %s', (text, found) => {
  expect(proseOfTypeScript(text, 'x.ts').flatMap(faultsOfProse)).toEqual(found);
});
